//! `export`, `import` and `compact`.

use std::{fs, path::Path};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};

use crate::{
    command::Call,
    common::{Server, eventually, server::JSON},
};

/// Lines as `export` writes them, without what belongs to a log: offsets and times.
fn content(lines: &str) -> Vec<Value> {
    let content = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        let fields = line.as_object_mut().unwrap();
        assert!(fields.remove("offset").is_some() && fields.remove("time").is_some());
        line
    };
    lines.lines().map(content).collect()
}

fn export(server: &Server, what: &str) -> String {
    Call::to(server, &["export", what]).run().out().to_owned()
}

fn import(server: &Server, file: &Path) -> String {
    let arguments = ["import", file.to_str().unwrap()];
    Call::to(server, &arguments).run().out().to_owned()
}

#[test]
fn an_export_has_all_of_the_rooms_that_are_named_and_nothing_else() {
    let server = Server::start("[namespaces.chat]\n[namespaces.news]");
    server.publish("lobby", "{\"n\": 12345678901234567890}");
    server.publish_numbers("chat:1", 0, 1_100);
    server.publish("chat:2", "1");
    let info = json!({"user":"u","client":"c"});
    let keyed = json!([{"room":"news:a","id":"k","info":info,"data":1}]).to_string();
    server.post("/v1/deltas", &[JSON], keyed);

    let chats = export(&server, "chat:*");
    assert_eq!(chats.lines().count(), 1_101);
    assert!(
        chats
            .lines()
            .all(|line| line.starts_with("{\"room\":\"chat:"))
    );
    let lobby = export(&server, "lobby");
    assert!(
        lobby.ends_with("\"data\":{\"n\":12345678901234567890}}\n"),
        "{lobby}"
    );
    let news = json!({"room":"news:a","id":"k","info":info,"data":1});
    assert_eq!(content(&export(&server, "news:a")), [news]);

    let nobody = Call::to(&server, &["export", "chat:3", "lobby"]).run();
    let told = nobody.failed(1);
    assert!(
        told.contains("no room that is \"chat:3\" has a history"),
        "{told}"
    );
    assert_eq!(nobody.stdout(), "");
}

#[test]
fn a_database_without_its_server_exports_the_same() {
    let mut server = Server::start("[namespaces.short]\nhistory_size = 5");
    server.publish_numbers("short:a", 0, 50);
    server.publish_numbers("lobby", 0, 1_500);
    let online = export(&server, "*");
    assert_eq!(online.lines().count(), 1_505);
    let data = server.data();
    let directory = data.parent().unwrap();
    let offline = |file: &str| {
        let file = directory.join(file).display().to_string();
        let data = data.to_str().unwrap();
        Call::new(&["export", "*", "--data", data, "--output", &file]).run()
    };
    assert!(offline("busy").failed(1).contains("in use"));
    server.stop();
    offline("all.jsonl").out();
    let written = fs::read_to_string(directory.join("all.jsonl")).unwrap();
    assert_eq!(written, online);
    let left = fs::read_dir(directory).unwrap().flatten();
    let part = left.filter(|file| file.file_name() == "all.jsonl.part");
    assert_eq!(part.count(), 0);
}

/// Deltas of up to three rooms, and after how many lines imports of them are broken off.
fn histories() -> impl Strategy<Value = (Vec<(u8, bool, u16)>, Vec<prop::sample::Index>)> {
    let delta = (0..3_u8, any::<bool>(), any::<u16>());
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    (prop::collection::vec(delta, 1..40), cuts)
}

#[test]
fn an_import_that_is_broken_off_and_repeated_gives_the_same_history_once() {
    let [from, to] = ["", ""].map(Server::start);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lines");
    let mut case = 0;
    let mut runner = TestRunner::new(Config {
        cases: 10,
        failure_persistence: None,
        max_shrink_iters: 50,
        ..Config::default()
    });
    let property = |(deltas, cuts): (Vec<(u8, bool, u16)>, Vec<prop::sample::Index>)| {
        case += 1;
        let batch = deltas.iter().enumerate().map(|(n, (room, keyed, data))| {
            let mut entry = json!({"room": format!("case-{case}-{room}"), "data": data});
            if *keyed {
                entry["id"] = format!("key-{n}").into();
            }
            entry
        });
        let batch = Value::Array(batch.collect()).to_string();
        assert_eq!(from.post("/v1/deltas", &[JSON], batch).status, 200);
        let rooms = format!("case-{case}-*");
        let exported = export(&from, &rooms);
        let lines: Vec<&str> = exported.lines().collect();
        for cut in cuts {
            let begun = lines[..cut.index(lines.len())].join("\n");
            fs::write(&file, begun).unwrap();
            import(&to, &file);
        }
        fs::write(&file, &exported).unwrap();
        import(&to, &file);
        let again = import(&to, &file);
        let none = format!("imported 0 deltas, {} were there\n", lines.len());
        prop_assert_eq!(again, none);
        prop_assert_eq!(content(&export(&to, &rooms)), content(&exported));
        Ok(())
    };
    let property = std::cell::RefCell::new(property);
    let run = runner.run(&histories(), |case| (property.borrow_mut())(case));
    run.unwrap();
}

