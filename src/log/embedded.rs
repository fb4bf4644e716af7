//! The log of one process: a bounded queue that numbers what it takes.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    Event, MAX_BATCH_BYTES, MAX_BATCH_RECORDS, Next, NotTaken, OrderedLog, Record, record::Entry,
};

/// How much may wait to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueBounds {
    pub records: usize,
    /// Of bodies, infos, ids and room names.
    pub bytes: usize,
}

/// [`OrderedLog`] as a queue in memory. What is in it when the process dies was never applied, so
/// nobody was told that it is safe, and its numbers are free again.
pub struct EmbeddedLog {
    bounds: QueueBounds,
    state: Mutex<State>,
    readable: Condvar,
}

struct State {
    /// With their positions.
    queue: VecDeque<(u64, Record)>,
    bytes: usize,
    next_offset: u64,
    closed: bool,
}

impl EmbeddedLog {
    /// Numbers records from `next_offset` on: the one behind the last applied.
    pub fn new(next_offset: u64, bounds: QueueBounds) -> Self {
        Self {
            bounds,
            state: Mutex::new(State {
                queue: VecDeque::new(),
                bytes: 0,
                next_offset,
                closed: false,
            }),
            readable: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can panic halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OrderedLog for EmbeddedLog {
    fn publish(&self, records: Vec<Record>) -> Result<(), NotTaken> {
        let bytes: usize = records.iter().map(Record::weight).sum();
        let mut state = self.lock();
        if state.closed {
            return Err(NotTaken::Closed);
        }
        let too_many = state.queue.len() + records.len() > self.bounds.records;
        if too_many || state.bytes + bytes > self.bounds.bytes {
            return Err(NotTaken::Full);
        }
        state.bytes += bytes;
        for record in records {
            let position = state.next_offset;
            state.next_offset += 1;
            state.queue.push_back((position, record));
        }
        drop(state);
        self.readable.notify_one();
        Ok(())
    }

    fn next(&self, wait: Duration) -> Next {
        let nothing = |state: &mut State| state.queue.is_empty() && !state.closed;
        let (mut state, _) = self
            .readable
            .wait_timeout_while(self.lock(), wait, nothing)
            .unwrap_or_else(PoisonError::into_inner);
        let batch = state.take_batch();
        match batch.is_empty() {
            false => Next::Batch(batch),
            true if state.closed => Next::Closed,
            true => Next::Idle,
        }
    }

    fn close(&self) {
        self.lock().closed = true;
        self.readable.notify_all();
    }
}

impl State {
    /// Everything that waits, as far as it fits one batch; a record that alone is too large is a
    /// batch of its own.
    fn take_batch(&mut self) -> Vec<Event> {
        let mut bytes = 0;
        let mut count = 0;
        for (_, record) in self.queue.iter().take(MAX_BATCH_RECORDS) {
            let weight = record.weight();
            if count > 0 && bytes + weight > MAX_BATCH_BYTES {
                break;
            }
            bytes += weight;
            count += 1;
        }
        self.bytes -= bytes;
        let taken = self.queue.drain(..count);
        taken
            .map(|(position, record)| delta(position, record))
            .collect()
    }
}

fn delta(position: u64, record: Record) -> Event {
    let entry = Entry::Delta {
        record,
        tenure: None,
    };
    Event::Entry { position, entry }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::RoomName;
    use bytes::Bytes;
    use std::{sync::Arc, thread};

    const LONG: Duration = Duration::from_secs(60);

    fn log(records: usize, bytes: usize) -> EmbeddedLog {
        EmbeddedLog::new(1, QueueBounds { records, bytes })
    }

    fn record(sequence: u64, body_bytes: usize) -> Record {
        Record {
            room: RoomName::new("a").unwrap(),
            body: Bytes::from(vec![b'0'; body_bytes]),
            id: "".into(),
            keyed: false,
            stamped: 0,
            info: Bytes::new(),
            exclude: None,
            erases: None,
            producer: 1,
            sequence,
        }
    }

    fn sequences(next: Next) -> Vec<(u64, u64)> {
        let Next::Batch(batch) = next else {
            panic!("expected a batch, got {next:?}");
        };
        batch
            .iter()
            .filter_map(Event::delta)
            .map(|(position, record)| (position, record.sequence))
            .collect()
    }

    #[test]
    fn everything_that_waits_is_one_batch_numbered_in_order() {
        let log = EmbeddedLog::new(
            41,
            QueueBounds {
                records: 9,
                bytes: 999,
            },
        );
        log.publish(vec![record(1, 1), record(2, 1)]).unwrap();
        log.publish(vec![record(3, 1)]).unwrap();
        assert_eq!(sequences(log.next(LONG)), [(41, 1), (42, 2), (43, 3)]);
        assert!(matches!(log.next(Duration::ZERO), Next::Idle));
    }

    #[test]
    fn a_full_queue_takes_all_of_a_call_or_nothing() {
        let log = log(3, 100);
        log.publish(vec![record(1, 1), record(2, 1)]).unwrap();
        assert_eq!(
            log.publish(vec![record(3, 1), record(4, 1)]),
            Err(NotTaken::Full)
        );
        assert_eq!(
            log.publish(vec![record(3, 98)]),
            Err(NotTaken::Full),
            "bytes count too"
        );
        log.publish(vec![record(3, 1)]).unwrap();
        assert_eq!(sequences(log.next(LONG)), [(1, 1), (2, 2), (3, 3)]);
        log.publish(vec![record(4, 99)]).unwrap();
        assert_eq!(
            sequences(log.next(LONG)),
            [(4, 4)],
            "what was read makes room"
        );
    }

    #[test]
    fn batches_are_bounded_in_records_and_in_bytes() {
        let log = log(9_999, usize::MAX);
        log.publish((1..=1_500).map(|n| record(n, 1)).collect())
            .unwrap();
        assert_eq!(sequences(log.next(LONG)).len(), MAX_BATCH_RECORDS);
        assert_eq!(sequences(log.next(LONG)).len(), 1_500 - MAX_BATCH_RECORDS);
        log.publish(vec![record(1, 1), record(2, MAX_BATCH_BYTES), record(3, 1)])
            .unwrap();
        for sequence in 1..=3 {
            assert_eq!(sequences(log.next(LONG)).len(), 1, "record {sequence}");
        }
    }

    #[test]
    fn a_closed_log_hands_out_what_it_took_and_then_ends() {
        let log = log(9, 99);
        log.publish(vec![record(1, 1)]).unwrap();
        log.close();
        assert_eq!(log.publish(vec![record(2, 1)]), Err(NotTaken::Closed));
        assert_eq!(sequences(log.next(LONG)), [(1, 1)]);
        assert!(matches!(log.next(LONG), Next::Closed));
    }

    #[test]
    fn a_sleeping_reader_is_woken_by_a_record_and_by_the_end() {
        let log = Arc::new(log(9, 99));
        let reader = {
            let log = log.clone();
            thread::spawn(move || (sequences(log.next(LONG)), log.next(LONG)))
        };
        log.publish(vec![record(1, 1)]).unwrap();
        log.close();
        let (batch, end) = reader.join().unwrap();
        assert_eq!(batch, [(1, 1)]);
        assert!(matches!(end, Next::Closed));
    }

    #[test]
    fn each_threads_records_keep_their_order_and_no_number_is_given_twice() {
        let log = Arc::new(log(9_999, usize::MAX));
        let writers: Vec<_> = (0..4)
            .map(|_| {
                let log = log.clone();
                thread::spawn(move || {
                    for n in 1..=500 {
                        log.publish(vec![record(n, 1)]).unwrap();
                    }
                })
            })
            .collect();
        writers
            .into_iter()
            .for_each(|writer| writer.join().unwrap());
        log.close();
        let mut offsets = Vec::new();
        let mut seen = vec![0; 501];
        while let Next::Batch(batch) = log.next(LONG) {
            for (position, record) in batch.iter().filter_map(Event::delta) {
                offsets.push(position);
                let sequence = record.sequence as usize;
                seen[sequence] += 1;
                assert!(
                    sequence == 1 || seen[sequence] <= seen[sequence - 1],
                    "overtaken"
                );
            }
        }
        assert!(offsets.iter().copied().eq(1..=2_000));
    }
}
