//! Streams of server-sent events: what they tell, coming back to them, and their ends.

mod common;

use std::collections::HashMap;

use common::{
    Entry, Seen, Server, Stream, View, eventually,
    server::{JSON, deltas_of},
    stream::seen,
};
use serde_json::json;

const CONFIG: &str = r#"
[limits]
ping_interval = "1h"

[namespaces.short]
history_size = 3

[namespaces.default]
history_bytes = "64MiB"
"#;

const OPEN: &str = "roomwire_sessions{transport=\"sse\"}";

fn events_of(room: &str) -> String {
    format!("/v1/rooms/{room}/events")
}

fn offsets(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.offset).collect()
}

#[test]
fn a_stream_tells_of_deltas_as_unnamed_events_in_the_form_of_history() {
    let server = Server::start(CONFIG);
    let mut stream = Stream::open(&server, &events_of("lobby"));
    assert_eq!(stream.head.header("cache-control"), Some("no-store"));
    assert_eq!(stream.head.header("x-accel-buffering"), Some("no"));
    let first = stream.any().unwrap();
    assert_eq!((&*first.name, &*first.data), ("ping", "{}"));
    assert!(
        !stream.parser.last_id.is_empty(),
        "it can come back at once"
    );
    let retry = stream.parser.retry_ms.expect("how long to wait");
    assert!((1_000..3_000).contains(&retry), "{retry}");
    let before = stream.parser.last_id.clone();
    let headers = [JSON, ("Idempotency-Key", "k\"1")];
    let keyed = server.post(
        &deltas_of("lobby"),
        &headers,
        "{\"n\": 12345678901234567890}",
    );
    let keyed = keyed.json();
    let event = stream.next();
    assert_eq!(event.name, "message");
    assert!(
        event.data.contains("\"data\":{\"n\":12345678901234567890}"),
        "{}",
        event.data
    );
    let delta = event.json();
    for field in ["room", "offset", "time", "id"] {
        assert_eq!(delta[field], keyed[field], "{field}");
    }
    assert_ne!(stream.parser.last_id, before);
}

#[test]
fn a_client_of_several_rooms_gets_all_of_them_in_their_order() {
    let server = Server::start(CONFIG);
    let mut stream = Stream::open(&server, "/v1/events?room=a&room=b&room=%C3%A9");
    let mut views: HashMap<_, _> = ["a", "b", "é"]
        .map(|room| (room.to_owned(), View::at(room, 0, "")))
        .into();
    let logs = ["a", "é", "b", "a"].map(|room| (room, server.publish_numbers(room, 0, 40)));
    for _ in 0..160 {
        let (room, seen) = seen(&stream.next()).unwrap();
        views.get_mut(&room).unwrap().seen.push(seen);
    }
    for (room, view) in views {
        let of_room = logs.iter().filter(|(name, _)| *name == room);
        let log: Vec<Entry> = of_room.flat_map(|(_, log)| log.clone()).collect();
        view.assert_exactly(&log);
    }
}

/// Follows rooms as a browser does: comes back with the last id that it understood.
struct Browser {
    path: String,
    last_id: String,
    seen: Vec<(String, Seen)>,
}

impl Browser {
    fn new(path: &str) -> Self {
        Self {
            path: path.into(),
            last_id: String::new(),
            seen: Vec::new(),
        }
    }

    /// Reads so many bytes of a stream, or until that many deltas are known, and hangs up.
    fn read(&mut self, server: &Server, bytes: usize, deltas: usize) {
        let mut stream = Stream::come_back(server, &self.path, &self.last_id);
        for _ in 0..bytes {
            if self.seen.len() >= deltas {
                break;
            }
            let byte = stream.byte().expect("the stream goes on");
            if let Some(event) = stream.parser.take(byte) {
                self.seen.extend(seen(&event));
            }
        }
        self.last_id = stream.parser.last_id;
    }
}

