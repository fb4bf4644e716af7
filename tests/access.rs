//! Who may connect and follow what: tokens on a running server.

mod common;

use common::{Client, Server};
use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};

const SECRET: &str = "a secret of these tests, and no other";

const CONFIG: &str = r#"
[access]
token_secrets = ["a secret of these tests, and no other"]

[namespaces.secret]
access = "token"
presence = true
join_leave = true

[namespaces.dialog]
access = "user-limited"

[namespaces.open]
access = "public"
"#;

fn token(claims: Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    encode(&Header::default(), &claims, &key).expect("claims are JSON")
}

fn connected(server: &Server, claims: Value) -> Client {
    let mut client = Client::open(server);
    let result = client.result("connect", json!({"token": token(claims)}));
    client.id = result["client"].as_str().expect("a client id").into();
    client
}

#[test]
fn a_token_names_the_user_and_what_others_may_know_of_it() {
    let server = Server::start(CONFIG);
    let claims = json!({"sub": "ann", "info": {"name": "Ann"}, "rooms": ["secret:*"]});
    let mut ann = connected(&server, claims);
    ann.result(
        "subscribe",
        json!({"channel": "secret:1", "join_leave": true}),
    );
    let info = json!({"user": "ann", "client": ann.id, "conn_info": {"name": "Ann"}});
    assert_eq!(ann.push()["join"]["info"], info);
    let presence = ann.result("presence", json!({"channel": "secret:1"}));
    assert_eq!(presence["presence"][&ann.id], info);
}

#[test]
fn a_token_that_is_wrong_ends_the_session_for_good_and_shows_up_nowhere() {
    let server = Server::start(CONFIG);
    let other = EncodingKey::from_secret(b"another secret, that nobody has configured");
    let forged = encode(&Header::default(), &json!({"sub": "ann"}), &other).unwrap();
    let subscription = token(json!({"sub": "ann", "channel": "secret:1"}));
    for token in [forged, subscription, "nonsense".to_owned()] {
        let mut client = Client::open(&server);
        client.send(json!({"id": 1, "connect": {"token": token}}));
        assert_eq!(client.closed(), (3500, "invalid token".to_owned()));
        assert!(!server.log().contains(&token));
    }
}

#[test]
fn an_expired_token_is_told_so_and_what_came_with_it_is_not_handled() {
    let server = Server::start(CONFIG);
    let old = token(json!({"sub": "ann", "exp": get_current_timestamp() - 60}));
    let mut client = Client::open(&server);
    let subscribe = json!({"id": 2, "subscribe": {"channel": "open:1"}});
    client.send(format!(
        "{}\n{subscribe}",
        json!({"id": 1, "connect": {"token": old}})
    ));
    let reply = client.next_message();
    assert_eq!(
        (&reply["id"], &reply["error"]["code"]),
        (&json!(1), &json!(109))
    );
    // A client that does not close is closed, and may return with another token.
    assert_eq!(client.closed().0, 3000);
}

#[test]
fn a_room_is_open_to_those_whom_its_namespace_or_a_token_lets_in_and_to_nobody_else() {
    let server = Server::start(CONFIG);
    let for_room = |room: &str, user: &str| token(json!({"channel": room, "sub": user}));
    let mut ann = connected(&server, json!({"sub": "ann"}));
    let mut nobody = Client::connect(&server);
    let denied = |client: &mut Client, room: &str, token: &str| {
        let request = json!({"channel": room, "token": token});
        assert_eq!(client.error("subscribe", request), 103, "{room}");
        // What may not be followed may not be asked about either.
        for (command, request) in [
            ("history", json!({"channel": room, "limit": 1})),
            ("presence", json!({"channel": room})),
            ("presence_stats", json!({"channel": room})),
        ] {
            assert_eq!(client.error(command, request), 103, "{command} {room}");
        }
    };
    denied(&mut nobody, "secret:1", "");
    denied(&mut ann, "secret:1", "");
    denied(&mut ann, "secret:1", &for_room("secret:2", "ann"));
    denied(&mut ann, "secret:1", "nonsense");
    denied(&mut ann, "dialog:#bob", "");
    denied(&mut nobody, "dialog:#", "");
    for client in [&mut nobody, &mut ann] {
        client.subscribe("open:1");
    }
    ann.subscribe("dialog:#bob,ann");
    let request = json!({"channel": "secret:1", "token": for_room("secret:1", "ann")});
    ann.result("subscribe", request);
    ann.result("history", json!({"channel": "secret:1", "limit": 1}));
    let foreign = json!({"channel": "secret:2", "token": for_room("secret:2", "bob")});
    ann.send(json!({"id": 99, "subscribe": foreign}));
    assert_eq!(ann.closed().0, 3500, "a token of another user");
}

#[test]
fn an_expired_subscription_token_asks_for_another_one() {
    let server = Server::start(CONFIG);
    let mut ann = connected(&server, json!({"sub": "ann"}));
    let claims = json!({"sub": "ann", "channel": "secret:1"});
    let mut old = claims.clone();
    old["exp"] = json!(get_current_timestamp() - 60);
    let request = json!({"channel": "secret:1", "token": token(old)});
    assert_eq!(ann.error("subscribe", request), 109);
    let request = json!({"channel": "secret:1", "token": token(claims)});
    ann.result("subscribe", request);
}
