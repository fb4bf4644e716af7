//! What a server on RabbitMQ tells publishers and clients while something is missing, and that all
//! goes on when it is back.

mod common;

use std::{
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

use common::{
    Broker, Client, Entry, Server, Socket, View, eventually,
    http::Reply,
    proxy::Proxy,
    server::{Accepted, deltas_of},
    socket,
};
use serde_json::json;

/// Longer than brokers take to come back.
const OUTAGE: Duration = Duration::from_secs(120);

/// Three nodes for one test at a time, which leaves them as it found them.
fn three_nodes() -> MutexGuard<'static, Broker> {
    static NODES: OnceLock<Mutex<Broker>> = OnceLock::new();
    let nodes = NODES.get_or_init(|| Mutex::new(Broker::start(3)));
    nodes.lock().unwrap_or_else(PoisonError::into_inner)
}

fn config(urls: &[&str], prefix: &str, more: &str) -> String {
    format!(
        "[limits]\nping_interval = \"1h\"\n\
         [amqp]\nurl = {urls:?}\nprefix = \"{prefix}\"\npartitions = 1\n{more}"
    )
}

fn ready(server: Server) -> Server {
    eventually("the server to have caught up", || {
        (server.get("/readyz").status == 200).then_some(())
    });
    server
}

fn start(urls: &[&str], prefix: &str, more: &str) -> Server {
    ready(Server::start(&config(urls, prefix, more)))
}

fn publish_with_key(server: &Server, key: &str) -> Reply {
    let headers = [("Idempotency-Key", key)];
    server.post(&deltas_of("lobby"), &headers, json!(key).to_string())
}

fn problem_of(reply: &Reply) -> String {
    let problem = reply.problem()["type"].as_str().map(str::to_owned);
    let (_, name) = problem
        .as_deref()
        .unwrap_or_default()
        .rsplit_once(':')
        .unwrap();
    name.to_owned()
}

/// Publishes until the answer is a position.
fn publish_for_sure(server: &Server, key: &str) -> Entry {
    let deadline = Instant::now() + OUTAGE;
    loop {
        let reply = publish_with_key(server, key);
        if let 200 | 201 = reply.status {
            let accepted: Accepted = serde_json::from_slice(&reply.body).unwrap();
            return Entry::new(accepted.offset, json!(key).to_string());
        }
        assert!(Instant::now() < deadline, "{key}: {}", reply.text());
        thread::sleep(Duration::from_millis(50));
    }
}

/// Publishes until a delta is refused, and gives what its publisher was told.
fn publish_until_refused(server: &Server, keys: &mut Vec<String>) -> Reply {
    let deadline = Instant::now() + OUTAGE;
    loop {
        let key = format!("key{}", keys.len());
        let reply = publish_with_key(server, &key);
        keys.push(key);
        match reply.status {
            200..=202 => assert!(Instant::now() < deadline, "never refused"),
            503 if problem_of(&reply) == "outcome-unknown" => {}
            _ => return reply,
        }
    }
}

#[test]
fn during_a_memory_alarm_publishers_are_refused_and_nothing_that_was_accepted_is_lost() {
    let broker = three_nodes();
    let server = start(&[broker.url(1)], &Broker::unique_prefix(), "");
    let mut view = View::new("lobby");
    let mut client = Client::connect(&server);
    client.follow(&mut view);
    let mut log = vec![publish_for_sure(&server, "first")];
    broker.alarm(true);
    let mut keys = Vec::new();
    let refused = publish_until_refused(&server, &mut keys);
    assert_eq!((refused.status, &*problem_of(&refused)), (503, "not-taken"));
    assert!(refused.header("retry-after").is_some());
    client.is_alive();
    assert_eq!(server.history("lobby")[..1], log, "reading goes on");
    broker.alarm(false);
    log.extend(keys.iter().map(|key| publish_for_sure(&server, key)));
    log.sort_by_key(|entry| entry.offset);
    client.read_into(&mut view, log.len());
    view.assert_exactly(&log);
}

#[test]
fn without_a_majority_of_brokers_publishers_are_refused_until_it_is_back() {
    let broker = three_nodes();
    let urls = [broker.url(3), broker.url(1), broker.url(2)];
    let prefix = Broker::unique_prefix();
    let server = start(&urls, &prefix, "heartbeat = \"500ms\"\n");
    broker.settle();
    let mut view = View::new("lobby");
    let mut client = Client::connect(&server);
    client.follow(&mut view);
    let mut log = vec![publish_for_sure(&server, "first")];
    broker.kill(1);
    broker.kill(2);
    let mut keys = Vec::new();
    let refused = publish_until_refused(&server, &mut keys);
    assert_eq!((refused.status, &*problem_of(&refused)), (503, "not-taken"));
    client.is_alive();
    broker.restart_these(&[1, 2]);
    log.extend(keys.iter().map(|key| publish_for_sure(&server, key)));
    log.sort_by_key(|entry| entry.offset);
    client.read_into(&mut view, log.len());
    view.assert_exactly(&log);
}

