//! From the publishers to the rooms, a step at a time, and the ledger beside it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use roomwire::{
    delta::{Delta, Erasure, RoomName},
    log::{
        Next, OrderedLog,
        embedded::{EmbeddedLog, QueueBounds},
        pipeline::{Committed, Dispatch, Flushed, Parts, Pipeline, Watched},
        publisher::{NewDelta, Pending, PublishError, Published, Publisher},
    },
    rooms::{
        history::{History, PageLimit},
        store::Order,
        store_memory::{Fault, MemoryStore},
        writer::{HistorySettings, HistoryWriter},
    },
};

use crate::{
    Checked, ensure,
    ledger::{Ledger, Placement},
    rooms::{self, IDEMPOTENCY_WINDOW_MS, ROOMS, name_of},
};

/// For ever, as there is no clock: an answer is there at once, or never.
const PATIENCE: Duration = Duration::from_secs(60);

const EVERYTHING: PageLimit = PageLimit {
    deltas: usize::MAX,
    bytes: usize::MAX,
};

/// What the pipeline hands to the rooms.
pub enum Handed {
    Deltas(Vec<Arc<Delta>>),
    Erased(RoomName, Erasure),
    Reset,
}

#[derive(Clone, Default)]
struct Hands(Arc<Mutex<Vec<Handed>>>);

impl Hands {
    fn put(&self, handed: Handed) {
        self.0.lock().expect("no holder panics").push(handed);
    }
}

impl Dispatch for Hands {
    fn dispatch(&mut self, deltas: Vec<Arc<Delta>>) {
        self.put(Handed::Deltas(deltas));
    }

    fn erase(&mut self, room: &RoomName, erasure: Erasure) {
        self.put(Handed::Erased(room.clone(), erasure));
    }

    fn reset(&mut self) {
        self.put(Handed::Reset);
    }
}

/// How far the batch in the pipeline is.
enum Stage {
    Idle,
    Committed(Committed),
    Flushed(Flushed),
    Announced(Flushed),
    Answered(Flushed),
}

pub struct Path {
    store: Arc<MemoryStore>,
    log: Arc<EmbeddedLog>,
    publisher: Publisher,
    pipeline: Pipeline,
    watched: Watched,
    pub history: History,
    hands: Hands,
    stage: Stage,
    /// What the ledger says of the batch in the pipeline.
    placements: Vec<Placement>,
    /// Publishers that wait for their answers, in the order of the log, and their rooms.
    waiting: VecDeque<(Pending, Vec<usize>)>,
    last_fault: Option<Fault>,
}

impl Path {
    pub fn open(store: Arc<MemoryStore>) -> Self {
        let settings = HistorySettings {
            idempotency_window_ms: IDEMPOTENCY_WINDOW_MS,
        };
        let writer = HistoryWriter::open(store.clone(), settings).expect("the store is whole");
        let history = writer.history();
        let bounds = QueueBounds {
            records: 12,
            bytes: 1 << 20,
        };
        let log = Arc::new(EmbeddedLog::new(writer.checkpoint() + 1, bounds));
        let publisher = Publisher::new(log.clone(), Duration::ZERO);
        let hands = Hands::default();
        let pipeline = Pipeline::new(Parts {
            log: log.clone(),
            writer,
            rules: Arc::new(rooms::rules),
            answers: publisher.answers(),
            dispatch: Box::new(hands.clone()),
            reserve_bytes: 0,
        });
        Self {
            store,
            log,
            publisher,
            watched: pipeline.watch(),
            pipeline,
            history,
            hands,
            stage: Stage::Idle,
            placements: Vec::new(),
            waiting: VecDeque::new(),
            last_fault: None,
        }
    }

    /// The process dies and comes back, with the first `survive` of the commits that were not flushed.
    pub fn crash(&mut self, survive: usize, ledger: &mut Ledger) -> Checked {
        let epoch = self.history.epoch(&name_of(0));
        self.store.crash(survive);
        ledger.survive(survive);
        *self = Self::open(self.store.clone());
        ensure(self.history.epoch(&name_of(0)) == epoch, || {
            "a crash changed the epoch".into()
        })?;
        self.check(ledger)
    }

    /// Publishes one delta for each room and key; whether the log took them.
    pub fn publish(&mut self, deltas: Vec<(usize, Option<u8>, Bytes)>, now: u64) -> bool {
        let rooms = deltas.iter().map(|(room, ..)| *room).collect();
        let deltas = deltas.into_iter().map(|(room, key, body)| NewDelta {
            room: name_of(room),
            body,
            key: key.map(|key| format!("key {key}").into()),
            info: Bytes::new(),
            exclude: None,
        });
        let submitted = self.publisher.submit(deltas.collect(), now);
        let taken = submitted.is_ok();
        self.waiting
            .extend(submitted.ok().map(|pending| (pending, rooms)));
        taken
    }

    /// Takes deltas of a room back; whether the log took that.
    pub fn erase(&mut self, room: usize, erasure: Erasure, now: u64) -> bool {
        let submitted = self.publisher.submit_erasure(name_of(room), erasure, now);
        let taken = submitted.is_ok();
        self.waiting
            .extend(submitted.ok().map(|pending| (pending, vec![room])));
        taken
    }

