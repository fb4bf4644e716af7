//! The log of one process: a bounded queue that numbers what it takes.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{Next, NotTaken, Ordered, OrderedLog, Record};

/// What one batch may hold: enough to share an fsync well, little enough to be applied in
/// milliseconds.
const MAX_BATCH_RECORDS: usize = 1_024;
const MAX_BATCH_BYTES: usize = 4 << 20;

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
    queue: VecDeque<Ordered>,
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
        let bytes: usize = records.iter().map(weight).sum();
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
            let offset = state.next_offset;
            state.next_offset += 1;
            state.queue.push_back(Ordered { offset, record });
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
    fn take_batch(&mut self) -> Vec<Ordered> {
        let mut bytes = 0;
        let mut count = 0;
        for ordered in self.queue.iter().take(MAX_BATCH_RECORDS) {
            let weight = weight(&ordered.record);
            if count > 0 && bytes + weight > MAX_BATCH_BYTES {
                break;
            }
            bytes += weight;
            count += 1;
        }
        self.bytes -= bytes;
        self.queue.drain(..count).collect()
    }
}

fn weight(record: &Record) -> usize {
    record.body.len() + record.info.len() + record.id.len() + record.room.as_str().len()
}
