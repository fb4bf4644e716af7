//! Malformed HTTP on every endpoint: each is refused with a problem document that says what exactly
//! is wrong, nothing is published, and the server lives.

mod common;

use common::{
    Client, Server,
    http::{self, Reply},
    server::JSON,
};
use serde_json::Value;

const LOBBY: &str = "/v1/rooms/lobby/deltas";

/// Checks status and type of a refusal, and gives its `detail`.
fn refused(reply: &Reply, status: u16, kind: &str) -> String {
    assert_eq!(reply.status, status, "{}", reply.text());
    let problem = reply.problem();
    assert_eq!(
        problem["type"],
        format!("urn:roomwire:problem:{kind}"),
        "{problem}"
    );
    problem["detail"].as_str().expect("text").to_owned()
}

#[test]
fn a_body_that_is_no_json_is_told_where_it_breaks() {
    let server = Server::start("");
    for (body, detail) in [
        (&b""[..], "the body is empty; a delta is one JSON value"),
        (b" \n ", "the body is empty; a delta is one JSON value"),
        (
            b"{\n  \"a\": tru }",
            "not one JSON value: expected ident at line 2, column 11",
        ),
        (
            b"{\"a\":1",
            "not one JSON value: EOF while parsing an object at line 1, column 6",
        ),
        (
            b"{} {}",
            "not one JSON value: trailing characters at line 1, column 4",
        ),
        (
            b"NaN",
            "not one JSON value: expected value at line 1, column 1",
        ),
        (
            b"'a'",
            "not one JSON value: expected value at line 1, column 1",
        ),
        (b"\"\xff\"", "not valid UTF-8 at byte 1; JSON is UTF-8"),
    ] {
        let told = refused(&server.post(LOBBY, &[JSON], body), 400, "bad-json");
        assert_eq!(told, detail);
    }
    let bad = server.post(LOBBY, &[JSON], "{\n  \"a\": tru }").problem();
    assert_eq!(
        (&bad["line"], &bad["column"]),
        (&Value::from(2), &Value::from(11))
    );
    let deep = "[".repeat(20_000) + &"]".repeat(20_000);
    let told = refused(&server.post(LOBBY, &[JSON], deep), 400, "bad-json");
    assert_eq!(told, "nested more than 128 levels deep, at byte 128");
    assert_eq!(server.history("lobby"), []);
}

#[test]
fn a_bad_room_name_is_told_the_rule_and_the_character_wherever_it_is_used() {
    let server = Server::start("");
    let long = "x".repeat(256);
    for (segment, detail) in [
        (
            "two%20words",
            "room name \"two words\" has ' ' at byte 3; it takes letters, digits and _-.:@#,=+~$!&",
        ),
        (
            "a%2Fb",
            "room name \"a/b\" has '/' at byte 1; it takes letters, digits and _-.:@#,=+~$!&",
        ),
        (
            ":a",
            "room name \":a\" has nothing before its first \":\"; it is \"room\" or \"namespace:rest\"",
        ),
        (
            "a:",
            "room name \"a:\" has nothing behind its first \":\"; it is \"room\" or \"namespace:rest\"",
        ),
        (&long, "a room name has 256 bytes; it takes 1 to 255"),
    ] {
        let path = format!("/v1/rooms/{segment}/deltas");
        let told = refused(&server.post(&path, &[JSON], "1"), 400, "bad-room-name");
        assert_eq!(told, detail);
        assert_eq!(refused(&server.get(&path), 400, "bad-room-name"), detail);
    }
    for method in ["GET", "POST"] {
        let reply = server
            .http()
            .request(method, "/v1/rooms/%FF/deltas", &[], b"1");
        refused(&reply, 400, "bad-room-name");
    }
}

#[test]
fn an_unknown_namespace_is_told_which_there_are() {
    let server = Server::start("[namespaces.chat]\n");
    let expected = "room \"game:1\" is in the namespace \"game\", which the configuration does not \
                    define; add [namespaces.game] or use one of: chat, default";
    let path = "/v1/rooms/game:1/deltas";
    for reply in [server.post(path, &[JSON], "1"), server.get(path)] {
        assert_eq!(refused(&reply, 404, "unknown-namespace"), expected);
    }
}

#[test]
fn an_unknown_or_impossible_parameter_is_named() {
    let server = Server::start("");
    for (reply, name) in [
        (
            server.post("/v1/rooms/lobby/deltas?key=1", &[JSON], "1"),
            "key",
        ),
        (server.post("/v1/deltas?room=a", &[JSON], "[]"), "room"),
        (server.get("/v1/rooms/lobby/deltas?form=1"), "form"),
    ] {
        let told = refused(&reply, 400, "unknown-parameter");
        assert!(told.contains(&format!("{name:?}")), "{told}");
        assert!(reply.problem()["allowed"].is_array());
    }
    for (query, name) in [
        ("after=-1", "after"),
        ("after=x", "after"),
        ("after=", "after"),
        ("after=9007199254740993000000", "after"),
        ("limit=0", "limit"),
        ("limit=many", "limit"),
        ("since=yesterday", "since"),
        ("since=2025-13-01T00:00:00Z", "since"),
        ("after=1&since=1", "since"),
        ("after=1&after=2", "after"),
    ] {
        let reply = server.get(&format!("{LOBBY}?{query}"));
        let told = refused(&reply, 400, "bad-parameter");
        assert!(told.contains(name), "{query}: {told}");
    }
}

