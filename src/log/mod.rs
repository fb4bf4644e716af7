//! The durable, totally ordered log of deltas, and the one path from it to the rooms.

pub mod embedded;
pub mod pipeline;
pub mod publisher;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::delta::RoomName;

/// What a producer appends: a delta that has no position yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub room: RoomName,
    /// One line of valid JSON.
    pub body: Bytes,
    /// The idempotency key, or an id made for this record.
    pub id: Arc<str>,
    /// Whether `id` is an idempotency key: seen again in its room within the window, the record is not applied.
    pub keyed: bool,
    /// The producer's clock, in ms since the Unix epoch.
    pub stamped: u64,
    /// The client that publishes through its socket, as JSON; empty for all others.
    pub info: Bytes,
    /// Which life of which producer made the record.
    pub producer: u128,
    /// Numbers the records of one producer from 1 without a gap.
    pub sequence: u64,
}

/// A record and the place that the log gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ordered {
    /// From 1, growing strictly.
    pub offset: u64,
    pub record: Record,
}

/// What a reader of the log gets.
#[derive(Debug)]
pub enum Next {
    /// Records in the order of their offsets; never empty.
    Batch(Vec<Ordered>),
    /// Nothing came while the reader waited.
    Idle,
    /// The log was closed and everything that it had taken was read.
    Closed,
}

/// Why a log took nothing of what it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    #[error("the log's queue is full")]
    Full,
    #[error("the log is closed")]
    Closed,
}

/// Takes records and hands them back in one order, the same for every reader.
///
/// The records of one call keep their order, and so do the calls of one thread. All of a call is taken, or none.
/// There is one reader.
pub trait OrderedLog: Send + Sync {
    fn publish(&self, records: Vec<Record>) -> Result<(), NotTaken>;

    /// Blocks until there is something to read, at most for `wait`.
    fn next(&self, wait: Duration) -> Next;

    /// Takes nothing from here on; what was taken can still be read.
    fn close(&self);
}
