//! What a reader gets, and where it begins.

use std::time::Duration;

use roomwire::{
    amqp::{publisher::CONTENT_TYPE, reader::Event},
    log::{Next, NotTaken, OrderedLog},
};

use crate::{
    common::Broker,
    world::{Instance, LONG, Operator, Reading, START, publish, record, record_of, settings},
};

#[test]
fn all_instances_read_the_same_deltas_at_the_same_positions_and_a_closed_log_ends() {
    let broker = Broker::shared();
    let settings = settings(broker);
    let (a, b) = (
        Instance::start(&settings, START),
        Instance::start(&settings, START),
    );
    for n in 1..=50 {
        publish(&a.log, vec![record(1, n)]);
        publish(&b.log, vec![record(2, n)]);
    }
    let (mut at_a, mut at_b) = (Reading::default(), Reading::default());
    at_a.deltas(&a.log, 100);
    at_b.deltas(&b.log, 100);
    assert_eq!(at_a.applied, at_b.applied);
    assert_eq!(at_a.floors, [0], "a new stream is whole");

    // A closed log hands out what it took, and then ends.
    publish(&a.log, vec![record(1, 51)]);
    a.log.close();
    assert_eq!(a.log.publish(vec![record(1, 52)]), Err(NotTaken::Closed));
    let mut rest = Vec::new();
    loop {
        match a.log.next(LONG) {
            Next::Batch(batch) => {
                rest.extend(
                    batch
                        .iter()
                        .filter_map(|event| Some(event.delta()?.1.sequence)),
                );
            }
            Next::Idle => {}
            Next::Closed => break,
        }
    }
    assert_eq!(rest, [51]);

    // What is no record of ours is passed over, as if it were not there.
    let operator = Operator::connect(broker);
    let stream = b.cluster.topology().stream(0, b.log.generation());
    let foreign = b.log.figures().foreign;
    operator.publish(&stream, "application/json", b"{}");
    operator.publish(&stream, CONTENT_TYPE, b"\x01\x01\x04");
    operator.publish(&stream, "text/plain", b"\x63");
    publish(&b.log, vec![record(2, 51)]);
    at_b.deltas(&b.log, 102);
    assert_eq!(b.log.figures().foreign, foreign + 3);
    assert_eq!(at_b.floors, [0], "nothing is missing");

    // What only a later build understands ends the log: this one could only guess.
    operator.publish(&stream, CONTENT_TYPE, b"\x02\x01");
    at_b.until(&b.log, |reading| reading.end.is_some());
    assert!(matches!(at_b.end, Some(Event::TooNew(_))));
}

#[test]
fn a_restarted_reader_goes_on_behind_its_checkpoint() {
    let broker = Broker::shared();
    let settings = settings(broker);
    let first = Instance::start(&settings, START);
    publish(&first.log, (1..=10).map(|n| record(1, n)).collect());
    let mut before = Reading::default();
    before.deltas(&first.log, 10);
    // Published while nobody of ours reads any more.
    publish(&first.log, (11..=20).map(|n| record(1, n)).collect());
    let mut whole = Reading::default();
    let other = Instance::start(&settings, START);
    whole.deltas(&other.log, 20);
    drop((first, other));

    let again = Instance::start(&settings, before.start());
    let mut after = Reading::default();
    after.deltas(&again.log, 10);
    assert_eq!(after.applied, whole.applied[10..]);
    assert!(after.floors.is_empty() && after.replaced.is_none());
    after.until(&again.log, |_| again.log.figures().caught_up());
}

#[test]
fn a_reader_that_retention_overtook_is_told_the_floor() {
    let broker = Broker::shared();
    let mut settings = settings(broker);
    settings.max_bytes = 200_000;
    let first = Instance::start(&settings, START);
    publish(&first.log, vec![record(1, 1)]);
    let mut before = Reading::default();
    before.deltas(&first.log, 1);
    let checkpoint = before.start();
    // The retained part is far smaller than this. One by one, so that there are many chunks.
    for n in 2..=400 {
        publish(&first.log, vec![record_of(1, n, 5_000)]);
        before.deltas(&first.log, n as usize);
    }
    drop(first);

    let again = Instance::start(&settings, checkpoint);
    let mut after = Reading::default();
    after.until(&again.log, |reading| {
        reading.applied.last().is_some_and(|(_, _, n)| *n == 400)
    });
    let (first, _, sequence) = after.applied[0];
    assert!(sequence > 2, "something was trimmed");
    assert_eq!(after.floors.len(), 1);
    assert!(
        after.floors[0] < first,
        "the floor lies below what was read"
    );
    assert!(
        after.floors[0] > before.applied[0].0,
        "and above the checkpoint"
    );
    assert!(after.replaced.is_none());
}

#[test]
fn a_fresh_reader_looks_back_as_far_as_asked_and_shows_how_far_it_is() {
    let broker = Broker::shared();
    let settings = settings(broker);
    let first = Instance::start(&settings, START);
    publish(&first.log, (1..=5).map(|n| record(1, n)).collect());
    Reading::default().deltas(&first.log, 5);
    // The broker's clock has to go on by more than a second of AMQP.
    std::thread::sleep(Duration::from_secs(4));
    publish(&first.log, (6..=10).map(|n| record(1, n)).collect());
    Reading::default().deltas(&first.log, 5);

    let second = roomwire::amqp::reader::Start::LookBack(Duration::from_secs(2));
    let fresh = Instance::start(&settings, second);
    let mut reading = Reading::default();
    reading.until(&fresh.log, |_| fresh.log.figures().caught_up());
    reading.deltas(&fresh.log, 5);
    assert_eq!(reading.sequences(), [6, 7, 8, 9, 10]);
    assert!(reading.floors[0] >= 5);
    let figures = fresh.log.figures();
    assert!(figures.reading && figures.first > 5 && figures.target >= figures.first);
}
