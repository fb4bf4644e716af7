//! The HTTP API does what its description says: schemathesis makes requests from it, right ones and wrong ones, and judges
//! the answers. `./test` installs it.

mod common;

use std::{path::Path, process::Command};

use common::Server;

#[test]
fn schemathesis_finds_nothing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/sdk-venvs/openapi/bin/python");
    assert!(
        python.exists(),
        "{} is missing: run ./test once, it installs it",
        python.display()
    );
    let server = Server::start("[namespaces.chat]\n[namespaces.short]\nhistory_size = 3");
    let directory = tempfile::tempdir().expect("a directory for what it writes");
    // Not by its own name: that begins with the place of its Python when it was installed, and folders are moved.
    let run = Command::new(python)
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(root.join("tests/openapi/schemathesis.toml"))
        .args(["run", &format!("http://{}/openapi.json", server.address())])
        .current_dir(directory.path())
        .output()
        .expect("it starts");
    let told = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{told}");
    // Without requests it would find nothing either.
    assert!(told.contains("Test cases:"), "{told}");
    assert!(server.metric("roomwire_deltas_in_total{result=\"applied\"}") > 20.0);
}
