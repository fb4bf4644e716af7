//! Long polls: answered at once where there is something, else held until there is.

mod common;

use std::{
    fs,
    io::{BufReader, Write},
    net::TcpStream,
    thread,
};

use common::{
    Entry, Seen, Server, View, eventually,
    http::{self, Reply},
    server::deltas_of,
};
use serde_json::{Value, json};

const CONFIG: &str = r#"
[limits]
ping_interval = "1h"

[namespaces.short]
history_size = 3
"#;

const HELD: &str = "roomwire_sessions{transport=\"poll\"}";

/// A poll that was sent and is not answered yet.
struct Poll(BufReader<TcpStream>);

impl Poll {
    fn send(server: &Server, path: &str) -> Self {
        let connection = http::open(server.address()).expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let sent = (&connection).write_all(request.as_bytes());
        sent.expect("the server reads");
        Self(BufReader::new(connection))
    }

    fn answer(mut self) -> Value {
        let reply = http::read_reply(&mut self.0, false).expect("an answer");
        page(&reply)
    }
}

fn page(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    reply.json()
}

fn offsets(page: &Value) -> Vec<u64> {
    let deltas = page["deltas"].as_array().expect("a list of deltas");
    deltas
        .iter()
        .filter_map(|delta| delta["offset"].as_u64())
        .collect()
}

#[test]
fn a_poll_of_one_room_is_answered_when_there_is_something_in_the_form_of_history() {
    let server = Server::start(CONFIG);
    let first = server.publish("lobby", "1");
    let path = deltas_of("lobby");
    let at_once = page(&server.get(&format!("{path}?after=0&wait=60")));
    assert_eq!(offsets(&at_once), [first.offset]);
    let query = format!("{path}?after={}&epoch={}", first.offset, first.epoch);
    let poll = Poll::send(&server, &format!("{query}&wait=60"));
    server.await_metric(HELD, 1.0);
    server.publish("elsewhere", "0");
    let second = server.publish("lobby", "{\"text\": \"hi\"}");
    let answer = poll.answer();
    assert_eq!(answer, page(&server.get(&query)));
    assert_eq!(offsets(&answer), [second.offset]);
    server.await_metric(HELD, 0.0);
}

#[test]
fn a_poll_that_waited_in_vain_says_so_and_the_next_goes_on() {
    let server = Server::start(CONFIG);
    let first = server.publish("lobby", "1");
    let after = format!("after={}&epoch={}", first.offset, first.epoch);
    let empty = page(&server.get(&format!("{}?{after}&wait=1", deltas_of("lobby"))));
    assert_eq!(
        (&empty["recovered"], &empty["newest"]),
        (&json!(true), &json!(first.offset))
    );
    assert!(offsets(&empty).is_empty());
    let empty = page(&server.get("/v1/deltas?room=lobby&room=b&wait=1"));
    assert!(offsets(&empty).is_empty());
    let position = empty["position"].as_str().unwrap();
    let second = server.publish("lobby", "2");
    let path = format!("/v1/deltas?room=lobby&room=b&after={position}&wait=60");
    assert_eq!(offsets(&page(&server.get(&path))), [second.offset]);
}

#[test]
fn a_poll_whose_position_is_lost_is_told_at_once() {
    let server = Server::start(CONFIG);
    let log = server.publish_numbers("short:a", 0, 9);
    let lost = |query: String| {
        let answer = page(&server.get(&format!("{}?{query}&wait=60", deltas_of("short:a"))));
        assert_eq!(answer["recovered"], false, "{query}");
    };
    lost(format!("after={}", log[2].offset));
    lost(format!("after={}&epoch=another", log[8].offset));
    lost("after=9007199254740991".into());
    let several = "/v1/deltas?room=short:a&room=lobby&wait=60";
    let position = page(&server.get(&format!("{several}&after=0")))["position"].clone();
    server.publish_numbers("short:a", 9, 9);
    let lobby = server.publish("lobby", "1").offset;
    let position = position.as_str().unwrap();
    let answer = page(&server.get(&format!("{several}&after={position}")));
    assert_eq!(answer["reload"], json!(["short:a"]));
    assert_eq!(offsets(&answer), [lobby], "the other room lost nothing");
    let next = answer["position"].as_str().unwrap();
    let poll = Poll::send(&server, &format!("{several}&after={next}"));
    server.await_metric(HELD, 1.0);
    let next = server.publish("short:a", "\"next\"").offset;
    let answer = poll.answer();
    assert_eq!(
        (offsets(&answer), &answer["reload"]),
        (vec![next], &json!([]))
    );
}