#[test]
fn a_stream_that_is_cut_at_any_byte_resumes_exactly() {
    let server = Server::start(CONFIG);
    let mut logs = HashMap::from([("a", Vec::new()), ("b", Vec::new())]);
    for (n, room) in ["a", "b", "b", "a", "b"].into_iter().enumerate() {
        let data = format!("\"{n} é\\n\\u000a\"");
        let accepted = server.publish(room, &data);
        logs.get_mut(room)
            .unwrap()
            .push(Entry::new(accepted.offset, data));
    }
    for (path, rooms) in [
        ("/v1/rooms/b/events?after=0", &["b"][..]),
        ("/v1/events?room=a&room=b&after=0", &["a", "b"]),
    ] {
        let deltas = rooms.iter().map(|room| logs[room].len()).sum();
        let mut length = 0;
        loop {
            let mut browser = Browser::new(path);
            browser.read(&server, length, deltas);
            let at_once = browser.seen.len() == deltas;
            browser.read(&server, usize::MAX, deltas);
            for room in rooms {
                let mut view = View::at(room, 0, "");
                let of_room = browser.seen.iter().filter(|(name, _)| name == room);
                view.seen.extend(of_room.map(|(_, seen)| seen.clone()));
                view.assert_exactly(&logs[room]);
            }
            if at_once {
                break;
            }
            length += 1;
        }
        assert!(
            length > 300,
            "{length} bytes are no stream of {deltas} deltas"
        );
    }
}

#[test]
fn a_client_that_comes_back_while_others_publish_misses_nothing() {
    let server = Server::start(CONFIG);
    let mut browser = Browser::new("/v1/events?room=a&room=b");
    let mut first = Stream::open(&server, &browser.path);
    first.any();
    browser.last_id = first.parser.last_id;
    let logs = std::thread::scope(|scope| {
        let server = &server;
        let logs = ["a", "b"].map(|room| scope.spawn(move || server_log(server, room)));
        for bytes in (1..40).map(|n| n * 97) {
            browser.read(server, bytes, 600);
        }
        logs.map(|log| log.join().unwrap())
    });
    browser.read(&server, usize::MAX, 600);
    for (room, log) in ["a", "b"].into_iter().zip(logs) {
        let mut view = View::at(room, 0, "");
        let of_room = browser.seen.iter().filter(|(name, _)| name == room);
        view.seen.extend(of_room.map(|(_, seen)| seen.clone()));
        view.assert_exactly(&log);
    }
}

fn server_log(server: &Server, room: &str) -> Vec<Entry> {
    (0..30)
        .flat_map(|n| server.publish_numbers(room, n * 10, 10))
        .collect()
}

#[test]
fn a_client_chooses_where_it_begins() {
    let server = Server::start(CONFIG);
    let log = server.publish_numbers("lobby", 0, 9);
    let kept = server.publish_numbers("short:a", 0, 9);
    let epoch = server.publish("elsewhere", "0").epoch;
    let time = server.get(&format!("{}?after={}", deltas_of("lobby"), log[5].offset));
    let time = time.json()["deltas"][0]["time"].clone();
    let begins = |query: &str, room: &str, expected: &[Entry]| {
        let mut stream = Stream::open(&server, &format!("{}?{query}", events_of(room)));
        let expected = offsets(expected);
        assert_eq!(stream.offsets(expected.len()), expected, "{query}");
        let next = server.publish(room, "\"next\"").offset;
        assert_eq!(stream.offsets(1), [next], "{query}");
    };
    begins("after=0", "short:a", &kept[6..]);
    begins(&format!("after={}", log[3].offset), "lobby", &log[4..]);
    let log = server.history("lobby");
    let after = format!("after={}&epoch={epoch}", log[3].offset);
    begins(&after, "lobby", &log[4..]);
    let log = server.history("lobby");
    begins("last=4", "lobby", &log[log.len() - 4..]);
    let log = server.history("lobby");
    begins("last=1000", "lobby", &log);
    let log = server.history("lobby");
    let since: Vec<Entry> = {
        let read = server.get(&format!("{}?since={time}", deltas_of("lobby")));
        let first = read.json()["deltas"][0]["offset"].as_u64().unwrap();
        log.into_iter()
            .filter(|entry| entry.offset >= first)
            .collect()
    };
    begins(&format!("since={time}"), "lobby", &since);
    begins("", "lobby", &[]);
    begins("", "nobody-was-here", &[]);
    begins("last=3", "nobody-was-here-either", &[]);
}