    /// The pipeline does its next step; whether there was one.
    pub fn advance(&mut self, now: u64, ledger: &mut Ledger) -> Checked<bool> {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Idle => match self.log.next(Duration::ZERO) {
                Next::Batch(batch) => {
                    let count = batch.len();
                    let commit = |pipeline: &mut Pipeline| pipeline.commit(batch.clone(), now);
                    match self.with_pipeline(ledger, commit) {
                        Some(committed) => {
                            self.placements = ledger.commit(&batch)?;
                            Stage::Committed(committed)
                        }
                        None => self.refused(count)?,
                    }
                }
                Next::Idle | Next::Closed => return Ok(false),
            },
            Stage::Committed(committed) => match self.pipeline.flush(committed, now) {
                Some(flushed) => {
                    ledger.flush();
                    Stage::Flushed(flushed)
                }
                None => {
                    if let Some(Fault::Flush { survive }) = self.last_fault {
                        ledger.forget_behind(survive);
                    }
                    let count = std::mem::take(&mut self.placements).len();
                    self.refused(count)?
                }
            },
            Stage::Flushed(flushed) => {
                self.pipeline.announce(&flushed);
                Stage::Announced(flushed)
            }
            Stage::Announced(flushed) => {
                self.pipeline.answer(&flushed);
                self.answered(ledger)?;
                Stage::Answered(flushed)
            }
            Stage::Answered(flushed) => {
                self.pipeline.dispatch(flushed);
                Stage::Idle
            }
        };
        Ok(true)
    }

    /// What is due between two batches: trims what is too old, or opens a failed database again.
    pub fn tend(&mut self, now: u64, ledger: &mut Ledger) -> bool {
        if !matches!(self.stage, Stage::Idle) {
            return false;
        }
        self.with_pipeline(ledger, |pipeline| pipeline.tend(now));
        if self.store.unflushed() > ledger.unflushed() {
            ledger.expire(now);
        }
        true
    }

    pub fn inject(&mut self, fault: Fault) {
        self.last_fault = Some(fault);
        self.store.inject(fault);
    }

    /// What was handed to the rooms since the last call.
    pub fn take_handed(&mut self) -> Vec<Handed> {
        std::mem::take(&mut *self.hands.0.lock().expect("no holder panics"))
    }

    /// Up to here everything was handed to the rooms.
    pub fn dispatched(&self) -> u64 {
        *self.watched.dispatched.borrow()
    }

    /// Whether nothing is under way.
    pub fn is_at_rest(&self) -> bool {
        matches!(self.stage, Stage::Idle) && self.waiting.is_empty()
    }

    /// Histories are what the ledger says.
    pub fn check(&self, ledger: &Ledger) -> Checked {
        ledger.check()?;
        let durable = self.history.durable(&name_of(0));
        ensure(durable == ledger.durable().checkpoint, || {
            format!(
                "durable up to {durable}, not as the ledger: {}",
                ledger.durable().checkpoint
            )
        })?;
        for (room, (name, _)) in ROOMS.iter().enumerate() {
            let page = self
                .history
                .list(&name_of(room), None, EVERYTHING, Order::Ascending)
                .map_err(|error| error.to_string())?;
            let held = page.deltas.iter().map(|d| (d.offset, d.time, &d.data));
            let owed = ledger.kept(room);
            let owed = owed.map(|entry| (entry.offset, entry.time, &entry.body));
            ensure(held.eq(owed.clone()), || {
                let owed: Vec<_> = owed.collect();
                format!("room {name} holds {:?}, not {owed:?}", page.deltas)
            })?;
        }
        Ok(())
    }

    /// Whether the database has not failed.
    pub fn is_open(&self) -> bool {
        self.history.head(&name_of(0)).is_ok()
    }

    /// Lets `act` use the pipeline. If that opened a failed database again, everything that is left is on disk.
    fn with_pipeline<T>(&mut self, ledger: &mut Ledger, act: impl FnOnce(&mut Pipeline) -> T) -> T {
        let (had_failed, before) = (!self.is_open(), self.store.unflushed());
        let result = act(&mut self.pipeline);
        if had_failed && (self.is_open() || self.store.unflushed() < before) {
            ledger.survive(usize::MAX);
        }
        result
    }

    fn refused(&mut self, count: usize) -> Checked<Stage> {
        for (_, result) in self.results(count)? {
            let acceptable = matches!(
                result,
                Err(PublishError::NotTaken { .. } | PublishError::OutcomeUnknown)
            );
            ensure(acceptable, || {
                format!("a failed publish was answered {result:?}")
            })?;
        }
        Ok(Stage::Idle)
    }

    fn answered(&mut self, ledger: &mut Ledger) -> Checked {
        let placements = std::mem::take(&mut self.placements);
        let results = self.results(placements.len())?;
        for (placement, (room, result)) in placements.into_iter().zip(results) {
            let told = result.map(|published| Placement {
                offset: published.offset,
                time: published.time,
                repeated: published.repeated,
                found: published.found,
                erases: placement.erases,
            });
            ensure(told == Ok(placement), || {
                format!("a publisher was told {told:?}, not {placement:?}")
            })?;
            if !placement.erases {
                ledger.promise(room, placement.offset)?;
            }
        }
        Ok(())
    }

    /// The rooms and answers of the next `count` records.
    fn results(&mut self, count: usize) -> Checked<Vec<(usize, Result<Published, PublishError>)>> {
        let mut results = Vec::new();
        while results.len() < count {
            let (pending, rooms) = self.waiting.pop_front().ok_or("nobody waits")?;
            let answers = pending.wait(PATIENCE).now_or_never();
            let answers = answers.ok_or("a publisher got no answer")?;
            results.extend(rooms.into_iter().zip(answers));
        }
        Ok(results)
    }
}
