//! The durable, totally ordered log of deltas, and the one path from it to the rooms.

pub mod clocks;
pub mod embedded;
pub mod pipeline;
pub mod publisher;
pub mod publishers;
pub mod record;
pub mod tenure;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use uuid::Uuid;

use self::{
    publisher::Source,
    record::{Entry, Heartbeat, Identity},
};
use crate::delta::{Epoch, Erasure, RoomName};

/// What a producer appends: a delta that has no position yet, or an erasure.
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
    /// The client that is not sent it live.
    pub exclude: Option<Uuid>,
    /// What the record takes back; then it is no delta, and has neither body nor id.
    pub erases: Option<Erasure>,
    /// Which life of which producer made the record.
    pub producer: u128,
    /// Numbers the records of one producer from 1 without a gap.
    pub sequence: u64,
}

impl Record {
    /// Bytes of what is its own: body, info, id and room name.
    pub fn weight(&self) -> usize {
        self.body.len() + self.info.len() + self.id.len() + self.room.as_str().len()
    }
}

/// What one batch may hold: enough to share an fsync well, little enough to be applied in milliseconds.
pub const MAX_BATCH_RECORDS: usize = 1_024;

/// Weight of one batch's records; one that alone is heavier is a batch all the same.
pub const MAX_BATCH_BYTES: usize = 1 << 20;

/// What a reader finds in the log, in the order of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Entry {
        /// From 1, growing strictly.
        position: u64,
        entry: Entry,
    },
    /// Nothing at or below this position can be read any more, whether it was read before or not.
    Floor(u64),
    /// This life of the log has ended; the next one, whose positions begin anew, is yet to be read. It is the last
    /// event of a life.
    Replaced(Epoch),
}

impl Event {
    /// The delta or the erasure that this is, behind its position.
    pub fn delta(&self) -> Option<(u64, &Record)> {
        match self {
            Self::Entry {
                position,
                entry: Entry::Delta { record, .. },
            } => Some((*position, record)),
            _ => None,
        }
    }
}

/// One entry of a log and where it stands. It tells a log from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub position: u64,
    pub identity: Identity,
}

/// What a reader of the log gets.
#[derive(Debug)]
pub enum Next {
    /// Never empty.
    Batch(Vec<Event>),
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
    #[error("the log can't be reached, or takes nothing at the moment")]
    Unavailable,
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

    /// The log as one that outlives its reader, if it is one.
    fn kept(&self) -> Option<&dyn KeptLog> {
        None
    }
}

/// A log elsewhere, which others publish to as well, and from which a reader gets again what it lost.
pub trait KeptLog: Send + Sync {
    /// Reads the life `epoch` from behind `place`, or from as far back as is of use to a reader that has nothing: after
    /// the life before has ended, or after the reader has lost some of what it had. What was taken and is not in the
    /// log yet is dropped. A log whose life has ended takes nothing until then.
    fn resume(&self, epoch: &Epoch, place: Option<Place>);

    /// As [`OrderedLog::publish`], with other entries than this reader's own deltas.
    fn append(&self, entries: Vec<Entry>) -> Result<(), NotTaken>;

    /// Whether the record is in the log for good, though it may not be read back yet.
    fn has_confirmed(&self, source: Source) -> bool;

    /// Whether the heartbeat is this reader's own.
    fn is_own(&self, heartbeat: &Heartbeat) -> bool;

    /// Asks for a heartbeat, which is soon published; gives its number.
    fn ask_beat(&self) -> u64;

    /// Where the heartbeat `beat` of this reader, or a later one, stands in the log; none while it
    /// was not read back.
    fn beat_place(&self, beat: u64) -> Option<u64>;

    fn is_closed(&self) -> bool;

    fn status(&self) -> LogStatus;
}

/// How a kept log is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogStatus {
    /// Whether entries come in and records go out.
    pub connected: bool,
    /// Connections that were lost.
    pub lost_connections: u64,
    /// The first position that was read; 0 for none.
    pub first: u64,
    /// The last position that was read; 0 for none.
    pub current: u64,
    /// The end of the log when it was last looked for; 0 for not known yet.
    pub end: u64,
    /// Entries that are known to be ahead of what was taken.
    pub behind: u64,
    /// How far the reader is behind.
    pub lag: Duration,
    /// Between two heartbeats of this reader, and as a rule of the others.
    pub heartbeat: Duration,
    /// Whether it is in doubt that this is the log that others, or those who come, go by.
    pub split: bool,
    /// Records that the log has confirmed.
    pub confirmed: u64,
    /// The sum of the times that their confirms took.
    pub confirm_time: Duration,
}

impl LogStatus {
    /// Whether somebody who has taken everything up to `position` has all that was in the log when its end was last
    /// looked for.
    pub fn is_caught_up(&self, position: u64) -> bool {
        self.end > 0 && position >= self.end
    }
}
