//! The books of a run, shared by all its tasks on one thread.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};

use hdrhistogram::Histogram;
use tokio::{sync::Notify, time::Instant};

use crate::cli::bench::{ledger::Ledger, payload::Stamp, plan::Plan};

/// Latencies are kept between these bounds, in ns, to three digits.
const LATENCY_NS: (u64, u64) = (1_000, 60_000_000_000);

/// Deltas sent and seen.
pub struct Tally {
    /// The clock of all stamps.
    started: Instant,
    /// Deliveries that the deltas sent so far amount to.
    due: Cell<u64>,
    delivered: Cell<u64>,
    last_delivery_ns: Cell<u64>,
    latency_ns: RefCell<Histogram<u64>>,
    ledgers: RefCell<Vec<Ledger>>,
    /// Sent so far, by room and lane.
    sent: RefCell<Vec<Vec<u64>>>,
    /// Subscribers that a room has, by room.
    audience: Vec<u64>,
    /// Which room a subscriber is in.
    seats: Vec<usize>,
    /// Why subscribers lost their connection.
    ended: RefCell<BTreeMap<String, u64>>,
    /// Publishers that wait until no more than so many deliveries are on their way.
    waiting_for: Cell<Option<u64>>,
    caught_up: Notify,
}

/// What a run came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    pub lost: u64,
    pub doubled: u64,
    pub swapped: u64,
}

impl Tally {
    pub fn new(plan: &Plan, subscribers: usize) -> Self {
        let seats: Vec<usize> = (0..subscribers)
            .map(|subscriber| plan.room_of_subscriber(subscriber))
            .collect();
        let (least, most) = LATENCY_NS;
        Self {
            started: Instant::now(),
            due: Cell::default(),
            delivered: Cell::default(),
            last_delivery_ns: Cell::default(),
            latency_ns: RefCell::new(
                Histogram::new_with_bounds(least, most, 3).expect("the bounds are valid"),
            ),
            ledgers: RefCell::new(
                seats
                    .iter()
                    .map(|&room| Ledger::new(plan.rooms[room].lanes))
                    .collect(),
            ),
            sent: RefCell::new(plan.rooms.iter().map(|room| vec![0; room.lanes]).collect()),
            audience: plan
                .rooms
                .iter()
                .map(|room| room.subscribers as u64)
                .collect(),
            seats,
            ended: RefCell::default(),
            waiting_for: Cell::default(),
            caught_up: Notify::new(),
        }
    }

    /// ns since the start of the run, at `instant`.
    pub fn ns_at(&self, instant: Instant) -> u64 {
        instant.duration_since(self.started).as_nanos() as u64
    }

    /// Books a delta as sent, and returns its number.
    pub fn send(&self, room: usize, lane: u16) -> u64 {
        self.due.set(self.due.get() + self.audience[room]);
        let sent = &mut self.sent.borrow_mut()[room][usize::from(lane)];
        *sent += 1;
        *sent - 1
    }

    /// Books what a subscriber has read at once, all of it at `ns` since the start of the run.
    pub fn deliver(&self, subscriber: usize, ns: u64, stamps: impl Iterator<Item = Stamp>) {
        let ledger = &mut self.ledgers.borrow_mut()[subscriber];
        let latency_ns = &mut self.latency_ns.borrow_mut();
        let mut deliveries = 0;
        for stamp in stamps {
            deliveries += 1;
            ledger.book(stamp.lane.into(), stamp.sequence);
            latency_ns.saturating_record(ns.saturating_sub(stamp.at));
        }
        if deliveries > 0 {
            self.delivered.set(self.delivered.get() + deliveries);
            self.last_delivery_ns.set(ns);
        }
        if self
            .waiting_for
            .get()
            .is_some_and(|most| self.on_their_way() <= most)
        {
            self.waiting_for.set(None);
            self.caught_up.notify_waiters();
        }
    }

    pub fn end(&self, reason: String) {
        *self.ended.borrow_mut().entry(reason).or_default() += 1;
    }

    /// Returns once at most `most` deliveries are on their way.
    pub async fn caught_up(&self, most: u64) {
        while self.on_their_way() > most {
            let told = self.caught_up.notified();
            self.waiting_for.set(Some(most));
            told.await;
        }
    }

    pub fn on_their_way(&self) -> u64 {
        self.due.get().saturating_sub(self.delivered.get())
    }

    pub fn delivered(&self) -> u64 {
        self.delivered.get()
    }

    pub fn last_delivery_ns(&self) -> u64 {
        self.last_delivery_ns.get()
    }

    pub fn sent(&self) -> u64 {
        self.sent.borrow().iter().flatten().sum()
    }

    pub fn ended(&self) -> BTreeMap<String, u64> {
        self.ended.borrow().clone()
    }

    /// The latency that `quantile` of all deliveries did not exceed, in ms.
    pub fn latency_ms(&self, quantile: f64) -> f64 {
        self.latency_ns.borrow().value_at_quantile(quantile) as f64 / 1e6
    }

    pub fn verdict(&self) -> Verdict {
        let sent = self.sent.borrow();
        let mut verdict = Verdict {
            lost: 0,
            doubled: 0,
            swapped: 0,
        };
        for (ledger, &room) in self.ledgers.borrow().iter().zip(&self.seats) {
            verdict.lost += ledger.lost(&sent[room]);
            verdict.doubled += ledger.doubled;
            verdict.swapped += ledger.swapped;
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamps(lane: u16, sequences: &[u64]) -> impl Iterator<Item = Stamp> {
        sequences.iter().map(move |&sequence| Stamp {
            at: 1_000_000,
            lane,
            sequence,
        })
    }

    #[test]
    fn each_subscriber_is_owed_all_of_its_own_room() {
        let plan = Plan::new("x", 2, 3, 2);
        let tally = Tally::new(&plan, 3);
        for sequence in 0..2 {
            assert_eq!(tally.send(0, 0), sequence);
        }
        tally.send(1, 0);
        assert_eq!(tally.on_their_way(), 5);
        tally.deliver(0, 3_000_000, stamps(0, &[0, 1]));
        tally.deliver(1, 3_000_000, stamps(0, &[0, 0]));
        let expected = Verdict {
            lost: 2,
            doubled: 1,
            swapped: 0,
        };
        assert_eq!(tally.verdict(), expected);
        assert!((tally.latency_ms(0.99) - 2.0).abs() < 0.01);
    }

    #[actix_rt::test]
    async fn publishers_go_on_once_the_subscribers_have_caught_up() {
        let plan = Plan::new("x", 1, 1, 1);
        let tally = Tally::new(&plan, 1);
        (0..3).for_each(|_| _ = tally.send(0, 0));
        let publisher = tally.caught_up(1);
        let subscriber = async {
            tally.deliver(0, 1, stamps(0, &[0]));
            tokio::task::yield_now().await;
            assert_eq!(tally.on_their_way(), 2);
            tally.deliver(0, 1, stamps(0, &[1]));
        };
        tokio::join!(publisher, subscriber);
        assert_eq!(tally.on_their_way(), 1);
    }
}
