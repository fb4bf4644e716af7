use std::fs;

use serde_json::Value;

use crate::command::Call;

#[test]
fn config_check_tells_what_is_set_and_every_mistake() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("new.toml");
    let file = file.to_str().unwrap();
    let check = ["config", "check", "--config", file];
    fs::write(file, "workers = 2").unwrap();
    let right = Call::new(&check)
        .with("ROOMWIRE_LIMITS__MAX_SESSIONS", "7")
        .run();
    let told = right.out();
    assert!(told.contains("is right: 2 of "), "{told}");
    assert!(told.contains(file), "{told}");
    assert!(told.contains("ROOMWIRE_LIMITS__MAX_SESSIONS"), "{told}");

    fs::write(file, "workers = -1\n[limits]\nmax_session = 5").unwrap();
    let wrong = Call::new(&check).run();
    let told = wrong.failed(1);
    assert!(told.contains("workers is -1; it takes"), "{told}");
    assert!(told.contains("there is no setting limits.max_session"));
    assert_eq!(wrong.stdout(), "");
}

#[test]
fn a_printed_configuration_is_a_file_that_says_the_same_without_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let url = "amqp://guest:hunter2@host";
    let print = |flags: &[&str]| {
        Call::new(&[&["config", "print", "--workers", "3"], flags].concat())
            .with("ROOMWIRE_AMQP__URL", url)
            .with("ROOMWIRE_NAMESPACES__CHAT__PRESENCE", "true")
            .run()
    };
    let printed = print(&[]);
    let text = printed.out();
    assert!(!text.contains("hunter2"), "{text}");
    let line = |of: &str| text.lines().find(|line| line.starts_with(of)).unwrap();
    assert!(line("workers = 3").ends_with("# --workers"), "{text}");
    assert!(line("max_batch = 1000").ends_with("# default"), "{text}");

    let file = directory.path().join("printed.toml");
    fs::write(&file, text).unwrap();
    let again = ["config", "print", "--json", "--config"];
    let again = Call::new(&[&again[..], &[file.to_str().unwrap()]].concat()).run();
    let values = |json: &str| -> Vec<(String, String)> {
        let lines: Vec<Value> = serde_json::from_str(json).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or("(a secret)").to_owned();
        let pairs = lines
            .iter()
            .map(|line| (text(&line["key"]), text(&line["value"])));
        // A file says of no secret that there is none.
        pairs
            .filter(|(_, value)| value != "[]" && value != "(a secret)")
            .collect()
    };
    assert_eq!(values(again.out()), values(print(&["--json"]).out()));
}
