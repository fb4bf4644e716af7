//! The live half: a session actor for each client, a room actor for each room that somebody is in, and a hub actor for
//! each worker thread. The rules are in `protocol` and `rooms`; what is here owns mailboxes, timers and addresses.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{Semaphore, watch},
    time::sleep,
};

use crate::{
    access::Access,
    config::{Limits, Namespaces, Publish, Rooms},
    delta::RoomName,
    log::{KeptLog, OrderedLog, publishers::Publishers, tenure::status::Status},
    metrics::Metrics,
    rooms::history::History,
};

pub mod asking;
pub mod dispatch;
pub mod follower;
pub mod hub;
pub mod large;
pub mod life;
mod passing;
pub mod presence;
pub mod registry;
pub mod revoking;
pub mod room;
pub mod session;
mod subscribing;
#[cfg(test)]
mod testing;

/// What the actors of one server share.
pub struct Services {
    pub history: History,
    pub publisher: Publishers,
    /// The log's partitions.
    pub logs: Vec<Arc<dyn OrderedLog>>,
    pub registry: Arc<registry::Registry>,
    pub hubs: Arc<hub::Hubs>,
    /// For each partition, the offset up to which everything was handed to the rooms.
    pub dispatched: Vec<watch::Receiver<u64>>,
    pub presence: Arc<presence::Presence>,
    /// The way to the other servers, if there may be any.
    pub others: Option<Box<dyn Others>>,
    /// Places for what is said to them several times.
    pub repeats: Semaphore,
    pub metrics: Metrics,
    pub large_deltas: large::Warnings,
    /// How taking in what other producers publish is doing; none without a shared log.
    pub ingress: Option<Arc<Status>>,
    pub namespaces: Namespaces,
    pub access: Access,
    pub limits: Limits,
    pub publish: Publish,
    pub rooms: Rooms,
}

/// How long a client's position may lie ahead of the rooms.
const CATCH_UP: Duration = Duration::from_secs(4);

/// Between two looks for a heartbeat.
const LOOK: Duration = Duration::from_millis(50);

/// What became of waiting for a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Everything up to it was handed to the rooms.
    Reached,
    /// The log ends before it, so nobody was ever told of it.
    Beyond,
    /// It is not known: the server is behind.
    Behind,
}

/// Completes when it is certain that the log did not reach `offset` when this was called: a
/// heartbeat made since then stands below it.
async fn ends_below(log: &dyn KeptLog, offset: u64) {
    let beat = log.ask_beat();
    loop {
        if let Some(place) = log.beat_place(beat) {
            match place < offset {
                true => return,
                false => std::future::pending().await,
            }
        }
        sleep(LOOK).await;
    }
}

/// The way to the other servers of a cluster, for what may be lost.
pub trait Others: Send + Sync {
    /// Sends a message that all of them hear, this one among them; never waits. Whether it was taken: it is not while
    /// there is no way, or too much waits.
    fn tell(&self, topic: Topic, body: Bytes) -> bool;

    /// Whether something that was taken has not been sent.
    fn is_busy(&self) -> bool;
}

/// What a message between servers is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// Who is where.
    Presence,
    /// What a client said to a room, and is not stored.
    Ephemeral,
    /// A delta of a room that stores nothing.
    Unstored,
    /// A user may do something no more.
    Revoked,
}

/// How far the server has read a partition of a shared log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub read: u64,
    /// Up to where it has to read before it takes clients; 0 for not known yet.
    pub end: u64,
}

impl Services {
    /// Whether other servers publish to the same log.
    pub fn is_shared(&self) -> bool {
        self.kept().next().is_some()
    }

    /// The log's partitions, if it is shared.
    pub fn kept(&self) -> impl Iterator<Item = &dyn KeptLog> {
        self.logs.iter().filter_map(|log| log.kept())
    }

    /// Waits until everything up to `offset` of the room's partition was handed to the rooms; less
    /// than the 5 s after which SDKs give up on a reply.
    pub async fn reach(&self, room: &RoomName, offset: u64) -> Reach {
        let log = &self.logs[usize::from(self.history.partition_of(room))];
        // Another server may have read a shared log further than this one.
        if log.kept().is_none() && offset > self.history.durable(room) {
            return Reach::Beyond;
        }
        let mut dispatched = self.dispatched(room);
        let reached = dispatched.wait_for(|&upto| upto >= offset);
        let beyond = async {
            match log.kept() {
                Some(log) => ends_below(log, offset).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            reached = reached => match reached {
                Ok(_) => Reach::Reached,
                Err(_) => Reach::Behind,
            },
            () = beyond => Reach::Beyond,
            () = sleep(CATCH_UP) => Reach::Behind,
        }
    }

    /// For each partition of a shared log.
    pub fn progress(&self) -> Vec<Progress> {
        let progress = |(log, dispatched): (&dyn KeptLog, &watch::Receiver<u64>)| Progress {
            read: *dispatched.borrow(),
            end: log.status().end,
        };
        self.kept().zip(&self.dispatched).map(progress).collect()
    }

    /// The offset up to which everything in the room's partition was handed to the rooms.
    pub fn dispatched(&self, room: &RoomName) -> watch::Receiver<u64> {
        self.dispatched[usize::from(self.history.partition_of(room))].clone()
    }
}
