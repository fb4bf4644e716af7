//! Publishing over HTTP: what is kept, what is answered, and what a repeated key does.

mod common;

use std::{collections::HashSet, thread};

use common::{
    Client, Server,
    http::Reply,
    server::{JSON, deltas_of},
};
use serde_json::{Value, json};

const LOBBY: &str = "/v1/rooms/lobby/deltas";

/// A client that is not connected.
const ABSENT: &str = "01234567-89ab-4cde-8f01-23456789abcd";

fn with_key(server: &Server, room: &str, key: &str, data: &str) -> Reply {
    server.post(&deltas_of(room), &[JSON, ("Idempotency-Key", key)], data)
}

/// Publishes a batch and gives its results.
fn batch(server: &Server, entries: Value) -> Vec<Value> {
    let reply = server.post("/v1/deltas", &[JSON], entries.to_string());
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["results"]
        .as_array()
        .cloned()
        .expect("results")
}

#[test]
fn an_accepted_delta_is_told_its_position_and_time() {
    let server = Server::start("");
    let before = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    let reply = server.post(LOBBY, &[JSON], "{\"n\":1}");
    assert_eq!(reply.status, 201);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let first = reply.json();
    assert_eq!(first["room"], "lobby");
    assert!(!first["id"].as_str().unwrap().is_empty());
    assert!(first["time"].as_u64().unwrap() >= before);
    let second = server.publish("lobby", "2");
    assert!(second.offset > first["offset"].as_u64().unwrap());
    assert!(second.time >= first["time"].as_u64().unwrap());
    assert_eq!(first["epoch"], second.epoch.as_str());
}

#[test]
fn data_are_kept_verbatim_but_for_whitespace_between_tokens() {
    let server = Server::start("");
    for (written, kept) in [
        ("12345678901234567890", "12345678901234567890"),
        (
            "123456789012345678901234567890",
            "123456789012345678901234567890",
        ),
        ("-0.0", "-0.0"),
        ("1.0e+05", "1.0e+05"),
        (" null ", "null"),
        ("\"\\u00e9\\/ é \\n\"", "\"\\u00e9\\/ é \\n\""),
        ("{\"b\":1,\"a\":2,\"b\":3}", "{\"b\":1,\"a\":2,\"b\":3}"),
        (
            "[ 1 ,\r\n\t{ \"x y\" : \" z \" } ]",
            "[1,{\"x y\":\" z \"}]",
        ),
    ] {
        let accepted = server.publish("lobby", written);
        let last = server.history("lobby").pop().unwrap();
        assert_eq!((last.offset, last.data.as_str()), (accepted.offset, kept));
    }
}

#[test]
fn a_room_name_of_any_kind_travels_in_the_path() {
    let server = Server::start("[namespaces.chat]\n");
    for room in [
        "chat:a:b",
        "ünïcode",
        "a.b-c_d",
        "r@x#1,2=3+4~5$6!7&8",
        &"é".repeat(127),
    ] {
        let mut client = Client::connect(&server);
        client.subscribe(room);
        server.publish(room, "1");
        assert_eq!(client.publication().0, room);
        assert_eq!(server.history(room).len(), 1);
    }
}

#[test]
fn a_repeated_key_publishes_nothing_and_is_answered_with_the_first_position() {
    let server = Server::start("");
    let first = with_key(&server, "lobby", "order-17", "1");
    assert_eq!(first.status, 201);
    assert_eq!(first.json()["id"], "order-17");
    let again = with_key(&server, "lobby", "order-17", "2");
    assert_eq!(again.status, 200);
    for field in ["room", "offset", "epoch", "id", "time"] {
        assert_eq!(again.json()[field], first.json()[field], "{field}");
    }
    assert_eq!(
        with_key(&server, "other", "order-17", "3").status,
        201,
        "keys belong to rooms"
    );
    assert_eq!(server.history("lobby").len(), 1);
}

