//! Taking deltas back over HTTP: what is answered, and who gets them no more.

mod common;

use common::{Client, Entry, Server, View, server::deltas_of};
use serde_json::json;

fn one(room: &str, offset: u64) -> String {
    format!("{}/{offset}", deltas_of(room))
}

fn offsets(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.offset).collect()
}

#[test]
fn an_erased_delta_is_in_no_history_and_in_no_replay_over_a_restart_too() {
    let mut server = Server::start("");
    let first = server.publish("lobby", "1");
    let secret = server.publish("lobby", "\"secret\"");
    let last = server.publish("lobby", "3");
    let reply = server.delete(&one("lobby", secret.offset));
    assert_eq!(reply.status, 200, "{}", reply.text());
    let told = reply.json();
    assert!(told["offset"].as_u64() > Some(last.offset));
    assert_eq!(told["epoch"], last.epoch.as_str());
    let left = [first.offset, last.offset];
    for _ in 0..2 {
        assert_eq!(offsets(&server.history("lobby")), left);
        let mut client = Client::connect(&server);
        let history = client.result("history", json!({"channel": "lobby", "limit": -1}));
        assert_eq!(history["publications"].as_array().map(Vec::len), Some(2));
        assert_eq!(history["offset"], last.offset);
        let mut view = View::at("lobby", first.offset, &first.epoch);
        let recovered = client.follow(&mut view);
        assert_eq!(recovered["recovered"], true);
        assert_eq!(recovered["publications"][0]["offset"], last.offset);
        server.kill9();
        server.restart();
    }
}

#[test]
fn who_was_shown_it_keeps_its_position_and_its_place_in_what_is_live() {
    let server = Server::start("");
    let mut client = Client::connect(&server);
    let mut view = View::new("lobby");
    client.follow(&mut view);
    let secret = server.publish("lobby", "1");
    client.read_into(&mut view, 1);
    assert_eq!(server.delete(&one("lobby", secret.offset)).status, 200);
    let last = server.publish("lobby", "2");
    client.read_into(&mut view, 2);
    assert_eq!(view.offset, last.offset);
    let mut again = Client::connect(&server);
    let recovered = again.recover("lobby", secret.offset, &secret.epoch);
    assert_eq!(recovered["recovered"], true);
}

#[test]
fn every_delta_up_to_now_or_before_an_offset_is_erased_in_its_room_alone() {
    let server = Server::start("");
    let room: Vec<_> = (0..5).map(|_| server.publish("lobby", "1")).collect();
    server.publish("other", "1");
    let before = format!("{}?before={}", deltas_of("lobby"), room[3].offset);
    assert_eq!(server.delete(&before).status, 200);
    assert_eq!(
        offsets(&server.history("lobby")),
        [room[3].offset, room[4].offset]
    );
    assert_eq!(server.delete(&deltas_of("lobby")).status, 200);
    assert_eq!(server.history("lobby"), []);
    assert_eq!(server.delete(&deltas_of("lobby")).status, 200);
    let later = server.publish("lobby", "2");
    assert_eq!(offsets(&server.history("lobby")), [later.offset]);
    assert_eq!(server.history("other").len(), 1);
    assert_eq!(server.delete(&deltas_of("empty")).status, 200);
}

#[test]
fn an_erasure_is_answered_precisely() {
    let server = Server::start("[namespaces.default]\nhistory_size = 2\n");
    let delta: Vec<_> = (0..3).map(|_| server.publish("lobby", "1")).collect();
    let status = |path: &str| server.delete(path).status;
    let problem = |path: &str| {
        let problem = server.delete(path).problem();
        let kind = problem["type"].as_str().unwrap_or_default();
        (
            problem["status"].as_u64().unwrap_or_default(),
            kind.rsplit(':').next().unwrap_or_default().to_owned(),
        )
    };
    let kind = |status, kind: &str| (status, kind.to_owned());
    assert_eq!(status(&one("lobby", delta[1].offset)), 200);
    assert_eq!(status(&one("lobby", delta[1].offset)), 200, "again");
    let no_such = kind(404, "no-such-delta");
    assert_eq!(problem(&one("lobby", delta[0].offset)), no_such, "trimmed");
    assert_eq!(problem(&one("lobby", 9_999)), no_such, "yet to come");
    assert_eq!(problem(&one("other", delta[2].offset)), no_such);
    let fits = format!("{}?epoch={}", one("lobby", delta[2].offset), delta[2].epoch);
    let foreign = format!("{}?epoch=foreign", one("lobby", delta[2].offset));
    assert_eq!(problem(&foreign), no_such);
    assert_eq!(server.history("lobby").len(), 1);
    assert_eq!(status(&fits), 200);
    assert_eq!(server.history("lobby"), []);
    for bad in [
        "/v1/rooms/lobby/deltas/0",
        "/v1/rooms/lobby/deltas/x",
        "/v1/rooms/lobby/deltas?before=0",
        "/v1/rooms/lobby/deltas?before=now",
    ] {
        assert_eq!(problem(bad), kind(400, "bad-parameter"), "{bad}");
    }
    let unknown = kind(404, "unknown-namespace");
    assert_eq!(problem("/v1/rooms/nowhere:x/deltas/1"), unknown);
    assert_eq!(
        problem("/v1/rooms/a%20b/deltas/1"),
        kind(400, "bad-room-name")
    );
    let got = server.get(&one("lobby", 1));
    assert_eq!((got.status, got.header("allow")), (405, Some("DELETE")));
}

#[test]
fn an_erased_delta_still_answers_for_its_key() {
    let server = Server::start("");
    let publish = || server.post(&deltas_of("lobby"), &[("Idempotency-Key", "k")], "1");
    let first = publish().json();
    let offset = first["offset"].as_u64().expect("an offset");
    assert_eq!(server.delete(&one("lobby", offset)).status, 200);
    let again = publish();
    assert_eq!(
        (again.status, &again.json()["offset"]),
        (200, &first["offset"])
    );
    assert_eq!(server.history("lobby"), []);
}
