//! Publishing: hands deltas to the log and waits until they are safe.

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

use super::{Event, NotTaken, OrderedLog, Record};
use crate::{
    delta::{Epoch, Erasure, RoomName},
    rooms::producers::MAX_PAUSE_MS,
};

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
    /// The client that is not to be sent it live.
    pub exclude: Option<Uuid>,
}

/// A delta that is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    pub room: RoomName,
    pub offset: u64,
    pub epoch: Epoch,
    /// The idempotency key, or an id made for this delta; an erasure has none.
    pub id: Arc<str>,
    /// Milliseconds since the Unix epoch.
    pub time: u64,
    /// Whether the key had come before; then `offset` and `time` are the first delta's, and nothing
    /// was published.
    pub repeated: bool,
    /// Of an erasure: whether the room had what it takes back.
    pub found: bool,
}

/// Why a delta is not known to be on disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
    /// It is safe, and will be delivered; where it is will be known later.
    #[error("the delta is safe in the log, which has not been read that far yet")]
    Unplaced { id: Arc<str> },
}

/// Who refused a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Log(#[from] NotTaken),
    #[error("the database is being opened again after a failed write")]
    Reopening,
    #[error("this machine's clock is {} s ahead of the other instances'; set it right", by.as_secs())]
    ClockAhead { by: Duration },
    #[error(
        "this machine's clock is {} s ahead of what was written last; \
         until it is known whether others are here, it may be wrong", by.as_secs()
    )]
    ClockUnproven { by: Duration },
    #[error(
        "the stream that tells which streams are the log is missing, or names others than this \
         server reads; `roomwire amqp status` shows more, and a restart goes over to what it names"
    )]
    Split,
}

/// Where the pipeline put a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    pub offset: u64,
    pub time: u64,
    pub epoch: Epoch,
    pub repeated: bool,
    pub found: bool,
}

/// Publishes as one producer at a time. Cheap to clone; the clones share their numbering.
#[derive(Clone)]
pub struct Publisher {
    pub(super) log: Arc<dyn OrderedLog>,
    pub(super) answers: Arc<Answers>,
    /// How long a publish waits for its answer.
    patience: Duration,
}

/// The publishes that wait for an answer: the pipeline gives it, the publisher takes it.
pub struct Answers {
    state: Mutex<State>,
}

pub(super) struct State {
    numbers: Numbers,
    waiting: HashMap<Source, oneshot::Sender<Answer>>,
    /// What a tenure waits for, with the tenure.
    pub(super) taken_in: HashMap<Source, (u128, oneshot::Sender<Answer>)>,
    /// How often some of what was taken was lost, or all memory of it.
    pub(super) lives: u64,
    /// Why nothing is taken.
    pub(super) refusal: Option<PublishError>,
}

/// Numbers the records of one producer after another.
pub(super) struct Numbers {
    pub(super) producer: u128,
    pub(super) next_sequence: u64,
    /// When something was last taken, in ms since the Unix epoch.
    pub(super) last_taken: u64,
}

pub(super) type Answer = Result<Placed, PublishError>;

impl Publisher {
    /// `patience` bounds how long a publish waits for its answer.
    pub fn new(log: Arc<dyn OrderedLog>, patience: Duration) -> Self {
        Self {
            log,
            answers: Arc::new(Answers {
                state: Mutex::new(State {
                    numbers: Numbers::new(),
                    waiting: HashMap::new(),
                    taken_in: HashMap::new(),
                    lives: 0,
                    refusal: None,
                }),
            }),
            patience,
        }
    }

