//! A log that is kept elsewhere: what the pipeline loses it reads again, and it passes over nothing.

use roomwire::{
    delta::Epoch,
    log::{
        Event, KeptLog, LogStatus, Place, Record,
        publisher::Source,
        record::{Entry, Heartbeat},
    },
    rooms::identity::LogIdentity,
};

use crate::*;

/// All that was ever published, of one life after another.
#[derive(Default)]
pub struct Kept(Mutex<Contents>);

#[derive(Default)]
struct Contents {
    events: Vec<Event>,
    next: usize,
    lives: Vec<Epoch>,
    confirms: bool,
    split: bool,
}

impl Kept {
    fn push(&self, event: impl FnOnce(u64) -> Event) {
        let mut contents = self.0.lock().unwrap();
        let position = contents.events.len() as u64 + 1;
        contents.events.push(event(position));
    }

    pub fn heartbeat(&self, producer: u128, stamped: u64) {
        self.push(|position| Event::Entry {
            position,
            entry: Entry::Heartbeat(Heartbeat {
                producer,
                beat: position,
                stamped,
            }),
        });
    }
}

impl OrderedLog for Kept {
    fn publish(&self, records: Vec<Record>) -> Result<(), NotTaken> {
        let tenure = None;
        for record in records {
            self.push(|position| Event::Entry {
                position,
                entry: Entry::Delta { record, tenure },
            });
        }
        Ok(())
    }

    fn next(&self, _: Duration) -> Next {
        let mut contents = self.0.lock().unwrap();
        let batch = contents.events[contents.next..].to_vec();
        contents.next = contents.events.len();
        match batch.is_empty() {
            true => Next::Idle,
            false => Next::Batch(batch),
        }
    }

    fn close(&self) {}

    fn kept(&self) -> Option<&dyn KeptLog> {
        Some(self)
    }
}

impl KeptLog for Kept {
    fn resume(&self, epoch: &Epoch, place: Option<Place>) {
        let mut contents = self.0.lock().unwrap();
        if contents.lives.last() != Some(epoch) {
            contents.events.clear();
        }
        contents.lives.push(epoch.clone());
        contents.next = place.map_or(0, |place| place.position as usize);
    }

    fn append(&self, entries: Vec<Entry>) -> Result<(), NotTaken> {
        for entry in entries {
            self.push(|position| Event::Entry { position, entry });
        }
        Ok(())
    }

    fn has_confirmed(&self, _: Source) -> bool {
        self.0.lock().unwrap().confirms
    }

    fn is_own(&self, heartbeat: &Heartbeat) -> bool {
        heartbeat.producer == 0
    }

    fn ask_beat(&self) -> u64 {
        1
    }

    fn beat_place(&self, _: u64) -> Option<u64> {
        None
    }

    fn is_closed(&self) -> bool {
        false
    }

    fn status(&self) -> LogStatus {
        LogStatus {
            end: 1,
            heartbeat: Duration::from_secs(5),
            split: self.0.lock().unwrap().split,
            ..LogStatus::default()
        }
    }
}

pub struct Shared {
    pub log: Arc<Kept>,
    pub publisher: Publisher,
    pub history: History,
    recorder: Recorder,
    pub pipeline: Pipeline,
}

impl Shared {
    pub fn on(store: Arc<MemoryStore>) -> Self {
        let settings = HistorySettings {
            idempotency_window_ms: 300_000,
        };
        let identity = LogIdentity::Shared {
            name: "test".into(),
            epochs: vec!["first".into()],
        };
        let mut writers = HistoryWriter::open_partitions(store, settings, &identity).unwrap();
        let writer = writers.remove(0);
        let log = Arc::new(Kept::default());
        log.resume(&writer.epoch(), writer.place());
        let publisher = Publisher::new(log.clone(), Duration::ZERO);
        let recorder = Recorder::default();
        Self {
            log: log.clone(),
            publisher: publisher.clone(),
            history: writer.history(),
            recorder: recorder.clone(),
            pipeline: Pipeline::new(Parts {
                log,
                writer,
                rules: Arc::new(|_| Retention {
                    size: 10_000,
                    ttl_ms: u64::MAX,
                    bytes: u64::MAX,
                }),
                answers: publisher.answers(),
                dispatch: Box::new(recorder),
                reserve_bytes: 1,
            }),
        }
    }

