//! What the wire must look like for SDKs in the field: each known trap of the JSON client protocol
//! as a test of its own.
//! `common::client` checks the form of every message on the way.

mod common;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use common::{
    Client, Server, Socket, View,
    client::messages,
    server::deltas_of,
    socket::{BINARY, Frame, PATH, TEXT},
};
use serde_json::{Value, json};

/// Publishes to a room until the work is done.
fn under_load<T>(server: &Server, room: &str, work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut http = server.http();
            for n in 0.. {
                if done.load(Ordering::SeqCst) {
                    break;
                }
                let data = format!("{{\"n\":{n}}}");
                http.request("POST", &deltas_of(room), &[], data.as_bytes());
            }
        });
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::SeqCst);
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[test]
fn a_connect_reply_has_all_that_sdks_require_and_nothing_that_makes_them_refresh() {
    let server = Server::start("");
    let result = Client::open(&server).result("connect", json!({"name": "js", "flag": 1}));
    assert!(result["client"].as_str().is_some_and(|id| !id.is_empty()));
    assert!(result["version"].as_str().is_some_and(|v| !v.is_empty()));
    assert_eq!(result["ping"], 25);
    assert_eq!(result["pong"], true);
    assert_eq!(
        result.get("expires"),
        None,
        "without tokens nothing expires"
    );
}

#[test]
fn no_sub_protocol_is_answered_unless_one_was_asked_for() {
    let server = Server::start("");
    let answered = |asked: &[(&str, &str)]| {
        let (socket, reply) = Socket::handshake(server.address(), PATH, asked);
        assert!(socket.is_some(), "{} {}", reply.status, reply.text());
        reply.header("sec-websocket-protocol").map(str::to_owned)
    };
    let header = "Sec-WebSocket-Protocol";
    assert_eq!(answered(&[]), None);
    assert_eq!(
        answered(&[(header, "")]),
        None,
        "an empty header asks for none"
    );
    let json = answered(&[(header, "centrifuge-json")]);
    assert_eq!(json.as_deref(), Some("centrifuge-json"));
    let offer = "permessage-deflate; client_max_window_bits";
    let (socket, reply) = Socket::handshake(
        server.address(),
        PATH,
        &[("Sec-WebSocket-Extensions", offer)],
    );
    assert!(socket.is_some());
    assert_eq!(reply.header("sec-websocket-extensions"), None);
}

