//! What pages of other origins may ask and read, and what browsers are told about every answer.

mod common;

use common::{
    Server, Socket, Stream,
    http::{Reply, percent_encoded},
    server::{JSON, deltas_of},
    socket::PATH,
};

const CONFIG: &str = "[http]\nallowed_origins = [\"https://app.example\"]\n";
const PAGE: (&str, &str) = ("Origin", "https://app.example");

fn ask(server: &Server, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    server.http().request(method, path, headers, b"")
}

fn assert_shared(reply: &Reply, what: &str) {
    let header = |name| reply.header(name);
    assert_eq!(
        header("access-control-allow-origin"),
        Some(PAGE.1),
        "{what}"
    );
    assert_eq!(
        header("access-control-allow-credentials"),
        Some("true"),
        "{what}"
    );
    assert_eq!(header("vary"), Some("Origin"), "{what}");
    assert_eq!(header("x-content-type-options"), Some("nosniff"), "{what}");
}

#[test]
fn a_preflight_of_an_allowed_page_is_answered_on_every_path_that_pages_use() {
    let server = Server::start(CONFIG);
    for path in [
        "/v1/rooms/lobby/deltas",
        "/v1/rooms/lobby/deltas/7",
        "/v1/rooms/lobby/events",
        "/v1/deltas",
        "/v1/events",
        "/v1/rooms",
        "/v1/sessions/disconnect",
        "/v1/subscriptions/end",
        "/api/publish",
        "/connection/http_stream",
        "/connection/sse",
        "/emulation",
    ] {
        let asks = [
            PAGE,
            ("Access-Control-Request-Method", "POST"),
            (
                "Access-Control-Request-Headers",
                "authorization, content-type",
            ),
        ];
        let reply = ask(&server, "OPTIONS", path, &asks);
        assert_eq!(reply.status, 204, "{path}: {}", reply.text());
        assert_shared(&reply, path);
        let allowed = reply.header("access-control-allow-headers");
        assert_eq!(allowed, Some("authorization, content-type"), "{path}");
        let methods = reply
            .header("access-control-allow-methods")
            .expect("methods");
        for method in ["GET", "POST", "DELETE"] {
            assert!(methods.contains(method), "{path}: {methods}");
        }
        assert_eq!(
            reply.header("access-control-max-age"),
            Some("300"),
            "{path}"
        );
    }
    // Not a preflight.
    assert_eq!(ask(&server, "OPTIONS", "/v1/deltas", &[PAGE]).status, 405);
}

#[test]
fn an_allowed_page_can_read_every_answer_errors_and_streams_included() {
    let server = Server::start(CONFIG);
    let path = deltas_of("lobby");
    let published = server.post(&path, &[PAGE], "1");
    assert_eq!(published.status, 201);
    assert_shared(&published, "publish");
    for (method, path, status) in [
        ("GET", path.as_str(), 200),
        ("GET", "/v1/rooms/lobby/deltas?nonsense=1", 400),
        ("PATCH", "/v1/deltas", 405),
        ("GET", "/v1/nothing", 404),
        ("GET", "/connection/sse", 400),
        ("POST", "/emulation", 400),
    ] {
        let reply = ask(&server, method, path, &[PAGE]);
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
        assert_shared(&reply, path);
    }
    let connect = "{\"id\":1,\"connect\":{}}";
    let sse = format!("/connection/sse?cf_connect={}", percent_encoded(connect));
    for (method, path, body) in [
        ("GET", "/v1/events?room=lobby", ""),
        ("GET", sse.as_str(), ""),
        ("POST", "/connection/http_stream", connect),
    ] {
        let stream = Stream::ask(&server, method, path, &[PAGE, JSON], body);
        assert_eq!(stream.head.status, 200, "{path}");
        assert_shared(&stream.head, path);
    }
}

#[test]
fn a_page_that_is_not_allowed_can_neither_ask_nor_read() {
    let server = Server::start(CONFIG);
    for origin in [
        "https://evil.example",
        "https://app.example.evil.example",
        "null",
    ] {
        let page = ("Origin", origin);
        let asks = [page, ("Access-Control-Request-Method", "POST")];
        for reply in [
            ask(&server, "OPTIONS", "/v1/deltas", &asks),
            server.post(&deltas_of("lobby"), &[page], "1"),
            ask(&server, "GET", "/v1/events?room=lobby", &[page]),
        ] {
            assert_eq!(reply.status, 403, "{origin}");
            assert_eq!(
                reply.problem()["type"],
                "urn:roomwire:problem:foreign-origin"
            );
            assert_eq!(
                reply.header("access-control-allow-origin"),
                None,
                "{origin}"
            );
        }
    }
    assert!(server.history("lobby").is_empty(), "it was published");
}

#[test]
fn figures_are_not_for_pages_and_answers_without_a_page_name_none() {
    let server = Server::start(CONFIG);
    let figures = ask(&server, "GET", "/metrics", &[PAGE]);
    assert_eq!(figures.header("access-control-allow-origin"), None);
    let reply = server.get(&deltas_of("lobby"));
    assert_eq!(reply.header("access-control-allow-origin"), None);
    // A cache that has this one must not give it to a page.
    assert_eq!(reply.header("vary"), Some("Origin"));
}

#[test]
fn browsers_are_told_not_to_guess_what_any_answer_is() {
    let server = Server::start(CONFIG);
    let mut replies: Vec<_> = [
        "/",
        "/docs",
        "/healthz",
        "/metrics",
        "/nothing",
        "/v1/rooms",
    ]
    .map(|path| server.get(path))
    .into();
    let evil = [("Origin", "https://evil.example")];
    replies.push(Socket::handshake(server.address(), PATH, &evil).1);
    for reply in replies {
        assert_eq!(
            reply.header("x-content-type-options"),
            Some("nosniff"),
            "{reply:?}"
        );
    }
}