#[test]
fn an_import_that_is_killed_goes_on_where_it_was() {
    let [from, to] = ["", ""].map(Server::start);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lines");
    let published = from.publish_numbers("lobby", 0, 9_000);
    fs::write(&file, export(&from, "lobby")).unwrap();
    let arguments = ["import", file.to_str().unwrap()];
    let begun = Call::to(&to, &arguments).start();
    eventually("the first deltas", || {
        let page = to.get("/v1/rooms/lobby/deltas?limit=1").json();
        page["newest"].as_u64().filter(|newest| *newest > 0)
    });
    drop(begun);
    import(&to, &file);
    let data = |entries: Vec<crate::common::Entry>| {
        entries
            .into_iter()
            .map(|entry| entry.data)
            .collect::<Vec<_>>()
    };
    assert_eq!(data(to.history("lobby")), data(published));
}

#[test]
fn what_a_room_may_have_trimmed_is_published_again_only_when_that_is_asked_for() {
    let from = Server::start("[namespaces.short]");
    let to = Server::start("[namespaces.short]\nhistory_size = 5");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lines");
    from.publish_numbers("short:a", 0, 20);
    fs::write(&file, export(&from, "short:a")).unwrap();
    assert_eq!(import(&to, &file), "imported 20 deltas, 0 were there\n");
    // The first fifteen are trimmed, and known to have been there by those that follow them.
    assert_eq!(import(&to, &file), "imported 0 deltas, 5 were there\n");

    from.publish_numbers("short:b", 0, 20);
    fs::write(&file, export(&from, "short:b")).unwrap();
    to.publish_numbers("short:b", 100, 6);
    let arguments = ["import", file.to_str().unwrap()];
    let doubtful = Call::to(&to, &arguments).run();
    let told = doubtful.failed(1);
    assert!(
        told.contains("--append") && told.contains("short:b"),
        "{told}"
    );
    assert_eq!(to.history("short:b")[4].data, "{\"n\":105}");
    let append = [&arguments[..], &["--append"]].concat();
    Call::to(&to, &append).run().out();
    assert_eq!(to.history("short:b")[4].data, "{\"n\":19}");
}

#[test]
fn a_bad_line_is_named() {
    let server = Server::start("");
    let lines = "{\"room\":\"lobby\",\"id\":\"a\",\"data\":1}\n{\"room\":\"lobby\",\"data\":2}\n";
    let bad = Call::to(&server, &["import", "-"]).fed(lines);
    let told = bad.failed(1);
    assert!(told.contains("line 2: missing field `id`"), "{told}");
    assert_eq!(server.history("lobby").len(), 1);
    let missing = Call::to(&server, &["import", "/nowhere"]).run();
    assert!(missing.failed(1).contains("can't read /nowhere"));
}

#[test]
fn a_compacted_database_is_smaller_and_no_client_has_to_reload() {
    let mut server = Server::start("[namespaces.short]\nhistory_size = 1");
    let kept = server.publish("lobby", "1");
    for _ in 0..40 {
        server.publish_numbers("short:a", 0, 500);
    }
    let before = export(&server, "*");
    let data = server.data();
    let compact = ["compact", "--json", "--data", data.to_str().unwrap()];
    assert!(Call::new(&compact).run().failed(1).contains("in use"));
    server.stop();
    let report: Value = serde_json::from_str(Call::new(&compact).run().out()).unwrap();
    assert!(
        report["after_bytes"].as_u64() < report["before_bytes"].as_u64(),
        "{report}"
    );
    server.restart();
    assert_eq!(export(&server, "*"), before);
    assert_eq!(server.publish("lobby", "2").epoch, kept.epoch);

    let nowhere = Call::new(&["compact", "--data", "/nowhere"]).run();
    assert!(
        nowhere
            .failed(1)
            .contains("there is no database at /nowhere/log")
    );
}
