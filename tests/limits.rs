//! What a server answers that is full, on its way down, or out of disk.

mod common;

use common::{
    Client, Server, Socket, eventually,
    http::Reply,
    server::{JSON, deltas_of},
};

const WEBSOCKET: &str = "/connection/websocket";

fn publish(server: &Server) -> Reply {
    server.post(&deltas_of("lobby"), &[JSON], "1")
}

fn refused(reply: &Reply, status: u16, problem: &str) {
    assert_eq!(reply.status, status, "{}", reply.text());
    let kind = format!("urn:roomwire:problem:{problem}");
    assert_eq!(reply.problem()["type"], kind.as_str());
    let seconds = reply.header("retry-after").expect("Retry-After");
    assert!(seconds.parse::<u64>().is_ok_and(|n| n > 0), "{seconds}");
}

#[test]
fn with_too_little_disk_nothing_is_taken_and_history_can_be_read() {
    let mut server = Server::start("");
    let kept = server.publish("lobby", "\"kept\"");
    server.stop();
    server.configure("[storage]\nreserve = \"1024TiB\"\n");
    server.restart();
    refused(&publish(&server), 507, "no-space");
    let kept_only = server.history("lobby");
    assert_eq!(kept_only.len(), 1);
    assert_eq!(kept_only[0].offset, kept.offset);
    let refusals = server.metric("roomwire_deltas_in_total{result=\"no_space\"}");
    assert_eq!(refusals, 1.0);
}

#[test]
fn a_full_server_refuses_the_next_session_and_has_place_when_one_ends() {
    let server = Server::start("[limits]\nmax_sessions = 1\n");
    let first = Client::connect(&server);
    let (socket, reply) = Socket::handshake(server.address(), WEBSOCKET, &[]);
    assert!(socket.is_none());
    refused(&reply, 503, "full");
    assert_eq!(reply.problem()["limit"], 1);
    drop(first);
    server.await_metric("roomwire_sessions{transport=\"websocket\"}", 0.0);
    Client::connect(&server).is_alive();
}

#[test]
fn a_server_on_its_way_down_says_so_and_takes_nothing() {
    let mut server = Server::start("");
    // A client that does not take its close gives us a few seconds to look.
    let mut stubborn = Client::connect(&server);
    server.ask_to_stop();
    common::eventually("the drain", || {
        (server.get("/readyz").status == 503).then_some(())
    });
    refused(&publish(&server), 503, "draining");
    let (socket, reply) = Socket::handshake(server.address(), WEBSOCKET, &[]);
    assert!(socket.is_none());
    refused(&reply, 503, "draining");
    assert_eq!(stubborn.closed(), (3001, "shutdown".to_owned()));
    assert!(server.await_exit().success());
}

#[test]
fn large_deltas_are_counted_by_namespace_and_told_once_a_minute() {
    let server = Server::start("[publish]\nlarge_delta_bytes = \"1KiB\"\n[namespaces.chat]");
    let (small, large) = (
        format!("\"{}\"", "x".repeat(1021)),
        format!("\"{}\"", "x".repeat(1022)),
    );
    server.publish("lobby", &small);
    for _ in 0..3 {
        server.publish("chat:1", &large);
    }
    let counted = |of: &str| {
        server.metric(&format!(
            "roomwire_large_deltas_total{{namespace=\"{of}\"}}"
        ))
    };
    assert_eq!((counted("chat"), counted("default")), (3.0, 0.0));
    let told = eventually("the warning", || {
        let log = server.log();
        log.contains("a delta is large").then_some(log)
    });
    assert_eq!(told.matches("a delta is large").count(), 1);
    assert!(
        told.contains("\"room.name\":\"chat:1\",\"bytes\":1024"),
        "{told}"
    );
}
