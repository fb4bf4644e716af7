//! One generation of one partition as a log.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::mpsc,
    task::AbortHandle,
    time::{Instant, timeout},
};

use super::{
    Generation, Settings,
    connection::{Connector, Link},
    publisher::{Publisher, Target},
    reader::{Event, PREFETCH, Reader, Start},
    status::{Figures, Status},
    topology::Topology,
};
use crate::log::{
    self, MAX_BATCH_BYTES, MAX_BATCH_RECORDS, Next, NotTaken, OrderedLog, Record,
    publisher::Source, record::Entry,
};

/// How long a closed log waits for what it took to come back.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks at whether all of a closed log has come back.
const CLOSE_LOOK: Duration = Duration::from_millis(20);

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// In the order of the log; never empty.
    Events(Vec<Event>),
    /// Nothing came while the reader waited.
    Idle,
    /// The log was closed and everything that it had taken was read, or there was no hope of it; or
    /// the last event was read.
    Closed,
}

/// A generation of a partition: takes records and hands back what all instances have published.
///
/// It ends when the generation is replaced. What was published and has not come back by then never
/// counts.
pub struct AmqpLog {
    generation: Generation,
    runtime: Handle,
    publisher: Publisher,
    status: Arc<Status>,
    events: Mutex<mpsc::Receiver<Event>>,
    closing: OnceLock<Closing>,
    /// Whether the reader was told of the end.
    ended: AtomicBool,
    tasks: [AbortHandle; 2],
}

struct Closing {
    /// The heartbeat behind everything that was taken.
    last_beat: u64,
    deadline: Instant,
}

impl AmqpLog {
    pub(super) fn open(
        runtime: &Handle,
        connector: &Arc<Connector>,
        topology: &Arc<Topology>,
        settings: &Settings,
        partition: u16,
        generation: Generation,
        start: Start,
    ) -> Self {
        let status = Arc::new(Status::default());
        let publisher = Publisher::new(settings.queue, status.clone());
        let (sender, events) = mpsc::channel(PREFETCH.into());
        let link = |what: &str| {
            let name = format!("{} {what} {partition}", settings.prefix);
            Link::new(connector.clone(), name)
        };
        let reader = Reader {
            topology: topology.clone(),
            partition,
            generation: generation.clone(),
            start,
            publisher: publisher.clone(),
            events: sender,
            status: status.clone(),
            beats: settings.heartbeat_interval,
        };
        let reading = runtime.spawn(reader.run(link("reader")));
        let target = Target {
            exchange: topology.exchange(),
            stream: topology.stream(partition, &generation),
            beats: settings.heartbeat_interval,
        };
        let publishing = runtime.spawn(publisher.clone().run(link("publisher"), target));
        Self {
            generation,
            runtime: runtime.clone(),
            publisher,
            status,
            events: Mutex::new(events),
            closing: OnceLock::new(),
            ended: AtomicBool::new(false),
            tasks: [reading.abort_handle(), publishing.abort_handle()],
        }
    }

    /// The epoch of the positions.
    pub fn generation(&self) -> &Generation {
        &self.generation
    }

    /// Publishes other entries than this instance's own deltas.
    pub fn append(&self, entries: Vec<Entry>) -> Result<(), NotTaken> {
        self.publisher.publish(entries)
    }

    /// Has a heartbeat published soon; gives its number.
    pub fn ask_beat(&self) -> u64 {
        self.publisher.ask_beat()
    }

    /// The position of the last heartbeat that was read back, if it is `beat` or a later one.
    pub fn beat_place(&self, beat: u64) -> Option<u64> {
        self.publisher.beat_place(beat)
    }

    /// Which heartbeats are this instance's.
    pub fn producer(&self) -> u128 {
        self.publisher.producer()
    }

