//! What people who run RabbitMQ and Roomwire together see: `roomwire amqp`, rights, TLS, credentials,
//! and what a server says when something is wrong with its broker.

mod common;

#[path = "operator/gaps.rs"]
mod gaps;
#[path = "operator/tls.rs"]
mod tls;

use std::process::{Command, Output};

use common::{Broker, Server, eventually, server::deltas_of};
use serde_json::Value;

fn config(url: &str, prefix: &str) -> String {
    format!(
        "[limits]\nping_interval = \"1h\"\n\
         [amqp]\nurl = [\"{url}\"]\nprefix = \"{prefix}\"\npartitions = 2\nheartbeat = \"500ms\"\n"
    )
}

fn await_ready(server: &Server) {
    eventually("the server to have caught up", || {
        (server.get("/readyz").status == 200).then_some(())
    });
}

fn instance(url: &str, prefix: &str) -> Server {
    let server = Server::start(&config(url, prefix));
    await_ready(&server);
    server
}

fn amqp(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_roomwire"))
        .arg("amqp")
        .args(arguments)
        .output()
        .expect("the binary starts")
}

/// What it printed; it must have gone well.
fn amqp_json(arguments: &[&str]) -> Value {
    let output = amqp(arguments);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {told}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// What it complained of; it must have ended with that code.
fn amqp_error(code: i32, arguments: &[&str]) -> String {
    let output = amqp(arguments);
    let told = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
    told
}

fn with_user(url: &str, userinfo: &str) -> String {
    let (_, address) = url.rsplit_once('@').expect("it names a user");
    format!("amqp://{userinfo}@{address}")
}

#[test]
fn what_is_set_up_is_made_once_and_shown_with_a_servers_progress() {
    let broker = Broker::shared();
    let prefix = Broker::unique_prefix();
    let log = ["--amqp-url", broker.url(1), "--amqp-prefix", &prefix];
    let run = |command: &str, more: &[&str]| {
        let arguments: Vec<_> = [command].iter().chain(&log).chain(more).copied().collect();
        arguments.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let json = |command: &str, more: &[&str]| {
        let arguments = run(command, more);
        amqp_json(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let error = |command: &str, more: &[&str]| {
        let arguments = run(command, more);
        amqp_error(1, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert!(error("status", &[]).contains("roomwire amqp setup"));
    let made = json("setup", &["--partitions", "2", "--json"]);
    let objects = made["objects"].as_array().unwrap().clone();
    for object in ["meta", "log", "in", "ingress", "rejected", "bus", "events"] {
        let name = format!("{prefix}.{object}");
        let of_that_name = objects.iter().filter(|of| of["name"] == name.as_str());
        assert_eq!(of_that_name.count(), 1, "{name}: {made}");
    }
    assert!(
        objects.iter().all(|object| object["made"] == true),
        "{made}"
    );
    let again = json("setup", &["--partitions", "2", "--json"]);
    let names = |of: &Value| -> Vec<Value> {
        let objects = of["objects"].as_array().unwrap();
        objects
            .iter()
            .map(|object| object["name"].clone())
            .collect()
    };
    assert_eq!(names(&again), names(&made));
    let objects = again["objects"].as_array().unwrap();
    assert!(
        objects.iter().all(|object| object["made"] == false),
        "{again}"
    );
    assert!(error("setup", &["--partitions", "3"]).contains("has 2 partitions"));

    let server = instance(broker.url(1), &prefix);
    let last = server.publish_numbers("lobby", 0, 50).pop().unwrap();
    let url = format!("http://{}", server.address());
    let shown = json("status", &["--json", "--server", &url]);
    let partitions = shown["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 2);
    for partition in partitions {
        assert_eq!(partition["first"], 1, "{shown}");
        assert_eq!(partition["server"]["connected"], true);
        assert_eq!(partition["leader"], Value::Null, "nobody was asked");
    }
    let reaches = |of: &Value| of["last"].as_u64() >= Some(last.offset);
    assert!(partitions.iter().any(reaches), "{shown}");
    let text = amqp(&[
        "status",
        "--amqp-url",
        broker.url(1),
        "--amqp-prefix",
        &prefix,
    ]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.contains("PARTITION") && text.contains("unknown"),
        "{text}"
    );
    assert!(!text.contains("guest"), "credentials show: {text}");
}

#[test]
fn what_is_wrong_with_a_broker_is_told_plainly_and_without_the_password() {
    let url = Broker::shared().url(1);
    let no_vhost = format!("{url}/nowhere");
    let refused = with_user(url, "guest:s3cret");
    let told = amqp_error(5, &["status", "--amqp-url", &refused]);
    assert!(told.contains("refuses the user or the password"), "{told}");
    assert!(!told.contains("s3cret"), "{told}");
    let told = amqp_error(5, &["status", "--amqp-url", &no_vhost]);
    assert!(told.contains("virtual host"), "{told}");
    let told = amqp_error(4, &["setup", "--amqp-url", "amqp://u:s3cret@127.0.0.1:1"]);
    assert!(told.contains("127.0.0.1:1: Connection refused"), "{told}");
    assert!(!told.contains("s3cret"), "{told}");
}

#[test]
fn an_instance_needs_no_more_than_its_rights_and_cannot_do_with_less() {
    let broker = Broker::shared();
    let prefix = Broker::unique_prefix();
    let user = format!("user-{prefix}");
    broker.ctl(&["add_user", &user, "s3cret"]);
    let permit = |configure: &str, write: &str, read: &str| {
        broker.ctl(&["set_permissions", &user, configure, write, read]);
    };
    let (of_prefix, nothing) = (format!("^{prefix}\\."), "^$");
    let url = with_user(broker.url(1), &format!("{user}:s3cret"));
    let log = ["--amqp-url", url.as_str(), "--amqp-prefix", &prefix];
    let set_up = |expected: bool| {
        let output = amqp(&[&["setup", "--partitions", "2"], &log[..]].concat());
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.success(), expected, "{told}");
        told
    };
    permit(nothing, &of_prefix, &of_prefix);
    assert!(set_up(false).contains("may not declare"));
    permit(&of_prefix, &of_prefix, nothing);
    set_up(false);
    permit(&of_prefix, nothing, &of_prefix);
    set_up(false);
    permit(&of_prefix, &of_prefix, &of_prefix);
    set_up(true);
    let server = instance(&url, &prefix);
    server.publish("lobby", "1");
    assert!(!server.log().contains("s3cret"));

    // Who only looks reads.
    permit(nothing, nothing, &of_prefix);
    let shown = amqp_json(&[&["status", "--json"], &log[..]].concat());
    assert_eq!(shown["partitions"].as_array().unwrap().len(), 2);
    broker.ctl(&["delete_user", &user]);
}

#[test]
fn an_address_where_nobody_answers_is_passed_over() {
    let broker = Broker::shared();
    let prefix = Broker::unique_prefix();
    let both = format!("amqp://guest:guest@127.0.0.1:1\", \"{}", broker.url(1));
    let server = instance(&both, &prefix);
    let reply = server.post(&deltas_of("lobby"), &[], "1");
    assert_eq!(reply.status, 201, "{}", reply.text());
}