    /// Why nothing is taken at the moment, if it is not the log that takes nothing.
    pub fn refusal(&self) -> Option<PublishError> {
        self.answers.refusal()
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
            Err(error) => vec![Err(error); count],
        }
    }

    /// Hands all of `deltas` to the log, stamped with `now` (ms since the Unix epoch), or none of
    /// them.
    pub fn submit(&self, deltas: Vec<NewDelta>, now: u64) -> Result<Pending, PublishError> {
        let records = deltas.into_iter().map(|delta| record(delta, now));
        self.hand_over(records.collect(), now)
    }

    /// As [`Publisher::publish`], for an erasure.
    pub async fn erase(&self, room: RoomName, erasure: Erasure) -> Result<Published, PublishError> {
        let pending = self.submit_erasure(room, erasure, wall_clock_ms())?;
        let erased = pending.wait(self.patience).await.pop();
        erased.unwrap_or(Err(PublishError::OutcomeUnknown))
    }

    /// As [`Publisher::submit`], for an erasure.
    pub fn submit_erasure(
        &self,
        room: RoomName,
        erasure: Erasure,
        now: u64,
    ) -> Result<Pending, PublishError> {
        let record = Record {
            room,
            body: Bytes::new(),
            id: "".into(),
            keyed: false,
            stamped: now,
            info: Bytes::new(),
            exclude: None,
            erases: Some(erasure),
            producer: 0,
            sequence: 0,
        };
        self.hand_over(vec![record], now)
    }

    /// Numbers the records and hands them to the log.
    fn hand_over(&self, mut records: Vec<Record>, now: u64) -> Result<Pending, PublishError> {
        let names = records
            .iter()
            .map(|record| (record.room.clone(), record.id.clone()))
            .collect();
        // Numbering and handing over are one step, so that the log has the sequences in their
        // order.
        let mut state = self.answers.lock();
        if let Some(refusal) = &state.refusal {
            return Err(refusal.clone());
        }
        state.numbers.after_pause(now);
        let producer = state.numbers.producer;
        let first = state.numbers.next_sequence;
        let mut receivers = Vec::with_capacity(records.len());
        for (record, sequence) in records.iter_mut().zip(first..) {
            let (sender, receiver) = oneshot::channel();
            record.producer = producer;
            record.sequence = sequence;
            let source = Source { producer, sequence };
            state.waiting.insert(source, sender);
            receivers.push(receiver);
        }
        let sequences = first..first + records.len() as u64;
        if !records.is_empty() {
            if let Err(why) = self.log.publish(records) {
                for sequence in sequences {
                    state.waiting.remove(&Source { producer, sequence });
                }
                return Err(PublishError::NotTaken { why: why.into() });
            }
            state.numbers.last_taken = now;
        }
        state.numbers.next_sequence = sequences.end;
        drop(state);
        Ok(Pending {
            log: self.log.clone(),
            names,
            receivers,
            waiters: Waiters {
                answers: self.answers.clone(),
                producer,
                sequences,
            },
        })
    }
}

pub(super) fn record(delta: NewDelta, now: u64) -> Record {
    Record {
        room: delta.room,
        body: delta.body,
        keyed: delta.key.is_some(),
        id: delta
            .key
            .unwrap_or_else(|| Uuid::now_v7().simple().to_string().into()),
        stamped: now,
        info: delta.info,
        exclude: delta.exclude,
        erases: None,
        // Both are given when the log takes it.
        producer: 0,
        sequence: 0,
    }
}

/// Deltas that the log has taken. Dropping it gives up the answers, not the deltas.
pub struct Pending {
    log: Arc<dyn OrderedLog>,
    names: Vec<(RoomName, Arc<str>)>,
    receivers: Vec<oneshot::Receiver<Answer>>,
    waiters: Waiters,
}

impl Pending {
    /// Waits for all answers, at most for `patience`.
    pub async fn wait(self, patience: Duration) -> Vec<Result<Published, PublishError>> {
        let Self {
            log,
            names,
            receivers,
            waiters,
        } = self;
        let deadline = Instant::now() + patience;
        let mut results = Vec::with_capacity(names.len());
        for (((room, id), receiver), source) in
            names.into_iter().zip(receivers).zip(waiters.sources())
        {
            let answer = match timeout_at(deadline, receiver).await {
                Ok(Ok(answer)) => answer,
                // The pipeline is gone.
                Ok(Err(_)) => Err(PublishError::OutcomeUnknown),
                Err(_) => Err(waiters.too_late(&*log, source, &id)),
            };
            results.push(answer.map(|placed| Published {
                room,
                offset: placed.offset,
                epoch: placed.epoch,
                id,
                time: placed.time,
                repeated: placed.repeated,
                found: placed.found,
            }));
        }
        results
    }
}

