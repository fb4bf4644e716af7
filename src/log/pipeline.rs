//! Order, apply, dispatch: the one path of a delta, walked by one thread.
//!
//! A batch goes through five steps, and their order is what the promises rest on:
//! [`Pipeline::commit`] writes it, [`Pipeline::flush`] brings it to disk, [`Pipeline::announce`]
//! publishes the durable position, [`Pipeline::answer`] tells the publishers,
//! [`Pipeline::dispatch`] hands the deltas to the rooms. So nobody is told of, or shown, a delta
//! that a crash can take back. [`Pipeline::spawn`] walks the steps on a thread of their own; tests
//! walk them one by one.

mod handle;
mod kept;

use std::{io, sync::Arc, thread, time::Duration};

use tokio::sync::watch;

use self::handle::Ending;
pub use self::handle::{End, PipelineHandle};
use super::{
    Event, KeptLog, Next, OrderedLog,
    clocks::Clocks,
    publisher::{Answers, Placed, PublishError, Refusal, Source, wall_clock_ms},
};
use crate::{
    delta::{Delta, Epoch, Erasure, RoomName},
    rooms::{
        retention::Retention,
        store::StoreError,
        writer::{Applied, HistoryWriter},
    },
};

/// How long the thread sleeps when nothing comes, before it looks for what has expired.
const IDLE: Duration = Duration::from_millis(100);

/// For how long what a kept log can give again may stay unflushed, in ms.
const SYNC_INTERVAL_MS: u64 = 1_000;

/// Between two attempts to open the database again, in ms.
const REOPEN_INTERVAL_MS: u64 = 500;

/// How much of a room is kept.
pub type Rules = Arc<dyn Fn(&RoomName) -> Retention + Send + Sync>;

/// Where the pipeline ends: brings deltas to the rooms that somebody is in.
pub trait Dispatch: Send {
    /// Takes the deltas of one batch in their order. May block: that is what slows publishers down
    /// to the rooms.
    fn dispatch(&mut self, deltas: Vec<Arc<Delta>>);

    /// Takes an erasure that is in history; none of the batch's deltas is affected. It comes in front of them.
    fn erase(&mut self, room: &RoomName, erasure: Erasure);

    /// The database was opened again and holds other deltas than those dispatched so far, perhaps
    /// under a new epoch: every room must send its clients to replay.
    fn reset(&mut self);
}

/// What a pipeline is made of.
pub struct Parts {
    pub log: Arc<dyn OrderedLog>,
    pub writer: HistoryWriter,
    pub rules: Rules,
    pub answers: Arc<Answers>,
    pub dispatch: Box<dyn Dispatch>,
    /// Free bytes of the disk that publishing leaves alone.
    pub reserve_bytes: u64,
}

/// The path from the log to the rooms.
pub struct Pipeline {
    parts: Parts,
    positions: Positions,
    /// Set from a failed write until the database is open again.
    failure: Option<Failure>,
    /// So that a full disk is reported once, not once a batch.
    full: bool,
    /// The life of the log that has begun and that the database does not have yet.
    next_life: Option<Epoch>,
    /// Since when something is applied and not flushed, in a kept log.
    unflushed_since: Option<u64>,
    clocks: Clocks,
}

struct Failure {
    /// When to try to open the database again.
    retry_at: u64,
    /// So that a database that stays closed is reported once.
    reported: bool,
}

/// The senders of [`Watched`].
struct Positions {
    durable: watch::Sender<u64>,
    dispatched: watch::Sender<u64>,
    tenure: watch::Sender<Option<u128>>,
}

/// How far the pipeline came. Both fall back only if the database lost something, with a new epoch.
#[derive(Debug, Clone)]
pub struct Watched {
    /// The offset up to which everything is on disk and can be replayed.
    pub durable: watch::Receiver<u64>,
    /// The offset up to which everything was handed to the rooms.
    pub dispatched: watch::Receiver<u64>,
    /// The tenure whose fence was applied last: what others take in does not count.
    pub tenure: watch::Receiver<Option<u128>>,
}

/// A batch that a crash could still take back.
#[must_use]
pub struct Committed {
    steps: Vec<Step>,
    /// Whether something between what the rooms have and what is in the batch was never read.
    floored: bool,
}

/// A batch on disk.
#[must_use]
pub struct Flushed {
    steps: Vec<Step>,
    floored: bool,
    durable: u64,
}

/// What a delta came from, and what became of it.
type Step = (Option<Source>, Applied);

impl Pipeline {
    pub fn new(parts: Parts) -> Self {
        let checkpoint = parts.writer.checkpoint();
        let tenure = parts.writer.tenure();
        Self {
            parts,
            positions: Positions {
                durable: watch::Sender::new(checkpoint),
                dispatched: watch::Sender::new(checkpoint),
                tenure: watch::Sender::new(tenure),
            },
            failure: None,
            full: false,
            next_life: None,
            unflushed_since: None,
            clocks: Clocks::default(),
        }
    }

