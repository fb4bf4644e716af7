//! Order, apply, dispatch: the one path of a delta, walked by one thread.
//!
//! A batch goes through five steps, and their order is what the promises rest on:
//! [`Pipeline::commit`] writes it, [`Pipeline::flush`] brings it to disk, [`Pipeline::announce`]
//! publishes the durable position, [`Pipeline::answer`] tells the publishers,
//! [`Pipeline::dispatch`] hands the deltas to the rooms. So nobody is told of, or shown, a delta
//! that a crash can take back. [`Pipeline::spawn`] walks the steps on a thread of their own; tests
//! walk them one by one.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::sync::watch;

use super::{
    Next, Ordered, OrderedLog,
    publisher::{Answers, Placed, PublishError, Refusal, Source, wall_clock_ms},
};
use crate::{
    delta::{Delta, RoomName},
    rooms::{
        retention::Retention,
        store::StoreError,
        writer::{Applied, HistoryWriter},
    },
};

/// How long the thread sleeps when nothing comes, before it looks for what has expired.
const IDLE: Duration = Duration::from_millis(100);

/// Between two attempts to open the database again, in ms.
const REOPEN_INTERVAL_MS: u64 = 500;

/// How much of a room is kept.
pub type Rules = Arc<dyn Fn(&RoomName) -> Retention + Send + Sync>;

/// Where the pipeline ends: brings deltas to the rooms that somebody is in.
pub trait Dispatch: Send {
    /// Takes the deltas of one batch in their order. May block: that is what slows publishers down
    /// to the rooms.
    fn dispatch(&mut self, deltas: Vec<Arc<Delta>>);

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
}

/// How far the pipeline came. Both fall back only if the database lost something, with a new epoch.
#[derive(Debug, Clone)]
pub struct Watched {
    /// The offset up to which everything is on disk and can be replayed.
    pub durable: watch::Receiver<u64>,
    /// The offset up to which everything was handed to the rooms.
    pub dispatched: watch::Receiver<u64>,
}

/// A batch that a crash could still take back.
#[must_use]
pub struct Committed(Vec<Step>);

/// A batch on disk.
#[must_use]
pub struct Flushed {
    steps: Vec<Step>,
    durable: u64,
}

type Step = (Source, Applied);

impl Pipeline {
    pub fn new(parts: Parts) -> Self {
        let checkpoint = parts.writer.checkpoint();
        Self {
            parts,
            positions: Positions {
                durable: watch::Sender::new(checkpoint),
                dispatched: watch::Sender::new(checkpoint),
            },
            failure: None,
            full: false,
        }
    }

    pub fn watch(&self) -> Watched {
        Watched {
            durable: self.positions.durable.subscribe(),
            dispatched: self.positions.dispatched.subscribe(),
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
            match self.parts.log.next(wait) {
                Next::Batch(batch) => self.take(batch, wall_clock_ms()),
                Next::Idle => {}
                Next::Closed => return,
            }
            wait = match self.tend(wall_clock_ms()) {
                true => Duration::ZERO,
                false => IDLE,
            };
        }
    }

    /// Walks all steps with one batch.
    pub fn take(&mut self, batch: Vec<Ordered>, now: u64) {
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
    pub fn commit(&mut self, batch: Vec<Ordered>, now: u64) -> Option<Committed> {
        let sources: Vec<_> = batch.iter().map(Source::of).collect();
        if !self.has_space() {
            self.refuse(sources, PublishError::NoSpace);
            return None;
        }
        if !self.is_open(now) {
            let why = Refusal::Reopening;
            self.refuse(sources, PublishError::NotTaken { why });
            return None;
        }
        let rules = &*self.parts.rules;
        match self.parts.writer.apply(&batch, rules) {
            Ok(applied) => Some(Committed(sources.into_iter().zip(applied).collect())),
            Err(error) => {
                self.fail(&error, now);
                self.refuse(sources, PublishError::OutcomeUnknown);
                None
            }
        }
    }

    /// Brings a batch to disk. If that fails, its publishers are told that nobody knows and the
    /// batch ends here.
    pub fn flush(&mut self, Committed(steps): Committed, now: u64) -> Option<Flushed> {
        match self.parts.writer.flush() {
            Ok(durable) => Some(Flushed { steps, durable }),
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
        let epoch = self.parts.writer.history().epoch();
        let placed = |applied: &Applied| {
            let (offset, time, repeated) = match applied {
                Applied::Delta(delta) => (delta.offset, delta.time, false),
                Applied::Repeated { offset, time } => (*offset, *time, true),
            };
            Placed {
                offset,
                time,
                epoch: epoch.clone(),
                repeated,
            }
        };
        let answers = flushed
            .steps
            .iter()
            .map(|(source, applied)| (*source, Ok(placed(applied))));
        self.parts.answers.give(answers);
    }

    /// Hands the new deltas to the rooms, which may take its time.
    pub fn dispatch(&mut self, flushed: Flushed) {
        let deltas: Vec<_> = flushed
            .steps
            .into_iter()
            .filter_map(|(_, applied)| match applied {
                Applied::Delta(delta) => Some(delta),
                Applied::Repeated { .. } => None,
            })
            .collect();
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
        match self.parts.writer.expire(now, &*self.parts.rules) {
            Ok(more) => more,
            Err(error) => {
                self.fail(&error, now);
                false
            }
        }
    }

    fn refuse(&self, sources: impl IntoIterator<Item = Source>, why: PublishError) {
        self.parts
            .answers
            .give(sources.into_iter().map(|source| (source, Err(why))));
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

/// How the pipeline's thread ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The log was closed, and everything in it is dispatched.
    Closed,
    /// A defect; nothing can be published any more.
    Panicked,
}

/// A running pipeline.
pub struct PipelineHandle {
    thread: JoinHandle<()>,
    ended: watch::Receiver<Option<End>>,
    pub watched: Watched,
}

impl PipelineHandle {
    /// Completes when the thread has ended; before a stop was asked for, that is a failure of the
    /// whole process.
    pub async fn ended(&mut self) -> End {
        match self.ended.wait_for(Option::is_some).await {
            Ok(end) => end.unwrap_or(End::Panicked),
            Err(_) => End::Panicked,
        }
    }

    /// Blocks until the thread has ended.
    pub fn join(self) -> End {
        match self.thread.join() {
            Ok(()) => End::Closed,
            Err(_) => End::Panicked,
        }
    }
}

/// Leaves nobody waiting for a pipeline that is gone, however it went.
struct Ending {
    log: Arc<dyn OrderedLog>,
    answers: Arc<Answers>,
    end: watch::Sender<Option<End>>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.log.close();
        self.answers.give_up();
        let how = if thread::panicking() {
            End::Panicked
        } else {
            End::Closed
        };
        self.end.send_replace(Some(how));
    }
}
