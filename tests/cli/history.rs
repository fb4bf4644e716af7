use serde_json::Value;

use crate::{command::Call, common::Server};

fn numbers(lines: &str) -> Vec<u64> {
    let of = |line: &str| {
        let data: Value = serde_json::from_str(line.splitn(3, ' ').nth(2).unwrap()).unwrap();
        data["n"].as_u64().unwrap()
    };
    lines.lines().map(of).collect()
}

#[test]
fn history_pages_through_all_that_is_kept_in_either_order() {
    let server = Server::start("");
    server.publish_numbers("lobby", 0, 2_500);
    let oldest_first = Call::to(&server, &["history", "lobby"]).run();
    assert_eq!(numbers(oldest_first.out()), (0..2_500).collect::<Vec<_>>());
    let newest = ["history", "lobby", "--order", "newest"];
    let newest_first = Call::to(&server, &newest).run();
    assert_eq!(
        numbers(newest_first.out()),
        (0..2_500).rev().collect::<Vec<_>>()
    );
    let some = Call::to(&server, &[&newest[..], &["--limit", "1200"]].concat()).run();
    assert_eq!(numbers(some.out()).len(), 1_200);
}

#[test]
fn history_goes_on_behind_a_position_and_from_a_time() {
    let server = Server::start("");
    server.publish("lobby", "{\"n\":1}");
    let second = server.publish("lobby", "{\"n\":2}");
    let third = server.publish("lobby", "{\"n\":3}");
    let (offset, epoch) = (second.offset.to_string(), second.epoch.as_str());
    let after = ["history", "lobby", "--after", &offset, "--epoch", epoch];
    assert_eq!(numbers(Call::to(&server, &after).run().out()), [3]);
    let since = ["history", "lobby", "--since", "1h"];
    assert_eq!(numbers(Call::to(&server, &since).run().out()), [1, 2, 3]);
    let later = (third.time + 1).to_string();
    let since = ["history", "lobby", "--since", &later];
    assert_eq!(Call::to(&server, &since).run().out(), "");

    let json = Call::to(&server, &[&after[..], &["--json"]].concat()).run();
    let line: Value = serde_json::from_str(json.out()).unwrap();
    assert_eq!(line["room"], "lobby");
    assert_eq!(line["offset"], third.offset);
    assert_eq!(line["id"], third.id.as_str());
    assert_eq!(line["data"]["n"], 3);
}

#[test]
fn a_lost_position_is_an_exit_code_of_its_own() {
    let server = Server::start("[namespaces.short]\nhistory_size = 5");
    let first = server.publish("short:a", "{\"n\":0}");
    server.publish_numbers("short:a", 1, 20);
    let trimmed = ["history", "short:a", "--after", &first.offset.to_string()];
    let trimmed = Call::to(&server, &trimmed).run();
    let told = trimmed.failed(3);
    assert!(told.contains("lost for good"), "{told}");
    assert_eq!(trimmed.stdout(), "");

    // From a time on, what is left is printed all the same.
    let since = Call::to(&server, &["history", "short:a", "--since", "1h"]).run();
    since.failed(3);
    assert_eq!(numbers(since.stdout()), [16, 17, 18, 19, 20]);

    let foreign = ["history", "short:a", "--after", "1", "--epoch", "another"];
    Call::to(&server, &foreign).run().failed(3);
    // Without a place that was asked for, nothing can be lost.
    Call::to(&server, &["history", "short:a"]).run().out();
}

#[test]
fn a_wrong_call_a_refusal_and_a_server_that_is_away_end_differently() {
    let server = Server::start("");
    let wrong = Call::to(&server, &["history", "two words"]).run();
    assert!(wrong.failed(2).contains("has ' ' at byte 3"));
    let both = ["history", "a", "--since", "1h", "--after", "1"];
    Call::to(&server, &both).run().failed(2);
    let unknown = Call::to(&server, &["history", "nowhere:a"]).run();
    assert!(unknown.failed(1).contains("404 Unknown namespace"));
    for command in [
        &["history", "lobby"][..],
        &["publish", "lobby", "1"],
        &["tail", "lobby"],
    ] {
        let away = Call::new(command)
            .with("ROOMWIRE_URL", "http://127.0.0.1:1")
            .run();
        let told = away.failed(4);
        assert!(told.contains("no server answers at"), "{told}");
    }
}
