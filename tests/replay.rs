//! Coming back: recovery over HTTP and over the socket gives exactly what was missed, or says that
//! it can't.

mod common;

use std::{sync::Barrier, thread};

use common::{
    Client, Entry, Server, View,
    http::percent_encoded,
    server::{JSON, deltas_of},
};
use serde_json::{Value, json};

/// A namespace that keeps three deltas.
const SHORT: &str = "[namespaces.short]\nhistory_size = 3\n";

fn read(server: &Server, room: &str, query: &str) -> Value {
    let reply = server.get(&format!("{}?{query}", deltas_of(room)));
    assert_eq!(reply.status, 200, "{query}: {}", reply.text());
    reply.json()
}

fn offsets(page: &Value) -> Vec<u64> {
    let deltas = page["deltas"].as_array().expect("a list of deltas");
    deltas
        .iter()
        .filter_map(|delta| delta["offset"].as_u64())
        .collect()
}

fn offsets_of(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.offset).collect()
}

#[test]
fn http_gives_what_came_after_a_position_page_by_page() {
    let server = Server::start("");
    let log = server.publish_numbers("lobby", 0, 25);
    let newest = server.publish("elsewhere", "0");
    let (mut after, mut got, mut pages) = (log[4].offset, Vec::new(), 0);
    loop {
        let query = format!("after={after}&epoch={}&limit=8", newest.epoch);
        let page = read(&server, "lobby", &query);
        assert_eq!(page["room"], "lobby");
        assert_eq!(page["epoch"], newest.epoch.as_str());
        assert_eq!(page["recovered"], true);
        assert_eq!(page["newest"], log[24].offset);
        got.extend(offsets(&page));
        after = *got.last().unwrap();
        pages += 1;
        if page["more"] == false {
            break;
        }
    }
    assert_eq!(got, offsets_of(&log[5..]));
    assert_eq!(pages, 3);
    let rest = read(&server, "lobby", &format!("after={}", log[24].offset));
    assert_eq!(
        (&rest["recovered"], &rest["more"]),
        (&json!(true), &json!(false))
    );
    assert!(offsets(&rest).is_empty());
}

#[test]
fn http_gives_deltas_with_time_id_and_data_as_they_were_accepted() {
    let server = Server::start("");
    let keyed = server.post(
        &deltas_of("lobby"),
        &[JSON, ("Idempotency-Key", "k")],
        "{\"n\": 1}",
    );
    let keyed = keyed.json();
    let delta = read(&server, "lobby", "after=0")["deltas"][0].clone();
    assert_eq!(delta["data"], json!({"n": 1}));
    for field in ["offset", "time", "id"] {
        assert_eq!(delta[field], keyed[field], "{field}");
    }
}

#[test]
fn http_says_when_a_position_cannot_be_recovered() {
    let server = Server::start(SHORT);
    let log = server.publish_numbers("short:a", 0, 10);
    let epoch = server.publish("lobby", "0").epoch;
    let recovered = |query: &str| read(&server, "short:a", query)["recovered"].clone();
    let after = |entry: &Entry| format!("after={}&epoch={epoch}", entry.offset);
    assert_eq!(recovered(&after(&log[3])), false, "trimmed");
    assert_eq!(recovered(&after(&log[6])), true, "all that follows is kept");
    assert_eq!(
        recovered(&format!("after={}&epoch=another", log[8].offset)),
        false
    );
    assert_eq!(
        recovered(&format!(
            "after={}&epoch={epoch}",
            log[9].offset + 1_000_000
        )),
        false
    );
    let oldest = read(&server, "short:a", "after=0");
    assert_eq!(
        offsets(&oldest),
        offsets_of(&log[7..]),
        "0 stands for the oldest kept"
    );
}

#[test]
fn http_gives_an_empty_room_its_epoch() {
    let server = Server::start("");
    let page = read(&server, "nobody-was-here", "after=0");
    assert!(offsets(&page).is_empty());
    assert_eq!((&page["newest"], &page["more"]), (&json!(0), &json!(false)));
    assert_eq!(page["recovered"], true);
    assert_eq!(page["epoch"], server.publish("lobby", "0").epoch.as_str());
}

#[test]
fn since_takes_a_time_in_both_forms_and_includes_it() {
    let server = Server::start(SHORT);
    // One batch is stamped once: its deltas share their millisecond.
    let together = server.publish_numbers("lobby", 0, 5);
    let time = read(&server, "lobby", "after=0")["deltas"][0]["time"]
        .as_u64()
        .unwrap();
    let later = common::eventually("a later millisecond", || {
        let accepted = server.publish("lobby", "1");
        (accepted.time > time).then_some(accepted)
    });
    let all = offsets_of(&server.history("lobby"));
    let since = |since: &str| offsets(&read(&server, "lobby", &format!("since={since}")));
    assert_eq!(since(&time.to_string()), all);
    assert_eq!(all[..5], offsets_of(&together));
    let last = since(&later.time.to_string());
    assert_eq!(last.first(), Some(&later.offset));
    let moment = jiff::Timestamp::from_millisecond(later.time as i64).unwrap();
    assert_eq!(since(&percent_encoded(&moment.to_string())), last);
    assert!(since(&(later.time + 60_000).to_string()).is_empty());
}

