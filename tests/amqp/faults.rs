//! Brokers that go away, and brokers that take nothing.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use roomwire::{
    amqp::{address::Address, cluster::Cluster, status::Publishing},
    log::{NotTaken, OrderedLog},
};

use crate::{
    common::{Broker, eventually},
    world::{Instance, LONG, Reading, START, publish, record, settings},
};

#[test]
fn everything_taken_while_the_broker_restarts_is_read_once_and_in_order() {
    let broker = Broker::start(1);
    let settings = settings(&broker);
    let a = Instance::start(&settings, START);
    let b = Instance::start(&settings, START);
    let (stop, taken) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let next = taken.load(Ordering::Relaxed) + 1;
                match a.log.publish(vec![record(1, next)]) {
                    Ok(()) => taken.store(next, Ordering::Relaxed),
                    Err(NotTaken::Unavailable | NotTaken::Full) => {}
                    Err(NotTaken::Closed) => panic!("closed"),
                }
                thread::sleep(Duration::from_micros(300));
            }
        });
        let stopping = Stopping(&stop);
        let mut at_a = Reading::default();
        at_a.deltas(&a.log, 500);
        for _ in 0..2 {
            broker.settle();
            broker.kill(1);
            broker.restart(1);
            // Far enough to have been published by the new node.
            let before = taken.load(Ordering::Relaxed) as usize;
            at_a.deltas(&a.log, before + 500);
        }
        drop(stopping);
        // The last one may be taken after the flag was set.
        thread::sleep(Duration::from_millis(50));
        let all: Vec<u64> = (1..=taken.load(Ordering::Relaxed)).collect();
        at_a.deltas(&a.log, all.len());
        assert_eq!(at_a.sequences(), all);
        let mut at_b = Reading::default();
        at_b.deltas(&b.log, all.len());
        assert_eq!(at_a.applied, at_b.applied);
        assert!(at_a.replaced.is_none() && at_b.replaced.is_none());
    });
}

#[test]
fn a_reader_whose_broker_dies_while_nobody_takes_its_records_goes_on_afterwards() {
    let broker = Broker::start(1);
    let settings = settings(&broker);
    let a = Instance::start(&settings, START);
    publish(&a.log, (1..=3_000).map(|n| record(1, n)).collect());
    // As much as is read ahead.
    eventually("a full queue", || {
        (a.log.figures().waiting == 1_000).then_some(())
    });
    broker.settle();
    broker.kill(1);
    broker.restart(1);
    let mut reading = Reading::default();
    reading.deltas(&a.log, 3_000);
    assert!(reading.sequences().into_iter().eq(1..=3_000));
}

#[test]
fn a_broker_out_of_memory_makes_the_log_refuse_and_what_was_taken_is_read_afterwards() {
    let broker = Broker::start(1);
    let settings = settings(&broker);
    let a = Instance::start(&settings, START);
    let mut reading = Reading::default();
    publish(&a.log, vec![record(1, 1)]);
    reading.deltas(&a.log, 1);
    broker.alarm(true);
    let mut taken = 1;
    let deadline = Instant::now() + LONG;
    let refusal = loop {
        match a.log.publish(vec![record(1, taken + 1)]) {
            Ok(()) => taken += 1,
            Err(refusal) => break refusal,
        }
        assert!(Instant::now() < deadline, "never refused");
        thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(refusal, NotTaken::Unavailable);
    assert_eq!(a.log.figures().publishing, Publishing::Blocked);
    broker.alarm(false);
    publish(&a.log, vec![record(1, taken + 1)]);
    reading.deltas(&a.log, taken as usize + 1);
    assert!(reading.sequences().into_iter().eq(1..=taken + 1));
    assert_eq!(a.log.figures().lost, 0, "the connections were kept");
}

#[test]
fn an_instance_goes_on_at_the_next_broker_when_its_own_is_killed_or_falls_silent() {
    let broker = Broker::start(3);
    let mut settings = settings(&broker);
    // The streams' leaders are where they are declared: at the second node, which stays.
    settings.addresses = vec![address(&broker, 2)];
    drop(Cluster::start(settings.clone()).unwrap());
    broker.settle();
    settings.addresses = [1, 2, 3].map(|node| address(&broker, node)).to_vec();
    let a = Instance::start(&settings, START);
    let mut reading = Reading::default();
    publish(&a.log, vec![record(1, 1)]);
    reading.deltas(&a.log, 1);

    // It keeps its connections and says nothing.
    broker.pause(1);
    let lost = a.log.figures().lost;
    publish(&a.log, vec![record(1, 2)]);
    reading.deltas(&a.log, 2);
    assert!(a.log.figures().lost > lost);
    broker.resume(1);

    // The node that leads is killed; the instance reads and publishes there by now.
    broker.kill(2);
    publish(&a.log, vec![record(1, 3)]);
    reading.deltas(&a.log, 3);
    assert_eq!(reading.sequences(), [1, 2, 3]);
    assert_eq!(reading.floors, [0]);
    assert!(reading.replaced.is_none());
}

fn address(broker: &Broker, node: usize) -> Address {
    Address::parse(broker.url(node)).unwrap()
}

/// Ends the publishing thread, also when the test fails.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