    pub fn watch(&self) -> Watched {
        Watched {
            durable: self.positions.durable.subscribe(),
            dispatched: self.positions.dispatched.subscribe(),
            tenure: self.positions.tenure.subscribe(),
        }
    }

    /// Walks the steps on a thread of their own until the log is closed and everything in it is
    /// dispatched.
    pub fn spawn(self) -> io::Result<PipelineHandle> {
        let watched = self.watch();
        let (end, ended) = watch::channel(None);
        let ending = Ending {
            log: self.parts.log.clone(),
            answers: self.parts.answers.clone(),
            end,
        };
        let thread = thread::Builder::new()
            .name("pipeline".into())
            .spawn(move || {
                let _ending = ending;
                self.run();
            })?;
        Ok(PipelineHandle {
            thread,
            ended,
            watched,
        })
    }

    fn run(mut self) {
        let mut wait = IDLE;
        loop {
            if self.holds_back(wall_clock_ms()) {
                if self.kept().is_some_and(KeptLog::is_closed) {
                    return;
                }
                thread::sleep(IDLE);
                continue;
            }
            match self.parts.log.next(wait) {
                Next::Batch(batch) => self.take(batch, wall_clock_ms()),
                Next::Idle => {}
                Next::Closed => break,
            }
            wait = match self.tend(wall_clock_ms()) {
                true => Duration::ZERO,
                false => IDLE,
            };
        }
        if self.unflushed_since.is_some()
            && let Err(error) = self.parts.writer.sync()
        {
            tracing::warn!(%error, "what was read last is not on disk and will be read again");
        }
    }

    fn kept(&self) -> Option<&dyn KeptLog> {
        self.parts.log.kept()
    }

    /// Walks all steps with one batch.
    pub fn take(&mut self, mut batch: Vec<Event>, now: u64) {
        let replaced = match batch.last() {
            Some(Event::Replaced(epoch)) => Some(epoch.clone()),
            _ => None,
        };
        if let Some(epoch) = replaced {
            batch.pop();
            self.walk(batch, now);
            self.begin_life(epoch, now);
        } else {
            self.walk(batch, now);
        }
    }

    fn walk(&mut self, batch: Vec<Event>, now: u64) {
        if batch.is_empty() {
            return;
        }
        self.hear(&batch, now);
        let Some(committed) = self.commit(batch, now) else {
            return;
        };
        let Some(flushed) = self.flush(committed, now) else {
            return;
        };
        self.announce(&flushed);
        self.answer(&flushed);
        self.dispatch(flushed);
    }

    /// Writes a batch, not yet safely. If it can't be written, its publishers are told so and the
    /// batch ends here.
    pub fn commit(&mut self, batch: Vec<Event>, now: u64) -> Option<Committed> {
        let sources: Vec<_> = batch.iter().map(Source::of).collect();
        if !self.has_space() {
            self.pass_over(sources, PublishError::NoSpace);
            return None;
        }
        if !self.is_open(now) {
            let why = Refusal::Reopening;
            self.pass_over(sources, PublishError::NotTaken { why });
            return None;
        }
        let floored = batch.iter().any(|event| matches!(event, Event::Floor(1..)));
        let rules = &*self.parts.rules;
        match self.parts.writer.apply(&batch, rules) {
            Ok(applied) => Some(Committed {
                steps: sources.into_iter().zip(applied).collect(),
                floored,
            }),
            Err(error) => {
                self.fail(&error, now);
                // What is kept comes again, and may be answered in time.
                if self.kept().is_none() {
                    self.refuse(sources, PublishError::OutcomeUnknown);
                }
                None
            }
        }
    }

    /// Brings a batch to disk, or, from a log that is kept, only before the eyes of readers. If that fails, its publishers are told that nobody knows and the
    /// batch ends here.
    pub fn flush(&mut self, committed: Committed, now: u64) -> Option<Flushed> {
        let Committed { steps, floored } = committed;
        if self.kept().is_some() {
            // What a crash takes from the database comes again, at the same positions.
            self.unflushed_since.get_or_insert(now);
            let durable = self.parts.writer.show();
            return Some(Flushed {
                steps,
                floored,
                durable,
            });
        }
        match self.parts.writer.flush() {
            Ok(durable) => Some(Flushed {
                steps,
                floored,
                durable,
            }),
            Err(error) => {
                self.fail(&error, now);
                let sources = steps.into_iter().map(|(source, _)| source);
                self.refuse(sources, PublishError::OutcomeUnknown);
                None
            }
        }
    }

    /// Publishes the durable position.
    pub fn announce(&mut self, flushed: &Flushed) {
        self.positions.durable.send_replace(flushed.durable);
    }

