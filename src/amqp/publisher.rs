//! Appends records to the stream of one partition, in order, until each is confirmed.
//!
//! A channel carries this one stream only, confirms on: older brokers that lose the stream's leader
//! lose or double publishes of a channel that has carried anything else. Whatever casts doubt on a
//! publish (a nack, a return, a confirm that does not come, a lost connection) ends the channel,
//! and everything from the first unconfirmed record on goes again on a new one; readers drop what
//! they have by producer and sequence.

mod task;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Notify, time::Instant};
use uuid::Uuid;

pub use self::task::Target;
use super::status::{Publishing, Status};
use crate::log::{
    NotTaken, Record,
    embedded::QueueBounds,
    publisher::{Source, wall_clock_ms},
    record::{Entry, Heartbeat},
};

/// Tells our records from whatever else somebody may put into a stream.
pub const CONTENT_TYPE: &str = "application/vnd.roomwire.record";

/// Records on their way to the broker. Enough to be limited by its speed and not by the distance.
const MAX_IN_FLIGHT: usize = 2_000;

/// How long records are taken though the broker takes none: a short loss should refuse nobody.
const GRACE: Duration = Duration::from_secs(1);

/// Confirmed deltas that are remembered for those who have waited for them in vain.
const CONFIRMED_KEPT: usize = 16_384;

/// Heartbeats that may be awaited; the age of the oldest is what is looked at.
const MAX_BEATS_AWAITED: usize = 64;

/// Hands records to the task that publishes them. Cheap to clone.
#[derive(Clone)]
pub struct Publisher(Arc<Shared>);

struct Shared {
    bounds: QueueBounds,
    producer: u128,
    status: Arc<Status>,
    state: Mutex<State>,
    /// There is something to send, or room on the way.
    wake: Notify,
    /// The stream seems to be gone.
    suspect: Notify,
}

struct State {
    window: Window,
    bytes: usize,
    /// The deltas that were confirmed last, the latest at the end.
    confirmed: VecDeque<Source>,
    closed: bool,
    last_beat: u64,
    /// Whether somebody waits for a heartbeat that was not made yet.
    beat_is_asked: bool,
    /// The last heartbeat that was read back, and its position.
    returned: (u64, u64),
    /// Heartbeats that were not read back, and when each was made.
    awaited: VecDeque<(u64, Instant)>,
    /// Since when the broker takes nothing.
    unavailable: Option<Instant>,
    /// When the last confirm came, or, if none is owed, the last record was sent.
    progress: Instant,
}

type Window = super::window::Window<Item>;

#[derive(Debug, Clone)]
struct Item {
    bytes: Bytes,
    is_beat: bool,
    /// Of a delta.
    source: Option<Source>,
}

impl Publisher {
    pub fn new(bounds: QueueBounds, status: Arc<Status>) -> Self {
        let now = Instant::now();
        Self(Arc::new(Shared {
            bounds,
            producer: Uuid::new_v4().as_u128(),
            status,
            state: Mutex::new(State {
                window: Window::new(MAX_IN_FLIGHT),
                bytes: 0,
                confirmed: VecDeque::new(),
                closed: false,
                last_beat: 0,
                beat_is_asked: false,
                returned: (0, 0),
                awaited: VecDeque::new(),
                unavailable: Some(now),
                progress: now,
            }),
            wake: Notify::new(),
            suspect: Notify::new(),
        }))
    }

    /// Takes all of `entries` or none. What is taken reaches the stream in this order, perhaps more
    /// than once, as long as the process lives.
    pub fn publish(&self, entries: impl IntoIterator<Item = Entry>) -> Result<(), NotTaken> {
        let item = |entry: Entry| Item {
            bytes: entry.encode().into(),
            is_beat: false,
            source: source(&entry),
        };
        let items: Vec<Item> = entries.into_iter().map(item).collect();
        let bytes: usize = items.iter().map(|item| item.bytes.len()).sum();
        let bounds = self.0.bounds;
        let mut state = self.0.lock();
        if state.closed {
            return Err(NotTaken::Closed);
        }
        if state
            .unavailable
            .is_some_and(|since| since.elapsed() > GRACE)
        {
            return Err(NotTaken::Unavailable);
        }
        if state.window.len() + items.len() > bounds.records || state.bytes + bytes > bounds.bytes {
            return Err(NotTaken::Full);
        }
        items.into_iter().for_each(|item| state.push(item));
        drop(state);
        self.0.wake.notify_one();
        Ok(())
    }