/// Takes waiters that nobody waits for out of the table: their caller went away or lost patience.
struct Waiters {
    answers: Arc<Answers>,
    producer: u128,
    sequences: Range<u64>,
}

impl Waiters {
    fn sources(&self) -> impl Iterator<Item = Source> + use<> {
        let producer = self.producer;
        let source = move |sequence| Source { producer, sequence };
        self.sequences.clone().map(source)
    }

    /// What is known of a delta that was not answered in time.
    fn too_late(&self, log: &dyn OrderedLog, source: Source, id: &Arc<str>) -> PublishError {
        match log.kept() {
            Some(log) if log.has_confirmed(source) => PublishError::Unplaced { id: id.clone() },
            _ => PublishError::OutcomeUnknown,
        }
    }
}

impl Drop for Waiters {
    fn drop(&mut self) {
        let mut state = self.answers.lock();
        for source in self.sources() {
            state.waiting.remove(&source);
        }
    }
}

impl Answers {
    /// Answers the records of `batch` that somebody still waits for.
    pub fn give(&self, batch: impl IntoIterator<Item = (Source, Answer)>) {
        let mut state = self.lock();
        let answered: Vec<_> = batch
            .into_iter()
            .filter_map(|(source, answer)| Some((state.waiter(source)?, answer)))
            .collect();
        drop(state);
        for (sender, answer) in answered {
            // A caller that went away in this moment needs no answer.
            let _ = sender.send(answer);
        }
    }

    /// From here on nothing is taken, for this reason, or everything if there is none.
    pub fn refuse(&self, why: Option<PublishError>) {
        self.lock().refusal = why;
    }

    /// Why nothing is taken.
    pub fn refusal(&self) -> Option<PublishError> {
        self.lock().refusal.clone()
    }

    /// Does `work`, which loses some of what was taken, or all memory of it: nothing is taken
    /// meanwhile, and what comes behind it comes from another producer.
    pub fn begin_life(&self, work: impl FnOnce()) {
        let mut state = self.lock();
        work();
        state.numbers = Numbers::new();
        state.lives += 1;
        // What a tenure handed over behind what was lost would never count.
        state.taken_in.clear();
    }

    /// Tells everybody who waits that the pipeline is gone.
    pub fn give_up(&self) {
        let mut state = self.lock();
        state.waiting.clear();
        state.taken_in.clear();
    }

    /// How many deltas wait for their answer.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn waiter(&mut self, source: Source) -> Option<oneshot::Sender<Answer>> {
        let own = self.waiting.remove(&source);
        own.or_else(|| Some(self.taken_in.remove(&source)?.1))
    }
}

impl Numbers {
    /// Begins as a producer that nobody knows.
    pub(super) fn new() -> Self {
        Self {
            producer: Uuid::new_v4().as_u128(),
            next_sequence: 1,
            last_taken: 0,
        }
    }

    /// Goes on as another producer if readers may have forgotten this one.
    pub(super) fn after_pause(&mut self, now: u64) {
        if now.saturating_sub(self.last_taken) > MAX_PAUSE_MS {
            *self = Self::new();
        }
    }
}

/// Who made a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source {
    pub producer: u128,
    pub sequence: u64,
}

impl Source {
    /// None for what is no delta.
    pub fn of(event: &Event) -> Option<Self> {
        event.delta().map(|(_, record)| Self {
            producer: record.producer,
            sequence: record.sequence,
        })
    }
}

/// Milliseconds since the Unix epoch.
pub fn wall_clock_ms() -> u64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
