//! Centrifugo's client protocol (v2, in JSON and in Protobuf), pure: no sockets, no clock, no actors.
//!
//! Reference: `client.proto` of `centrifugal/protocol`; numbers and texts of errors and closes as in
//! `centrifugal/centrifuge`. `docs/protocol.md` describes it with what this server makes of it.

pub mod bookmark;
pub mod client_id;
pub mod codes;
pub mod command;
pub mod event;
pub mod format;
pub mod frame;
pub mod heartbeat;
mod protobuf;
pub mod reply;
pub mod session;
