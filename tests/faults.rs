//! The process killed, stopped and worn: what was accepted stays, in order and whole, and nothing
//! is left behind.

mod common;

use std::{
    collections::HashMap,
    io::Write,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use common::{
    Client, Entry, PATIENCE, Server, Socket, View, eventually, http,
    server::{JSON, deltas_of},
    socket::{CLOSE, Frame, PATH, upgrade_request},
};
use serde_json::{Value, json};

const ROOMS: [&str; 3] = ["a", "b", "c"];
const ROUNDS: usize = 20;
const SESSIONS: &str = "roomwire_sessions{transport=\"websocket\"}";

/// What one publisher was told: the room, the delta and its offset.
type Told = Vec<(&'static str, Entry)>;

/// Publishes one delta after the other, each unlike any other, until the server is gone.
fn publish_singly(server: &Server, name: &str, accepted: &AtomicUsize) -> Told {
    let (mut http, mut told) = (server.http(), Vec::new());
    for n in 0.. {
        let room = ROOMS[n % ROOMS.len()];
        let data = format!("{{\"from\":\"{name}\",\"n\":{n}}}");
        let reply = http.try_request("POST", &deltas_of(room), &[], data.as_bytes());
        match reply {
            Ok(reply) if reply.status == 201 => {
                let offset = reply.json()["offset"].as_u64().expect("an offset");
                told.push((room, Entry::new(offset, data)));
                accepted.fetch_add(1, Ordering::SeqCst);
            }
            Ok(reply) => assert_eq!(reply.status, 503, "{}", reply.text()),
            Err(_) => break,
        }
    }
    told
}

/// The same in batches over all rooms.
fn publish_batches(server: &Server, name: &str, accepted: &AtomicUsize) -> Told {
    let (mut http, mut told) = (server.http(), Vec::new());
    for batch in 0.. {
        let numbers = (0..30).map(|n| (ROOMS[n % ROOMS.len()], batch * 30 + n));
        let entries: Vec<Value> = numbers
            .map(|(room, n)| json!({"room": room, "data": {"from": name, "n": n}}))
            .collect();
        let body = json!(entries).to_string();
        match http.try_request("POST", "/v1/deltas", &[JSON], body.as_bytes()) {
            Ok(reply) if reply.status == 200 => {
                let results = reply.json();
                let results = results["results"].as_array().expect("results");
                for (n, (entry, result)) in entries.iter().zip(results).enumerate() {
                    if result["status"] == 201 {
                        let offset = result["offset"].as_u64().expect("an offset");
                        let entry = Entry::new(offset, entry["data"].to_string());
                        told.push((ROOMS[n % ROOMS.len()], entry));
                    }
                }
                accepted.fetch_add(30, Ordering::SeqCst);
            }
            Ok(reply) => assert_eq!(reply.status, 503, "{}", reply.text()),
            Err(_) => break,
        }
    }
    told
}

/// Runs five publishers, ends the server when `enough` deltas were accepted, and gives what each
/// publisher was told.
fn under_publish_load(server: &Server, name: &str, enough: usize, end: fn(u32)) -> Vec<Told> {
    let accepted = AtomicUsize::new(0);
    let accepted = &accepted;
    thread::scope(|scope| {
        let mut publishers: Vec<_> = (0..4)
            .map(|p| scope.spawn(move || publish_singly(server, &format!("{name}-{p}"), accepted)))
            .collect();
        let batches = scope.spawn(move || publish_batches(server, &format!("{name}-b"), accepted));
        publishers.push(batches);
        let start = Instant::now();
        while accepted.load(Ordering::SeqCst) < enough {
            assert!(
                start.elapsed() < PATIENCE,
                "{} accepted",
                accepted.load(Ordering::SeqCst)
            );
            thread::yield_now();
        }
        end(server.pid());
        let ended = publishers
            .into_iter()
            .map(|publisher| publisher.join().expect("no refusal"));
        ended.collect()
    })
}

fn signal(pid: u32, signal: &str) {
    let sent = std::process::Command::new("kill")
        .args([signal, &pid.to_string()])
        .status();
    assert!(sent.expect("`kill` is installed").success());
}

/// Checks the histories of all rooms against what the publishers were told, of which nothing may be
/// lost, doubled or torn, and of which each publisher's deltas stand in the order in which it sent
/// them.
fn assert_all_kept(histories: &HashMap<&str, Vec<Entry>>, publishers: &[Told]) {
    for told in publishers {
        for (room, entry) in told {
            let history = &histories[room];
            let found = history.binary_search_by_key(&entry.offset, |kept| kept.offset);
            let found =
                found.unwrap_or_else(|_| panic!("{room}: {entry:?} was accepted and is lost"));
            assert_eq!(history[found], *entry);
        }
    }
    for (room, history) in histories {
        let mut newest: HashMap<String, u64> = HashMap::new();
        for entry in history {
            let data: Value = serde_json::from_str(&entry.data).expect("whole JSON");
            let (from, n) = (
                data["from"].to_string(),
                data["n"].as_u64().expect("a number"),
            );
            let earlier = newest.insert(from, n);
            assert!(
                earlier.is_none_or(|earlier| earlier < n),
                "{room}: {entry:?} after {earlier:?}"
            );
        }
    }
}

fn histories(server: &Server) -> HashMap<&'static str, Vec<Entry>> {
    ROOMS
        .iter()
        .map(|room| (*room, server.history(room)))
        .collect()
}

#[test]
fn twenty_kills_under_load_lose_double_and_tear_nothing() {
    let mut server =
        Server::start("[namespaces.default]\nhistory_size = 1000000\nhistory_bytes = \"1GiB\"\n");
    let mut publishers = Vec::new();
    let mut views = ROOMS.map(View::new);
    for round in 0..ROUNDS {
        let mut client = Client::connect(&server);
        for view in &mut views {
            client.follow(view);
        }
        let enough = 50 + 37 * round;
        let reading = thread::scope(|scope| {
            let views = &mut views;
            let reader = scope.spawn(move || read_until_gone(&mut client, views));
            let kill = |pid| signal(pid, "-KILL");
            let told = under_publish_load(&server, &format!("round-{round}"), enough, kill);
            publishers.extend(told);
            reader.join()
        });
        reading.expect("the reader saw nothing wrong");
        server.kill9();
        server.restart();
        assert_all_kept(&histories(&server), &publishers);
    }
    // A client that was there from the beginning and came back after each kill has seen exactly the
    // log.
    let mut client = Client::connect(&server);
    for view in &mut views {
        assert_eq!(client.follow(view)["recovered"], true);
        let log = server.history(&view.room);
        client.read_into(view, log.len());
        view.assert_exactly(&log);
        client.result("unsubscribe", json!({"channel": view.room}));
    }
}

/// Reads whatever comes until the connection breaks.
fn read_until_gone(client: &mut Client, views: &mut [View]) {
    let mut take = |message: &Value| {
        if let Some(publication) = message["push"].get("pub") {
            let view = views
                .iter_mut()
                .find(|view| message["push"]["channel"] == *view.room);
            view.expect("only rooms that were joined")
                .publication(publication);
        }
    };
    client.take_waiting().iter().for_each(&mut take);
    while let Ok(frame) = client.socket.try_read() {
        if frame.opcode == CLOSE {
            break;
        }
        common::client::messages(frame.text())
            .iter()
            .for_each(&mut take);
    }
}

#[test]
fn a_stop_under_load_ends_in_time_with_0_and_loses_nothing_accepted() {
    let mut server =
        Server::start("[namespaces.default]\nhistory_size = 1000000\nhistory_bytes = \"1GiB\"\n");
    let clients: Vec<Client> = (0..50)
        .map(|_| {
            let mut client = Client::connect(&server);
            ROOMS.iter().for_each(|room| drop(client.subscribe(room)));
            client
        })
        .collect();
    let readers: Vec<_> = clients
        .into_iter()
        .map(|mut client| thread::spawn(move || client.closed()))
        .collect();
    let told = under_publish_load(&server, "stop", 500, |pid| signal(pid, "-TERM"));
    let asked = Instant::now();
    let status = server.await_exit();
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(status.code(), Some(0));
    for reader in readers {
        let (code, reason) = reader.join().expect("a close frame came");
        assert_eq!((code, reason.as_str()), (3001, "shutdown"));
    }
    server.restart();
    assert_all_kept(&histories(&server), &[told].concat());
}

#[test]
fn ctrl_c_stops_it_too() {
    let mut server = Server::start("");
    let mut client = Client::connect(&server);
    signal(server.pid(), "-INT");
    assert_eq!(client.closed(), (3001, "shutdown".into()));
    assert_eq!(server.await_exit().code(), Some(0));
}

#[test]
fn a_client_that_never_reads_does_not_hold_up_a_stop() {
    let mut server = Server::start("[limits]\nmax_outbox_bytes = \"64MiB\"\n");
    let mut client = Client::connect(&server);
    client.subscribe("lobby");
    let text = format!("\"{}\"", "x".repeat(60_000));
    for _ in 0..200 {
        server.publish("lobby", &text);
    }
    let asked = Instant::now();
    assert_eq!(server.stop().code(), Some(0));
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{:?}",
        asked.elapsed()
    );
}

