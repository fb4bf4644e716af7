//! Several servers with one log on RabbitMQ: one order, one history, whatever fails.

mod common;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use common::{
    Broker, Client, Entry, Server, View, eventually,
    server::{Accepted, deltas_of},
};

/// What a publisher waits before it tries again.
const RETRY: Duration = Duration::from_millis(50);

/// Longer than a broker takes to come back.
const OUTAGE: Duration = Duration::from_secs(120);

fn config(broker: &Broker, prefix: &str) -> String {
    format!(
        "[limits]\nping_interval = \"1h\"\n\
         [amqp]\nurl = [\"{}\"]\nprefix = \"{prefix}\"\npartitions = 2\nheartbeat = \"500ms\"\n",
        broker.url(1)
    )
}

fn await_ready(server: &Server) {
    eventually("the server to have caught up", || {
        (server.get("/readyz").status == 200).then_some(())
    });
}

fn instance(broker: &Broker, prefix: &str) -> Server {
    let server = Server::start(&config(broker, prefix));
    await_ready(&server);
    server
}

fn instances(broker: &Broker) -> (Server, Server) {
    let prefix = Broker::unique_prefix();
    (instance(broker, &prefix), instance(broker, &prefix))
}

/// One delta with a key: publishes it until its position is known.
fn publish_for_sure(server: &Server, room: &str, key: &str, data: &str) -> Accepted {
    let deadline = Instant::now() + OUTAGE;
    loop {
        let headers = [("Idempotency-Key", key)];
        let reply = server.post(&deltas_of(room), &headers, data);
        match reply.status {
            200 | 201 => return serde_json::from_slice(&reply.body).expect("a position"),
            202 | 503 => assert!(Instant::now() < deadline, "{key}: {}", reply.text()),
            status => panic!("publishing {key}: {status} {}", reply.text()),
        }
        thread::sleep(RETRY);
    }
}

fn entry(accepted: &Accepted, data: &str) -> Entry {
    Entry::new(accepted.offset, data)
}

#[test]
fn what_is_erased_at_one_server_is_gone_at_all_and_at_one_that_starts_later() {
    let prefix = Broker::unique_prefix();
    let (a, b) = (
        instance(Broker::shared(), &prefix),
        instance(Broker::shared(), &prefix),
    );
    let first = a.publish("lobby", "1");
    let secret = a.publish("lobby", "2");
    // Perhaps it has not been read there yet.
    let path = format!("{}/{}", deltas_of("lobby"), secret.offset);
    let erased = b.delete(&path);
    assert_eq!(erased.status, 200, "{}", erased.text());
    let last = b.publish("lobby", "3");
    let left = [entry(&first, "1"), entry(&last, "3")];
    let c = instance(Broker::shared(), &prefix);
    for server in [&a, &b, &c] {
        eventually("what is left", || {
            (server.history("lobby") == left).then_some(())
        });
    }
    let trial = c.delete(&path);
    assert_eq!(trial.status, 200, "it was there once");
}

#[test]
fn a_client_is_left_out_wherever_it_is_connected() {
    let (a, b) = instances(Broker::shared());
    let (mut author, mut other) = (Client::connect(&b), Client::connect(&b));
    author.subscribe("lobby");
    other.subscribe("lobby");
    let exclude = [("Roomwire-Exclude-Client", author.id.as_str())];
    let published = a.post(&deltas_of("lobby"), &exclude, "1");
    assert_eq!(published.status, 201);
    a.publish("lobby", "2");
    assert_eq!(other.publication().1["data"], 1);
    assert_eq!(author.publication().1["data"], 2);
}

#[test]
fn a_delta_published_at_one_server_arrives_at_the_other_at_the_same_position() {
    let (a, b) = instances(Broker::shared());
    let mut at_b = Client::connect(&b);
    let mut view = View::new("lobby");
    at_b.follow(&mut view);
    let published = [a.publish("lobby", "1"), b.publish("lobby", "2")];
    at_b.read_into(&mut view, 2);
    let log = [entry(&published[0], "1"), entry(&published[1], "2")];
    view.assert_exactly(&log);
    assert_eq!(view.epoch, published[0].epoch);
    assert_eq!(published[0].epoch, published[1].epoch);
    eventually("the same history at both", || {
        (a.history("lobby") == log && b.history("lobby") == log).then_some(())
    });
}

