//! What the tests of the running server share: the server as a process, plain HTTP, WebSocket
//! frames, a client of the JSON protocol, a proxy that can be cut, and the one judge of what a
//! client saw.
//!
//! Everything blocks and is bounded by [`PATIENCE`]: a test that waits in vain says for what, and
//! shows the log.

// Each test binary uses its own part of the harness.
#![allow(dead_code, unused_imports)]

pub mod broker;
pub mod client;
pub mod http;
pub mod proxy;
pub mod sequence;
pub mod server;
pub mod socket;
pub mod stream;

use std::{
    thread,
    time::{Duration, Instant},
};

pub use broker::Broker;
pub use client::Client;
pub use sequence::{Entry, Seen, View};
pub use server::Server;
pub use socket::Socket;
pub use stream::Stream;

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Looks until `probe` gives something, for what nobody announces: a metric, a file descriptor, an
/// exit.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
