//! What a client may do wrong on its socket, and on the way to it: the connection ends as
//! documented, with the code that tells the SDK whether to return, and the server lives.

mod common;

use common::{
    Client, Server, Socket,
    http::exchange,
    socket::{
        BINARY, CLOSE, CONTINUATION, Frame, PATH, PING, PONG, TEXT, close_of, upgrade_request,
    },
};
use serde_json::json;

const BAD_REQUEST: (u16, &str) = (3501, "bad request");

/// Sends frames to a connected client's socket and gives the close that follows.
fn closed_after(server: &Server, frames: &[Frame]) -> (u16, String) {
    let mut client = Client::connect(server);
    for frame in frames {
        client.socket.send(frame);
    }
    let close = client.closed();
    Client::connect(server).is_alive();
    close
}

fn is(close: &(u16, String), expected: (u16, &str)) -> bool {
    (close.0, close.1.as_str()) == expected
}

#[test]
fn what_is_no_command_ends_the_connection_for_good() {
    let server = Server::start("");
    for (what, line) in [
        ("an empty frame", ""),
        (
            "a blank line",
            "{\"id\":2,\"unsubscribe\":{\"channel\":\"a\"}}\n\n{}",
        ),
        ("two feeds at the end", "{}\n\n"),
        ("broken JSON", "{\"id\":2,"),
        ("JSON that is no object", "[1,2]"),
        ("a number", "17"),
        (
            "two commands without a feed",
            "{\"id\":2,\"rpc\":{}}{\"id\":3,\"rpc\":{}}",
        ),
        (
            "a field of the wrong type",
            "{\"id\":2,\"subscribe\":{\"channel\":7}}",
        ),
        ("an id that is no number", "{\"id\":\"2\",\"rpc\":{}}"),
        ("a negative id", "{\"id\":-1,\"rpc\":{}}"),
        ("an id above 2^32", "{\"id\":4294967296,\"rpc\":{}}"),
        (
            "a command without an id",
            "{\"subscribe\":{\"channel\":\"a\"}}",
        ),
        ("a second connect", "{\"id\":2,\"connect\":{}}"),
        ("a ping from the client", "{\"id\":2,\"ping\":{}}"),
    ] {
        let close = closed_after(&server, &[Frame::new(TEXT, line)]);
        assert!(is(&close, BAD_REQUEST), "{what}: {close:?}");
    }
}

#[test]
fn bytes_that_are_no_utf8_end_the_connection_for_good() {
    let server = Server::start("[namespaces.open]\nclient_publish = \"stored\"\n");
    let bad = b"{\"id\":2,\"publish\":{\"channel\":\"open:a\",\"data\":\"\xff\xfe\"}}";
    for opcode in [TEXT, BINARY] {
        let close = closed_after(&server, &[Frame::new(opcode, &bad[..])]);
        assert!(is(&close, BAD_REQUEST), "opcode {opcode}: {close:?}");
    }
    assert_eq!(server.history("open:a"), []);
}

#[test]
fn a_command_before_connect_ends_the_connection_for_good() {
    let server = Server::start("");
    for line in ["{\"id\":1,\"subscribe\":{\"channel\":\"a\"}}", "{}"] {
        let mut client = Client::open(&server);
        client.send(line);
        let close = client.closed();
        assert!(is(&close, BAD_REQUEST), "{line}: {close:?}");
    }
}

#[test]
fn a_message_that_nobody_takes_ends_the_connection_for_good() {
    let server = Server::start("");
    let close = closed_after(&server, &[Frame::new(TEXT, "{\"send\":{\"data\":{}}}")]);
    assert!(is(&close, (3508, "not available")), "{close:?}");
}

#[test]
fn who_does_not_connect_in_time_is_closed_as_stale() {
    let server = Server::start("[limits]\nconnect_timeout = \"200ms\"\n");
    let close = Client::open(&server).closed();
    assert!(is(&close, (3502, "stale")), "{close:?}");
    Client::connect(&server).is_alive();
}

#[test]
fn who_does_not_answer_a_ping_is_closed_and_may_return() {
    let server = Server::start("[limits]\nping_interval = \"1s\"\npong_timeout = \"200ms\"\n");
    let mut silent = Client::connect(&server);
    let close = silent.closed();
    assert!(is(&close, (3012, "no pong")), "{close:?}");
}

#[test]
fn a_pong_that_nobody_asked_for_is_tolerated() {
    let server = Server::start("");
    let mut client = Client::connect(&server);
    client.send("{}");
    client.send("{}\n{}");
    client.is_alive();
}