#[test]
fn a_client_that_comes_back_to_another_server_gets_exactly_what_it_missed() {
    let (a, b) = instances(Broker::shared());
    let mut view = View::new("lobby");
    let mut at_a = Client::connect(&a);
    at_a.follow(&mut view);
    let mut log = a.publish_numbers("lobby", 0, 5);
    at_a.read_into(&mut view, 5);
    drop(at_a);
    log.extend(a.publish_numbers("lobby", 5, 20));
    let mut at_b = Client::connect(&b);
    let result = at_b.follow(&mut view);
    assert_eq!(result["recovered"], true, "{result}");
    log.extend(b.publish_numbers("lobby", 25, 5));
    at_b.read_into(&mut view, log.len());
    view.assert_exactly(&log);
}

#[test]
fn a_batch_over_all_partitions_is_answered_in_its_order() {
    let (a, _b) = instances(Broker::shared());
    let entries: Vec<String> = (0..20)
        .map(|n| format!(r#"{{"room":"room{}","data":{n},"id":"{n}"}}"#, n % 7))
        .collect();
    let body = format!("[{}]", entries.join(","));
    let reply = a.post("/v1/deltas", &[common::server::JSON], body);
    let results = reply.json()["results"].as_array().cloned().unwrap();
    for (n, result) in results.iter().enumerate() {
        assert_eq!(result["status"], 201, "{result}");
        assert_eq!(result["id"], n.to_string());
        assert_eq!(result["room"], format!("room{}", n % 7));
    }
    let epochs: std::collections::HashSet<_> = results
        .iter()
        .map(|result| result["epoch"].as_str())
        .collect();
    assert_eq!(epochs.len(), 2, "both partitions were used");
}

#[test]
fn the_same_key_at_both_servers_at_once_is_one_delta_at_one_position() {
    let (a, b) = instances(Broker::shared());
    let mut view = View::new("lobby");
    let mut client = Client::connect(&b);
    client.follow(&mut view);
    let mut log = Vec::new();
    for round in 0..20 {
        let (key, data) = (format!("key{round}"), round.to_string());
        let answers: Vec<Accepted> = thread::scope(|scope| {
            let publish = |server| {
                let (key, data) = (&key, &data);
                scope.spawn(move || publish_for_sure(server, "lobby", key, data))
            };
            let both = [publish(&a), publish(&b)];
            both.map(|answer| answer.join().unwrap()).into()
        });
        assert_eq!(answers[0], answers[1]);
        log.push(entry(&answers[0], &data));
    }
    client.read_into(&mut view, log.len());
    view.assert_exactly(&log);
    assert_eq!(a.history("lobby"), log);
}

#[test]
fn what_came_while_a_server_was_down_is_in_its_history_when_it_takes_clients() {
    let (a, mut b) = instances(Broker::shared());
    let mut log = b.publish_numbers("lobby", 0, 10);
    for stop in [true, false] {
        match stop {
            true => assert!(b.stop().success()),
            false => b.kill9(),
        }
        log.extend(a.publish_numbers("lobby", log.len() as u64, 500));
        b.restart();
        await_ready(&b);
        assert_eq!(b.history("lobby"), log);
    }
}

#[test]
fn a_server_on_the_database_of_another_log_says_so() {
    let broker = Broker::shared();
    let prefix = Broker::unique_prefix();
    let server = instance(broker, &prefix);
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("copy")).unwrap();
    let start = |data: &std::path::Path, flags: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_roomwire"))
            .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .args(flags)
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let told = start(
        &directory.path().join("copy"),
        &["--amqp-url", broker.url(1), "--amqp-prefix", &prefix],
    );
    assert!(told.contains("has 2 partitions"), "{told}");
    let mut server = server;
    server.stop();
    let told = start(&server.data(), &[]);
    let expected = format!("belongs to the log amqp/{prefix}/2");
    assert!(told.contains(&expected), "{told}");
}

#[test]
fn a_broker_that_restarts_under_load_loses_and_doubles_nothing() {
    let broker = Broker::start(1);
    let (a, b) = instances(&broker);
    broker.settle();
    let (mut at_a, mut at_b) = (Client::connect(&a), Client::connect(&b));
    let (mut view_a, mut view_b) = (View::new("lobby"), View::new("lobby"));
    at_a.follow(&mut view_a);
    at_b.follow(&mut view_b);
    let is_back = AtomicBool::new(false);
    let publisher = |server: &Server, name: &str| -> Vec<Entry> {
        let mut published = Vec::new();
        let mut behind = 0;
        while behind < 50 {
            behind += u32::from(is_back.load(Ordering::Relaxed));
            let n = published.len();
            let data = format!("\"{name}{n}\"");
            let accepted = publish_for_sure(server, "lobby", &format!("{name}{n}"), &data);
            published.push(entry(&accepted, &data));
        }
        published
    };
    let accepted: Vec<Vec<Entry>> = thread::scope(|scope| {
        let publishers: Vec<_> = [(&a, "a"), (&b, "b"), (&a, "c"), (&b, "d")]
            .map(|(server, name)| scope.spawn(move || publisher(server, name)))
            .into();
        eventually("some deltas to be published", || {
            (a.history("lobby").len() > 50).then_some(())
        });
        broker.kill(1);
        broker.restart(1);
        is_back.store(true, Ordering::Relaxed);
        publishers
            .into_iter()
            .map(|of| of.join().unwrap())
            .collect()
    });
    for of_one in &accepted {
        assert!(
            of_one.is_sorted_by_key(|entry| entry.offset),
            "out of order"
        );
    }
    let count: usize = accepted.iter().map(Vec::len).sum();
    let by_offset: BTreeMap<u64, Entry> = accepted
        .into_iter()
        .flatten()
        .map(|entry| (entry.offset, entry))
        .collect();
    let log: Vec<Entry> = by_offset.into_values().collect();
    assert_eq!(log.len(), count, "each has a position of its own");
    let refused = a.metric("roomwire_deltas_in_total{result=\"not_taken\"}")
        + a.metric("roomwire_deltas_in_total{result=\"unknown\"}")
        + a.metric("roomwire_deltas_in_total{result=\"unplaced\"}");
    assert!(refused > 0.0, "the outage was not noticed");
    at_a.read_into(&mut view_a, log.len());
    at_b.read_into(&mut view_b, log.len());
    view_a.assert_exactly(&log);
    view_b.assert_exactly(&log);
    assert_eq!(a.history("lobby"), log);
    assert_eq!(b.history("lobby"), log);
}

#[test]
fn a_stream_that_is_deleted_begins_a_new_epoch_and_clients_are_told_to_reload() {
    let broker = Broker::shared();
    let prefix = Broker::unique_prefix();
    let (a, b) = (instance(broker, &prefix), instance(broker, &prefix));
    let before = a.publish("lobby", "1");
    let mut view = View::at("lobby", before.offset, &before.epoch);
    let mut client = Client::connect(&b);
    client.follow(&mut view);

    let stream = broker
        .ctl(&["list_queues", "--silent", "name"])
        .lines()
        .find(|name| name.starts_with(&prefix) && name.ends_with(&before.epoch))
        .map(str::to_owned);
    broker.ctl(&["delete_queue", &stream.expect("the room's stream")]);
    let (code, _) = client.closed();
    assert_eq!(code, 3004, "a client comes back after that");

    let after = publish_for_sure(&a, "lobby", "k", "2");
    assert_ne!(after.epoch, before.epoch);
    for server in [&a, &b] {
        eventually("the new life at both", || {
            (server.history("lobby") == [entry(&after, "2")]).then_some(())
        });
        let result = Client::connect(server).recover("lobby", before.offset, &before.epoch);
        assert_ne!(result["recovered"], true, "{result}");
        assert_eq!(result["epoch"], after.epoch);
    }
}
