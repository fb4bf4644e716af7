//! Rooms that store nothing, and readers that are skipped instead of being disconnected.

mod common;

use common::{Client, Server, View, server::deltas_of, stream::Stream};
use serde_json::{Value, json};

const CONFIG: &str = r#"
[limits]
max_outbox_bytes = "1MiB"

[namespaces.ticker]
store = false
slow = "skip"

[namespaces.feed]
slow = "skip"
history_bytes = "256MiB"
"#;

/// More than all buffers between two sockets hold, in deltas of [`large`].
const MOST: usize = 2_000;

fn large(n: usize) -> String {
    format!("{{\"n\":{n},\"x\":\"{}\"}}", "x".repeat(30_000))
}

/// Publishes until the server has taken somebody out of a room; gives the last number.
fn publish_until_skipped(server: &Server, room: &str) -> usize {
    for n in 0..MOST {
        let status = server.post(&deltas_of(room), &[], large(n)).status;
        assert!(status == 201 || status == 202, "{status}");
        if server.metric("roomwire_slow_skips_total") > 0.0 {
            return n;
        }
    }
    panic!("nobody was skipped");
}

/// The client's next push, and whether it ends the subscription.
fn next(client: &mut Client) -> (Value, bool) {
    let push = client.push();
    let ended = push["unsubscribe"].is_object();
    if ended {
        assert_eq!(push["unsubscribe"]["code"], 2500);
    }
    (push, ended)
}

#[test]
fn what_is_not_stored_reaches_who_is_there_and_leaves_no_trace() {
    let server = Server::start(CONFIG);
    let early = server.post(&deltas_of("ticker:a"), &[], "0");
    assert_eq!(early.status, 202);
    assert_eq!(early.json().as_object().map(|o| o.len()), Some(1), "an id");
    let (mut client, mut author) = (Client::connect(&server), Client::connect(&server));
    assert_eq!(client.subscribe("ticker:a"), json!({}));
    author.subscribe("ticker:a");
    let headers = [
        ("Idempotency-Key", "k"),
        ("Roomwire-Exclude-Client", author.id.as_str()),
    ];
    let reply = server.post(&deltas_of("ticker:a"), &headers, "{\"price\": 1}");
    assert_eq!((reply.status, reply.json()), (202, json!({"id": "k"})));
    let batch = json!([
        {"room": "ticker:a", "data": 2, "id": "k"},
        {"room": "lobby", "data": 3},
    ]);
    let reply = server.post("/v1/deltas", &[], batch.to_string()).json();
    assert_eq!(reply["results"][0], json!({"status": 202, "id": "k"}));
    assert_eq!(reply["results"][1]["status"], 201);
    let tags = json!({"id": "k"});
    let first = json!({"data": {"price": 1}, "tags": tags});
    let second = json!({"data": 2, "tags": tags});
    assert_eq!(client.publication().1, first);
    assert_eq!(client.publication().1, second);
    assert_eq!(author.publication().1, second);
    let missing = [
        server.get(&deltas_of("ticker:a")),
        server.delete(&deltas_of("ticker:a")),
        server.delete(&format!("{}/1", deltas_of("ticker:a"))),
    ];
    for reply in missing {
        assert_eq!(reply.problem()["type"], "urn:roomwire:problem:not-stored");
    }
    let history = json!({"channel": "ticker:a", "limit": 10});
    assert_eq!(client.error("history", history), 108);
    server.await_metric("roomwire_deltas_in_total{result=\"passed\"}", 3.0);
}

#[test]
fn nobody_is_told_that_something_was_recovered_where_nothing_is_stored() {
    let server = Server::start(CONFIG);
    let mut client = Client::connect(&server);
    let lost = client.recover("ticker:a", 5, "e");
    assert_eq!(lost, json!({"was_recovering": true}));
    let request = json!({"channel": "ticker:b", "recover": true, "offset": 5, "flag": 2});
    assert_eq!(client.error("subscribe", request), 112);
}

#[test]
fn a_slow_reader_skips_to_the_newest_and_stays_connected() {
    let server = Server::start(CONFIG);
    let (mut slow, mut other) = (Client::connect(&server), Client::connect(&server));
    slow.subscribe("ticker:a");
    other.subscribe("lobby");
    let last = publish_until_skipped(&server, "ticker:a");
    let mut seen = 0;
    loop {
        let (push, ended) = next(&mut slow);
        if ended {
            break;
        }
        assert_eq!(push["pub"]["data"]["n"], seen, "no hole before it is told");
        seen += 1;
    }
    assert!(seen <= last, "something was skipped");
    assert_eq!(slow.subscribe("ticker:a"), json!({}));
    server.post(&deltas_of("ticker:a"), &[], "\"newest\"");
    assert_eq!(slow.publication().1["data"], "newest");
    server.publish("lobby", "1");
    assert_eq!(other.publication().1["data"], 1);
    assert_eq!(server.metric("roomwire_slow_disconnects_total"), 0.0);
}

#[test]
fn who_is_skipped_where_deltas_are_stored_comes_back_and_misses_nothing() {
    let server = Server::start(CONFIG);
    let mut slow = Client::connect(&server);
    let mut view = View::new("feed:a");
    slow.follow(&mut view);
    publish_until_skipped(&server, "feed:a");
    loop {
        let (push, ended) = next(&mut slow);
        match ended {
            true => break,
            false => view.publication(&push["pub"]),
        }
    }
    let result = slow.follow(&mut view);
    assert_eq!(result["recovered"], true);
    let log = server.history("feed:a");
    slow.read_into(&mut view, log.len());
    view.assert_exactly(&log);
    assert_eq!(server.metric("roomwire_slow_disconnects_total"), 0.0);
}

#[test]
fn events_that_are_not_stored_move_nobody_on_and_who_comes_back_is_told_to_reload() {
    let server = Server::start(CONFIG);
    let path = "/v1/rooms/ticker:a/events";
    let mut stream = Stream::open(&server, path);
    server.await_metric("roomwire_rooms_active", 1.0);
    let key = [("Idempotency-Key", "k")];
    assert_eq!(server.post(&deltas_of("ticker:a"), &key, "1").status, 202);
    let event = stream.next();
    assert_eq!(event.name, "message");
    assert_eq!(
        event.json(),
        json!({"room": "ticker:a", "id": "k", "data": 1})
    );
    let mut again = Stream::come_back(&server, path, &stream.parser.last_id);
    assert_eq!(again.next().name, "reload");
    let held = server.get("/v1/deltas?room=ticker:a&room=lobby");
    assert_eq!(held.problem()["type"], "urn:roomwire:problem:not-stored");
}