#[test]
fn an_idempotency_key_of_another_form_is_refused() {
    let server = Server::start("");
    let long = "k".repeat(129);
    for key in ["", "two words", "é", &long] {
        let reply = server.post(LOBBY, &[JSON, ("Idempotency-Key", key)], "1");
        let told = refused(&reply, 400, "bad-idempotency-key");
        assert!(told.contains("128"), "{told}");
    }
    let longest = "k".repeat(128);
    let reply = server.post(LOBBY, &[JSON, ("Idempotency-Key", &longest)], "1");
    assert_eq!(reply.status, 201);
    assert_eq!(server.history("lobby").len(), 1);
}

#[test]
fn a_batch_that_is_none_is_refused_whole() {
    let server = Server::start("");
    for (body, kind) in [
        ("", "bad-json"),
        ("[{\"room\":\"a\",\"data\":1},", "bad-json"),
        ("{\"room\":\"a\",\"data\":1}", "bad-batch"),
        ("7", "bad-batch"),
    ] {
        refused(&server.post("/v1/deltas", &[JSON], body), 400, kind);
    }
    assert_eq!(server.history("a"), []);
}

#[test]
fn an_entry_that_is_none_leaves_the_others_alone() {
    let server = Server::start("");
    let entries = [
        "7",
        "{\"data\":1}",
        "{\"room\":\"a\"}",
        "{\"room\":7,\"data\":1}",
        "{\"room\":\"a\",\"data\":1,\"id\":\"\"}",
        "{\"room\":\"a\",\"data\":1,\"ttl\":1}",
    ];
    for entry in entries {
        let body = format!("[{{\"room\":\"a\",\"data\":1}},{entry}]");
        let reply = server.post("/v1/deltas", &[JSON], body);
        assert_eq!(reply.status, 200, "{entry}: {}", reply.text());
        let results = reply.json();
        assert_eq!(results["results"][0]["status"], 201, "{entry}");
        assert_eq!(results["results"][1]["status"], 400, "{entry}");
        assert!(results["results"][1]["detail"].is_string(), "{entry}");
    }
    assert_eq!(server.history("a").len(), entries.len());
}

#[test]
fn unknown_paths_and_methods_are_problems_too() {
    let server = Server::start("");
    for path in ["/v1", "/v1/rooms/lobby", "/v1/rooms//deltas", "/metrics/"] {
        let told = refused(&server.get(path), 404, "not-found");
        assert!(told.contains(path), "{told}");
    }
    for (method, path, allowed) in [
        ("PATCH", LOBBY, "GET, POST, DELETE"),
        ("PUT", LOBBY, "GET, POST, DELETE"),
        ("GET", "/v1/rooms/lobby/deltas/1", "DELETE"),
        ("PUT", "/v1/deltas", "GET, POST"),
        ("POST", "/healthz", "GET"),
        ("POST", "/readyz", "GET"),
        ("DELETE", "/metrics", "GET"),
    ] {
        let reply = server.http().request(method, path, &[], b"");
        refused(&reply, 405, "method-not-allowed");
        let told = reply.header("allow").unwrap_or_default();
        for method in allowed.split(", ") {
            assert!(
                told.split(", ").any(|told| told == method),
                "{path}: {told}"
            );
        }
    }
}

#[test]
fn a_body_that_is_too_large_is_refused_however_it_is_sent() {
    let server = Server::start("[publish]\nmax_delta_bytes = \"1KiB\"\n");
    let endless = format!(
        "POST {LOBBY} HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n\"{}",
        "x".repeat(100)
    );
    let chunks = format!(
        "POST {LOBBY} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2000\r\n{}\r\n0\r\n\r\n",
        "x".repeat(0x2000)
    );
    for request in [endless, chunks] {
        let reply = http::exchange(server.address(), request).expect("an answer");
        refused(&reply, 413, "too-large");
        assert_eq!(reply.problem()["limit"], 1024);
    }
    server.publish("lobby", "1");
}

#[test]
fn what_is_no_http_ends_its_connection_and_nothing_else() {
    let server = Server::start("");
    let mut witness = Client::connect(&server);
    witness.subscribe("lobby");
    let many_headers = "X: y\r\n".repeat(10_000);
    let long_line = "a".repeat(1 << 20);
    for request in [
        "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".into(),
        "\r\n\r\n\r\n".into(),
        "GET\r\n\r\n".into(),
        "GET / HTTP/9.9\r\n\r\n".into(),
        format!("GET /{long_line} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{many_headers}\r\n"),
        format!("POST {LOBBY} HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n1"),
        format!(
            "POST {LOBBY} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12"
        ),
        format!(
            "POST {LOBBY} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1"
        ),
        format!("POST {LOBBY} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    ] {
        let start: String = request.chars().take(60).collect();
        // A connection that is just closed is an answer too; only an acceptance would be wrong.
        if let Ok(reply) = http::exchange(server.address(), request) {
            assert!(
                (400..=505).contains(&reply.status),
                "{start:?}: {}",
                reply.status
            );
        }
    }
    assert_eq!(server.history("lobby"), []);
    server.publish("lobby", "1");
    assert_eq!(witness.publication().1["data"], 1);
}

#[test]
fn a_request_that_ends_halfway_publishes_nothing() {
    let server = Server::start("");
    let half = format!("POST {LOBBY} HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n{{\"half\":");
    let connection = http::open(server.address()).unwrap();
    std::io::Write::write_all(&mut &connection, half.as_bytes()).unwrap();
    connection.shutdown(std::net::Shutdown::Both).unwrap();
    server.publish("lobby", "1");
    assert_eq!(server.history("lobby").len(), 1);
}

#[test]
fn health_and_readiness_answer_while_the_server_serves() {
    let server = Server::start("");
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(server.get("/readyz").status, 200);
    let metrics = server.get("/metrics");
    assert_eq!(metrics.status, 200);
    let kind = metrics.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/plain"), "{kind}");
}
