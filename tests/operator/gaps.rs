//! What a server does where its broker, or a client, leaves it in doubt.

use std::{collections::BTreeSet, thread};

use serde_json::json;

use super::{await_ready, config, instance};
use crate::common::{Broker, Client, Server, eventually, server::deltas_of};

/// Far beyond the log's end.
const NEVER: u64 = 1_000_000_000;

#[test]
fn a_position_that_the_log_never_had_is_told_from_one_that_is_yet_to_be_read() {
    let server = instance(Broker::shared().url(1), &Broker::unique_prefix());
    let published = server.publish("lobby", "1");
    let mut client = Client::connect(&server);
    let result = client.recover("lobby", NEVER, &published.epoch);
    assert_ne!(result["recovered"], true, "{result}");
    let since = json!({"offset": NEVER, "epoch": published.epoch});
    let history = json!({"channel": "lobby", "limit": 10, "since": since});
    assert_eq!(client.error("history", history.clone()), 112);
    let mut backwards = history;
    backwards["reverse"] = true.into();
    let result = client.result("history", backwards);
    assert_eq!(result["publications"][0]["data"], 1, "{result}");
    let reply = server.get(&format!("{}?after={NEVER}", deltas_of("lobby")));
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json()["recovered"], false);
}

#[test]
fn a_lost_stream_of_generations_is_written_anew_and_splits_no_log() {
    let broker = Broker::shared();
    let prefix = Broker::unique_prefix();
    let (a, b) = (
        instance(broker.url(1), &prefix),
        instance(broker.url(1), &prefix),
    );
    let before = a.publish("lobby", "1");
    broker.ctl(&["delete_queue", &format!("{prefix}.meta")]);
    // Who comes second may find it whole.
    eventually("the loss to be noticed and mended", || {
        let mended = |server: &Server| {
            let log = server.log();
            log.contains("the stream of generations is gone") && log.contains("is whole again")
        };
        (mended(&a) || mended(&b)).then_some(())
    });
    let c = instance(broker.url(1), &prefix);
    let after = eventually("a publish to be taken again", || {
        let reply = c.post(&deltas_of("lobby"), &[], "2");
        (reply.status == 201).then(|| reply.json())
    });
    assert_eq!(after["epoch"], before.epoch, "the log goes on as it was");
    for server in [&a, &b, &c] {
        eventually("the same log everywhere", || {
            (server.history("lobby").len() == 2).then_some(())
        });
    }
}

#[test]
fn a_start_waits_for_a_broker_that_takes_nothing_and_says_so() {
    let broker = Broker::start(1);
    broker.alarm(true);
    let prefix = Broker::unique_prefix();
    thread::scope(|scope| {
        let starting = scope.spawn(|| Server::start(&config(broker.url(1), &prefix)));
        // It gives up a connection when it has met the alarm, and tries again on another.
        let mut met = BTreeSet::new();
        eventually("the start to meet the alarm", || {
            let connections = broker.ctl(&["list_connections", "--silent", "name"]);
            met.extend(
                connections
                    .lines()
                    .filter(|of| of.contains("->"))
                    .map(str::to_owned),
            );
            (met.len() > 1).then_some(())
        });
        assert!(!starting.is_finished());
        broker.alarm(false);
        let server = starting.join().unwrap();
        await_ready(&server);
        let log = server.log();
        assert!(log.contains("out of memory or disk"), "{log}");
        server.publish("lobby", "1");
    });
}
