//! The live half: a session actor for each client, a room actor for each room that somebody is in, and a hub actor for
//! each worker thread. The rules are in `protocol` and `rooms`; what is here owns mailboxes, timers and addresses.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    config::{Limits, Namespaces, Publish, Rooms},
    log::publisher::Publisher,
    metrics::Metrics,
    rooms::history::History,
};

pub mod dispatch;
pub mod hub;
pub mod life;
pub mod registry;
pub mod room;
pub mod session;
#[cfg(test)]
mod testing;

/// What the actors of one server share.
pub struct Services {
    pub history: History,
    pub publisher: Publisher,
    pub registry: Arc<registry::Registry>,
    pub hubs: hub::Hubs,
    /// The offset up to which everything was handed to the rooms.
    pub dispatched: watch::Receiver<u64>,
    pub metrics: Metrics,
    pub namespaces: Namespaces,
    pub limits: Limits,
    pub publish: Publish,
    pub rooms: Rooms,
}