#[test]
fn a_message_over_the_limit_is_closed_with_1009_whole_or_in_fragments() {
    let server = Server::start("[limits]\nmax_command_bytes = \"4KiB\"\n");
    let part = || "x".repeat(3000);
    let whole = closed_after(&server, &[Frame::new(TEXT, "x".repeat(4097))]);
    assert_eq!(whole.0, 1009);
    let fragments = [
        Frame::new(TEXT, part()).unfinished(),
        Frame::new(CONTINUATION, part()),
    ];
    assert_eq!(closed_after(&server, &fragments).0, 1009);
    // Only the head of a frame: its length alone is too much.
    let mut client = Client::connect(&server);
    let huge = [0x81, 0xff, 0x7f, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
    client.socket.send_bytes(&huge).unwrap();
    assert_eq!(client.closed().0, 1009);
    Client::connect(&server).is_alive();
}

#[test]
fn a_message_of_exactly_the_limit_is_taken() {
    let server = Server::start("[limits]\nmax_command_bytes = \"4KiB\"\n");
    let mut client = Client::connect(&server);
    let command = |filler: &str| {
        json!({"id": 2, "unsubscribe": {"channel": "a", "filler": filler}}).to_string()
    };
    let filler = "x".repeat(4096 - command("").len());
    client.send(command(&filler));
    assert_eq!(client.reply(2)["unsubscribe"], json!({}));
}

#[test]
fn a_fragmented_command_is_put_together_with_pings_in_between() {
    let server = Server::start("");
    let mut socket = Socket::open(server.address());
    socket.send(&Frame::new(TEXT, "{\"id\":1,\"co").unfinished());
    socket.send(&Frame::new(PING, "are you there"));
    let pong = socket.read();
    assert_eq!((pong.opcode, pong.text()), (PONG, "are you there"));
    socket.send(&Frame::new(CONTINUATION, "nnect\":").unfinished());
    socket.send(&Frame::new(CONTINUATION, "{}}"));
    assert!(socket.read().text().contains("\"connect\""));
}

#[test]
fn a_character_may_be_split_over_fragments() {
    let server = Server::start("");
    let mut client = Client::connect(&server);
    let command = "{\"id\":2,\"subscribe\":{\"channel\":\"é\"}}".as_bytes();
    let middle = command.iter().position(|byte| *byte > 0x7f).unwrap() + 1;
    client
        .socket
        .send(&Frame::new(TEXT, &command[..middle]).unfinished());
    client
        .socket
        .send(&Frame::new(CONTINUATION, &command[middle..]));
    assert!(client.reply(2)["subscribe"].is_object());
    server.publish("é", "1");
    assert_eq!(client.publication().0, "é");
}

#[test]
fn frames_that_break_the_websocket_protocol_are_closed_with_1002() {
    let server = Server::start("");
    let ping = |size: usize| Frame::new(PING, vec![0; size]);
    let text = Frame::new(TEXT, "{}");
    let mut reserved_bit = text.masked();
    reserved_bit[0] |= 0x40;
    for (what, bytes) in [
        ("an unmasked frame", text.unmasked()),
        ("a reserved bit", reserved_bit),
        ("an opcode that is none", Frame::new(3, "{}").masked()),
        ("a fragmented ping", ping(1).unfinished().masked()),
        ("a ping of more than 125 bytes", ping(126).masked()),
        (
            "a continuation of nothing",
            Frame::new(CONTINUATION, "{}").masked(),
        ),
    ] {
        let mut client = Client::connect(&server);
        client.socket.send_bytes(&bytes).unwrap();
        let close = client.closed();
        assert_eq!(close.0, 1002, "{what}: {close:?}");
    }
    Client::connect(&server).is_alive();
}

#[test]
fn the_close_handshake_is_answered_and_the_connection_ends() {
    let server = Server::start("");
    let normal = [&1000_u16.to_be_bytes()[..], b"done"].concat();
    for payload in [normal, Vec::new()] {
        let mut client = Client::connect(&server);
        client.socket.send(&Frame::new(CLOSE, payload));
        let answer = client.socket.read();
        assert_eq!(answer.opcode, CLOSE);
        if !answer.payload.is_empty() {
            assert_eq!(close_of(&answer).0, 1000);
        }
        client.socket.read_end();
    }
    server.await_metric("roomwire_sessions{transport=\"websocket\"}", 0.0);
}

#[test]
fn a_client_that_just_disappears_is_forgotten() {
    let server = Server::start("");
    let mut client = Client::connect(&server);
    client.subscribe("lobby");
    drop(client);
    server.await_metric("roomwire_sessions{transport=\"websocket\"}", 0.0);
    server.publish("lobby", "1");
}

#[test]
fn deep_nesting_is_refused_as_data_and_harmless_elsewhere() {
    let server = Server::start("[namespaces.open]\nclient_publish = \"stored\"\n");
    let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    let mut client = Client::connect(&server);
    client.subscribe("open:a");
    client.send(format!(
        "{{\"id\":50,\"publish\":{{\"channel\":\"open:a\",\"data\":{}}}}}",
        deep(129)
    ));
    let error = client.reply(50)["error"].clone();
    assert_eq!(error["code"], 107);
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("nested more than 128 levels deep")
    );
    client.send(format!(
        "{{\"id\":51,\"unsubscribe\":{{\"channel\":\"open:b\",\"new\":{}}}}}",
        deep(100_000)
    ));
    assert_eq!(client.reply(51)["unsubscribe"], json!({}));
    assert_eq!(server.history("open:a"), []);
}