    /// What the pipeline's thread does when it wakes.
    pub fn wake(&mut self, now: u64) {
        if self.pipeline.holds_back(now) {
            return;
        }
        if let Next::Batch(batch) = self.log.next(Duration::ZERO) {
            self.pipeline.take(batch, now);
        }
        self.pipeline.tend(now);
    }

    async fn publish(&mut self, now: u64) -> Result<Published, PublishError> {
        let pending = self.publisher.submit(vec![delta(None)], now)?;
        self.wake(now);
        pending.wait(Duration::ZERO).await.remove(0)
    }

    pub fn stored(&self) -> Vec<u64> {
        let page = self.history.page(&room(), 0, u64::MAX, ALL).unwrap();
        page.deltas.iter().map(|delta| delta.offset).collect()
    }
}

#[tokio::test]
async fn what_can_be_read_again_is_shown_before_it_is_flushed_and_flushed_in_time() {
    let store = memory();
    let mut shared = Shared::on(store.clone());
    shared.publish(NOW).await.unwrap();
    assert_eq!((shared.stored(), store.unflushed()), (vec![1], 1));
    shared.wake(NOW + 999);
    assert_eq!(store.unflushed(), 1);
    shared.wake(NOW + 1_000);
    assert_eq!(store.unflushed(), 0);
}

#[tokio::test]
async fn what_a_failed_write_took_is_read_again_and_publishing_goes_on() {
    let store = memory();
    let mut shared = Shared::on(store.clone());
    shared.publish(NOW).await.unwrap();
    shared.wake(NOW + 1_000);
    shared.publish(NOW + 1_001).await.unwrap();
    store.inject(Fault::Flush { survive: 0 });
    let now = NOW + 2_001;
    shared.wake(now);
    assert!(shared.history.head(&room()).is_err(), "it is closed");
    shared.wake(now);
    assert_eq!(shared.stored(), [1, 2]);
    store.inject(Fault::Commit);
    let failed = shared.publish(now).await;
    assert_eq!(failed, Err(PublishError::OutcomeUnknown));
    shared.wake(now);
    assert_eq!(shared.publish(now).await.unwrap().offset, 4);
    assert_eq!(shared.stored(), [1, 2, 3, 4]);
    let heard = shared.recorder.take();
    assert!(!heard.contains(&Heard::Reset), "rooms drop what they have");
}

#[tokio::test]
async fn a_full_disk_leaves_the_log_alone_and_loses_nothing() {
    let store = memory();
    let mut shared = Shared::on(store.clone());
    let pending = shared.publisher.submit(vec![delta(None)], NOW).unwrap();
    drop(pending);
    store.set_full(true);
    shared.wake(NOW);
    assert_eq!(shared.publish(NOW).await, Err(PublishError::NoSpace));
    assert!(shared.stored().is_empty());
    store.set_full(false);
    shared.wake(NOW);
    assert_eq!(shared.stored(), [1]);
    assert!(shared.publish(NOW).await.is_ok());
}

#[tokio::test]
async fn another_life_begins_with_empty_rooms_and_another_producer() {
    for fault in [None, Some(Fault::Commit)] {
        let store = memory();
        let mut shared = Shared::on(store.clone());
        shared.publish(NOW).await.unwrap();
        shared.publish(NOW).await.unwrap();
        shared.log.push(|_| Event::Replaced("second".into()));
        if let Some(fault) = fault {
            store.inject(fault);
        }
        shared.wake(NOW);
        shared.wake(NOW);
        assert_eq!(&*shared.history.epoch(&room()), "second");
        assert!(shared.stored().is_empty());
        assert!(shared.recorder.take().contains(&Heard::Reset));
        let published = shared.publish(NOW).await.unwrap();
        assert_eq!((published.offset, &*published.epoch), (1, "second"));
        assert_eq!(shared.stored(), [1]);
    }
}

#[tokio::test]
async fn a_gap_in_the_log_sends_the_rooms_to_replay() {
    let mut shared = Shared::on(memory());
    shared.publish(NOW).await.unwrap();
    shared.recorder.take();
    shared.log.push(|_| Event::Floor(2));
    shared.publish(NOW).await.unwrap();
    assert_eq!(shared.recorder.take(), [Heard::Reset]);
    let page = shared.history.page(&room(), 1, u64::MAX, ALL).unwrap();
    assert_eq!((page.floor, shared.stored()), (2, vec![3]));
}

