//! The example producers, run as they are; `./test` installs what they need.

use std::{path::Path, process::Command};

use crate::{
    common::Broker,
    world::{await_history, instances},
};

const EXAMPLES: &str = "examples/producers";

/// Runs an example twice with the same message id, and once for a room that can't be.
fn run(program: &str, arguments: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let broker = Broker::shared();
    let ([server], producer) = instances(broker);
    let publish = |room: &str, id: &str| {
        let output = Command::new(root.join(program))
            .args(arguments)
            .args([room, "{\"action\": \"like\"}", id])
            .env("AMQP_URL", broker.url(1))
            .env("AMQP_PREFIX", &producer.prefix)
            .current_dir(root.join(EXAMPLES))
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}; ./test installs it"));
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{told}; ./test installs what it needs"
        );
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            format!("confirmed {id}")
        );
    };
    publish("no room", "0");
    publish("chat:42", "17");
    publish("chat:42", "17");
    publish("chat:42", "18");
    await_history(
        &server,
        "chat:42",
        &[(); 2].map(|()| "{\"action\":\"like\"}".into()),
    );
    let rejected = producer.rejected();
    assert_eq!(
        rejected.routing_key.as_str(),
        format!("{}.rejected", producer.prefix)
    );
}

#[test]
fn the_python_example_publishes_exactly_once() {
    run("target/producers/python/bin/python", &["python/publish.py"]);
}

#[test]
fn the_node_example_publishes_exactly_once() {
    run("/usr/bin/env", &["node", "node/publish.js"]);
}

#[test]
fn the_php_example_publishes_exactly_once() {
    run("/usr/bin/env", &["php", "php/publish.php"]);
}

#[test]
fn the_ruby_example_publishes_exactly_once() {
    run("/usr/bin/env", &["ruby", "ruby/publish.rb"]);
}