#[test]
fn only_get_and_only_the_documented_path_are_upgraded() {
    let server = Server::start("");
    let ask = |method: &str, path: &str| {
        exchange(server.address(), upgrade_request(method, path, &[])).expect("an answer")
    };
    for path in [
        "/",
        "/connection",
        "/v1/rooms/lobby/deltas",
        "/metrics",
        "/connection/websocket/",
    ] {
        let reply = ask("GET", path);
        assert_eq!(reply.status, 404, "{path}: {}", reply.text());
        assert_eq!(reply.problem()["type"], "urn:roomwire:problem:not-found");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let reply = ask(method, PATH);
        assert_eq!(reply.status, 405, "{method}: {}", reply.text());
        assert_eq!(
            reply.problem()["type"],
            "urn:roomwire:problem:method-not-allowed"
        );
        assert_eq!(reply.header("allow"), Some("GET"));
    }
    Client::connect(&server).is_alive();
}

#[test]
fn connect_as_a_proxy_is_refused() {
    let server = Server::start("");
    let request = "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n";
    let reply = exchange(server.address(), request).expect("an answer");
    assert!(
        matches!(reply.status, 404 | 405),
        "{} {}",
        reply.status,
        reply.text()
    );
    reply.problem();
    Client::connect(&server).is_alive();
}

#[test]
fn an_upgrade_that_is_no_websocket_is_told_what_is_served_there() {
    let server = Server::start("");
    for headers in [
        &[("Upgrade", "chat/2.0")][..],
        &[("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAAQAAP__")],
        &[("Upgrade", "")],
        &[("Connection", "close")],
    ] {
        let request = upgrade_request("GET", PATH, headers);
        let reply = exchange(server.address(), request).expect("an answer");
        assert_eq!(reply.status, 426, "{headers:?}: {}", reply.text());
        assert_eq!(
            reply.problem()["type"],
            "urn:roomwire:problem:upgrade-required"
        );
        assert_eq!(reply.header("upgrade"), Some("websocket"));
    }
    for headers in [
        [("Sec-WebSocket-Version", "12")],
        [("Sec-WebSocket-Key", "")],
    ] {
        let request = upgrade_request("GET", PATH, &headers);
        let reply = exchange(server.address(), request).expect("an answer");
        assert!(
            matches!(reply.status, 400 | 426),
            "{headers:?}: {}",
            reply.status
        );
        reply.problem();
    }
    let plain = server.get(PATH);
    assert_eq!(plain.status, 426);
    Client::connect(&server).is_alive();
}

#[test]
fn a_page_of_a_foreign_origin_is_refused_and_an_allowed_one_is_not() {
    let server = Server::start("[http]\nallowed_origins = [\"https://app.example\"]\n");
    let ask = |origin| Socket::handshake(server.address(), PATH, &[("Origin", origin)]);
    for origin in [
        "https://evil.example",
        "https://app.example.evil.example",
        "http://app.example",
        "null",
    ] {
        let (socket, reply) = ask(origin);
        assert!(socket.is_none(), "{origin} was let in");
        assert_eq!(reply.status, 403, "{origin}");
        assert_eq!(
            reply.problem()["type"],
            "urn:roomwire:problem:foreign-origin"
        );
    }
    for origin in [
        "https://app.example",
        "http://localhost:3000",
        "http://127.0.0.1:5173",
    ] {
        assert!(ask(origin).0.is_some(), "{origin} was refused");
    }
}

#[test]
fn commands_that_follow_the_handshake_in_the_same_packet_are_not_lost() {
    let server = Server::start("");
    let hello = Frame::new(TEXT, "{\"id\":1,\"connect\":{}}").masked();
    let request = [upgrade_request("GET", PATH, &[]), hello].concat();
    let mut socket = Socket::raw(server.address(), &request);
    assert!(socket.read().text().contains("\"connect\""));
}