#[tokio::test]
async fn a_delta_that_is_confirmed_and_not_read_back_is_safe_and_has_no_place() {
    let shared = Shared::on(memory());
    for confirms in [false, true] {
        shared.log.0.lock().unwrap().confirms = confirms;
        let keyed = vec![delta(Some("k"))];
        let pending = shared.publisher.submit(keyed, NOW).unwrap();
        let answer = pending.wait(Duration::ZERO).await.remove(0);
        let expected = match confirms {
            false => PublishError::OutcomeUnknown,
            true => PublishError::Unplaced { id: "k".into() },
        };
        assert_eq!(answer, Err(expected));
    }
}

#[tokio::test]
async fn a_server_whose_clock_is_ahead_of_the_others_publishes_nothing_and_says_why() {
    let mut shared = Shared::on(memory());
    shared.publish(NOW).await.unwrap();
    shared.log.heartbeat(0, NOW - 60_000);
    shared.wake(NOW);
    assert!(
        shared.publish(NOW).await.is_ok(),
        "its own heartbeats say nothing"
    );
    shared.log.heartbeat(7, NOW - 11_000);
    shared.wake(NOW);
    shared.wake(NOW);
    let by = Duration::from_secs(11);
    let why = Refusal::ClockAhead { by };
    assert_eq!(
        shared.publish(NOW).await,
        Err(PublishError::NotTaken { why })
    );
    shared.log.heartbeat(8, NOW - 1_000);
    shared.wake(NOW);
    shared.wake(NOW);
    assert!(shared.publish(NOW).await.is_ok());
}

#[tokio::test]
async fn a_producer_that_pauses_for_long_goes_on_as_another() {
    let mut shared = Shared::on(memory());
    let first = shared.publish(NOW).await.unwrap();
    shared.log.heartbeat(7, NOW + 7_200_000);
    let second = shared.publish(NOW + 7_200_000).await.unwrap();
    assert!(second.offset > first.offset);
    assert_eq!(shared.stored(), [first.offset, second.offset]);
}

#[tokio::test]
async fn a_heartbeat_of_a_clock_that_is_ahead_makes_nobody_forget_keys() {
    let mut shared = Shared::on(memory());
    let publish = |shared: &mut Shared, now| {
        let keyed = vec![delta(Some("k"))];
        let pending = shared.publisher.submit(keyed, now).unwrap();
        shared.wake(now);
        pending.wait(Duration::ZERO)
    };
    let first = publish(&mut shared, NOW).await.remove(0).unwrap();
    shared.log.heartbeat(7, NOW + 3_600_000);
    shared.wake(NOW);
    let again = publish(&mut shared, NOW + 1).await.remove(0).unwrap();
    assert_eq!((again.offset, again.repeated), (first.offset, true));
}

#[tokio::test]
async fn a_newcomer_whose_clock_is_ahead_of_the_log_listens_before_it_publishes() {
    for other_is_here in [false, true] {
        let mut shared = Shared::on(memory());
        shared.log.heartbeat(7, NOW - 60_000);
        shared.wake(NOW);
        shared.wake(NOW);
        let by = Duration::from_secs(60);
        let why = Refusal::ClockUnproven { by };
        let refused = Err(PublishError::NotTaken { why });
        assert_eq!(shared.publish(NOW).await, refused);
        if other_is_here {
            shared.log.heartbeat(7, NOW - 60_000 + 10_000);
            shared.wake(NOW + 10_000);
        }
        let later = NOW + 15_000;
        shared.wake(later);
        let why = Refusal::ClockAhead { by };
        let expected = match other_is_here {
            true => Err(PublishError::NotTaken { why }),
            false => Ok(()),
        };
        assert_eq!(shared.publish(later).await.map(drop), expected);
    }
}

#[tokio::test]
async fn a_log_that_might_be_another_than_others_go_by_is_read_and_not_published_to() {
    let mut shared = Shared::on(memory());
    shared.log.0.lock().unwrap().split = true;
    shared.wake(NOW);
    let why = Refusal::Split;
    let refused = Err(PublishError::NotTaken { why });
    assert_eq!(shared.publish(NOW).await, refused);
    shared.log.heartbeat(7, NOW);
    shared.wake(NOW);
    assert_eq!(*shared.pipeline.watch().durable.borrow(), 1);
    shared.log.0.lock().unwrap().split = false;
    shared.wake(NOW);
    assert!(shared.publish(NOW).await.is_ok());
}
