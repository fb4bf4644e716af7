//! A partition over all its generations, as the one log that a server reads.

use std::{
    sync::{Arc, PoisonError, RwLock},
    thread,
    time::Duration,
};

use super::{cluster::Cluster, partition::AmqpLog, reader::Start, status::Publishing};
use crate::{
    delta::Epoch,
    log::{
        Event, KeptLog, LogStatus, Next, NotTaken, OrderedLog, Place, Record,
        publisher::Source,
        record::{Entry, Heartbeat},
    },
};

/// [`OrderedLog`] on RabbitMQ. Between two generations, and before the first [`KeptLog::resume`],
/// it takes nothing and there is nothing to read.
pub struct SharedLog {
    cluster: Arc<Cluster>,
    partition: u16,
    /// How far back a reader begins that has nothing.
    look_back: Duration,
    state: RwLock<State>,
}

struct State {
    current: Option<Arc<AmqpLog>>,
    closed: bool,
    /// Connections that earlier ones have lost.
    lost_connections: u64,
}

impl SharedLog {
    pub fn new(cluster: Arc<Cluster>, partition: u16, look_back: Duration) -> Self {
        Self {
            cluster,
            partition,
            look_back,
            state: RwLock::new(State {
                current: None,
                closed: false,
                lost_connections: 0,
            }),
        }
    }

    fn current(&self) -> Option<Arc<AmqpLog>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.current.clone()
    }

    /// The current generation, which takes records.
    fn open(&self) -> Result<Arc<AmqpLog>, NotTaken> {
        match self.current() {
            Some(log) => Ok(log),
            None if self.is_closed() => Err(NotTaken::Closed),
            None => Err(NotTaken::Unavailable),
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn end_current(&mut self) {
        if let Some(log) = self.current.take() {
            self.lost_connections += log.figures().lost;
        }
    }
}

impl OrderedLog for SharedLog {
    fn publish(&self, records: Vec<Record>) -> Result<(), NotTaken> {
        self.open()?.publish(records)
    }

    fn next(&self, wait: Duration) -> Next {
        let Some(log) = self.current() else {
            if self.is_closed() {
                return Next::Closed;
            }
            thread::sleep(wait);
            return Next::Idle;
        };
        let next = log.next(wait);
        if let Next::Batch(batch) = &next
            && matches!(batch.last(), Some(Event::Replaced(_)))
        {
            self.change(State::end_current);
        }
        next
    }

    fn close(&self) {
        self.change(|state| {
            state.closed = true;
            if let Some(log) = &state.current {
                log.close();
            }
        });
    }

    fn kept(&self) -> Option<&dyn KeptLog> {
        Some(self)
    }
}

impl KeptLog for SharedLog {
    fn resume(&self, epoch: &Epoch, place: Option<Place>) {
        let start = match place {
            Some(place) => Start::Behind(place),
            None => Start::LookBack(self.look_back),
        };
        self.change(|state| {
            state.end_current();
            if !state.closed {
                let log = self.cluster.open(self.partition, epoch.clone(), start);
                state.current = Some(Arc::new(log));
            }
        });
    }

    fn append(&self, entries: Vec<Entry>) -> Result<(), NotTaken> {
        self.open()?.append(entries)
    }

    fn has_confirmed(&self, source: Source) -> bool {
        self.current().is_some_and(|log| log.has_confirmed(source))
    }

    fn is_own(&self, heartbeat: &Heartbeat) -> bool {
        let own = |log: Arc<AmqpLog>| log.producer() == heartbeat.producer;
        self.current().is_some_and(own)
    }

    fn ask_beat(&self) -> u64 {
        self.current().map_or(u64::MAX, |log| log.ask_beat())
    }

    fn beat_place(&self, beat: u64) -> Option<u64> {
        self.current()?.beat_place(beat)
    }

    fn is_closed(&self) -> bool {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.closed
    }

    fn status(&self) -> LogStatus {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let Some(log) = &state.current else {
            return LogStatus {
                lost_connections: state.lost_connections,
                heartbeat: self.cluster.heartbeat(),
                ..LogStatus::default()
            };
        };
        let figures = log.figures();
        LogStatus {
            connected: figures.reading && figures.publishing == Publishing::Ready,
            lost_connections: state.lost_connections + figures.lost,
            first: figures.first,
            current: figures.current,
            end: figures.target,
            behind: figures.lag(),
            lag: log.lag(),
            heartbeat: self.cluster.heartbeat(),
            split: self.cluster.is_split(),
            confirmed: figures.confirmed,
            confirm_time: figures.confirm_time,
        }
    }
}
