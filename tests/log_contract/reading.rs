//! A publisher and a reader as the contract knows them.

use std::{
    collections::HashMap,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use roomwire::{
    delta::RoomName,
    log::{Event, Next, NotTaken, OrderedLog, Place, Record},
};

/// Longer than anything takes on a busy machine.
pub const LONG: Duration = Duration::from_secs(60);

/// What a reader waits at a time.
const WAIT: Duration = Duration::from_millis(50);

pub fn record(producer: u128, sequence: u64) -> Record {
    Record {
        room: RoomName::new("chat:1").unwrap(),
        body: Bytes::from(format!("{{\"n\":{sequence}}}")),
        id: format!("{producer}-{sequence}").into(),
        keyed: sequence.is_multiple_of(2),
        stamped: 1_000_000 + sequence,
        info: Bytes::from_static(b"{}"),
        exclude: Some(uuid::Uuid::from_u128(sequence.into())),
        erases: None,
        producer,
        sequence,
    }
}

pub fn records(producer: u128, sequences: impl IntoIterator<Item = u64>) -> Vec<Record> {
    let record = |sequence| record(producer, sequence);
    sequences.into_iter().map(record).collect()
}

/// Publishes what must be taken, as soon as the log is ready and has room.
pub fn publish(log: &dyn OrderedLog, records: &[Record]) {
    let deadline = Instant::now() + LONG;
    while let Err(error) = log.publish(records.to_vec()) {
        assert_ne!(error, NotTaken::Closed);
        assert!(Instant::now() < deadline, "never ready");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Takes what comes, as every reader does: of one producer only the number that follows counts.
#[derive(Default)]
pub struct Reader {
    pub read: Vec<Record>,
    /// Where the last entry stands.
    pub place: Option<Place>,
    last_of: HashMap<u128, u64>,
}

impl Reader {
    /// One that has read before.
    pub fn behind(earlier: &Self) -> Self {
        Self {
            read: Vec::new(),
            place: earlier.place,
            last_of: earlier.last_of.clone(),
        }
    }

    pub fn until_count(&mut self, log: &dyn OrderedLog, count: usize) -> &[Record] {
        let deadline = Instant::now() + LONG;
        while self.read.len() < count {
            match log.next(WAIT) {
                Next::Batch(batch) => self.take(batch),
                Next::Idle => {}
                Next::Closed => panic!("closed after {} deltas", self.read.len()),
            }
            assert!(Instant::now() < deadline, "{} deltas came", self.read.len());
        }
        &self.read
    }

    pub fn until_closed(&mut self, log: &dyn OrderedLog) -> &[Record] {
        let deadline = Instant::now() + LONG;
        loop {
            match log.next(WAIT) {
                Next::Batch(batch) => self.take(batch),
                Next::Idle => assert!(Instant::now() < deadline, "never closed"),
                Next::Closed => return &self.read,
            }
        }
    }

    pub fn take(&mut self, batch: Vec<Event>) {
        assert!(!batch.is_empty(), "a batch of nothing");
        for event in batch {
            let (position, entry) = match event {
                Event::Entry { position, entry } => (position, entry),
                Event::Floor(floor) => {
                    let here = self.place.map_or(0, |place| place.position);
                    assert!(
                        here == 0 && floor == 0,
                        "a floor at {floor} where nothing was lost"
                    );
                    continue;
                }
                Event::Replaced(epoch) => panic!("replaced by {epoch}"),
            };
            let last = self.place.map_or(0, |place| place.position);
            assert!(position > last, "{position} after {last}");
            let identity = entry.identity();
            self.place = Some(Place { position, identity });
            let event = Event::Entry { position, entry };
            if let Some((_, record)) = event.delta() {
                let last = self.last_of.entry(record.producer).or_insert(0);
                if record.sequence == *last + 1 {
                    *last += 1;
                    self.read.push(record.clone());
                }
            }
        }
    }
}