#[test]
fn a_position_that_is_lost_is_an_event_of_its_own_and_the_stream_goes_on() {
    let server = Server::start(CONFIG);
    let log = server.publish_numbers("short:a", 0, 9);
    let path = events_of("short:a");
    let mut old = Stream::open(&server, &format!("{path}?after=0"));
    old.offsets(3);
    let trimmed = old.parser.last_id.clone();
    server.publish_numbers("short:a", 9, 9);
    let lost = |stream: &mut Stream, why: &str| {
        let event = stream.next();
        assert_eq!(event.name, "reload", "{why}");
        let reload = event.json();
        assert_eq!(reload["room"], "short:a");
        let at = reload["offset"].as_u64().unwrap();
        assert_eq!(
            at,
            server.history("short:a").last().unwrap().offset,
            "{why}"
        );
        let next = server.publish("short:a", "\"next\"").offset;
        assert_eq!(stream.offsets(1), [next], "{why}");
    };
    lost(&mut Stream::come_back(&server, &path, &trimmed), "trimmed");
    lost(
        &mut Stream::come_back(&server, &path, "made up"),
        "no position",
    );
    lost(&mut Stream::come_back(&server, &path, "42"), "no position");
    for (why, query) in [
        ("beyond the log's end", "after=9007199254740991".to_owned()),
        ("another epoch", format!("after={}&epoch=e", log[8].offset)),
    ] {
        lost(&mut Stream::open(&server, &format!("{path}?{query}")), why);
    }
    let mut since = Stream::open(&server, &format!("{path}?since=0"));
    assert_eq!(
        since.next().name,
        "reload",
        "something of that time is gone"
    );
    assert_eq!(since.offsets(3), offsets(&server.history("short:a")));
}

#[test]
fn a_room_that_is_lost_does_not_disturb_the_others() {
    let server = Server::start(CONFIG);
    let path = "/v1/events?room=lobby&room=short:a";
    let mut stream = Stream::open(&server, path);
    stream.any();
    let position = stream.parser.last_id.clone();
    drop(stream);
    let log = server.publish_numbers("lobby", 0, 5);
    server.publish_numbers("short:a", 0, 9);
    let mut stream = Stream::open(&server, &format!("{path}&after={position}"));
    let mut told: Vec<_> = (0..6).map(|_| seen(&stream.next()).unwrap()).collect();
    let reload = told.iter().position(|(room, _)| room == "short:a").unwrap();
    assert!(matches!(told.remove(reload).1, Seen::Reload { .. }));
    let mut view = View::at("lobby", 0, "");
    view.seen.extend(told.into_iter().map(|(_, seen)| seen));
    view.assert_exactly(&log);
}

#[test]
fn another_set_of_rooms_goes_on_with_the_same_position() {
    let server = Server::start(CONFIG);
    let mut stream = Stream::open(&server, "/v1/events?room=a&room=b");
    let first = server.publish("a", "1").offset;
    assert_eq!(stream.offsets(1), [first]);
    let position = stream.parser.last_id.clone();
    let missed = server.publish("a", "2").offset;
    server.publish("c", "\"before it was named\"");
    let mut stream = Stream::come_back(&server, "/v1/events?room=c&room=a", &position);
    assert_eq!(stream.offsets(1), [missed]);
    let new = server.publish("c", "3").offset;
    assert_eq!(stream.offsets(1), [new]);
}

