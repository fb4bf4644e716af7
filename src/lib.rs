//! Roomwire pushes small deltas to rooms of clients, in one order, and replays exactly what a client missed.
pub mod actors;
pub mod config;
pub mod delta;
pub mod http;
pub mod log;
pub mod metrics;
pub mod protocol;
pub mod rooms;
