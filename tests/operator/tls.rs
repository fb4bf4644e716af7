//! `amqps://` with a CA of the test's own.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;

use super::{amqp, amqp_error, instance};
use crate::common::{Broker, eventually};

const NAMES: &str = "subjectAltName=DNS:localhost,IP:127.0.0.1";

/// A key and a certificate, `name.key` and `name.pem`, signed by `ca` or by itself.
fn certificate(directory: &Path, name: &str, ca: Option<&str>) {
    let (key, pem) = (format!("{name}.key"), format!("{name}.pem"));
    let (subject, extensions) = (format!("/CN={name}"), format!("{name}.ext"));
    let mut arguments = vec![
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", &key, "-out",
        &pem, "-subj", &subject,
    ];
    let files = ca.map(|ca| (format!("{ca}.pem"), format!("{ca}.key")));
    if let Some((pem, key)) = &files {
        fs::write(directory.join(&extensions), NAMES).unwrap();
        arguments.extend(["-CA", pem, "-CAkey", key, "-addext", NAMES]);
        arguments.extend(["-addext", "basicConstraints=critical,CA:FALSE"]);
    }
    let made = Command::new("openssl")
        .args(arguments)
        .current_dir(directory)
        .stdout(Stdio::null())
        .output()
        .expect("openssl is installed");
    let told = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{told}");
}

/// Has the broker listen with TLS, too; gives the port.
fn listen(broker: &Broker, directory: &Path) -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let file = |name: &str| directory.join(name).display().to_string();
    let options = format!(
        "[{{cacertfile, {:?}}}, {{certfile, {:?}}}, {{keyfile, {:?}}}, {{verify, verify_none}}]",
        file("ca.pem"),
        file("broker.pem"),
        file("broker.key")
    );
    broker.ctl(&[
        "eval",
        &format!(
            "application:ensure_all_started(ssl), \
             ok = rabbit_networking:start_ssl_listener({{\"127.0.0.1\", {port}}}, {options}, 2)."
        ),
    ]);
    port
}

#[test]
fn a_broker_is_spoken_to_with_tls_if_a_known_ca_has_signed_its_certificate() {
    let broker = Broker::shared();
    let prefix = Broker::unique_prefix();
    let directory = TempDir::new().unwrap();
    certificate(directory.path(), "ca", None);
    certificate(directory.path(), "other", None);
    certificate(directory.path(), "broker", Some("ca"));
    let port = listen(broker, directory.path());
    let url = format!("amqps://guest:guest@localhost:{port}");
    let file = |name: &str| directory.path().join(name).display().to_string();
    let log = ["--amqp-url", url.as_str(), "--amqp-prefix", &prefix];
    let set_up = [&["setup", "--partitions", "2", "--ca-file"], &log[..]];

    for ca in ["other.pem", "none.pem"] {
        let path = file(ca);
        let arguments = [set_up[0], &[path.as_str()], set_up[1]].concat();
        let told = amqp_error(1, &arguments);
        let expected = match ca {
            "other.pem" => "UnknownIssuer",
            _ => "can't read the CA file",
        };
        assert!(told.contains(expected), "{told}");
    }
    let plain = format!(
        "amqps://guest:s3cret@{}",
        broker.addresses().next().unwrap()
    );
    let told = amqp_error(1, &["setup", "--amqp-url", &plain]);
    assert!(told.contains("a port that speaks TLS"), "{told}");
    assert!(!told.contains("s3cret"), "{told}");
    let path = file("ca.pem");
    let made = amqp(&[set_up[0], &[path.as_str()], set_up[1]].concat());
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );

    let server = instance(&format!("{url}\"]\nca_file = \"{path}\"\n#"), &prefix);
    server.publish("lobby", "1");
    // Two for each partition, one that watches the generations, one that takes in, one to the bus.
    eventually("the seven connections that the manual counts", || {
        let connections = broker.ctl(&["list_connections", "--silent", "name", "ssl"]);
        let with_tls = connections.lines().filter(|line| line.ends_with("true"));
        (with_tls.count() == 7).then_some(())
    });
}