#[test]
fn what_can_not_be_meant_is_refused() {
    let server = Server::start(CONFIG);
    let many: String = (0..129).map(|n| format!("&room=r{n}")).collect();
    for (path, problem) in [
        ("/v1/events", "bad-parameter"),
        ("/v1/events?room=a&room=a", "bad-parameter"),
        ("/v1/events?room=a%20b", "bad-room-name"),
        ("/v1/events?room=no:where", "unknown-namespace"),
        ("/v1/events?room=a&epoch=e", "unknown-parameter"),
        ("/v1/events?room=a&after=made-up", "bad-parameter"),
        ("/v1/events?room=a&after=0&last=1", "bad-parameter"),
        ("/v1/events?room=a&last=0", "bad-parameter"),
        ("/v1/events?room=a&since=yesterday", "bad-parameter"),
        ("/v1/rooms/a/events?room=b", "unknown-parameter"),
        (&format!("/v1/events?{}", &many[1..]), "bad-parameter"),
    ] {
        let reply = server.get(path);
        let kind = format!("urn:roomwire:problem:{problem}");
        assert_eq!(reply.problem()["type"], kind.as_str(), "{path}");
    }
    let reply = server.post("/v1/events?room=a", &[], "");
    assert_eq!((reply.status, reply.header("allow")), (405, Some("GET")));
    let most = &many[1..many.rfind('&').unwrap()];
    let mut stream = Stream::open(&server, &format!("/v1/events?{most}"));
    let offset = server.publish("r127", "1").offset;
    assert_eq!(stream.offsets(1), [offset]);
    assert!(stream.parser.last_id.len() <= 4096);
}

#[test]
fn a_client_is_pinged_with_events_that_a_page_can_see() {
    let server = Server::start("[limits]\nping_interval = \"1s\"\npong_timeout = \"500ms\"\n");
    let mut stream = Stream::open(&server, &events_of("lobby"));
    for _ in 0..4 {
        assert_eq!(stream.any().unwrap().name, "ping");
    }
}

#[test]
fn a_client_that_goes_away_is_noticed_while_nothing_is_said() {
    let server = Server::start(CONFIG);
    let streams: Vec<_> = (0..20)
        .map(|_| Stream::open(&server, "/v1/events?room=a&room=b"))
        .collect();
    server.await_metric(OPEN, 20.0);
    drop(streams);
    server.await_metric(OPEN, 0.0);
    let ready = || server.get("/readyz").json();
    eventually("no session", || {
        (ready()["sessions"] == json!(0)).then_some(())
    });
}

#[test]
fn a_reader_that_does_not_read_is_cut_off_and_resumes() {
    let server = Server::start(CONFIG);
    let path = events_of("flooded");
    let mut slow = Stream::open(&server, &path);
    let descriptors = server.descriptors();
    let flood = format!("\"{}\"", "x".repeat(60_000));
    let mut log = Vec::new();
    while server.metric("roomwire_slow_disconnects_total") == 0.0 {
        assert!(log.len() < 1000, "far more than all buffers hold");
        log.push(Entry::new(
            server.publish("flooded", &flood).offset,
            &*flood,
        ));
    }
    server.await_metric(OPEN, 0.0);
    eventually("the end of its connection", || {
        (server.descriptors() < descriptors).then_some(())
    });
    let mut view = View::at("flooded", 0, "");
    while let Some(event) = slow.any() {
        view.seen.extend(seen(&event).map(|(_, seen)| seen));
    }
    let had = view.deltas().count();
    assert!(had < log.len(), "it had missed nothing");
    let mut resumed = Stream::come_back(&server, &path, &slow.parser.last_id);
    for _ in had..log.len() {
        view.seen.push(seen(&resumed.next()).unwrap().1);
    }
    view.assert_exactly(&log);
    assert_eq!(
        server.metric("roomwire_sessions_closed_total{code=\"3008\"}"),
        1.0
    );
}

#[test]
fn a_stop_ends_streams_properly_and_tells_when_to_come_back() {
    let mut server = Server::start(CONFIG);
    let mut streams = ["/v1/events?room=a", "/v1/events?room=a&room=b"].map(|path| {
        let mut stream = Stream::open(&server, path);
        stream.any();
        stream.parser.retry_ms = None;
        stream
    });
    assert!(server.stop().success());
    for stream in &mut streams {
        assert_eq!(stream.any(), None);
        assert!(stream.parser.retry_ms.is_some_and(|ms| ms >= 1_000));
    }
}

#[test]
fn a_stream_takes_one_of_the_servers_places() {
    let server = Server::start("[limits]\nmax_sessions = 1\n");
    let first = Stream::open(&server, &events_of("lobby"));
    let second = server.get(&events_of("lobby"));
    assert_eq!(
        (second.status, second.header("retry-after")),
        (503, Some("10"))
    );
    drop(first);
    server.await_metric(OPEN, 0.0);
    Stream::open(&server, &events_of("lobby"));
}
