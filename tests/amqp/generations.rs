//! Streams that are replaced, and instances that race.

use std::{thread, time};

use roomwire::amqp::{
    address::Address,
    cluster::{Cluster, StartError},
    topology::TopologyError,
};

use crate::{
    common::Broker,
    world::{Instance, LONG, Operator, Reading, START, publish, record, settings},
};

#[test]
fn racing_instances_agree_on_the_generations_and_leave_no_stream_behind() {
    let broker = Broker::shared();
    let mut settings = settings(broker);
    settings.partitions = 3;
    let racers: Vec<_> = (0..5)
        .map(|_| {
            let settings = settings.clone();
            thread::spawn(move || Cluster::start(settings).unwrap().generations().to_vec())
        })
        .collect();
    let agreed: Vec<_> = racers
        .into_iter()
        .map(|racer| racer.join().unwrap())
        .collect();
    assert!(agreed.iter().all(|generations| *generations == agreed[0]));
    assert_eq!(agreed[0].len(), 3);
    let streams = broker.ctl(&["list_queues", "name", "--quiet", "--no-table-headers"]);
    let mut streams: Vec<_> = streams
        .lines()
        .filter(|name| name.starts_with(&settings.prefix))
        .filter(|name| name.contains(".log.") || name.ends_with(".meta"))
        .map(str::to_owned)
        .collect();
    streams.sort();
    let mut expected: Vec<_> = (0..3)
        .map(|n| format!("{}.log.{n}.{}", settings.prefix, agreed[0][n]))
        .collect();
    expected.push(format!("{}.meta", settings.prefix));
    assert_eq!(streams, expected);

    // Another number of partitions is a mistake in somebody's configuration.
    settings.partitions = 4;
    match Cluster::start(settings).err() {
        Some(StartError::Topology(TopologyError::Partitions {
            found, configured, ..
        })) => assert_eq!((found, configured), (3, 4)),
        other => panic!("expected a mismatch, got {other:?}"),
    }
}

#[test]
fn a_stream_deleted_under_running_instances_becomes_one_new_generation_for_all() {
    let broker = Broker::shared();
    let settings = settings(broker);
    let instances = [0, 1].map(|_| Instance::start(&settings, START));
    let mut readings = [Reading::default(), Reading::default()];
    publish(&instances[0].log, vec![record(1, 1)]);
    for (instance, reading) in instances.iter().zip(&mut readings) {
        reading.deltas(&instance.log, 1);
    }
    let old = instances[0].log.generation().clone();
    let stream = instances[0].cluster.topology().stream(0, &old);
    Operator::connect(broker).delete(&stream);
    for (instance, reading) in instances.iter().zip(&mut readings) {
        reading.until(&instance.log, |reading| reading.replaced.is_some());
    }
    let generation = readings[0].replaced.clone().unwrap();
    assert_eq!(readings[1].replaced, Some(generation.clone()));
    assert_ne!(generation, old);

    // All go on there.
    let logs = instances
        .each_ref()
        .map(|instance| instance.cluster.open(0, generation.clone(), START));
    publish(&logs[0], vec![record(2, 1)]);
    for log in &logs {
        assert_eq!(Reading::default().deltas(log, 1).applied[0].1, 2);
    }
}

#[test]
fn a_stream_made_anew_while_nobody_looked_is_sealed_and_replaced() {
    let broker = Broker::shared();
    let settings = settings(broker);
    let first = Instance::start(&settings, START);
    publish(&first.log, (1..=9).map(|n| record(1, n)).collect());
    let mut before = Reading::default();
    before.deltas(&first.log, 9);
    let old = first.log.generation().clone();
    let topology = first.cluster.topology();
    let (stream, exchange) = (topology.stream(0, &old), topology.exchange());
    drop(first);
    let operator = Operator::connect(broker);
    operator.delete(&stream);
    operator.declare(&stream, &exchange);

    // One that knows nothing takes the stream as it is; one that knows better ends it for all.
    let unknowing = Instance::start(&settings, START);
    publish(&unknowing.log, vec![record(2, 1)]);
    let mut reading = Reading::default();
    reading.deltas(&unknowing.log, 1);
    let knowing = Instance::start(&settings, before.start());
    let mut after = Reading::default();
    after.until(&knowing.log, |reading| reading.replaced.is_some());
    assert!(after.applied.is_empty(), "nothing wrong was read");
    reading.until(&unknowing.log, |reading| reading.replaced.is_some());
    assert_eq!(reading.replaced, after.replaced);
    assert_ne!(after.replaced, Some(old));
}

#[test]
fn who_may_not_declare_is_told_what_is_missing_and_needs_no_right_to_what_is_there() {
    let broker = Broker::shared();
    let mut settings = settings(broker);
    let prefix = settings.prefix.clone();
    let rights = format!(r"^{prefix}\.");
    broker.ctl(&["add_user", &prefix, "s3cret"]);
    let permit = |configure: &str| {
        broker.ctl(&["set_permissions", &prefix, configure, &rights, &rights]);
    };
    permit("^$");
    let place = broker.url(1).rsplit('@').next().unwrap();
    settings.addresses = vec![Address::parse(&format!("amqp://{prefix}:s3cret@{place}")).unwrap()];
    let error = Cluster::start(settings.clone()).err().unwrap().to_string();
    let told = format!("the user may not declare {prefix}.log; an administrator can set it up");
    assert!(error.starts_with(&told), "{error}");

    permit(&rights);
    drop(Cluster::start(settings.clone()).unwrap());
    permit("^$");
    let instance = Instance::start(&settings, START);
    publish(&instance.log, vec![record(1, 1)]);
    Reading::default().deltas(&instance.log, 1);
}

#[test]
fn a_wrong_password_is_told_at_once_and_without_the_password() {
    let broker = Broker::shared();
    let mut settings = settings(broker);
    let place = broker.url(1).rsplit('@').next().unwrap();
    settings.addresses = vec![Address::parse(&format!("amqp://guest:s3cret@{place}")).unwrap()];
    let asked = time::Instant::now();
    let error = Cluster::start(settings).err().unwrap().to_string();
    assert!(asked.elapsed() < LONG / 2, "it waited for another answer");
    assert!(
        error.contains("refuses the user or the password"),
        "{error}"
    );
    assert!(!error.contains("s3cret"), "{error}");
}
