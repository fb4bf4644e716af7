//! What readers of a room's history see, whatever was published, trimmed, expired or lost between.

use std::{
    sync::{Arc, Mutex},
    thread,
};

use bytes::Bytes;
use proptest::prelude::*;
use roomwire::{
    delta::{Erasure, RoomName, partition_of},
    log::{
        Event, Record,
        record::{Entry, Fence, Heartbeat},
    },
    rooms::{
        history::{Head, History, Page, PageLimit, Since},
        identity::LogIdentity,
        retention::Retention,
        store::{Order, Store, StoreError, Visit, Write},
        store_memory::{Fault, MemoryStore},
        store_sled::SledStore,
        writer::{Applied, HistorySettings, HistoryWriter, Reopened},
    },
};

mod erasing;
mod model;
mod partitions;
mod reading;
mod repeats;
mod restarts;
mod trimming;

const WINDOW_MS: u64 = 1_000;
const SETTINGS: HistorySettings = HistorySettings {
    idempotency_window_ms: WINDOW_MS,
};
const ALL: PageLimit = PageLimit {
    deltas: usize::MAX,
    bytes: usize::MAX,
};
const FOREVER: Retention = Retention {
    size: u64::MAX,
    ttl_ms: u64::MAX,
    bytes: u64::MAX,
};

fn room(name: &str) -> RoomName {
    RoomName::new(name).unwrap()
}

fn size(size: u64) -> Retention {
    Retention { size, ..FOREVER }
}

fn ttl(ttl_ms: u64) -> Retention {
    Retention { ttl_ms, ..FOREVER }
}

/// A delta with its position as its data.
fn ordered(offset: u64, name: &str, key: Option<&str>, stamped: u64) -> Event {
    at(offset, record(offset, name, key, stamped))
}

/// From a producer that makes no other.
fn record(offset: u64, name: &str, key: Option<&str>, stamped: u64) -> Record {
    Record {
        room: room(name),
        body: offset.to_string().into(),
        id: key.unwrap_or("made").into(),
        keyed: key.is_some(),
        stamped,
        info: Bytes::new(),
        exclude: None,
        erases: None,
        producer: u128::from(offset),
        sequence: 1,
    }
}

/// Takes deltas back.
fn erasing(offset: u64, name: &str, erasure: Erasure) -> Event {
    let erases = Some(erasure);
    at(
        offset,
        Record {
            body: Bytes::new(),
            id: "".into(),
            erases,
            ..record(offset, name, None, 0)
        },
    )
}

fn at(position: u64, record: Record) -> Event {
    let entry = Entry::Delta {
        record,
        tenure: None,
    };
    Event::Entry { position, entry }
}

/// One history in memory, all of it kept unless a test says otherwise.
struct World {
    store: Arc<MemoryStore>,
    writer: HistoryWriter,
    history: History,
}

impl World {
    fn new() -> Self {
        Self::on(Arc::new(MemoryStore::new()))
    }

    fn on(store: Arc<MemoryStore>) -> Self {
        let writer = HistoryWriter::open(store.clone(), SETTINGS).unwrap();
        let history = writer.history();
        Self {
            store,
            writer,
            history,
        }
    }

    fn publish(&mut self, batch: &[Event], rules: Retention) -> Vec<Applied> {
        let applied = self.writer.apply(batch, |_| rules).unwrap();
        self.writer.flush().unwrap();
        applied
    }

    /// Publishes deltas 1, 2, … to room "a", one a millisecond from 101 on.
    fn publish_to_a(&mut self, count: u64, rules: Retention) {
        for offset in 1..=count {
            self.publish(&[ordered(offset, "a", None, 100 + offset)], rules);
        }
    }

    fn page(&self, after: u64) -> Page {
        self.history.page(&room("a"), after, u64::MAX, ALL).unwrap()
    }

    fn head(&self) -> Head {
        self.history.head(&room("a")).unwrap()
    }

    fn expire(&mut self, now: u64, rules: Retention) {
        while self.writer.expire(now, |_| rules).unwrap() {}
    }

    fn restart(self) -> Self {
        Self::on(self.store)
    }
}

fn offsets(page: &Page) -> Vec<u64> {
    page.deltas.iter().map(|delta| delta.offset).collect()
}

fn repeated(offset: u64, time: u64) -> Applied {
    Applied::Repeated { offset, time }
}

fn is_new(applied: &Applied) -> bool {
    matches!(applied, Applied::Delta(_))
}