#[test]
fn protobuf_is_spoken_where_it_is_asked_for_by_name_or_in_the_query() {
    let server = Server::start("");
    let in_query = |query: &str| format!("{PATH}?{query}");
    let by_name = |names| vec![("Sec-WebSocket-Protocol", names)];
    for (path, asked, answered) in [
        (
            PATH.to_owned(),
            by_name("centrifuge-protobuf"),
            Some("centrifuge-protobuf"),
        ),
        (
            PATH.to_owned(),
            by_name("novel, centrifuge-protobuf, centrifuge-json"),
            Some("centrifuge-protobuf"),
        ),
        (in_query("format=protobuf"), vec![], None),
        (in_query("a=b&cf_protocol=protobuf"), vec![], None),
    ] {
        let (socket, reply) = Socket::handshake(server.address(), &path, &asked);
        assert_eq!(reply.header("sec-websocket-protocol"), answered);
        let mut socket = socket.unwrap();
        // Connect with id 1 and subscribe to "r" with id 2, both behind their lengths.
        let commands = [&[4, 8, 1, 0x22, 0][..], &[7, 8, 2, 0x2A, 3, 0x0A, 1, b'r']].concat();
        socket.send(&Frame::new(BINARY, commands));
        let connected = socket.read();
        assert_eq!(connected.opcode, BINARY);
        assert_eq!(
            connected.payload[1..4],
            [8, 1, 0x2A],
            "the result of command 1"
        );
        let subscribed = socket.read();
        assert_eq!(
            subscribed.payload[1..4],
            [8, 2, 0x32],
            "the result of command 2"
        );
        server.publish("r", "{\"n\": 1}");
        let push = socket.read();
        assert_eq!(push.opcode, BINARY);
        let data = br#"{"n":1}"#;
        assert!(push.payload.windows(data.len()).any(|part| part == data));
    }
    let (socket, _) = Socket::handshake(
        server.address(),
        &in_query("format=protobuf"),
        &by_name("centrifuge-json"),
    );
    let mut socket = socket.unwrap();
    socket.send_text(r#"{"id":1,"connect":{}}"#);
    assert_eq!(socket.read().opcode, TEXT, "the name counts");
}

#[test]
fn one_room_is_read_in_both_formats_and_by_itself_in_each() {
    let server = Server::start("");
    let mut json = Client::connect(&server);
    json.subscribe("r");
    let asked = [("Sec-WebSocket-Protocol", "centrifuge-protobuf")];
    let (socket, _) = Socket::handshake(server.address(), PATH, &asked);
    let mut protobuf = socket.unwrap();
    let commands = [&[4, 8, 1, 0x22, 0][..], &[7, 8, 2, 0x2A, 3, 0x0A, 1, b'r']].concat();
    protobuf.send(&Frame::new(BINARY, commands));
    protobuf.read();
    protobuf.read();
    server.publish("r", "1");
    assert!(json.socket.read().text().contains(r#""data":1"#));
    // Push of a publication in "r": its data, and behind that offset and time.
    let push = protobuf.read().payload;
    assert_eq!(
        push[1..9],
        [0x22, push[0] - 2, 0x12, 1, b'r', 0x22, push[0] - 7, 0x22]
    );
    assert_eq!(push[9..11], [1, b'1']);
}

#[test]
fn a_sub_protocol_that_is_not_spoken_is_refused_with_a_reason() {
    let server = Server::start("");
    let asked = [("Sec-WebSocket-Protocol", "centrifuge-novel")];
    let (socket, reply) = Socket::handshake(server.address(), PATH, &asked);
    assert!(socket.is_none());
    assert_eq!(reply.status, 400);
    let problem = reply.problem();
    assert_eq!(problem["type"], "urn:roomwire:problem:unsupported-protocol");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("centrifuge-novel")
    );
}

#[test]
fn a_pretty_printed_delta_arrives_on_one_line_and_unharmed() {
    let server = Server::start("");
    let mut client = Client::connect(&server);
    client.subscribe("lobby");
    let pretty = "{\r\n\t\"big\" : 12345678901234567890,\n  \"exact\": [1.0, 1e2],\n  \"text\": \"a\\nb \\u0000 é\"\n}";
    server.publish("lobby", pretty);
    let frame = client.socket.read();
    let compact = r#""data":{"big":12345678901234567890,"exact":[1.0,1e2],"text":"a\nb \u0000 é"}"#;
    assert_eq!(messages(frame.text()).len(), 1);
    assert!(frame.text().contains(compact), "{}", frame.text());
}

#[test]
fn subscribes_that_come_before_the_connect_reply_are_answered_after_it_in_order() {
    let server = Server::start("");
    let mut client = Client::open(&server);
    let subscribe =
        |id: u64, room: &str| json!({"subscribe": {"channel": room, "flag": 1}, "id": id});
    let connect = json!({"connect": {"name": "js"}, "id": 1});
    client.send(format!("{connect}\n{}", subscribe(2, "a")));
    client.send(subscribe(3, "b"));
    assert!(client.next_message()["connect"].is_object());
    let mut answered: Vec<Value> = (0..2)
        .map(|_| client.next_message()["id"].clone())
        .collect();
    answered.sort_by_key(Value::as_u64);
    assert_eq!(answered, [2, 3]);
}

#[test]
fn no_push_of_a_room_precedes_its_subscribe_reply_or_follows_its_unsubscribe_reply() {
    let server = Server::start("");
    let mut client = Client::connect(&server);
    under_load(&server, "busy", || {
        let mut deltas = 0;
        for round in 0..100 {
            let (on, off) = (1000 + 2 * round, 1001 + 2 * round);
            client.send(json!({"id": on, "subscribe": {"channel": "busy", "recoverable": true}}));
            let reply = client.next_message();
            assert_eq!(reply["id"], on, "before the subscribe reply: {reply}");
            while round % 2 == 0 && deltas < round {
                client.publication();
                deltas += 1;
            }
            client.send(json!({"id": off, "unsubscribe": {"channel": "busy"}}));
            while client.next_message()["id"] != off {
                deltas += 1;
            }
        }
    });
    client.is_alive();
}

#[test]
fn pings_come_in_time_however_much_traffic_flows() {
    let server = Server::start("[limits]\nping_interval = \"1s\"\npong_timeout = \"900ms\"\n");
    let mut client = Client::connect(&server);
    client.subscribe("busy");
    let start = Instant::now();
    let mut pings = vec![start];
    under_load(&server, "busy", || {
        while pings.len() < 5 {
            let frame = client.socket.read();
            for _ in messages(frame.text()).iter().filter(|m| **m == json!({})) {
                pings.push(Instant::now());
                client.send("{}");
            }
        }
    });
    for pair in pings.windows(2) {
        let gap = pair[1] - pair[0];
        assert!(gap < Duration::from_millis(1500), "{gap:?} without a ping");
    }
    let gap = pings[4] - pings[3];
    assert!(gap > Duration::from_millis(500), "pings every {gap:?}");
}

#[test]
fn every_error_has_a_code_and_a_message() {
    let server = Server::start("[namespaces.open]\nclient_publish = \"stored\"\n");
    let mut client = Client::connect(&server);
    client.subscribe("lobby");
    let room = |name: &str| json!({"channel": name});
    let publish = |name: &str| json!({"channel": name, "data": {}});
    let since_another =
        json!({"channel": "lobby", "limit": 1, "since": {"offset": 1, "epoch": "another"}});
    let from_nowhere = json!({"channel": "lobby", "limit": 1, "reverse": true, "since": {"offset": 0, "epoch": ""}});
    for (command, request, code) in [
        ("subscribe", room("lobby"), 105),
        ("subscribe", room("two words"), 107),
        ("subscribe", room(""), 107),
        ("subscribe", room("nowhere:a"), 102),
        ("subscribe", json!({"channel": "b", "type": 1}), 108),
        (
            "subscribe",
            json!({"channel": "b", "tf": {"key": "a", "cmp": "eq", "val": "b"}}),
            107,
        ),
        ("publish", publish("lobby"), 108),
        ("publish", publish("open:not-subscribed"), 103),
        ("presence", room("lobby"), 108),
        ("history", since_another, 112),
        ("history", from_nowhere, 107),
        ("rpc", json!({"method": "any", "data": {}}), 108),
        ("teleport", json!({}), 104),
    ] {
        assert_eq!(
            client.error(command, request.clone()),
            code,
            "{command} {request}"
        );
    }
    client.is_alive();
}

#[test]
fn a_full_server_refuses_the_handshake_so_that_the_sdk_comes_back_later() {
    let server = Server::start("[limits]\nmax_sessions = 2\n");
    let first = Client::connect(&server);
    let _second = Client::connect(&server);
    let (socket, reply) = Socket::handshake(server.address(), PATH, &[]);
    assert!(socket.is_none());
    assert_eq!(reply.status, 503);
    assert_eq!(reply.problem()["type"], "urn:roomwire:problem:full");
    assert!(reply.header("retry-after").is_some());
    drop(first);
    server.await_metric("roomwire_sessions{transport=\"websocket\"}", 1.0);
    Client::connect(&server);
}

#[test]
fn the_room_limit_is_an_error_of_the_one_room_too_many() {
    let server = Server::start("[limits]\nmax_rooms_per_session = 2\n");
    let mut client = Client::connect(&server);
    client.subscribe("a");
    client.subscribe("b");
    assert_eq!(client.error("subscribe", json!({"channel": "c"})), 106);
    client.result("unsubscribe", json!({"channel": "a"}));
    client.subscribe("c");
}

#[test]
fn unsubscribe_and_subscribe_back_to_back_in_one_frame_both_succeed() {
    let server = Server::start("");
    let mut client = Client::connect(&server);
    client.subscribe("lobby");
    let mut frame = Vec::new();
    for round in 0..50 {
        let (off, on) = (1000 + 2 * round, 1001 + 2 * round);
        frame.push(json!({"id": off, "unsubscribe": {"channel": "lobby"}}).to_string());
        frame.push(json!({"id": on, "subscribe": {"channel": "lobby"}}).to_string());
    }
    client.send(frame.join("\n"));
    for round in 0..50 {
        let off = client.next_message();
        assert_eq!(
            (&off["id"], &off["unsubscribe"]),
            (&json!(1000 + 2 * round), &json!({}))
        );
        let on = client.next_message();
        assert_eq!(on["id"], 1001 + 2 * round);
        assert!(on["subscribe"].is_object(), "{on}");
    }
    server.publish("lobby", "1");
    assert_eq!(client.publication().1["data"], 1);
    client.is_alive();
}

#[test]
fn unsubscribing_from_an_unknown_or_impossible_room_is_no_error() {
    let server = Server::start("");
    let mut client = Client::connect(&server);
    for room in ["never-joined", "unknown-namespace:a", "not a name", ""] {
        assert_eq!(
            client.result("unsubscribe", json!({"channel": room})),
            json!({})
        );
    }
}

#[test]
fn unknown_fields_are_ignored_in_every_command() {
    let server = Server::start("[namespaces.people]\npresence = true\n");
    let mut client = Client::open(&server);
    let new = json!({"deep": [1, {"er": null}]});
    for (command, mut request) in [
        (
            "connect",
            json!({"headers": {"a": "b"}, "profile": "p", "dict": 1}),
        ),
        (
            "subscribe",
            json!({"channel": "people:a", "flag": 1, "positioned": true, "phase": 0}),
        ),
        ("presence", json!({"channel": "people:a"})),
        ("presence_stats", json!({"channel": "people:a"})),
        ("history", json!({"channel": "people:a", "limit": 1})),
        ("unsubscribe", json!({"channel": "people:a"})),
    ] {
        request["novelty"] = new.clone();
        client.result(command, request);
    }
    client.send(json!({"id": 77, "unsubscribe": {"channel": "a"}, "trace": new}));
    assert_eq!(client.reply(77)["unsubscribe"], json!({}));
}

#[test]
fn commands_in_binary_frames_are_taken_and_answered_in_text_frames() {
    let server = Server::start("");
    let mut socket = Socket::open(server.address());
    socket.send(&Frame::new(BINARY, &br#"{"id":1,"connect":{}}"#[..]));
    let reply = socket.read();
    assert_eq!(reply.opcode, TEXT);
    assert!(messages(reply.text())[0]["connect"].is_object());
}

#[test]
fn ids_start_anywhere_and_come_back_as_numbers() {
    let server = Server::start("");
    let mut client = Client::open(&server);
    client.send(r#"{"connect":{},"id":41}"#);
    assert_eq!(client.next_message()["id"], 41);
    for id in [u64::from(u32::MAX), 7, 40] {
        client.send(json!({"id": id, "unsubscribe": {"channel": "a"}}));
        assert_eq!(client.next_message()["id"], id);
    }
}

#[test]
fn a_reply_comes_before_sdks_give_up_while_a_long_replay_runs() {
    let server = Server::start("");
    let log = server.publish_numbers("lobby", 0, 10_000);
    let mut client = Client::connect(&server);
    let epoch = server.publish("elsewhere", "0").epoch;
    let mut view = View::at("lobby", log[0].offset, &epoch);
    assert_eq!(client.follow(&mut view)["recovered"], true);
    let asked = Instant::now();
    client.is_alive();
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    client.read_into(&mut view, 9_999);
    view.seen
        .insert(0, common::Seen::Joined { at: log[0].offset });
    view.assert_exactly(&log);
}

#[test]
fn empty_results_are_objects_and_empty_lists_are_lists() {
    let server = Server::start("[namespaces.people]\npresence = true\n");
    let mut client = Client::connect(&server);
    let presence = client.result("presence", json!({"channel": "people:a"}));
    assert_eq!(presence["presence"], json!({}));
    let stats = client.result("presence_stats", json!({"channel": "people:a"}));
    assert_eq!(
        (&stats["num_clients"], &stats["num_users"]),
        (&json!(0), &json!(0))
    );
    let history = client.result("history", json!({"channel": "lobby", "limit": 10}));
    assert_eq!(history["publications"], json!([]));
    assert_eq!(history["offset"], 0);
    assert!(
        history["epoch"]
            .as_str()
            .is_some_and(|epoch| !epoch.is_empty())
    );
}

#[test]
fn fossil_deltas_are_not_agreed_to_so_data_stay_objects() {
    let server = Server::start("");
    let mut client = Client::connect(&server);
    let result = client.result("subscribe", json!({"channel": "lobby", "delta": "fossil"}));
    assert_ne!(result["delta"], true);
    server.publish("lobby", "{\"n\":1}");
    assert_eq!(client.publication().1["data"], json!({"n": 1}));
}

#[test]
fn two_connections_of_one_page_do_not_meet_as_already_subscribed() {
    let server = Server::start("");
    let mut lingering = Client::connect(&server);
    lingering.subscribe("lobby");
    Client::connect(&server).subscribe("lobby");
    lingering.is_alive();
}