#[test]
fn a_server_whose_node_loses_its_replica_of_the_log_goes_on_at_another_node() {
    let broker = three_nodes();
    let prefix = Broker::unique_prefix();
    let urls = [broker.url(3), broker.url(1)];
    let server = start(&urls, &prefix, "heartbeat = \"500ms\"\n");
    let mut view = View::new("lobby");
    let mut client = Client::connect(&server);
    client.follow(&mut view);
    let mut log = vec![publish_for_sure(&server, "first")];
    let queues = broker.ctl(&["list_queues", "--silent", "name"]);
    let stream = format!("{prefix}.log.");
    let stream = queues
        .lines()
        .find(|name| name.starts_with(&stream))
        .unwrap();
    broker.streams(&["delete_replica", stream, "rabbit3@localhost"]);
    log.push(publish_for_sure(&server, "second"));
    client.read_into(&mut view, 2);
    view.assert_exactly(&log);

    // One that starts is not let in at the node without a replica either.
    let other = start(&urls, &prefix, "heartbeat = \"500ms\"\n");
    assert_eq!(other.history("lobby"), log);
}

#[test]
fn after_a_stop_that_outlasted_retention_clients_are_told_to_reload_and_see_no_hole() {
    let broker = Broker::shared();
    let prefix = Broker::unique_prefix();
    let small = "max_bytes = \"1MiB\"\n";
    let [a, mut b] = [(); 2].map(|()| start(&[broker.url(1)], &prefix, small));
    let before = b.publish("lobby", "0");
    eventually("the delta at both", || {
        (a.history("lobby").len() == 1).then_some(())
    });
    b.stop();
    let large = json!("1".repeat(50_000)).to_string();
    let mut log: Vec<Entry> = Vec::new();
    for _ in 0..100 {
        log.push(Entry::new(a.publish("lobby", &large).offset, large.clone()));
    }
    b.restart();
    let b = ready(b);
    let mut view = View::at("lobby", before.offset, &before.epoch);
    let mut client = Client::connect(&b);
    let result = client.follow(&mut view);
    assert_ne!(result["recovered"], true, "{result}");
    assert_eq!(result["epoch"], before.epoch);
    let kept = b.history("lobby");
    assert!(kept.len() < log.len(), "retention trimmed nothing");
    assert_eq!(kept, log[log.len() - kept.len()..], "a hole");
    // From behind the hole on a client recovers at either.
    for (server, log) in [(&a, &log), (&b, &kept)] {
        let mut view = View::at("lobby", kept[0].offset, &before.epoch);
        let mut client = Client::connect(server);
        let result = client.follow(&mut view);
        assert_eq!(result["recovered"], true, "{}", result["offset"]);
        client.read_into(&mut view, kept.len() - 1);
        view.assert_exactly(log);
    }
    log.push(Entry::new(a.publish("lobby", "2").offset, "2"));
    client.read_into(&mut view, 1);
    view.assert_exactly(&log);
}

#[test]
fn a_server_that_is_catching_up_takes_neither_clients_nor_publishes() {
    let broker = Broker::shared();
    let prefix = Broker::unique_prefix();
    let line = Proxy::to(broker.addresses().next().unwrap());
    let url = format!("amqp://guest:guest@{}", line.address());
    let a = start(&[broker.url(1)], &prefix, "");
    let log = a.publish_numbers("lobby", 0, 50);
    // It connects and hears nothing of the log.
    line.silence_those_named("reader");
    let b = Server::start(&config(&[&url], &prefix, ""));
    for reply in [
        b.get("/readyz"),
        publish_with_key(&b, "early"),
        b.get(&deltas_of("lobby")),
    ] {
        assert_eq!((reply.status, &*problem_of(&reply)), (503, "catching-up"));
        assert!(reply.header("retry-after").is_some());
    }
    assert_eq!(b.get("/healthz").status, 200);
    let (session, refused) = Socket::handshake(b.address(), socket::PATH, &[]);
    assert!(session.is_none());
    assert_eq!(
        (refused.status, &*problem_of(&refused)),
        (503, "catching-up")
    );
    line.mend();
    let b = ready(b);
    assert_eq!(b.history("lobby"), log);
    let mut view = View::at("lobby", log[9].offset, &a.publish("other", "1").epoch);
    let result = Client::connect(&b).follow(&mut view);
    assert_eq!(result["recovered"], true, "{result}");
    view.assert_exactly(&log);
}

#[test]
fn a_delta_that_is_confirmed_but_not_read_back_is_answered_with_its_id_and_is_there_later() {
    let broker = Broker::shared();
    let line = Proxy::to(broker.addresses().next().unwrap());
    let url = format!("amqp://guest:guest@{}", line.address());
    let server = start(&[&url], &Broker::unique_prefix(), "");
    let first = publish_for_sure(&server, "first");
    line.silence_those_named("reader");
    let reply = publish_with_key(&server, "second");
    assert_eq!(reply.status, 202, "{}", reply.text());
    assert_eq!(reply.json()["id"], "second");
    assert!(reply.json().get("offset").is_none());
    line.mend();
    let second = publish_for_sure(&server, "second");
    assert_eq!(server.history("lobby"), [first, second]);
}