    /// As [`Self::publish`], with the deltas of this instance's own publishers.
    pub fn publish_records(&self, records: Vec<Record>) -> Result<(), NotTaken> {
        let delta = |record| Entry::Delta {
            record,
            tenure: None,
        };
        self.publish(records.into_iter().map(delta))
    }

    /// Puts a heartbeat behind everything that was taken; gives its number, which is new.
    pub fn beat(&self) -> u64 {
        let mut state = self.0.lock();
        state.last_beat += 1;
        state.beat_is_asked = false;
        let beat = state.last_beat;
        let heartbeat = Entry::Heartbeat(Heartbeat {
            producer: self.0.producer,
            beat,
            stamped: wall_clock_ms(),
        });
        state.push(Item {
            bytes: heartbeat.encode().into(),
            is_beat: true,
            source: None,
        });
        if state.awaited.len() < MAX_BEATS_AWAITED {
            state.awaited.push_back((beat, Instant::now()));
        }
        drop(state);
        self.0.wake.notify_one();
        beat
    }

    /// Which heartbeats are from here.
    pub fn producer(&self) -> u128 {
        self.0.producer
    }

    /// Has a heartbeat made soon; gives its number. Those who ask meanwhile share it.
    pub fn ask_beat(&self) -> u64 {
        let mut state = self.0.lock();
        state.beat_is_asked = true;
        state.last_beat + 1
    }

    fn beat_is_asked(&self) -> bool {
        self.0.lock().beat_is_asked
    }

    /// The position of the last heartbeat that was read back, if it is `beat` or a later one.
    pub fn beat_place(&self, beat: u64) -> Option<u64> {
        let (returned, position) = self.0.lock().returned;
        (returned >= beat).then_some(position)
    }

    /// The heartbeats up to `beat` were read back, that one at `position`.
    pub fn returned(&self, beat: u64, position: u64) {
        let mut state = self.0.lock();
        state.returned = state.returned.max((beat, position));
        while state
            .awaited
            .front()
            .is_some_and(|(number, _)| *number <= beat)
        {
            state.awaited.pop_front();
        }
    }

    /// Whether the broker has confirmed the delta, which is known for a while.
    pub fn has_confirmed(&self, source: Source) -> bool {
        self.0.lock().confirmed.contains(&source)
    }

    /// Whether heartbeat `beat` was read back.
    pub fn is_back(&self, beat: u64) -> bool {
        self.0.lock().returned.0 >= beat
    }

    /// How long the oldest heartbeat has been on its way that was not read back: how far this
    /// instance is behind. None if all are back.
    pub fn oldest_beat(&self) -> Option<Duration> {
        let state = self.0.lock();
        state.awaited.front().map(|(_, made)| made.elapsed())
    }

    /// Takes nothing from here on; what was taken still goes.
    pub fn close(&self) {
        self.0.lock().closed = true;
    }

    /// Whether everything that was taken is confirmed.
    pub fn is_drained(&self) -> bool {
        self.0.lock().window.is_empty()
    }

    /// Completes when the stream seems to be gone.
    pub async fn suspects(&self) {
        self.0.suspect.notified().await;
    }

    fn confirmed(&self, took: Duration) {
        let mut state = self.0.lock();
        let had_no_room = state.window.sent() == MAX_IN_FLIGHT;
        if let Some(item) = state.window.confirm() {
            state.bytes -= item.bytes.len();
            state.confirmed.extend(item.source);
            while state.confirmed.len() > CONFIRMED_KEPT {
                state.confirmed.pop_front();
            }
        }
        state.progress = Instant::now();
        drop(state);
        self.0.status.update(|figures| {
            figures.confirmed += 1;
            figures.confirm_time += took;
        });
        if had_no_room {
            self.0.wake.notify_one();
        }
    }

    fn set_down(&self) {
        self.0.status.update(|figures| {
            figures.publishing = Publishing::Down;
            figures.lost += 1;
        });
        let mut state = self.0.lock();
        state.unavailable.get_or_insert_with(Instant::now);
    }

