use crate::{command::Call, common::Server};

#[test]
fn tail_begins_at_a_time_or_behind_a_position_and_goes_on_live() {
    let server = Server::start("");
    server.publish("lobby", "1");
    let second = server.publish("lobby", "2");
    let third = server.publish("lobby", "3");
    let (offset, epoch) = (second.offset.to_string(), second.epoch.as_str());
    let since = third.time.to_string();
    // Deltas of one millisecond belong to its `since` together.
    let expected_since: Vec<&str> = match second.time == third.time {
        true => vec!["2", "3", "4"],
        false => vec!["3", "4"],
    };
    let after = ["--after", &offset, "--epoch", epoch];
    let calls: [(&[&str], Vec<&str>); 3] = [
        (&after, vec!["3", "4"]),
        (&["--since", &since], expected_since),
        (&["--after", "0"], vec!["1", "2", "3", "4"]),
    ];
    let tails: Vec<_> = calls
        .iter()
        .map(|(flags, _)| Call::to(&server, &[&["tail", "lobby"], *flags].concat()).start())
        .collect();
    // All of them have come to what is live once they have printed the third.
    let mut seen: Vec<Vec<String>> = vec![Vec::new(); 3];
    let data = |line: String| line.rsplit(' ').next().unwrap().to_owned();
    for (tail, seen) in tails.iter().zip(&mut seen) {
        while seen.last().map(String::as_str) != Some("3") {
            seen.push(data(tail.line()));
        }
    }
    server.publish("lobby", "4");
    for (tail, seen) in tails.iter().zip(&mut seen) {
        seen.push(data(tail.line()));
    }
    let expected: Vec<_> = calls.map(|(_, expected)| expected).into();
    assert_eq!(seen, expected);
}

#[test]
fn tail_tells_when_a_part_of_what_it_was_asked_for_is_gone() {
    let server = Server::start("[namespaces.short]\nhistory_size = 5");
    let first = server.publish("short:a", "0");
    server.publish_numbers("short:a", 1, 20);
    let reload = r#"{"room":"short:a","reload":true}"#;
    let offset = first.offset.to_string();
    let after = ["tail", "short:a", "--json", "--after", &offset];
    assert_eq!(Call::to(&server, &after).start().line(), reload);
    let since = ["tail", "short:a", "--json", "--since", "1h"];
    let since = Call::to(&server, &since).start();
    assert_eq!(since.line(), reload);
    assert!(since.line().ends_with(r#""data":{"n":16}}"#));
    // `--after 0` asks for what is kept, and that is all there.
    let all = ["tail", "short:a", "--json", "--after", "0"];
    let all = Call::to(&server, &all).start();
    assert!(all.line().ends_with(r#""data":{"n":16}}"#));
}