#[test]
fn a_key_is_remembered_over_a_stop_and_over_kill_9() {
    let mut server = Server::start("");
    let first = with_key(&server, "lobby", "a", "1").json();
    server.kill9();
    server.restart();
    let second = with_key(&server, "lobby", "a", "1");
    assert_eq!(
        (second.status, &second.json()["offset"]),
        (200, &first["offset"])
    );
    assert!(server.stop().success());
    server.restart();
    let third = with_key(&server, "lobby", "a", "1");
    assert_eq!(
        (third.status, &third.json()["offset"]),
        (200, &first["offset"])
    );
    assert_eq!(server.history("lobby").len(), 1);
}

#[test]
fn of_twenty_publishers_with_one_key_at_once_one_publishes() {
    let server = Server::start("");
    for round in 0..10 {
        let key = format!("round-{round}");
        let replies: Vec<Reply> = thread::scope(|scope| {
            let publisher = || with_key(&server, "lobby", &key, "1");
            let threads: Vec<_> = (0..20).map(|_| scope.spawn(publisher)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        let created = replies.iter().filter(|reply| reply.status == 201).count();
        let repeated = replies.iter().filter(|reply| reply.status == 200).count();
        assert_eq!((created, repeated), (1, 19));
        let offsets: HashSet<u64> = replies
            .iter()
            .map(|reply| reply.json()["offset"].as_u64().unwrap())
            .collect();
        assert_eq!(offsets.len(), 1, "all are told the same position");
    }
    assert_eq!(server.history("lobby").len(), 10);
}

#[test]
fn a_key_is_free_again_after_its_window() {
    let server = Server::start("[publish]\nidempotency_window = \"1s\"\n");
    let first = with_key(&server, "lobby", "a", "1");
    common::eventually("the key to be free again", || {
        // The window is measured in the log's time, which other deltas move.
        server.publish("other", "1");
        (with_key(&server, "lobby", "a", "2").status == 201).then_some(())
    });
    let history = server.history("lobby");
    assert_eq!(history.len(), 2);
    assert_eq!(history[0].offset, first.json()["offset"].as_u64().unwrap());
}

#[test]
fn a_batch_is_answered_entry_by_entry_and_published_in_its_order() {
    let server = Server::start("");
    let results = batch(
        &server,
        json!([
            {"room": "a", "data": {"n": 1}},
            {"room": "not a name", "data": 0},
            {"room": "b", "data": 12345678901234567890_u64, "id": "k"},
            {"room": "nowhere:x", "data": 0},
            {"room": "a", "data": {"n": 2}},
            {"room": "b", "data": 0, "id": "k"},
        ]),
    );
    let statuses: Vec<u64> = results
        .iter()
        .filter_map(|r| r["status"].as_u64())
        .collect();
    assert_eq!(statuses, [201, 400, 201, 404, 201, 200]);
    for refused in [1, 3] {
        let problem = &results[refused];
        assert!(
            problem["type"]
                .as_str()
                .unwrap()
                .starts_with("urn:roomwire:problem:")
        );
        assert!(!problem["detail"].as_str().unwrap().is_empty());
    }
    assert_eq!(results[5]["offset"], results[2]["offset"]);
    assert_eq!(results[2]["id"], "k");
    assert!(results[4]["offset"].as_u64() > results[0]["offset"].as_u64());
    let data = |room| -> Vec<String> {
        server
            .history(room)
            .into_iter()
            .map(|entry| entry.data)
            .collect()
    };
    assert_eq!(data("a"), ["{\"n\":1}", "{\"n\":2}"]);
    assert_eq!(data("b"), ["12345678901234567890"]);
}

#[test]
fn an_empty_batch_has_no_results() {
    assert_eq!(batch(&Server::start(""), json!([])), [] as [Value; 0]);
}

#[test]
fn minimal_answers_have_the_id_alone() {
    let server = Server::start("");
    let headers = [JSON, ("Prefer", "return=minimal"), ("Idempotency-Key", "k")];
    let reply = server.post(LOBBY, &headers, "1");
    assert_eq!(reply.status, 201);
    assert_eq!(reply.json(), json!({"id": "k"}));
    assert_eq!(reply.header("preference-applied"), Some("return=minimal"));
    assert_eq!(server.history("lobby").len(), 1);
}

#[test]
fn bodies_up_to_the_limit_are_taken_and_above_it_the_limit_is_told() {
    let server = Server::start(
        "[publish]\nmax_delta_bytes = \"1KiB\"\nmax_batch = 3\nmax_batch_bytes = \"8KiB\"\n",
    );
    let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    assert_eq!(server.post(LOBBY, &[JSON], text(1024)).status, 201);
    let reply = server.post(LOBBY, &[JSON], text(1025));
    assert_eq!(reply.status, 413);
    let problem = reply.problem();
    assert_eq!(problem["type"], "urn:roomwire:problem:too-large");
    assert_eq!(problem["limit"], 1024);

    let entry = |bytes| json!({"room": "a", "data": "x".repeat(bytes)});
    let four = json!([entry(1), entry(1), entry(1), entry(1)]);
    let reply = server.post("/v1/deltas", &[JSON], four.to_string());
    assert_eq!(reply.status, 413);
    assert_eq!(
        reply.problem()["type"],
        "urn:roomwire:problem:too-many-deltas"
    );
    assert_eq!(reply.problem()["limit"], 3);
    let reply = server.post("/v1/deltas", &[JSON], json!([entry(9000)]).to_string());
    assert_eq!(reply.status, 413);
    assert_eq!(reply.problem()["limit"], 8192);
    let results = batch(&server, json!([entry(2000), entry(1)]));
    assert_eq!(
        (&results[0]["status"], &results[0]["limit"]),
        (&json!(413), &json!(1024))
    );
    assert_eq!(results[1]["status"], 201);
    assert_eq!(server.history("a").len(), 1, "nothing else was published");
}

#[test]
fn subscribers_get_what_two_publishers_send_in_the_order_of_the_log() {
    let server = Server::start("");
    let mut client = Client::connect(&server);
    let mut view = common::View::new("lobby");
    client.follow(&mut view);
    thread::scope(|scope| {
        scope.spawn(|| server.publish_numbers("lobby", 0, 1000));
        scope.spawn(|| server.publish_numbers("lobby", 10_000, 1000));
    });
    client.read_into(&mut view, 2000);
    view.assert_exactly(&server.history("lobby"));
}

#[test]
fn the_client_that_caused_a_delta_is_not_sent_it_live_but_finds_it_when_it_comes_back() {
    let server = Server::start("");
    let (mut author, mut other) = (Client::connect(&server), Client::connect(&server));
    let mut view = common::View::new("lobby");
    author.follow(&mut view);
    other.subscribe("lobby");
    let exclude = ("Roomwire-Exclude-Client", author.id.as_str());
    let first = server.post(LOBBY, &[JSON, exclude], "1");
    assert_eq!(first.status, 201);
    let entry = json!({"room": "lobby", "data": 2, "exclude": author.id});
    assert_eq!(batch(&server, json!([entry]))[0]["status"], 201);
    let last = server.publish("lobby", "3");
    for data in 1..=3 {
        assert_eq!(other.publication().1["data"], data);
    }
    assert_eq!(author.publication().1["offset"], last.offset);
    assert_eq!(server.history("lobby").len(), 3);
    let mut again = Client::connect(&server);
    again.follow(&mut view);
    view.assert_exactly(&server.history("lobby"));
}

#[test]
fn a_client_to_exclude_is_named_by_the_id_that_it_was_given() {
    let server = Server::start("");
    let exclude = |value| ("Roomwire-Exclude-Client", value);
    let refused = server.post(LOBBY, &[JSON, exclude("me")], "1");
    assert_eq!(refused.status, 400);
    assert_eq!(
        refused.problem()["type"],
        "urn:roomwire:problem:bad-client-id"
    );
    let (one, other) = (exclude(ABSENT), exclude(ABSENT));
    assert_eq!(server.post(LOBBY, &[JSON, one, other], "1").status, 400);
    let entry = json!({"room": "lobby", "data": 2, "exclude": "me"});
    assert_eq!(batch(&server, json!([entry]))[0]["status"], 400);
    assert_eq!(server.history("lobby"), []);
    assert_eq!(server.post(LOBBY, &[JSON, one], "1").status, 201);
}
