//! A reader that does not read: it is disconnected, told why and recovers; the others never notice, and the server's
//! memory does not grow.

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
const DELTA_BYTES: usize = 8 * 1024;
/// More than all buffers between two sockets hold.
const MOST_DELTAS: usize = 4000;
/// What 200 sessions and a database may use while they are busy; the deliveries come to gigabytes.
const MOST_GROWTH: u64 = 128 * 1024 * 1024;

const CONFIG: &str = r#"
[limits]
max_outbox_bytes = "256KiB"

[storage]
cache = "8MiB"

[namespaces.default]
history_bytes = "64MiB"
"#;

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
fn one_reader_that_never_reads_is_closed_as_slow_and_200_others_get_all() {
    let server = Server::start(CONFIG);
    let mut stuck = Client::connect(&server);
    stuck.socket.shrink_receive_buffer();
    let mut view = View::new("lobby");
    stuck.follow(&mut view);

    let ready = Barrier::new(READERS + 1);
    let log = OnceLock::new();
    thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| read_all(&server, &ready, &log));
        }
        ready.wait();
        let before = server.memory();
        let (entries, most_memory) = publish_until_one_is_slow(&server);
        log.set(entries).expect("set once");
        let growth = most_memory.saturating_sub(before);
        assert!(growth < MOST_GROWTH, "memory grew by {growth} bytes");
    });
    let log = log.into_inner().expect("it was set");
    assert_eq!(server.metric("roomwire_slow_disconnects_total"), 1.0);

    let (code, reason) = loop {
        let frame = stuck.socket.read();
        if frame.opcode == CLOSE {
            break close_of(&frame);
        }
        for message in messages(frame.text()) {
            view.publication(&message["push"]["pub"]);
        }
    };
    assert_eq!((code, reason.as_str()), (3008, "slow"));
    let missed = log.len() - view.deltas().count();
    assert!(missed > 0, "it had missed nothing");
    let mut returned = Client::connect(&server);
    assert_eq!(returned.follow(&mut view)["recovered"], true);
    returned.read_into(&mut view, log.len());
    view.assert_exactly(&log);
}

/// Gives all that was published, and the most memory that the server used meanwhile.
fn publish_until_one_is_slow(server: &Server) -> (Vec<Entry>, u64) {
    let text = format!("\"{}\"", "x".repeat(DELTA_BYTES));
    let (mut entries, mut most_memory) = (Vec::new(), 0);
    let mut publish = |data: &str| {
        let accepted = server.publish("lobby", data);
        entries.push(Entry::new(accepted.offset, data));
    };
    for n in 0.. {
        publish(&text);
        most_memory = most_memory.max(server.memory());
        if n % 20 == 0 && server.metric("roomwire_slow_disconnects_total") > 0.0 {
            break;
        }
        assert!(n < MOST_DELTAS, "nobody was slow after {n} deltas");
    }
    // Some more, which the one that is gone is to find when it returns.
    for _ in 0..20 {
        publish(&text);
    }
    publish("\"end\"");
    (entries, most_memory)
}
