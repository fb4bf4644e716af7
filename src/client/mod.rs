//! The client's side of both doors: deltas go in over HTTP, and come out over the WebSocket.
//!
//! [`frame`], [`message`], [`follow`] and [`backoff`] are pure; [`http`] and [`socket`] do the
//! talking.

pub mod address;
pub mod backoff;
#[cfg(test)]
pub mod fake;
pub mod follow;
pub mod frame;
pub mod http;
pub mod message;
pub mod socket;