#[test]
fn since_a_time_before_the_oldest_kept_is_not_recovered_once_history_was_trimmed() {
    let server = Server::start(SHORT);
    let first = server.publish("short:a", "0");
    let query = format!("since={}", first.time);
    assert_eq!(read(&server, "short:a", &query)["recovered"], true);
    server.publish_numbers("short:a", 1, 5);
    assert_eq!(read(&server, "short:a", &query)["recovered"], false);
}

#[test]
fn what_was_missed_is_replayed_in_pages_while_publishing_goes_on() {
    let server = Server::start("");
    let mut view = View::new("lobby");
    let mut client = Client::connect(&server);
    client.follow(&mut view);
    server.publish_numbers("lobby", 0, 10);
    client.read_into(&mut view, 10);
    drop(client);
    server.publish_numbers("lobby", 10, 5000);
    let mut client = Client::connect(&server);
    thread::scope(|scope| {
        scope.spawn(|| server.publish_numbers("lobby", 100_000, 3000));
        assert_eq!(client.follow(&mut view)["recovered"], true);
        client.read_into(&mut view, 8010);
    });
    view.assert_exactly(&server.history("lobby"));
    assert_eq!(view.reloads(), 0);
    client.is_alive();
}

#[test]
fn a_replay_that_is_cut_again_and_again_continues_where_it_was_cut() {
    let server = Server::start("");
    let mut view = View::new("lobby");
    Client::connect(&server).follow(&mut view);
    server.publish_numbers("lobby", 0, 5000);
    let mut have = 0;
    while have < 5000 {
        let mut client = Client::connect(&server);
        assert_eq!(client.follow(&mut view)["recovered"], true);
        have = (view.deltas().count() + 400).min(5000);
        client.read_into(&mut view, have);
    }
    view.assert_exactly(&server.history("lobby"));
}

#[test]
fn leaving_and_joining_while_publishing_loses_doubles_and_swaps_nothing() {
    let server = Server::start("");
    let joined = Barrier::new(9);
    thread::scope(|scope| {
        let followers: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| follow_with_interruptions(&server, &joined)))
            .collect();
        joined.wait();
        server.publish_numbers("busy", 0, 4000);
        server.publish("busy", "\"end\"");
        let log = server.history("busy");
        for follower in followers {
            follower.join().unwrap().assert_exactly(&log);
        }
    });
}

/// Follows the busy room until its last delta, leaving and coming back every so often.
fn follow_with_interruptions(server: &Server, joined: &Barrier) -> View {
    let mut view = View::new("busy");
    let mut client = Client::connect(server);
    client.follow(&mut view);
    joined.wait();
    loop {
        if view
            .deltas()
            .last()
            .is_some_and(|entry| entry.data == "\"end\"")
        {
            return view;
        }
        let (_, publication) = client.publication();
        view.publication(&publication);
        if view.deltas().count() % 500 == 499 {
            client = Client::connect(server);
            client.follow(&mut view);
        }
    }
}

#[test]
fn an_unsubscribed_client_recovers_on_the_same_connection() {
    let server = Server::start("");
    let mut view = View::new("lobby");
    let mut client = Client::connect(&server);
    client.follow(&mut view);
    for round in 0..20 {
        client.result("unsubscribe", json!({"channel": "lobby"}));
        server.publish_numbers("lobby", round * 10, 10);
        client.follow(&mut view);
        // What the room has not come to yet follows the reply as a push.
        client.read_into(&mut view, (round as usize + 1) * 10);
    }
    view.assert_exactly(&server.history("lobby"));
    client.is_alive();
}

#[test]
fn the_history_command_gives_pages_from_both_ends() {
    let server = Server::start("");
    let log = server.publish_numbers("lobby", 0, 10);
    let mut client = Client::connect(&server);
    let mut ask = |request: Value| {
        let result = client.result("history", request);
        assert_eq!(result["offset"], log[9].offset, "the newest position");
        let publications = result["publications"].as_array().expect("a list").clone();
        let offset = |p: &Value| p["offset"].as_u64().expect("an offset");
        publications.iter().map(offset).collect::<Vec<_>>()
    };
    let since = json!({"offset": log[3].offset, "epoch": ""});
    let mut before: Vec<u64> = offsets_of(&log[..3]);
    before.reverse();
    assert!(ask(json!({"channel": "lobby"})).is_empty());
    assert_eq!(
        ask(json!({"channel": "lobby", "limit": -1})),
        offsets_of(&log)
    );
    assert_eq!(
        ask(json!({"channel": "lobby", "limit": 3})),
        offsets_of(&log[..3])
    );
    assert_eq!(
        ask(json!({"channel": "lobby", "limit": 3, "since": since})),
        offsets_of(&log[4..7])
    );
    let back = json!({"channel": "lobby", "limit": 9, "since": since, "reverse": true});
    assert_eq!(ask(back), before);
    let newest = json!({"channel": "lobby", "limit": 1, "reverse": true});
    assert_eq!(ask(newest), [log[9].offset]);
}