    /// Blocks until there is something to read, at most for `wait`. There is one reader.
    pub fn read(&self, wait: Duration) -> Read {
        // Others' heartbeats go on after a close.
        if self.ended.load(Ordering::Relaxed) {
            return Read::Closed;
        }
        // The reader is alone; the lock only says so.
        let mut incoming = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = match self.closing.get() {
            Some(_) => wait.min(CLOSE_LOOK),
            None => wait,
        };
        let received = self
            .runtime
            .block_on(async { timeout(wait, incoming.recv()).await });
        let ended = match received {
            Ok(None) => true,
            Ok(Some(first)) => return Read::Events(batch(first, &mut incoming)),
            Err(_) => self.is_over(),
        };
        self.ended.store(ended, Ordering::Relaxed);
        match ended {
            true => Read::Closed,
            false => Read::Idle,
        }
    }

    /// Whether the broker has confirmed the delta and it is bound to be read.
    pub fn has_confirmed(&self, source: Source) -> bool {
        // A broker confirms, too, what it loses with a stream that is deleted.
        self.status.figures().reading && self.publisher.has_confirmed(source)
    }

    /// The partition's figures; the lag in time is [`Self::lag`].
    pub fn figures(&self) -> Figures {
        let waiting = match self.events.try_lock() {
            Ok(events) => events.len(),
            // Somebody waits in there, because there is nothing.
            Err(_) => 0,
        };
        Figures {
            waiting,
            ..self.status.figures()
        }
    }

    /// How far this instance is behind: for how long a heartbeat of its own has not come back, or,
    /// while it does not read at all, for how long nothing has come.
    pub fn lag(&self) -> Duration {
        let beat = self.publisher.oldest_beat().unwrap_or_default();
        match self.status.figures().reading {
            true => beat,
            false => beat.max(self.status.silence()),
        }
    }

    /// Whether everything that a closed log took has come back, or won't.
    fn is_over(&self) -> bool {
        let Some(closing) = self.closing.get() else {
            return false;
        };
        let back = self.publisher.is_drained() && self.publisher.is_back(closing.last_beat);
        back || Instant::now() > closing.deadline
    }
}

impl OrderedLog for AmqpLog {
    fn publish(&self, records: Vec<Record>) -> Result<(), NotTaken> {
        self.publisher.publish_records(records)
    }

    fn next(&self, wait: Duration) -> Next {
        let events = match self.read(wait) {
            Read::Events(events) => events,
            Read::Idle => return Next::Idle,
            Read::Closed => return Next::Closed,
        };
        let events: Vec<_> = events.into_iter().filter_map(known).collect();
        match events.is_empty() {
            true => Next::Closed,
            false => Next::Batch(events),
        }
    }

    fn close(&self) {
        self.publisher.close();
        // Without the reader's lock: it may be waiting for something to read.
        self.closing.get_or_init(|| Closing {
            last_beat: self.publisher.beat(),
            deadline: Instant::now() + CLOSE_PATIENCE,
        });
    }
}

/// None for the end of what this build can read.
/// `first` and what waits behind it, as far as it fits.
fn batch(first: Event, incoming: &mut mpsc::Receiver<Event>) -> Vec<Event> {
    let mut bytes = weight(&first);
    let mut events = vec![first];
    while events.len() < MAX_BATCH_RECORDS && bytes < MAX_BATCH_BYTES {
        let Ok(next) = incoming.try_recv() else { break };
        bytes += weight(&next);
        events.push(next);
    }
    events
}

fn weight(event: &Event) -> usize {
    match event {
        Event::Entry {
            entry: Entry::Delta { record, .. },
            ..
        } => record.weight(),
        _ => 0,
    }
}

fn known(event: Event) -> Option<log::Event> {
    match event {
        Event::Entry { position, entry } => Some(log::Event::Entry { position, entry }),
        Event::Floor(floor) => Some(log::Event::Floor(floor)),
        Event::Replaced(generation) => Some(log::Event::Replaced(generation)),
        Event::TooNew(error) => {
            tracing::error!(%error, "a later roomwire wrote into the log, and this one must not guess");
            None
        }
    }
}

impl Drop for AmqpLog {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}
