//! How many deltas a second become durable, beside what sled alone does with the same bytes on the
//! same disk: `cargo bench --bench publish [-- DIRECTORY]`. The databases lie in a temporary
//! directory below the given one, or below the working directory.

use std::{
    env,
    error::Error,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use roomwire::{
    delta::{Delta, Erasure, RoomName},
    log::{
        Event, OrderedLog, Record,
        embedded::{EmbeddedLog, QueueBounds},
        pipeline::{Dispatch, Parts, Pipeline},
        publisher::{NewDelta, Publisher},
        record::Entry,
    },
    rooms::{
        retention::Retention,
        store::{Store, Write},
        store_sled::SledStore,
        writer::{HistorySettings, HistoryWriter},
    },
};

type Outcome<T> = Result<T, Box<dyn Error>>;

const VALUE_BYTES: usize = 200;
const BATCH: usize = 100;
const BATCHES: usize = 1_000;
const CALLERS: usize = 200;
const PUBLISHING: Duration = Duration::from_secs(5);
const CACHE_BYTES: u64 = 64 << 20;
const SETTINGS: HistorySettings = HistorySettings {
    idempotency_window_ms: 300_000,
};

fn main() -> Outcome<()> {
    // cargo itself adds `--bench`.
    let parent = env::args()
        .skip(1)
        .find(|argument| !argument.starts_with("--"));
    let parent = parent.map_or_else(|| PathBuf::from("."), PathBuf::from);
    let directory = tempfile::tempdir_in(parent)?;
    let at = |name: &str| directory.path().join(name);

    println!("batches of {BATCH} deltas of {VALUE_BYTES} B, each batch flushed");
    let floor = raw(&at("raw"))?;
    println!(
        "  {:<44}{floor:>9.0}/s",
        "floor: sled alone, one key a delta"
    );
    for (name, rooms, keyed, size) in [
        ("apply, 1 room", 1, false, u64::MAX),
        ("apply, 1,000 rooms", 1_000, false, u64::MAX),
        ("apply, 100 rooms, trimming to 100 deltas", 100, false, 100),
        (
            "apply, 100 rooms, with idempotency keys",
            100,
            true,
            u64::MAX,
        ),
    ] {
        let rate = applied(&at(name), rooms, keyed, size)?;
        println!(
            "  {name:<44}{rate:>9.0}/s  {:.2} of the floor",
            rate / floor
        );
    }

    println!("{CALLERS} concurrent callers, one delta of {VALUE_BYTES} B each, 100 rooms");
    let (rate, mut latencies) = published(&at("published"))?;
    latencies.sort_unstable();
    let at_rank = |rank: f64| latencies[(latencies.len() as f64 * rank) as usize];
    println!(
        "  {:<44}{rate:>9.0}/s  p50 {:.2?}, p99 {:.2?}",
        "durable publishes",
        at_rank(0.5),
        at_rank(0.99)
    );
    Ok(())
}

/// What sled takes for the bytes alone.
fn raw(path: &Path) -> Outcome<f64> {
    let store = SledStore::open(path, CACHE_BYTES)?;
    timed(|batch| {
        let writes = (0..BATCH).map(|n| Write::Put {
            key: format!("room{:08}", batch * BATCH + n).into_bytes(),
            value: vec![b'x'; VALUE_BYTES],
        });
        store.commit(writes.collect())?;
        Ok(store.flush()?)
    })
}

fn applied(path: &Path, rooms: usize, keyed: bool, size: u64) -> Outcome<f64> {
    let store = Arc::new(SledStore::open(path, CACHE_BYTES)?);
    let mut writer = HistoryWriter::open(store, SETTINGS)?;
    let rooms = room_names(rooms)?;
    let body = body();
    timed(|batch| {
        let records: Vec<_> = (batch * BATCH..(batch + 1) * BATCH)
            .map(|n| {
                let record = Record {
                    room: rooms[n % rooms.len()].clone(),
                    body: body.clone(),
                    id: format!("{n:032}").into(),
                    keyed,
                    stamped: n as u64,
                    info: Bytes::new(),
                    exclude: None,
                    erases: None,
                    producer: 1,
                    sequence: n as u64 + 1,
                };
                Event::Entry {
                    position: n as u64 + 1,
                    entry: Entry::Delta {
                        record,
                        tenure: None,
                    },
                }
            })
            .collect();
        writer.apply(&records, |_| keep(size))?;
        writer.flush()?;
        writer.expire(0, |_| keep(size))?;
        Ok(())
    })
}

fn timed(mut batch: impl FnMut(usize) -> Outcome<()>) -> Outcome<f64> {
    let start = Instant::now();
    for n in 0..BATCHES {
        batch(n)?;
    }
    Ok((BATCH * BATCHES) as f64 / start.elapsed().as_secs_f64())
}

/// Publishes through the whole path to rooms nobody is in; gives the rate and every latency.
fn published(path: &Path) -> Outcome<(f64, Vec<Duration>)> {
    let store = Arc::new(SledStore::open(path, CACHE_BYTES)?);
    let writer = HistoryWriter::open(store, SETTINGS)?;
    let bounds = QueueBounds {
        records: 16_384,
        bytes: 64 << 20,
    };
    let log = Arc::new(EmbeddedLog::new(writer.checkpoint() + 1, bounds));
    let publisher = Publisher::new(log.clone(), Duration::from_secs(10));
    let pipeline = Pipeline::new(Parts {
        log: log.clone(),
        writer,
        rules: Arc::new(|_| keep(10_000)),
        answers: publisher.answers(),
        dispatch: Box::new(Nobody),
        reserve_bytes: 0,
    })
    .spawn()?;

    let rooms = room_names(100)?;
    let body = body();
    let start = Instant::now();
    let caller = async |n: usize| {
        let mut latencies = Vec::new();
        while start.elapsed() < PUBLISHING {
            let asked = Instant::now();
            let delta = NewDelta {
                room: rooms[(n + latencies.len()) % rooms.len()].clone(),
                body: body.clone(),
                key: None,
                info: Bytes::new(),
                exclude: None,
            };
            for result in publisher.publish(vec![delta]).await {
                result.expect("a delta must be published, or the figures mean nothing");
            }
            latencies.push(asked.elapsed());
        }
        latencies
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let latencies = runtime.block_on(futures_util::future::join_all((0..CALLERS).map(caller)));
    let elapsed = start.elapsed();
    log.close();
    pipeline.join();
    let latencies = latencies.concat();
    Ok((latencies.len() as f64 / elapsed.as_secs_f64(), latencies))
}

struct Nobody;

impl Dispatch for Nobody {
    fn dispatch(&mut self, _: Vec<Arc<Delta>>) {}
    fn erase(&mut self, _: &RoomName, _: Erasure) {}
    fn reset(&mut self) {}
}

fn keep(size: u64) -> Retention {
    Retention {
        size,
        ttl_ms: 86_400_000,
        bytes: u64::MAX,
    }
}

fn room_names(count: usize) -> Outcome<Vec<RoomName>> {
    (0..count)
        .map(|n| Ok(RoomName::new(&format!("chat:{n:06}"))?))
        .collect()
}

fn body() -> Bytes {
    format!("\"{}\"", "x".repeat(VALUE_BYTES - 2)).into()
}