#[test]
fn a_loop_of_polls_over_several_rooms_misses_nothing_while_others_publish() {
    let server = Server::start(CONFIG);
    let start = page(&server.get("/v1/deltas?room=a&room=b"));
    let mut position = start["position"].as_str().unwrap().to_owned();
    let mut views = ["a", "b"].map(|room| View::at(room, 0, ""));
    let logs = thread::scope(|scope| {
        let server = &server;
        let publish = move |room| -> Vec<Entry> {
            let batches = (0..30).flat_map(|n| server.publish_numbers(room, n * 10, 10));
            batches.collect()
        };
        let logs = ["a", "b"].map(|room| scope.spawn(move || publish(room)));
        let mut http = server.http();
        while views
            .iter()
            .map(|view| view.deltas().count())
            .sum::<usize>()
            < 600
        {
            let path = format!("/v1/deltas?room=a&room=b&after={position}&wait=20&limit=7");
            let answer = page(&http.request("GET", &path, &[], b""));
            assert_eq!(answer["reload"], json!([]));
            assert!(answer["deltas"].as_array().unwrap().len() <= 7);
            for delta in answer["deltas"].as_array().unwrap() {
                let view = views
                    .iter_mut()
                    .find(|view| delta["room"] == view.room.as_str());
                let entry =
                    Entry::new(delta["offset"].as_u64().unwrap(), delta["data"].to_string());
                view.unwrap().seen.push(Seen::Delta(entry));
            }
            answer["position"]
                .as_str()
                .unwrap()
                .clone_into(&mut position);
        }
        logs.map(|log| log.join().unwrap())
    });
    for (view, log) in views.iter().zip(logs) {
        view.assert_exactly(&log);
    }
}

#[test]
fn five_hundred_held_polls_take_no_threads_and_are_all_woken() {
    let server = Server::start(CONFIG);
    let first = server.publish("lobby", "1");
    let threads = || {
        fs::read_dir(format!("/proc/{}/task", server.pid()))
            .unwrap()
            .count()
    };
    let path = format!("{}?after={}&wait=60", deltas_of("lobby"), first.offset);
    let polls: Vec<Poll> = (0..500).map(|_| Poll::send(&server, &path)).collect();
    server.await_metric(HELD, 500.0);
    // Those that read the disk go away when they have nothing to do, or are as many as one request makes.
    eventually("the end of idle threads", || (threads() < 50).then_some(()));
    let second = server.publish("lobby", "2");
    for poll in polls {
        assert_eq!(offsets(&poll.answer()), [second.offset]);
    }
    server.await_metric(HELD, 0.0);
}

#[test]
fn a_client_that_hangs_up_leaves_no_poll_behind() {
    let server = Server::start(CONFIG);
    let polls: Vec<Poll> = (0..20)
        .map(|_| Poll::send(&server, "/v1/deltas?room=a&room=b&wait=60"))
        .collect();
    server.await_metric(HELD, 20.0);
    drop(polls);
    server.await_metric(HELD, 0.0);
}

#[test]
fn a_stop_answers_held_polls_with_what_there_is() {
    let mut server = Server::start(CONFIG);
    let polls = [
        "/v1/deltas?room=a&wait=60".to_owned(),
        format!("{}?wait=60", deltas_of("a")),
    ]
    .map(|path| Poll::send(&server, &path));
    server.await_metric(HELD, 2.0);
    assert!(server.stop().success());
    for poll in polls {
        assert!(offsets(&poll.answer()).is_empty());
    }
}

#[test]
fn what_can_not_be_waited_for_is_refused() {
    let server = Server::start(CONFIG);
    let one = deltas_of("a");
    for path in [
        format!("{one}?wait=61"),
        format!("{one}?wait=soon"),
        format!("{one}?wait=5&before=7"),
        format!("{one}?wait=5&order=newest"),
        "/v1/deltas?wait=5".into(),
        "/v1/deltas?room=a&limit=0".into(),
    ] {
        let kind = server.get(&path).problem()["type"].clone();
        assert_eq!(kind, "urn:roomwire:problem:bad-parameter", "{path}");
    }
}
