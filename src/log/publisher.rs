//! Publishing: hands deltas to the log and waits until they are on disk.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use super::{NotTaken, Ordered, OrderedLog, Record};
use crate::delta::{Epoch, RoomName};

/// A delta on its way into the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDelta {
    pub room: RoomName,
    /// One line of valid JSON.
    pub body: Bytes,
    /// The idempotency key, if the publisher gave one.
    pub key: Option<Arc<str>>,
    /// The client that publishes through its socket, as JSON; empty for all others.
    pub info: Bytes,
}

/// A delta that is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    pub room: RoomName,
    pub offset: u64,
    pub epoch: Epoch,
    /// The idempotency key, or an id made for this delta.
    pub id: Arc<str>,
    /// Milliseconds since the Unix epoch.
    pub time: u64,
    /// Whether the key had come before; then `offset` and `time` are the first delta's, and nothing
    /// was published.
    pub repeated: bool,
}

/// Why a delta is not known to be on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Publishing it again can't double it.
    #[error("nothing was written: {why}")]
    NotTaken { why: Refusal },
    /// It may be on disk or not; only publishing it again with the same idempotency key can't
    /// double it.
    #[error("whether the delta was written is not known")]
    OutcomeUnknown,
    /// Publishing it again can't double it.
    #[error("nothing was written: the disk has less free space than the reserve")]
    NoSpace,
}

/// Who refused a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Log(#[from] NotTaken),
    #[error("the database is being opened again after a failed write")]
    Reopening,
}

/// Where the pipeline put a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    pub offset: u64,
    pub time: u64,
    pub epoch: Epoch,
    pub repeated: bool,
}

/// Publishes as one producer. Cheap to clone; the clones share their numbering.
#[derive(Clone)]
pub struct Publisher {
    log: Arc<dyn OrderedLog>,
    answers: Arc<Answers>,
    /// How long a publish waits for its answer.
    patience: Duration,
}

/// The publishes that wait for an answer: the pipeline gives it, the publisher takes it.
pub struct Answers {
    producer: u128,
    state: Mutex<State>,
}

struct State {
    next_sequence: u64,
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
}

type Answer = Result<Placed, PublishError>;

impl Publisher {
    /// `patience` bounds how long a publish waits for its answer.
    pub fn new(log: Arc<dyn OrderedLog>, patience: Duration) -> Self {
        Self {
            log,
            answers: Arc::new(Answers {
                producer: Uuid::new_v4().as_u128(),
                state: Mutex::new(State {
                    next_sequence: 1,
                    waiting: HashMap::new(),
                }),
            }),
            patience,
        }
    }

    /// What the pipeline answers through.
    pub fn answers(&self) -> Arc<Answers> {
        self.answers.clone()
    }

    /// Publishes all of `deltas` in their order and waits until each is on disk or refused; one
    /// result a delta.
    pub async fn publish(&self, deltas: Vec<NewDelta>) -> Vec<Result<Published, PublishError>> {
        let count = deltas.len();
        match self.submit(deltas, wall_clock_ms()) {
            Ok(pending) => pending.wait(self.patience).await,
            Err(why) => vec![Err(PublishError::NotTaken { why: why.into() }); count],
        }
    }

    /// Hands all of `deltas` to the log, stamped with `now` (ms since the Unix epoch), or none of
    /// them.
    pub fn submit(&self, deltas: Vec<NewDelta>, now: u64) -> Result<Pending, NotTaken> {
        let mut records: Vec<Record> = deltas
            .into_iter()
            .map(|delta| self.record(delta, now))
            .collect();
        let names = records
            .iter()
            .map(|record| (record.room.clone(), record.id.clone()))
            .collect();
        // Numbering and handing over are one step, so that the log has the sequences in their
        // order.
        let mut state = self.answers.lock();
        let first = state.next_sequence;
        let mut receivers = Vec::with_capacity(records.len());
        for (record, sequence) in records.iter_mut().zip(first..) {
            let (sender, receiver) = oneshot::channel();
            record.sequence = sequence;
            state.waiting.insert(sequence, sender);
            receivers.push(receiver);
        }
        let sequences = first..first + records.len() as u64;
        if !records.is_empty()
            && let Err(why) = self.log.publish(records)
        {
            sequences.for_each(|sequence| drop(state.waiting.remove(&sequence)));
            return Err(why);
        }
        state.next_sequence = sequences.end;
        drop(state);
        Ok(Pending {
            names,
            receivers,
            waiters: Waiters {
                answers: self.answers.clone(),
                sequences,
            },
        })
    }

    fn record(&self, delta: NewDelta, now: u64) -> Record {
        Record {
            room: delta.room,
            body: delta.body,
            keyed: delta.key.is_some(),
            id: delta
                .key
                .unwrap_or_else(|| Uuid::now_v7().simple().to_string().into()),
            stamped: now,
            info: delta.info,
            producer: self.answers.producer,
            sequence: 0,
        }
    }
}

/// Deltas that the log has taken. Dropping it gives up the answers, not the deltas.
pub struct Pending {
    names: Vec<(RoomName, Arc<str>)>,
    receivers: Vec<oneshot::Receiver<Answer>>,
    waiters: Waiters,
}

impl Pending {
    /// Waits for all answers, at most for `patience`.
    pub async fn wait(self, patience: Duration) -> Vec<Result<Published, PublishError>> {
        let Self {
            names,
            receivers,
            waiters: _waiters,
        } = self;
        let deadline = Instant::now() + patience;
        let mut results = Vec::with_capacity(names.len());
        for ((room, id), receiver) in names.into_iter().zip(receivers) {
            let answer = match timeout_at(deadline, receiver).await {
                Ok(Ok(answer)) => answer,
                // Too late, or the pipeline is gone.
                Ok(Err(_)) | Err(_) => Err(PublishError::OutcomeUnknown),
            };
            results.push(answer.map(|placed| Published {
                room,
                offset: placed.offset,
                epoch: placed.epoch,
                id,
                time: placed.time,
                repeated: placed.repeated,
            }));
        }
        results
    }
}

/// Takes waiters that nobody waits for out of the table: their caller went away or lost patience.
struct Waiters {
    answers: Arc<Answers>,
    sequences: Range<u64>,
}

impl Drop for Waiters {
    fn drop(&mut self) {
        let mut state = self.answers.lock();
        for sequence in self.sequences.clone() {
            state.waiting.remove(&sequence);
        }
    }
}

impl Answers {
    /// Answers the records of `batch` that came from this producer and that somebody still waits
    /// for.
    pub fn give(&self, batch: impl IntoIterator<Item = (Source, Answer)>) {
        let mut state = self.lock();
        let answered: Vec<_> = batch
            .into_iter()
            .filter(|(source, _)| source.producer == self.producer)
            .filter_map(|(source, answer)| Some((state.waiting.remove(&source.sequence)?, answer)))
            .collect();
        drop(state);
        for (sender, answer) in answered {
            // A caller that went away in this moment needs no answer.
            let _ = sender.send(answer);
        }
    }

    /// Tells everybody who waits that the pipeline is gone.
    pub fn give_up(&self) {
        self.lock().waiting.clear();
    }

    /// How many deltas wait for their answer.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who made a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    pub producer: u128,
    pub sequence: u64,
}

impl Source {
    pub fn of(ordered: &Ordered) -> Self {
        Self {
            producer: ordered.record.producer,
            sequence: ordered.record.sequence,
        }
    }
}

/// Milliseconds since the Unix epoch.
pub fn wall_clock_ms() -> u64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
