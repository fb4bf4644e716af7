//! The live page in a real browser: what it shows, by mouse and by keyboard, on a desk and on a phone. The scenarios
//! stand in `tests/browser`; `./test` installs the browser.

mod common;

use std::{path::Path, process::Command};

use common::Server;

fn run(scenario: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scripts = root.join("tests/browser");
    assert!(
        scripts.join("node_modules").exists(),
        "the browser's tests are not installed: run ./test once"
    );
    let shots = root.join("target/screenshots");
    std::fs::create_dir_all(&shots).expect("a folder for the screenshots");
    let server = Server::start("");
    let output = Command::new("node")
        .arg(scripts.join("page.mjs"))
        .arg(scenario)
        .arg(format!("http://{}", server.address()))
        .arg(shots)
        .output()
        .expect("Node.js is installed");
    let reason = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{reason}");
}

macro_rules! scenarios {
    ($($scenario:ident),* $(,)?) => {
        $(
            #[test]
            fn $scenario() {
                run(stringify!($scenario));
            }
        )*
    };
}

scenarios!(
    over_a_websocket,
    over_an_http_stream,
    over_the_sdks_events,
    over_an_event_source,
    over_polls,
    tells_what_is_wrong_with_a_delta,
    can_be_used_by_keyboard_alone,
    reads_well_on_a_desk_and_on_a_phone,
);

#[test]
fn the_page_loads_nothing_from_elsewhere_and_is_there_with_dev_only() {
    let server = Server::start("");
    for path in [
        "/",
        "/page/page.js",
        "/page/page.css",
        "/page/centrifuge.js",
    ] {
        let reply = server.get(path);
        assert_eq!(reply.status, 200, "{path}");
        let policy = reply.header("content-security-policy").expect("a policy");
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
    }
    assert_eq!(server.get("/page/../Cargo.toml").status, 404);
    assert_eq!(server.get("/page/nothing").status, 404);
}