    fn set_blocked(&self, blocked: bool) {
        self.0.status.update(|figures| {
            figures.publishing = match blocked {
                true => Publishing::Blocked,
                false => Publishing::Ready,
            }
        });
        let mut state = self.0.lock();
        if blocked {
            state.unavailable.get_or_insert_with(Instant::now);
            // Nobody owes a confirm for what can't be written.
            state.progress = Instant::now();
        } else {
            state.unavailable = None;
        }
    }

    /// Whether confirms are owed and none has come for so long.
    fn lacks_confirms(&self, patience: Duration) -> bool {
        let state = self.0.lock();
        state.window.sent() > 0 && state.progress.elapsed() > patience
    }

    /// Whether a heartbeat has yet to be sent: one is enough for a broker that takes nothing.
    fn beat_waits(&self) -> bool {
        self.0.lock().window.waiting().any(|item| item.is_beat)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can panic halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn source(entry: &Entry) -> Option<Source> {
    match entry {
        Entry::Delta { record, .. } => Some(Source {
            producer: record.producer,
            sequence: record.sequence,
        }),
        _ => None,
    }
}

impl State {
    fn push(&mut self, item: Item) {
        self.bytes += item.bytes.len();
        self.window.push(item);
    }

    fn send(&mut self) -> Option<Item> {
        if self.window.sent() == 0 {
            self.progress = Instant::now();
        }
        self.window.send()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    fn publisher(records: usize, bytes: usize) -> Publisher {
        let bounds = QueueBounds { records, bytes };
        let publisher = Publisher::new(bounds, Arc::default());
        // As if the broker were there.
        publisher.0.lock().unavailable = None;
        publisher
    }

    fn entry(beat: u64) -> Entry {
        Entry::Heartbeat(Heartbeat {
            producer: 1,
            beat,
            stamped: 0,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn all_of_a_call_is_taken_or_none() {
        let publisher = publisher(3, 10_000);
        publisher.publish([entry(1), entry(2)]).unwrap();
        let refused = publisher.publish([entry(3), entry(4)]);
        assert_eq!(refused, Err(NotTaken::Full));
        assert_eq!(publisher.0.lock().window.len(), 2);
        publisher.publish([entry(3)]).unwrap();
        let bytes = entry(1).encode().len();
        let narrow = self::publisher(9, bytes);
        let refused = narrow.publish([entry(1), entry(2)]);
        assert_eq!(refused, Err(NotTaken::Full), "bytes count too");
        narrow.publish([entry(1)]).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_confirmed_record_makes_room() {
        let publisher = publisher(1, 10_000);
        publisher.publish([entry(1)]).unwrap();
        assert!(publisher.0.lock().send().is_some());
        publisher.confirmed(Duration::ZERO);
        assert!(publisher.is_drained());
        publisher.publish([entry(2)]).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_loss_refuses_nobody_and_a_long_one_everybody_at_once() {
        let publisher = publisher(9, 10_000);
        publisher.set_down();
        advance(GRACE).await;
        publisher.publish([entry(1)]).unwrap();
        advance(Duration::from_millis(1)).await;
        let refused = publisher.publish([entry(2)]);
        assert_eq!(refused, Err(NotTaken::Unavailable));
        publisher.set_blocked(false);
        publisher.publish([entry(2)]).unwrap();
        publisher.close();
        assert_eq!(publisher.publish([entry(3)]), Err(NotTaken::Closed));
        assert_eq!(publisher.0.lock().window.len(), 2, "what was taken goes");
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_that_is_not_back_tells_how_far_behind_the_reader_is() {
        let publisher = publisher(9, 10_000);
        assert_eq!(publisher.oldest_beat(), None);
        let first = publisher.beat();
        advance(Duration::from_secs(2)).await;
        let second = publisher.beat();
        advance(Duration::from_secs(1)).await;
        assert_eq!(publisher.oldest_beat(), Some(Duration::from_secs(3)));
        publisher.returned(first, 7);
        assert_eq!(publisher.beat_place(first), Some(7));
        assert_eq!(publisher.beat_place(second), None);
        assert_eq!(publisher.oldest_beat(), Some(Duration::from_secs(1)));
        assert!(publisher.is_back(first) && !publisher.is_back(second));
        publisher.returned(second, 9);
        assert_eq!(publisher.oldest_beat(), None);
    }
}