#[test]
fn a_thousand_connections_of_every_kind_leave_nothing_behind() {
    let server = Server::start("[rooms]\nlinger = \"100ms\"\n");
    // The first of each kind may open what stays open.
    for kind in 0..KINDS {
        open_and_end(&server, kind, "warm-up");
    }
    let nothing = || {
        server.await_metric(SESSIONS, 0.0);
        server.await_metric("roomwire_rooms_active", 0.0);
    };
    nothing();
    let descriptors = eventually("descriptors to settle", || {
        let first = server.descriptors();
        thread::sleep(Duration::from_millis(50));
        (server.descriptors() == first).then_some(first)
    });
    let memory = server.memory();
    for n in 0..1000 {
        open_and_end(&server, n % KINDS, &format!("room-{n}"));
    }
    nothing();
    eventually("the descriptors to be closed", || {
        (server.descriptors() <= descriptors).then_some(())
    });
    let growth = server.memory().saturating_sub(memory);
    assert!(growth < 16 * 1024 * 1024, "memory grew by {growth} bytes");
    Client::connect(&server).is_alive();
}

const KINDS: usize = 6;

/// One connection that ends in one of the ways in which connections end.
fn open_and_end(server: &Server, kind: usize, room: &str) {
    match kind {
        // Closed as the protocol has it.
        0 => {
            let mut client = Client::connect(server);
            client.subscribe(room);
            client
                .socket
                .send(&Frame::new(CLOSE, 1000_u16.to_be_bytes()));
            client.socket.read_end_after_close();
        }
        // Gone without a word.
        1 => drop(Client::connect(server).subscribe(room)),
        // Left its room first.
        2 => {
            let mut client = Client::connect(server);
            client.subscribe(room);
            client.result("unsubscribe", json!({"channel": room}));
        }
        // Thrown out.
        3 => {
            let mut client = Client::connect(server);
            client.subscribe(room);
            client.send("nonsense");
            client.closed();
        }
        // Never said anything.
        4 => drop(Socket::open(server.address())),
        // Never finished its handshake.
        _ => {
            let request = upgrade_request("GET", PATH, &[]);
            let mut stream = http::open(server.address()).expect("the server listens");
            let half = &request[..request.len() / 2];
            stream.write_all(half).expect("the server reads");
        }
    }
}
