//! A reader that does not read: it is disconnected, told why and recovers; the others never notice,
//! and the server's memory does not grow.

mod common;

use std::{
    sync::{Barrier, OnceLock},
    thread,
};

use common::{
    Client, Entry, Server, View,
    client::messages,
    socket::{CLOSE, close_of},
};

const READERS: usize = 200;
/// More than all buffers between two sockets hold, in deltas of [`flood`].
const MOST_FLOODS: usize = 1000;
/// What 200 sessions and a database may take while they work, which is less than all that is
/// published.
const MOST_GROWTH: u64 = 48 * 1024 * 1024;

const CONFIG: &str = r#"
[limits]
max_outbox_bytes = "1MiB"

[storage]
cache = "8MiB"

[namespaces.default]
history_bytes = "64MiB"
"#;

fn flood() -> String {
    format!("\"{}\"", "x".repeat(60_000))
}

/// A client that reads nothing, subscribed to a busy room and to one that is flooded for it alone.
fn stuck_client(server: &Server, lobby: &mut View) -> Client {
    let mut stuck = Client::connect(server);
    stuck.follow(lobby);
    stuck.subscribe("flooded");
    stuck
}

/// What publishing until somebody was slow came to.
struct Outcome {
    lobby: Vec<Entry>,
    most_memory: u64,
    slow: f64,
}

fn publish_until_one_is_slow(server: &Server) -> Outcome {
    let flood = flood();
    let mut outcome = Outcome {
        lobby: Vec::new(),
        most_memory: 0,
        slow: 0.0,
    };
    let lobby = &mut outcome.lobby;
    let mut publish = |data: String| {
        let accepted = server.publish("lobby", &data);
        lobby.push(Entry::new(accepted.offset, data));
    };
    for n in 0..MOST_FLOODS {
        server.publish("flooded", &flood);
        publish(n.to_string());
        outcome.most_memory = outcome.most_memory.max(server.memory());
        outcome.slow = server.metric("roomwire_slow_disconnects_total");
        if outcome.slow > 0.0 {
            break;
        }
    }
    publish("\"end\"".into());
    outcome
}

/// Reads and judges until the publisher says that it has ended.
fn read_all(server: &Server, ready: &Barrier, log: &OnceLock<Vec<Entry>>) {
    let mut view = View::new("lobby");
    let mut client = Client::connect(server);
    client.follow(&mut view);
    ready.wait();
    while view
        .deltas()
        .last()
        .is_none_or(|entry| entry.data != "\"end\"")
    {
        let (_, publication) = client.publication();
        view.publication(&publication);
    }
    view.assert_exactly(log.wait());
}

#[test]
fn one_reader_that_never_reads_is_disconnected_and_200_others_get_all() {
    let server = Server::start(CONFIG);
    let mut lobby = View::new("lobby");
    let stuck = stuck_client(&server, &mut lobby);
    let (ready, log) = (Barrier::new(READERS + 1), OnceLock::new());
    thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| read_all(&server, &ready, &log));
        }
        ready.wait();
        let before = server.memory();
        let outcome = publish_until_one_is_slow(&server);
        log.set(outcome.lobby).expect("set once");
        assert_eq!(outcome.slow, 1.0, "sessions that were closed as slow");
        let growth = outcome.most_memory.saturating_sub(before);
        assert!(growth < MOST_GROWTH, "memory grew by {growth} bytes");
    });
    server.await_metric("roomwire_sessions{transport=\"websocket\"}", 0.0);
    drop(stuck);
}

#[test]
fn a_slow_reader_is_told_so_and_recovers_what_it_missed() {
    let server = Server::start(CONFIG);
    let mut lobby = View::new("lobby");
    let mut slow = stuck_client(&server, &mut lobby);
    let outcome = publish_until_one_is_slow(&server);
    assert_eq!(outcome.slow, 1.0, "sessions that were closed as slow");
    let log = outcome.lobby;
    let close = loop {
        let frame = slow.socket.read();
        if frame.opcode == CLOSE {
            break close_of(&frame);
        }
        for message in messages(frame.text()) {
            if message["push"]["channel"] == "lobby" {
                lobby.publication(&message["push"]["pub"]);
            }
        }
    };
    assert_eq!(close, (3008, "slow".into()));
    assert!(lobby.deltas().count() < log.len(), "it had missed nothing");
    let mut returned = Client::connect(&server);
    assert_eq!(returned.follow(&mut lobby)["recovered"], true);
    returned.read_into(&mut lobby, log.len());
    lobby.assert_exactly(&log);
}
