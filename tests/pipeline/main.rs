//! One path from a publisher to the rooms: what is promised at each step, and when things fail.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::join_all};
use proptest::{prelude::*, sample::Index};
use roomwire::{
    delta::{Delta, Erasure, RoomName},
    log::{
        Next, NotTaken, OrderedLog,
        embedded::{EmbeddedLog, QueueBounds},
        pipeline::{Dispatch, End, Parts, Pipeline, PipelineHandle},
        publisher::{NewDelta, PublishError, Published, Publisher, Refusal},
    },
    rooms::{
        history::{History, PageLimit},
        retention::Retention,
        store::Store,
        store_memory::{Fault, MemoryStore},
        store_sled::SledStore,
        writer::{HistorySettings, HistoryWriter},
    },
};
use tokio::time::timeout;

mod crashes;
mod failures;
mod kept;
mod promises;
mod tenures;

const PATIENCE: Duration = Duration::from_secs(60);
const NOW: u64 = 1_000_000;
const ALL: PageLimit = PageLimit {
    deltas: usize::MAX,
    bytes: usize::MAX,
};
const REOPENING: PublishError = PublishError::NotTaken {
    why: Refusal::Reopening,
};

fn room() -> RoomName {
    RoomName::new("a").unwrap()
}

fn delta(key: Option<&str>) -> NewDelta {
    NewDelta {
        room: room(),
        body: Bytes::from_static(b"1"),
        key: key.map(Into::into),
        info: Bytes::new(),
        exclude: None,
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Heard {
    Dispatched(Vec<u64>),
    Erased(Erasure),
    Reset,
}

/// Writes down what it is told.
#[derive(Clone, Default)]
struct Recorder {
    events: Arc<Mutex<Vec<Heard>>>,
}

impl Recorder {
    fn take(&self) -> Vec<Heard> {
        std::mem::take(&mut self.events.lock().unwrap())
    }
}

impl Dispatch for Recorder {
    fn dispatch(&mut self, deltas: Vec<Arc<Delta>>) {
        let offsets = deltas.iter().map(|delta| delta.offset).collect();
        self.events.lock().unwrap().push(Heard::Dispatched(offsets));
    }

    fn erase(&mut self, _: &RoomName, erasure: Erasure) {
        self.events.lock().unwrap().push(Heard::Erased(erasure));
    }

    fn reset(&mut self) {
        self.events.lock().unwrap().push(Heard::Reset);
    }
}

struct Broken;

impl Dispatch for Broken {
    fn dispatch(&mut self, _: Vec<Arc<Delta>>) {
        panic!("a room that can't be reached");
    }

    fn erase(&mut self, _: &RoomName, _: Erasure) {}
    fn reset(&mut self) {}
}

/// Everything around a pipeline.
struct Path {
    log: Arc<EmbeddedLog>,
    publisher: Publisher,
    history: History,
    recorder: Recorder,
}

impl Path {
    fn on(store: Arc<dyn Store>) -> (Self, Pipeline) {
        let recorder = Recorder::default();
        Self::to(store, recorder.clone(), recorder)
    }

    fn to(
        store: Arc<dyn Store>,
        dispatch: impl Dispatch + 'static,
        recorder: Recorder,
    ) -> (Self, Pipeline) {
        let settings = HistorySettings {
            idempotency_window_ms: 300_000,
        };
        let bounds = QueueBounds {
            records: 2_000,
            bytes: 1 << 20,
        };
        let writer = HistoryWriter::open(store, settings).unwrap();
        let log = Arc::new(EmbeddedLog::new(writer.checkpoint() + 1, bounds));
        let publisher = Publisher::new(log.clone(), PATIENCE);
        let path = Self {
            log: log.clone(),
            publisher: publisher.clone(),
            history: writer.history(),
            recorder,
        };
        let pipeline = Pipeline::new(Parts {
            log,
            writer,
            rules: Arc::new(|_| Retention {
                size: 10_000,
                ttl_ms: u64::MAX,
                bytes: u64::MAX,
            }),
            answers: publisher.answers(),
            dispatch: Box::new(dispatch),
            reserve_bytes: 1,
        });
        (path, pipeline)
    }

    fn spawned(store: Arc<dyn Store>) -> (Self, PipelineHandle) {
        let (path, pipeline) = Self::on(store);
        (path, pipeline.spawn().unwrap())
    }

    /// Publishes one delta and walks the pipeline with it.
    async fn publish(
        &self,
        pipeline: &mut Pipeline,
        key: Option<&str>,
        now: u64,
    ) -> Result<Published, PublishError> {
        let pending = self.publisher.submit(vec![delta(key)], now).unwrap();
        let Next::Batch(batch) = self.log.next(PATIENCE) else {
            panic!("a submitted delta must be there to read");
        };
        pipeline.take(batch, now);
        pending.wait(PATIENCE).await.remove(0)
    }

    fn stored(&self) -> HashMap<u64, Arc<str>> {
        let page = self.history.page(&room(), 0, u64::MAX, ALL).unwrap();
        page.deltas
            .into_iter()
            .map(|delta| (delta.offset, delta.id))
            .collect()
    }
}

fn memory() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new())
}
