//! `roomwire rejected`, against a broker.

use std::process::{Command, Output};

use serde_json::Value;

use crate::{
    common::{Broker, Server, eventually},
    world::{Message, Producer, await_history, await_ready, config, instance},
};

struct Cli<'a> {
    url: &'a str,
    prefix: &'a str,
}

impl Cli<'_> {
    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_roomwire"))
            .arg("rejected")
            .args(arguments)
            .args(["--amqp-prefix", self.prefix])
            .env("ROOMWIRE_AMQP__URL", self.url)
            .current_dir(std::env::temp_dir())
            .output()
            .unwrap()
    }

    fn out(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {told}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it says when it fails.
    fn failed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn list(&self) -> Vec<Value> {
        let lines = self.out(&["list", "--json"]);
        lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn await_rejected(server: &Server, count: u32) {
    let sample = "roomwire_ingress_messages_total{result=\"rejected\"}";
    eventually("messages to be rejected", || {
        (server.metric(sample) >= f64::from(count)).then_some(())
    });
}

#[test]
fn rejected_messages_are_listed_put_back_and_dropped() {
    let broker = Broker::shared();
    let (url, prefix) = (broker.url(1), Broker::unique_prefix());
    let mut server = instance(url, &prefix);
    let producer = Producer::connect(url, &prefix);
    let cli = Cli {
        url,
        prefix: &prefix,
    };
    assert_eq!(cli.out(&["list"]), "nothing was rejected\n");
    let send = |key, body: &'static str, id| {
        let body = body.as_bytes();
        producer.send(Message {
            key,
            body,
            id,
            headers: vec![],
        });
    };
    send("new:1", "{\"n\":1}", Some("one"));
    send("lobby", "{\"n\":", None);
    send("new:1", "{\"n\":2}", Some("two"));
    send("lobby", "\u{7}", Some("bell"));
    await_rejected(&server, 4);

    let listed = cli.list();
    let codes: Vec<_> = listed
        .iter()
        .map(|item| item["code"].as_str().unwrap())
        .collect();
    assert_eq!(
        codes,
        [
            "unknown-namespace",
            "bad-json",
            "unknown-namespace",
            "bad-json"
        ]
    );
    assert_eq!(listed[0]["rooms"][0], "new:1");
    assert_eq!(listed[0]["message_id"], "one");
    assert_eq!(
        (&listed[1]["head"], &listed[1]["bytes"]),
        (&"{\"n\":".into(), &5.into())
    );
    assert!(
        listed[0]["reason"]
            .as_str()
            .unwrap()
            .contains("[namespaces.new]")
    );
    assert_eq!(cli.list(), listed, "looking changes nothing");
    let text = cli.out(&["list", "--limit", "4"]);
    assert!(
        text.contains("id one  7 bytes\n    room \"new:1\" is in"),
        "{text}"
    );
    assert!(!text.contains('\u{7}'), "{text}");

    // What was wrong is made right.
    server.stop();
    server.configure(&format!("{}[namespaces.new]\n", config(url, &prefix)));
    server.restart();
    await_ready(&server);
    assert_eq!(
        cli.out(&["retry", "--code", "unknown-namespace"]),
        "put back 2 messages\n"
    );
    await_history(&server, "new:1", &["{\"n\":1}".into(), "{\"n\":2}".into()]);
    let left = cli.list();
    assert_eq!(left, [listed[1].clone(), listed[3].clone()]);

    let id = left[0]["id"].as_str().unwrap();
    let told = cli.failed(&["drop", id, "nobody"]);
    assert!(
        told.contains("no rejected message has the id \"nobody\""),
        "{told}"
    );
    let told = cli.failed(&["drop", id]);
    assert!(told.contains("--yes"), "{told}");
    assert_eq!(cli.list(), left);
    assert_eq!(cli.out(&["drop", id, "--yes"]), "deleted 1 message\n");
    assert_eq!(cli.list(), left[1..]);
    // What is still wrong comes back, once, as another rejection.
    assert_eq!(cli.out(&["retry", "--all"]), "put back 1 message\n");
    await_rejected(&server, 1);
    let again = cli.list();
    assert_eq!((again.len(), &again[0]["message_id"]), (1, &"bell".into()));
    assert_eq!(cli.out(&["drop", "--all", "--yes"]), "deleted 1 message\n");
}

#[test]
fn what_can_not_be_done_is_told_with_what_to_do() {
    let broker = Broker::shared();
    let told = Cli {
        url: broker.url(1),
        prefix: "nobodys",
    }
    .failed(&["list"]);
    assert!(told.contains("no queue \"nobodys.rejected\""), "{told}");
    let away = Cli {
        url: "amqp://anna:s3cret@127.0.0.1:1",
        prefix: "p",
    };
    let told = away.failed(&["retry", "--all"]);
    assert!(
        told.contains("can't connect to amqp://127.0.0.1:1"),
        "{told}"
    );
    assert!(!told.contains("s3cret"), "{told}");
    assert_eq!(away.run(&["list"]).status.code(), Some(4));
    let which = Cli {
        url: broker.url(1),
        prefix: "p",
    }
    .run(&["drop"]);
    assert_eq!(which.status.code(), Some(2));
}

/// As somebody does beforehand who may do everything.
fn set_up(broker: &Broker, prefix: &str) {
    let made = Command::new(env!("CARGO_BIN_EXE_roomwire"))
        .args(["amqp", "setup", "--partitions", "2"])
        .args(["--amqp-url", broker.url(1), "--amqp-prefix", prefix])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{told}");
}

#[test]
fn each_role_does_with_no_more_rights_than_the_manual_gives_it() {
    let broker = Broker::shared();
    let prefix = Broker::unique_prefix();
    let user_with = |role: &str, configure: &str, write: &str, read: &str| {
        let user = format!("{role}-{prefix}");
        broker.ctl(&["add_user", &user, "s3cret"]);
        broker.ctl(&["set_permissions", &user, configure, write, read]);
        let (_, host) = broker.url(1).split_once('@').unwrap();
        format!("amqp://{user}:s3cret@{host}")
    };
    let of = |names: &str| format!("^{prefix}\\.{names}$");
    let all = format!("^{prefix}\\.");
    set_up(broker, &prefix);
    let own = format!("^{prefix}\\.bus\\.");
    let sends = of("(log|events|bus(\\..+)?)");
    let server = instance(&user_with("server", &own, &sends, &all), &prefix);
    let producer = user_with("producer", "^$", &of("in"), "^$");
    let producer = Producer::connect(&producer, &prefix);
    producer.delta("lobby", "1");
    producer.delta("lobby", "no JSON");
    await_history(&server, "lobby", &["1".into()]);
    await_rejected(&server, 1);
    let caretaker = user_with("caretaker", "^$", &of("in"), &of("rejected"));
    let cli = Cli {
        url: &caretaker,
        prefix: &prefix,
    };
    assert_eq!(cli.list().len(), 1);
    assert_eq!(cli.out(&["retry", "--all"]), "put back 1 message\n");
    await_rejected(&server, 2);
    assert_eq!(cli.out(&["drop", "--all", "--yes"]), "deleted 1 message\n");
    for role in ["server", "producer", "caretaker"] {
        broker.ctl(&["delete_user", &format!("{role}-{prefix}")]);
    }
}
