//! Roomwire pushes small deltas to rooms of clients, in one order, and replays exactly what a client missed.
//!
//! The tree follows the way of a delta. [`http`] takes it, [`log`] puts it in order and on disk, [`rooms`] knows what
//! every subscriber is owed, [`actors`] bring it to rooms, worker threads and clients, [`protocol`] is what the clients
//! speak. [`server`] puts the parts together, [`cli`] starts it, and [`client`] is the other side of the wire, for the
//! commands that talk to a server; `docs/architecture.md` tells the whole story.

pub mod access;
pub mod actors;
pub mod amqp;
pub mod cli;
pub mod client;
pub mod config;
pub mod delta;
pub mod http;
pub mod log;
pub mod metrics;
pub mod presence;
pub mod protocol;
pub mod rooms;
pub mod server;
