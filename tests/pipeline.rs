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
    delta::{Delta, RoomName},
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
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Event {
    Dispatched(Vec<u64>),
    Reset,
}

/// Writes down what it is told.
#[derive(Clone, Default)]
struct Recorder {
    events: Arc<Mutex<Vec<Event>>>,
}

impl Recorder {
    fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.events.lock().unwrap())
    }
}

impl Dispatch for Recorder {
    fn dispatch(&mut self, deltas: Vec<Arc<Delta>>) {
        let offsets = deltas.iter().map(|delta| delta.offset).collect();
        self.events.lock().unwrap().push(Event::Dispatched(offsets));
    }

    fn reset(&mut self) {
        self.events.lock().unwrap().push(Event::Reset);
    }
}

struct Broken;

impl Dispatch for Broken {
    fn dispatch(&mut self, _: Vec<Arc<Delta>>) {
        panic!("a room that can't be reached");
    }

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

#[tokio::test]
async fn nobody_is_told_of_a_delta_before_it_is_on_disk() {
    let (path, mut pipeline) = Path::on(memory());
    let watched = pipeline.watch();
    let positions = || (*watched.durable.borrow(), *watched.dispatched.borrow());
    let pending = path.publisher.submit(vec![delta(None)], NOW).unwrap();
    let mut answer = Box::pin(pending.wait(PATIENCE));
    let Next::Batch(batch) = path.log.next(PATIENCE) else {
        panic!("a submitted delta must be there to read");
    };

    let committed = pipeline.commit(batch, NOW).unwrap();
    assert_eq!((path.history.durable(), positions()), (0, (0, 0)));
    let flushed = pipeline.flush(committed, NOW).unwrap();
    assert_eq!((path.history.durable(), positions()), (1, (0, 0)));
    pipeline.announce(&flushed);
    assert_eq!(positions(), (1, 0));
    assert!((&mut answer).now_or_never().is_none());
    pipeline.answer(&flushed);
    let published = (&mut answer).now_or_never().unwrap().remove(0).unwrap();
    assert!(path.recorder.take().is_empty());
    pipeline.dispatch(flushed);
    assert_eq!(path.recorder.take(), [Event::Dispatched(vec![1])]);
    assert_eq!(positions(), (1, 1));

    assert_eq!(
        (published.offset, published.time, published.repeated),
        (1, NOW, false)
    );
    assert_eq!(published.epoch, path.history.epoch());
    assert_eq!(path.stored()[&1], published.id);
}

#[tokio::test]
async fn a_repeated_key_is_answered_with_the_first_position_and_not_dispatched() {
    let (path, mut pipeline) = Path::on(memory());
    let first = path.publish(&mut pipeline, Some("k"), NOW).await.unwrap();
    let second = path
        .publish(&mut pipeline, Some("k"), NOW + 5)
        .await
        .unwrap();
    assert_eq!((&*first.id, first.repeated), ("k", false));
    let repeated = true;
    assert_eq!(second, Published { repeated, ..first });
    assert_eq!(path.recorder.take(), [Event::Dispatched(vec![1])]);
    assert_eq!(
        *pipeline.watch().dispatched.borrow(),
        2,
        "a repeat, too, is done with"
    );
}

#[tokio::test]
async fn many_callers_share_batches_on_disk_and_each_gets_its_own_answer() {
    let directory = tempfile::tempdir().unwrap();
    let store = SledStore::open(directory.path(), 1 << 20).unwrap();
    let (path, handle) = Path::spawned(Arc::new(store));
    let caller = async |n: usize| {
        let mut published = Vec::new();
        for round in 0..10 {
            let key = format!("{n}-{round}");
            let results = path
                .publisher
                .publish(vec![delta(Some(&key)), delta(None)])
                .await;
            let results: Vec<_> = results.into_iter().map(Result::unwrap).collect();
            assert_eq!(*results[0].id, *key);
            assert_eq!(
                results[1].offset,
                results[0].offset + 1,
                "a call stays together"
            );
            published.extend(results);
        }
        assert!(published.is_sorted_by(|a, b| a.offset < b.offset));
        published
    };
    let published = join_all((0..20).map(caller)).await.concat();
    path.log.close();
    assert_eq!(handle.join(), End::Closed);

    let answered: HashMap<_, _> = published
        .iter()
        .map(|published| (published.offset, published.id.clone()))
        .collect();
    assert_eq!(answered.len(), 400);
    assert_eq!(answered, path.stored());
    let events = path.recorder.take();
    let offsets = events.iter().flat_map(|event| match event {
        Event::Dispatched(offsets) => offsets.clone(),
        Event::Reset => panic!("nothing failed"),
    });
    assert!(offsets.eq(1..=400));
}

#[tokio::test]
async fn a_disk_below_its_reserve_takes_nothing_and_still_replays() {
    let store = memory();
    let (path, mut pipeline) = Path::on(store.clone());
    path.publish(&mut pipeline, None, NOW).await.unwrap();
    store.set_full(true);
    let before = store.contents();
    let refused = path.publish(&mut pipeline, None, NOW).await;
    assert_eq!(refused, Err(PublishError::NoSpace));
    pipeline.tend(NOW);
    assert_eq!(store.contents(), before);
    assert_eq!(path.stored().len(), 1);
    store.set_full(false);
    assert!(path.publish(&mut pipeline, None, NOW).await.is_ok());
}

#[tokio::test]
async fn after_a_failed_write_nobody_knows_and_the_next_publish_goes_on() {
    for fault in [Fault::Commit, Fault::Flush { survive: 0 }] {
        let store = memory();
        let (path, mut pipeline) = Path::on(store.clone());
        path.publish(&mut pipeline, None, NOW).await.unwrap();
        store.inject(fault);
        let failed = path.publish(&mut pipeline, Some("k"), NOW).await;
        assert_eq!(failed, Err(PublishError::OutcomeUnknown));
        let retried = path.publish(&mut pipeline, Some("k"), NOW).await.unwrap();
        assert!(!retried.repeated);
        let dispatched = [Event::Dispatched(vec![1]), Event::Dispatched(vec![3])];
        assert_eq!(
            path.recorder.take(),
            dispatched,
            "what is known needs no reset"
        );
    }
}

#[tokio::test]
async fn a_delta_that_survived_its_failed_flush_reaches_the_rooms_and_its_retry() {
    let store = memory();
    let (path, mut pipeline) = Path::on(store.clone());
    store.inject(Fault::Flush { survive: 1 });
    let failed = path.publish(&mut pipeline, Some("k"), NOW).await;
    assert_eq!(failed, Err(PublishError::OutcomeUnknown));
    pipeline.tend(NOW);
    assert_eq!(
        path.recorder.take(),
        [Event::Reset],
        "the rooms must look into history"
    );
    assert_eq!(*pipeline.watch().durable.borrow(), 1);
    assert_eq!(*pipeline.watch().dispatched.borrow(), 1);
    let retried = path.publish(&mut pipeline, Some("k"), NOW).await.unwrap();
    assert_eq!((retried.offset, retried.repeated), (1, true));
}

#[tokio::test]
async fn a_database_that_stays_closed_takes_nothing_until_it_opens() {
    let store = memory();
    let (path, mut pipeline) = Path::on(store.clone());
    store.inject(Fault::Commit);
    let failed = path.publish(&mut pipeline, None, NOW).await;
    assert_eq!(failed, Err(PublishError::OutcomeUnknown));
    store.inject(Fault::Reopen);
    assert_eq!(path.publish(&mut pipeline, None, NOW).await, Err(REOPENING));
    assert_eq!(
        path.publish(&mut pipeline, None, NOW + 499).await,
        Err(REOPENING)
    );
    assert!(path.publish(&mut pipeline, None, NOW + 500).await.is_ok());
}

#[tokio::test]
async fn a_panic_is_noticed_and_leaves_nobody_waiting() {
    let (path, pipeline) = Path::to(memory(), Broken, Recorder::default());
    let mut handle = pipeline.spawn().unwrap();
    assert!(path.publisher.publish(vec![delta(None)]).await[0].is_ok());
    assert_eq!(handle.ended().await, End::Panicked);
    let closed = PublishError::NotTaken {
        why: NotTaken::Closed.into(),
    };
    assert_eq!(
        path.publisher.publish(vec![delta(None)]).await,
        [Err(closed)]
    );
    assert_eq!(handle.join(), End::Panicked);
}

#[tokio::test]
async fn those_who_wait_when_the_pipeline_dies_are_told_that_nobody_knows() {
    let (path, pipeline) = Path::to(memory(), Broken, Recorder::default());
    // More than one batch: the first is answered and kills the pipeline, the rest is never read.
    let pending = path
        .publisher
        .submit(vec![delta(None); 1_500], NOW)
        .unwrap();
    assert_eq!(pipeline.spawn().unwrap().join(), End::Panicked);
    let at_once = Duration::from_secs(10);
    let results = timeout(at_once, pending.wait(PATIENCE)).await.unwrap();
    let answered = results.iter().filter(|result| result.is_ok()).count();
    assert!((1..1_500).contains(&answered));
    assert_eq!(
        results[answered..],
        vec![Err(PublishError::OutcomeUnknown); 1_500 - answered]
    );
}

#[tokio::test]
async fn closing_the_log_ends_the_pipeline_behind_what_was_taken() {
    let (path, pipeline) = Path::on(memory());
    let pending = path
        .publisher
        .submit(vec![delta(None), delta(None)], NOW)
        .unwrap();
    path.log.close();
    let mut handle = pipeline.spawn().unwrap();
    assert_eq!(handle.ended().await, End::Closed);
    assert!(pending.wait(PATIENCE).await.iter().all(Result::is_ok));
    assert_eq!(*handle.watched.dispatched.borrow(), 2);
}

#[tokio::test]
async fn callers_who_go_away_or_lose_patience_leave_nothing_behind() {
    let (path, mut pipeline) = Path::on(memory());
    let answers = path.publisher.answers();
    let gone = path
        .publisher
        .submit(vec![delta(None), delta(None)], NOW)
        .unwrap();
    let impatient = path.publisher.submit(vec![delta(None)], NOW).unwrap();
    assert_eq!(answers.waiting(), 3);
    drop(gone);
    assert_eq!(answers.waiting(), 1);
    let result = impatient.wait(Duration::ZERO).await.remove(0);
    assert_eq!(result, Err(PublishError::OutcomeUnknown));
    assert_eq!(answers.waiting(), 0);
    let Next::Batch(batch) = path.log.next(PATIENCE) else {
        panic!("three deltas wait");
    };
    pipeline.take(batch, NOW);
    assert_eq!(path.stored().len(), 3, "their deltas count nevertheless");
}

#[tokio::test]
async fn a_refused_call_leaves_no_gap_in_the_producers_numbers() {
    let (path, _pipeline) = Path::on(memory());
    let too_many = vec![delta(None); 2_001];
    let full = PublishError::NotTaken {
        why: NotTaken::Full.into(),
    };
    assert!(
        path.publisher
            .publish(too_many)
            .await
            .iter()
            .all(|result| *result == Err(full))
    );
    assert!(path.publisher.publish(Vec::new()).await.is_empty());
    assert_eq!(path.publisher.answers().waiting(), 0);
    let _pending = path
        .publisher
        .submit(vec![delta(None), delta(None)], NOW)
        .unwrap();
    let Next::Batch(batch) = path.log.next(PATIENCE) else {
        panic!("two deltas wait");
    };
    assert!(
        batch
            .iter()
            .map(|ordered| ordered.record.sequence)
            .eq([1, 2])
    );
    assert_eq!(batch[0].record.producer, batch[1].record.producer);
    assert_ne!(batch[0].record.id, batch[1].record.id);
}

/// A batch and how far it comes before the process dies, if it does.
#[derive(Debug, Clone)]
struct Round {
    keys: Vec<Option<u8>>,
    dies_after: Option<(usize, Index)>,
    fault: Option<(bool, Index)>,
}

fn round() -> impl Strategy<Value = Round> {
    (
        prop::collection::vec(prop::option::of(0_u8..20), 1..6),
        prop::option::weighted(0.3, (0_usize..5, any::<Index>())),
        prop::option::weighted(0.2, any::<(bool, Index)>()),
    )
        .prop_map(|(keys, dies_after, fault)| Round {
            keys,
            dies_after,
            fault,
        })
}

/// Walks up to `steps` of the five steps with everything that waits.
fn walk(path: &Path, pipeline: &mut Pipeline, steps: usize) {
    let Next::Batch(batch) = path.log.next(PATIENCE) else {
        panic!("something must wait");
    };
    let Some(committed) = (steps > 0).then(|| pipeline.commit(batch, NOW)).flatten() else {
        return;
    };
    let Some(flushed) = (steps > 1)
        .then(|| pipeline.flush(committed, NOW))
        .flatten()
    else {
        return;
    };
    if steps > 2 {
        pipeline.announce(&flushed);
    }
    if steps > 3 {
        pipeline.answer(&flushed);
    }
    if steps > 4 {
        pipeline.dispatch(flushed);
    }
}

async fn lives_through(rounds: Vec<Round>) -> Result<(), TestCaseError> {
    let store = memory();
    let (mut path, mut pipeline) = Path::on(store.clone());
    let mut promised: HashMap<u64, Arc<str>> = HashMap::new();
    for round in rounds {
        let keys = round.keys.iter().map(|key| key.map(|key| key.to_string()));
        let deltas = keys.map(|key| delta(key.as_deref())).collect();
        let pending = path.publisher.submit(deltas, NOW).unwrap();
        match round.fault {
            Some((true, _)) => store.inject(Fault::Commit),
            Some((false, survive)) => {
                let survive = survive.index(store.unflushed() + 2);
                store.inject(Fault::Flush { survive });
            }
            None => {}
        }
        let steps = round.dies_after.map_or(5, |(steps, _)| steps);
        walk(&path, &mut pipeline, steps);
        if let Some((_, survive)) = round.dies_after {
            store.crash(survive.index(store.unflushed() + 1));
            path.publisher.answers().give_up();
        } else {
            pipeline.tend(NOW);
        }
        for published in pending.wait(PATIENCE).await.into_iter().flatten() {
            promised.insert(published.offset, published.id);
        }
        let mut dispatched = Vec::new();
        for event in path.recorder.take() {
            if let Event::Dispatched(offsets) = event {
                dispatched.extend(offsets);
            }
        }
        if round.dies_after.is_some() {
            (path, pipeline) = Path::on(store.clone());
        }
        let stored = path.stored();
        for (offset, id) in &promised {
            prop_assert_eq!(
                stored.get(offset),
                Some(id),
                "delta {} was promised",
                offset
            );
        }
        for offset in dispatched {
            prop_assert!(stored.contains_key(&offset), "delta {} was shown", offset);
        }
        let keyed = || stored.values().filter(|id| id.len() <= 2);
        prop_assert_eq!(
            keyed().collect::<HashSet<_>>().len(),
            keyed().count(),
            "a key twice"
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_was_promised_or_shown_outlives_any_crash(
        rounds in prop::collection::vec(round(), 1..30)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(lives_through(rounds))?;
    }
}
