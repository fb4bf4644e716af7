//! Centrifugo's HTTP API: by its own client for Python, unmodified, and form by form. `./test` installs the client.

mod common;

use std::{path::Path, process::Command};

use common::{Client, Server};
use jsonwebtoken::{EncodingKey, Header, encode};
use roomwire::access::api_key::KeyHash;
use serde_json::{Value, json};

const CONFIG: &str = r#"
[access]
token_secrets = ["a secret of these tests, and no other"]

[namespaces.chat]

[namespaces.people]
access = "public"
presence = true

[namespaces.typing]
store = false
"#;

const KEY: &str = "the key of a backend";
const READ_KEY: &str = "a key to read about people";

fn server() -> Server {
    let key = |name: &str, key: &str, scopes: &str, rooms: &str| {
        let hash = KeyHash::of(key);
        format!("[keys.{name}]\nhash = \"{hash}\"\nscopes = {scopes}\nrooms = [{rooms:?}]\n")
    };
    let all = key("backend", KEY, r#"["publish", "read", "admin"]"#, "*");
    let read = key("reader", READ_KEY, r#"["read"]"#, "people:*");
    Server::start_closed(&format!("{CONFIG}\n{all}\n{read}"))
}

fn ask(server: &Server, method: &str, body: impl ToString) -> Value {
    let path = format!("/api/{method}");
    let reply = server.post(&path, &[("X-API-Key", KEY)], body.to_string());
    assert_eq!(reply.status, 200, "{method}: {}", reply.text());
    reply.json()
}

#[test]
fn a_backend_that_uses_cent_moves_over_by_its_url() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/sdk-venvs/cent/bin/python");
    assert!(
        python.exists(),
        "{} is missing: run ./test once, it installs it",
        python.display()
    );
    let server = server();
    let secret = EncodingKey::from_secret(b"a secret of these tests, and no other");
    let claims = json!({"sub": "ann", "info": {"name": "Ann"}});
    let token = encode(&Header::default(), &claims, &secret).expect("claims are JSON");
    let mut ann = Client::open(&server);
    let connected = ann.result("connect", json!({"token": token}));
    let id = connected["client"].as_str().expect("a client id");
    ann.subscribe("people:1");
    let run = Command::new(python)
        .arg(root.join("tests/centrifugo/backend.py"))
        .args([
            &format!("http://{}/api", server.address()),
            KEY,
            READ_KEY,
            id,
        ])
        .output()
        .expect("it starts");
    let told = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{told}");
    // What was done at the end came to the client, in that order.
    assert_eq!(ann.push()["unsubscribe"]["code"], 2000);
    assert_eq!(ann.closed().0, 3503);
}

#[test]
fn results_and_errors_have_the_forms_of_centrifugo() {
    let server = server();
    let published = ask(
        &server,
        "publish",
        json!({"channel": "chat:1", "data": {"b": 1, "a": 2}}),
    );
    let (offset, epoch) = (
        &published["result"]["offset"],
        &published["result"]["epoch"],
    );
    assert_eq!(
        published,
        json!({"result": {"offset": offset, "epoch": epoch}})
    );
    let unstored = ask(
        &server,
        "publish",
        json!({"channel": "typing:1", "data": null}),
    );
    assert_eq!(unstored, json!({"result": {}}));
    let history = ask(&server, "history", json!({"channel": "chat:1", "limit": 1}));
    let time = &history["result"]["publications"][0]["time"];
    let publication = json!({"data": {"b": 1, "a": 2}, "offset": offset, "time": time});
    assert_eq!(
        history,
        json!({"result": {"publications": [publication], "offset": offset, "epoch": epoch}})
    );
    let unknown = ask(
        &server,
        "publish",
        json!({"channel": "nowhere:1", "data": 1}),
    );
    let error = &unknown["error"];
    assert_eq!(
        unknown,
        json!({"error": {"code": 102, "message": error["message"]}})
    );
    let commands = json!([
        {"presence_stats": {"channel": "chat:1"}},
        {"publish": {"channel": "nowhere:1", "data": 1}},
        {"rpc": {}},
        {},
    ]);
    let batch = ask(&server, "batch", json!({"commands": commands}));
    let replies = batch["replies"].as_array().expect("replies");
    assert_eq!(
        replies[0],
        json!({"presence_stats": {"num_clients": 0, "num_users": 0}})
    );
    assert_eq!(replies[1], unknown);
    assert_eq!(replies[2]["error"]["code"], 108);
    assert_eq!(replies[3]["error"]["code"], 107);
}

#[test]
fn what_is_published_is_read_back_digit_by_digit_with_the_key_in_either_header() {
    let server = server();
    let data = r#""data":{"z":12345678901234567890.10,"a":1}"#;
    ask(
        &server,
        "publish",
        format!(r#"{{"channel":"chat:1",{data}}}"#),
    );
    let apikey = format!("apikey {KEY}");
    for header in [("X-API-Key", KEY), ("Authorization", &*apikey)] {
        let body = r#"{"channel":"chat:1","limit":1}"#;
        let reply = server.post("/api/history", &[header], body);
        assert!(reply.text().contains(data), "{}", reply.text());
    }
}

#[test]
fn a_request_that_is_none_is_refused_by_http() {
    let server = server();
    let post = |path: &str, key: &str, body: &str| server.post(path, &[("X-API-Key", key)], body);
    for body in ["", "{", "{} {}"] {
        let reply = post("/api/publish", KEY, body);
        assert_eq!(reply.problem()["type"], "urn:roomwire:problem:bad-json");
    }
    for (path, key) in [
        ("/api/info", "wrong"),
        ("/api/anything", ""),
        ("/api/batch", "wrong"),
    ] {
        assert_eq!(post(path, key, "{}").status, 401, "{path}");
    }
    assert_eq!(server.post("/api/info", &[], "{}").status, 401);
    assert_eq!(server.get("/api/info").status, 405);
    let (limit, many) = (1000, json!({"info": {}}));
    let commands: Vec<&Value> = (0..=limit).map(|_| &many).collect();
    let over = ask(&server, "batch", json!({"commands": commands}));
    assert_eq!(over["error"]["code"], 106);
    let rooms: Vec<String> = (0..=limit).map(|n| format!("chat:{n}")).collect();
    let over = ask(&server, "broadcast", json!({"channels": rooms, "data": 1}));
    assert_eq!(over["error"]["code"], 106);
    let large = "x".repeat(70_000);
    let over = ask(
        &server,
        "publish",
        json!({"channel": "chat:1", "data": large}),
    );
    assert_eq!(over["error"]["code"], 106);
    assert_eq!(ask(&server, "publish", "[]")["error"]["code"], 107);
}
