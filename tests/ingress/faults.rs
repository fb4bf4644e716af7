//! Servers that take in and are killed, stopped or paused meanwhile, and brokers that take nothing.

use std::process::Command;

use crate::{
    common::{Broker, Client, Entry, Server, View, eventually},
    world::{Message, Producer, await_history, await_ready, holds, instance, instances},
};

/// More than a server has in flight at once.
const COUNT: usize = 3_000;

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

fn send(producer: &Producer, numbers: &[String], with_ids: bool) {
    let message = |n| Message {
        key: "lobby",
        body: String::as_bytes(n),
        id: with_ids.then_some(n),
        headers: vec![],
    };
    producer.send_all(numbers.iter().map(message));
}

/// The server that takes in, and the other.
fn holder_and_other(a: Server, b: Server) -> (Server, Server) {
    match eventually("one of them to take in", || {
        [&a, &b].map(holds).into_iter().position(|holds| holds)
    }) {
        0 => (a, b),
        _ => (b, a),
    }
}

/// Lets some be taken in, so that many are in flight.
fn await_some(server: &Server) {
    eventually("some to be taken in", || {
        (!server.history("lobby").is_empty()).then_some(())
    });
}

fn signal(server: &Server, signal: &str) {
    let pid = server.pid().to_string();
    let status = Command::new("kill").args([signal, &pid]).status().unwrap();
    assert!(status.success());
}

/// Sends while the server can't take in, and has it find that the broker takes nothing any more.
fn block_with_much_in_flight(broker: &Broker, server: &Server, send: impl FnOnce()) {
    signal(server, "-STOP");
    send();
    broker.alarm(true);
    signal(server, "-CONT");
    eventually("messages to wait for the log", || {
        let ready = server.get("/readyz").json();
        let blocked = ready["partitions"][0]["connected"] == false;
        (blocked && ready["ingress"]["in_flight"].as_u64() > Some(500)).then_some(())
    });
}

fn await_publishing(server: &Server) {
    eventually("the server to publish again", || {
        let ready = server.get("/readyz").json();
        let partitions = ready["partitions"].as_array()?;
        let all = partitions.iter().all(|of| of["connected"] == true);
        all.then_some(())
    });
}

#[test]
fn a_holder_that_is_killed_with_many_in_flight_loses_doubles_and_disorders_nothing() {
    let ([a, b], producer) = instances(Broker::shared());
    let all = numbers(0..COUNT);
    send(&producer, &all[..1], true);
    let (mut holder, other) = holder_and_other(a, b);
    let mut client = Client::connect(&other);
    let mut view = View::new("lobby");
    client.follow(&mut view);
    let before = view.offset;
    send(&producer, &all[1..], true);
    await_some(&holder);
    holder.kill9();
    let history = await_history(&other, "lobby", &all);
    let followed = history.iter().filter(|entry| entry.offset > before).count();
    client.read_into(&mut view, followed);
    view.assert_exactly(&history);
    holder.restart();
    await_ready(&holder);
    assert_eq!(holder.history("lobby"), history);
}

#[test]
fn a_holder_that_stops_hands_over_at_once_and_nothing_comes_twice_even_without_ids() {
    let ([a, b], producer) = instances(Broker::shared());
    let all = numbers(0..COUNT);
    send(&producer, &all[..1], false);
    let (mut holder, other) = holder_and_other(a, b);
    signal(&holder, "-STOP");
    send(&producer, &all[1..COUNT - 1], false);
    signal(&holder, "-CONT");
    assert!(holder.stop().success());
    send(&producer, &all[COUNT - 1..], false);
    await_history(&other, "lobby", &all);
    assert!(holds(&other));
}

#[test]
fn a_holder_that_is_paused_and_goes_on_later_appends_nothing_that_counts() {
    let broker = Broker::start(1);
    let prefix = Broker::unique_prefix();
    let [a, b] = [(); 2].map(|()| instance(broker.url(1), &prefix));
    let producer = Producer::connect(broker.url(1), &prefix);
    // So large that they don't all fit into what the kernel keeps for a connection.
    let large = |n| format!("\"{n}{}\"", "x".repeat(4_000));
    let mut all: Vec<String> = (0..COUNT).map(large).collect();
    send(&producer, &all[..1], false);
    let (holder, other) = holder_and_other(a, b);
    // While the broker takes nothing, it has much to append and can't.
    block_with_much_in_flight(&broker, &holder, || send(&producer, &all[1..], false));
    signal(&holder, "-STOP");
    broker.alarm(false);
    eventually("the other to take in", || holds(&other).then_some(()));
    await_data(&other, &all[COUNT - 1]);
    signal(&holder, "-CONT");
    eventually("the paused one to notice", || {
        (!holds(&holder)).then_some(())
    });
    await_publishing(&holder);
    // Whatever it had left to append is in the log before this.
    holder.publish("lobby", "\"end\"");
    all.push("\"end\"".into());
    await_data(&other, &all[COUNT]);
    let history = other.history("lobby");
    assert_eq!(history, holder.history("lobby"));
    // Without ids, what the first appended before it was paused and had not acked comes once more,
    // all in a piece.
    let data: Vec<_> = history.iter().map(|entry| entry.data.clone()).collect();
    let (before, after) = data.split_at(data.len() - COUNT);
    assert!(all.starts_with(before), "{} came before", before.len());
    assert!(after == &all[1..], "something came in between");
}

/// Waits until a server has a delta.
fn await_data(server: &Server, data: &str) {
    eventually(data, || {
        let history = server.history("lobby");
        let is_it = |entry: &Entry| entry.data == data;
        history.iter().any(is_it).then_some(())
    });
}

#[test]
fn a_memory_alarm_is_waited_out_and_everything_comes_once_afterwards() {
    let broker = Broker::start(1);
    let prefix = Broker::unique_prefix();
    let server = instance(broker.url(1), &prefix);
    let producer = Producer::connect(broker.url(1), &prefix);
    let all = numbers(0..COUNT);
    send(&producer, &all[..1], false);
    await_some(&server);
    block_with_much_in_flight(&broker, &server, || send(&producer, &all[1..], false));
    broker.alarm(false);
    await_history(&server, "lobby", &all);
    assert_eq!(server.metric("roomwire_ingress_tenures_total"), 1.0);
}

#[test]
fn a_log_that_begins_anew_gets_everything_that_comes_afterwards() {
    let broker = Broker::shared();
    let prefix = Broker::unique_prefix();
    let server = instance(broker.url(1), &prefix);
    let producer = Producer::connect(broker.url(1), &prefix);
    let epoch = server.publish("lobby", "0").epoch;
    send(&producer, &numbers(1..500), true);
    let queues = broker.ctl(&["list_queues", "--silent", "name"]);
    let stream = queues
        .lines()
        .find(|name| name.starts_with(&prefix) && name.ends_with(&epoch));
    broker.ctl(&["delete_queue", stream.expect("the room's stream")]);
    let after = numbers(500..1_000);
    send(&producer, &after, true);
    await_data(&server, &after[499]);
    let history = server.history("lobby");
    let numbers: Vec<usize> = history
        .iter()
        .map(|entry| entry.data.parse().unwrap())
        .collect();
    assert!(numbers.windows(2).all(|two| two[1] == two[0] + 1));
    assert!(numbers[0] <= 500, "begins with {}", numbers[0]);
}
