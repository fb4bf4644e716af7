//! Keys and tokens on the command line.

use std::fs;

use super::{command::Call, common::Server};

const SECRET: &str = "a secret of these tests, and no other";

#[test]
fn a_new_key_and_a_new_token_open_what_they_are_for() {
    let made = Call::new(&["key", "new"]).run();
    let (key, hash) = made
        .out()
        .trim_end()
        .split_once('\n')
        .expect("a key and its hash");
    let config = format!(
        "[access]\ntoken_secrets = [\"{SECRET}\"]\n\
         [keys.backend]\nhash = \"{hash}\"\nscopes = [\"publish\"]\n"
    );
    let server = Server::start_closed(&config);
    let publish = |key: &str| {
        let call = Call::to(&server, &["publish", "lobby", "{\"n\":1}"]);
        call.with("ROOMWIRE_KEY", key).run()
    };
    publish(key).out();
    publish("rwk_wrong").failed(5);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("roomwire.toml");
    fs::write(&file, config).expect("the configuration");
    let file = file.to_str().expect("a path in UTF-8");
    let token = |more: &[&str]| {
        let arguments = [&["token", "--config", file, "--user", "ann"], more].concat();
        Call::new(&arguments).run().out().trim_end().to_owned()
    };
    let history = |token: &str| {
        Call::to(&server, &["history", "lobby"])
            .with("ROOMWIRE_TOKEN", token)
            .run()
    };
    let read = history(&token(&["--rooms", "lobby", "--ttl", "1h"]));
    assert!(read.out().ends_with("{\"n\":1}\n"), "{}", read.out());
    history(&token(&[])).failed(5);
    history(&token(&["--channel", "lobby"])).failed(5);
    let without = Call::new(&["token", "--user", "ann"]).run();
    assert!(without.failed(1).contains("access.token_secrets"));
}