#[test]
fn history_is_trimmed_by_its_age_and_its_bytes_too() {
    let config =
        "[namespaces.brief]\nhistory_ttl = \"1s\"\n[namespaces.small]\nhistory_bytes = \"1KiB\"\n";
    let server = Server::start(config);
    let first = server.publish("brief:a", "1");
    let text = format!("\"{}\"", "x".repeat(300));
    for _ in 0..10 {
        server.publish("small:a", &text);
    }
    let kept = server.history("small:a").len();
    assert!(
        (1..=3).contains(&kept),
        "{kept} deltas of 302 bytes are kept in 1 KiB"
    );
    common::eventually("the old delta to go", || {
        server.history("brief:a").is_empty().then_some(())
    });
    let query = format!("after={}&epoch={}", first.offset, first.epoch);
    assert_eq!(
        read(&server, "brief:a", &query)["recovered"],
        true,
        "nothing was missed"
    );
    let joined = Client::connect(&server).subscribe("brief:a");
    assert!(
        joined["offset"].as_u64() >= Some(first.offset),
        "the position outlives the delta"
    );
}

#[test]
fn ephemeral_notices_take_no_part_in_history_or_positions() {
    let server = Server::start("[namespaces.typing]\nclient_publish = \"ephemeral\"\n");
    let (mut sender, mut receiver) = (Client::connect(&server), Client::connect(&server));
    let mut view = View::new("typing:a");
    sender.subscribe("typing:a");
    receiver.follow(&mut view);
    let log = server.publish_numbers("typing:a", 0, 1);
    receiver.read_into(&mut view, 1);
    sender.result(
        "publish",
        json!({"channel": "typing:a", "data": {"typing": true}}),
    );
    let (_, notice) = receiver.publication();
    assert_eq!(notice["data"], json!({"typing": true}));
    assert_eq!(notice.get("offset"), None);
    assert_eq!(notice["info"]["client"], sender.id.as_str());
    assert_eq!(server.history("typing:a"), log);
    assert_eq!(
        Client::connect(&server).follow(&mut view)["recovered"],
        true
    );
    view.assert_exactly(&log);
}

#[test]
fn a_stored_client_publish_is_ordered_and_replayed_like_any_other() {
    let server = Server::start("[namespaces.open]\nclient_publish = \"stored\"\n");
    let mut client = Client::connect(&server);
    client.subscribe("open:a");
    client.result(
        "publish",
        json!({"channel": "open:a", "data": {"text": "hi"}}),
    );
    let log = server.history("open:a");
    assert_eq!(log.len(), 1);
    let epoch = server.publish("elsewhere", "0").epoch;
    let mut late = View::at("open:a", 0, &epoch);
    let result = Client::connect(&server).follow(&mut late);
    late.assert_exactly(&log);
    assert_eq!(
        result["publications"][0]["info"]["client"],
        client.id.as_str()
    );
}

#[test]
fn a_client_that_publishes_too_fast_is_told_so_and_loses_nothing_else() {
    let config = "[namespaces.typing]\nclient_publish = \"ephemeral\"\nclient_publish_rate = 2\n";
    let server = Server::start(config);
    let mut client = Client::connect(&server);
    client.subscribe("typing:a");
    let replies: Vec<Value> = (0..20)
        .map(|n| client.ask("publish", json!({"channel": "typing:a", "data": n})))
        .collect();
    let refused: Vec<&Value> = replies.iter().filter(|r| r["error"].is_object()).collect();
    assert!(
        !refused.is_empty() && refused.len() < 20,
        "{} of 20 refused",
        refused.len()
    );
    for reply in refused {
        assert_eq!(
            (&reply["error"]["code"], &reply["error"]["temporary"]),
            (&json!(111), &json!(true))
        );
    }
    client.is_alive();
}

#[test]
fn a_first_subscribe_gets_the_newest_where_the_namespace_says_so() {
    let server = Server::start("[namespaces.recent]\nrewind = 3\nhistory_size = 5\n");
    let log = server.publish_numbers("recent:a", 0, 20);
    let mut client = Client::connect(&server);
    let result = client.subscribe("recent:a");
    assert_eq!(result.get("recovered"), None);
    assert_eq!(result.get("was_recovering"), None);
    let mut view = View::new("recent:a");
    view.subscribed(&result);
    let next = server.publish_numbers("recent:a", 20, 1);
    client.read_into(&mut view, 4);
    view.assert_exactly(&[log.clone(), next].concat());
    assert_eq!(view.deltas().next(), Some(&log[17]));
    let mut returning = Client::connect(&server);
    let offset = log[16].offset;
    let result = returning.recover("recent:a", offset, &view.epoch);
    assert_eq!(
        result["recovered"], true,
        "who comes back gets what it missed: {result}"
    );
    assert_eq!(result["publications"].as_array().map(Vec::len), Some(4));
    let mut first = Client::connect(&server);
    let nothing = first.subscribe("recent:empty");
    assert_eq!(nothing.get("publications"), None);
    let one = server.publish_numbers("recent:empty", 0, 1);
    assert_eq!(first.publication().1["offset"], one[0].offset);
}