    /// Tells the publishers where their deltas are.
    pub fn answer(&mut self, flushed: &Flushed) {
        let epoch = self.parts.writer.epoch();
        let placed = |applied: &Applied| {
            let (offset, time, repeated, found) = match applied {
                Applied::Delta(delta) => (delta.offset, delta.time, false, true),
                Applied::Repeated { offset, time } => (*offset, *time, true, true),
                Applied::Erased {
                    offset,
                    time,
                    found,
                    ..
                } => (*offset, *time, false, *found),
                // Its producer will send it again, or has been answered.
                Applied::Passed => return None,
            };
            Some(Placed {
                offset,
                time,
                epoch: epoch.clone(),
                repeated,
                found,
            })
        };
        let answers = flushed
            .steps
            .iter()
            .filter_map(|(source, applied)| Some((*source.as_ref()?, Ok(placed(applied)?))));
        self.parts.answers.give(answers);
        // Behind the answers: those of the tenure before are still of use to it.
        self.tell_tenure();
    }

    fn tell_tenure(&self) {
        let tenure = self.parts.writer.tenure();
        self.positions.tenure.send_if_modified(|told| {
            let changed = *told != tenure;
            *told = tenure;
            changed
        });
    }

    /// Hands the new deltas to the rooms, which may take its time.
    pub fn dispatch(&mut self, flushed: Flushed) {
        if flushed.floored {
            self.parts.dispatch.reset();
            self.positions.dispatched.send_replace(flushed.durable);
            return;
        }
        let mut deltas: Vec<Arc<Delta>> = Vec::new();
        for (_, applied) in flushed.steps {
            match applied {
                Applied::Delta(delta) => deltas.push(delta),
                Applied::Erased { room, erasure, .. } => {
                    // What was published and taken back within the batch is shown to nobody.
                    deltas.retain(|delta| delta.room != room || !erasure.covers(delta.offset));
                    self.parts.dispatch.erase(&room, erasure);
                }
                Applied::Repeated { .. } | Applied::Passed => {}
            }
        }
        if !deltas.is_empty() {
            self.parts.dispatch.dispatch(deltas);
        }
        self.positions.dispatched.send_replace(flushed.durable);
    }

    /// Does what is due between two batches: opens a failed database again, trims what is too old.
    /// True if there may be more to trim.
    pub fn tend(&mut self, now: u64) -> bool {
        // A full disk keeps what it has: trimming, too, has to write.
        if !self.is_open(now) || !self.has_space() {
            return false;
        }
        if self
            .unflushed_since
            .is_some_and(|since| now.saturating_sub(since) >= SYNC_INTERVAL_MS)
        {
            if let Err(error) = self.parts.writer.sync() {
                self.fail(&error, now);
                return false;
            }
            self.unflushed_since = None;
        }
        match self.parts.writer.expire(now, &*self.parts.rules) {
            Ok(more) => more,
            Err(error) => {
                self.fail(&error, now);
                false
            }
        }
    }

    /// Refuses what will never be applied.
    fn pass_over(&mut self, sources: Vec<Option<Source>>, why: PublishError) {
        self.parts.writer.pass_over();
        self.refuse(sources, why);
    }

    fn refuse(&self, sources: impl IntoIterator<Item = Option<Source>>, why: PublishError) {
        let sources = sources.into_iter().flatten();
        self.parts
            .answers
            .give(sources.map(|source| (source, Err(why.clone()))));
    }

    fn fail(&mut self, error: &StoreError, now: u64) {
        tracing::error!(%error, "the database failed and is opened again");
        self.failure = Some(Failure {
            retry_at: now,
            reported: false,
        });
    }

    /// Whether the database can be written, which after a failure takes a successful attempt to
    /// open it again.
    fn is_open(&mut self, now: u64) -> bool {
        let Some(failure) = &mut self.failure else {
            return true;
        };
        if now < failure.retry_at {
            return false;
        }
        match self.parts.writer.reopen() {
            Ok(reopened) => {
                tracing::info!(
                    position = reopened.checkpoint,
                    lost = reopened.lost,
                    "the database is open again"
                );
                self.failure = None;
                if self.kept().is_some() {
                    return self.resume(now);
                }
                self.parts.writer.pass_over();
                self.positions.durable.send_replace(reopened.checkpoint);
                if reopened.lost || reopened.checkpoint != *self.positions.dispatched.borrow() {
                    self.parts.dispatch.reset();
                    self.positions.dispatched.send_replace(reopened.checkpoint);
                }
                true
            }
            Err(error) => {
                if !failure.reported {
                    tracing::error!(%error, "the database could not be opened again yet");
                    failure.reported = true;
                }
                failure.retry_at = now + REOPEN_INTERVAL_MS;
                false
            }
        }
    }

    /// Whether the disk has more than the reserve. If it can't be asked, writing will show.
    fn has_space(&mut self) -> bool {
        let full = match self.parts.writer.free_bytes() {
            Ok(free) => free < self.parts.reserve_bytes,
            Err(_) => false,
        };
        if full && !self.full {
            tracing::error!(
                reserve_bytes = self.parts.reserve_bytes,
                "the disk has less free space than the reserve; publishing stops"
            );
        }
        self.full = full;
        !full
    }
}
