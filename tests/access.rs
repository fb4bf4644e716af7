//! Who may connect, follow, read and publish what: tokens and keys on a running server.

mod common;

use common::{Client, Server, Socket, server::deltas_of, socket::PATH};
use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use roomwire::access::api_key;
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

/// A server without `--dev`, with keys for publishing everywhere and for reading and publishing in `secret`.
fn closed_server() -> (Server, String, String) {
    let [writer, reader] = [(); 2].map(|()| api_key::new_key().expect("the system is random"));
    let hash = |key: &str| api_key::KeyHash::of(key).to_string();
    let config = format!(
        "{CONFIG}\n[keys.backend]\nhash = \"{}\"\n\
         [keys.support]\nhash = \"{}\"\nscopes = [\"read\", \"publish\"]\nrooms = [\"secret:*\"]\n\
         [log]\nlevel = \"trace\"\n",
        hash(&writer),
        hash(&reader)
    );
    let config = config.replace("[access]", "[access]\ntoken_cookie = \"roomwire\"");
    (Server::start_closed(&config), writer, reader)
}

fn problem_of(reply: &common::http::Reply) -> String {
    let kind = reply.problem()["type"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    kind.trim_start_matches("urn:roomwire:problem:").to_owned()
}

#[test]
fn a_server_that_nobody_opened_is_closed_and_says_how_to_open_it() {
    let server = Server::start_closed("");
    let (socket, handshake) = Socket::handshake(server.address(), PATH, &[]);
    assert!(socket.is_none());
    let publish = server.post(&deltas_of("lobby"), &[], "1");
    for reply in [handshake, publish, server.get(&deltas_of("lobby"))] {
        assert_eq!((reply.status, &*problem_of(&reply)), (403, "closed"));
        let detail = reply.problem()["detail"].to_string();
        for way in ["--dev", "roomwire key new", "access.token_secrets"] {
            assert!(detail.contains(way), "{detail}");
        }
    }
    assert_eq!(server.get("/readyz").status, 200);
    assert!(server.log().contains("nothing is open"), "{}", server.log());
}

#[test]
fn publishing_takes_a_key_that_is_for_it_and_for_the_room() {
    let (server, writer, reader) = closed_server();
    let publish = |room: &str, headers: &[(&str, &str)]| {
        let reply = server.post(&deltas_of(room), headers, "1");
        let problem = (reply.status != 201).then(|| problem_of(&reply));
        (reply.status, problem.unwrap_or_default())
    };
    let unauthorized = (401, "unauthorized".to_owned());
    let forbidden = (403, "forbidden".to_owned());
    let taken = (201, String::new());
    let bearer = |text: &str| format!("Bearer {text}");
    assert_eq!(publish("open:1", &[]), unauthorized);
    assert_eq!(publish("open:1", &[("X-API-Key", &writer)]), taken);
    assert_eq!(
        publish("open:1", &[("Authorization", &bearer(&writer))]),
        taken
    );
    assert_eq!(
        publish("open:1", &[("Authorization", &writer)]),
        unauthorized
    );
    assert_eq!(
        publish("open:1", &[("X-API-Key", &writer[1..])]),
        unauthorized
    );
    assert_eq!(publish("secret:1", &[("X-API-Key", &reader)]), taken);
    assert_eq!(publish("open:1", &[("X-API-Key", &reader)]), forbidden);
    // A client's token publishes nothing, whatever rooms it opens; nor does a cookie.
    let token = token(json!({"sub": "ann", "rooms": ["*"]}));
    assert_eq!(
        publish("open:1", &[("Authorization", &bearer(&token))]),
        unauthorized
    );
    let cookie = format!("roomwire={writer}");
    assert_eq!(publish("open:1", &[("Cookie", &cookie)]), unauthorized);
    let batch = json!([{"room": "open:1", "data": 1}, {"room": "secret:1", "data": 2}]);
    let reply = server.post("/v1/deltas", &[("X-API-Key", &reader)], batch.to_string());
    let results = reply.json()["results"].clone();
    assert_eq!(
        (&results[0]["status"], &results[1]["status"]),
        (&json!(403), &json!(201))
    );
    let challenge = server.post(&deltas_of("open:1"), &[], "1");
    assert_eq!(
        challenge.header("www-authenticate"),
        Some("Bearer realm=\"roomwire\"")
    );
}

#[test]
fn a_history_is_read_by_those_who_may_follow_the_room_and_by_keys() {
    let (server, writer, reader) = closed_server();
    let read = |room: &str, headers: &[(&str, &str)]| {
        server
            .http()
            .request("GET", &deltas_of(room), headers, b"")
            .status
    };
    let insider = token(json!({"sub": "ann", "rooms": ["secret:*"]}));
    let outsider = token(json!({"sub": "bob"}));
    let old = token(json!({"sub": "ann", "exp": get_current_timestamp() - 60}));
    let ways = |token: &str| {
        [
            ("Authorization", format!("Bearer {token}")),
            ("Cookie", format!("a=b; roomwire={token}")),
        ]
    };
    for (name, value) in ways(&insider) {
        assert_eq!(read("secret:1", &[(name, &value)]), 200);
        assert_eq!(read("dialog:#bob", &[(name, &value)]), 403);
    }
    for (name, value) in ways(&outsider) {
        assert_eq!(read("secret:1", &[(name, &value)]), 403);
        assert_eq!(read("dialog:#bob", &[(name, &value)]), 200);
        assert_eq!(read("open:1", &[(name, &value)]), 200);
    }
    for (name, value) in ways(&old) {
        assert_eq!(read("open:1", &[(name, &value)]), 401);
    }
    assert_eq!(read("open:1", &[]), 401);
    assert_eq!(read("secret:1", &[("X-API-Key", &reader)]), 200);
    assert_eq!(read("open:1", &[("X-API-Key", &reader)]), 403);
    assert_eq!(read("open:1", &[("X-API-Key", &writer)]), 403);
    assert_eq!(read("nowhere:1", &[("X-API-Key", &reader)]), 404);
}

#[test]
fn a_socket_takes_the_token_of_its_handshake_and_rather_that_of_its_connect() {
    let (server, ..) = closed_server();
    let presence = |headers: &[(&str, &str)], connect: Value| {
        let (socket, reply) = Socket::handshake(server.address(), PATH, headers);
        assert_eq!(reply.status, 101);
        let mut client = Client::on(socket.expect("accepted"));
        client.result("connect", connect);
        client.subscribe("secret:1");
        let presence = client.result("presence", json!({"channel": "secret:1"}));
        let clients = presence["presence"].as_object().cloned().expect("clients");
        let users = clients.values().map(|info| info["user"].to_string());
        users.collect::<Vec<_>>()
    };
    let of = |user: &str| token(json!({"sub": user, "rooms": ["secret:*"]}));
    let cookie = format!("roomwire={}", of("cookie"));
    let header = format!("Bearer {}", of("header"));
    let seen = presence(&[("Cookie", &cookie)], json!({}));
    assert!(seen.contains(&"\"cookie\"".to_owned()), "{seen:?}");
    let seen = presence(
        &[("Cookie", &cookie), ("Authorization", &header)],
        json!({}),
    );
    assert!(seen.contains(&"\"header\"".to_owned()), "{seen:?}");
    let own = json!({"token": of("own")});
    let seen = presence(&[("Cookie", &cookie), ("Authorization", &header)], own);
    assert!(seen.contains(&"\"own\"".to_owned()), "{seen:?}");
    let (socket, _) = Socket::handshake(server.address(), PATH, &[]);
    let mut nobody = Client::on(socket.expect("a handshake needs no token"));
    nobody.send(json!({"id": 1, "connect": {}}));
    assert_eq!(nobody.closed().0, 3500);
}

#[test]
fn no_token_and_no_key_is_ever_in_the_log_however_much_is_logged() {
    let (server, writer, reader) = closed_server();
    let good = token(json!({"sub": "ann", "rooms": ["secret:*"]}));
    let bad = format!("{good}x");
    for secret in [&writer, &reader, &good, &bad] {
        for header in ["Authorization", "X-API-Key", "Cookie"] {
            let value = match header {
                "Authorization" => format!("Bearer {secret}"),
                "Cookie" => format!("roomwire={secret}"),
                _ => secret.clone(),
            };
            let headers = [(header, &*value)];
            let read = server
                .http()
                .request("GET", &deltas_of("secret:1"), &headers, b"");
            let publish = server.post(&deltas_of("secret:1"), &headers, "1");
            for reply in [read, publish] {
                assert!(!reply.text().contains(&**secret));
            }
            Socket::handshake(server.address(), PATH, &headers);
        }
        let mut client = Client::open(&server);
        let request = json!({"channel": "secret:1", "token": secret});
        client.send(format!(
            "{}\n{}",
            json!({"id": 1, "connect": {"token": secret}}),
            json!({"id": 2, "subscribe": request})
        ));
        // What comes back is an answer or a close, in either case after the frame was handled.
        let _ = client.socket.try_read();
    }
    let log = server.log();
    assert!(
        log.contains("\"TRACE\""),
        "the log is as talkative as it can be"
    );
    for secret in [&writer, &reader, &good, &bad] {
        assert!(!log.contains(&**secret));
    }
}

#[test]
fn a_token_that_ends_is_refreshed_over_the_socket_and_so_is_a_subscription() {
    let server = Server::start(CONFIG);
    let exp = |seconds: u64| json!(get_current_timestamp() + seconds);
    let mut ann = Client::open(&server);
    let first = token(json!({"sub": "ann", "exp": exp(600)}));
    let connected = ann.result("connect", json!({"token": first}));
    assert_eq!(connected["expires"], true);
    assert!(
        connected["ttl"]
            .as_u64()
            .is_some_and(|ttl| (1..=600).contains(&ttl))
    );
    let another = token(json!({"sub": "ann", "exp": exp(900)}));
    let refreshed = ann.result("refresh", json!({"token": another}));
    assert!(refreshed["ttl"].as_u64().is_some_and(|ttl| ttl > 600));
    let claims = |seconds| json!({"sub": "ann", "channel": "secret:1", "exp": exp(seconds)});
    let request = json!({"channel": "secret:1", "token": token(claims(600))});
    let subscribed = ann.result("subscribe", request);
    assert_eq!(subscribed["expires"], true);
    assert!(
        subscribed["ttl"]
            .as_u64()
            .is_some_and(|ttl| (1..=600).contains(&ttl))
    );
    let request = json!({"channel": "secret:1", "token": token(claims(900))});
    let refreshed = ann.result("sub_refresh", request);
    assert!(refreshed["ttl"].as_u64().is_some_and(|ttl| ttl > 600));
}

#[test]
fn what_is_not_refreshed_ends_the_subscription_and_then_the_session() {
    // The time that clients have behind the end of a token is cut by one that has nearly ended before.
    let server = Server::start(&CONFIG.replace("[access]", "[access]\ntoken_leeway = \"1m\""));
    let ended = get_current_timestamp() - 20;
    let mut ann = connected(&server, json!({"sub": "ann", "exp": ended + 1}));
    let of_room = token(json!({"sub": "ann", "channel": "secret:1", "exp": ended}));
    ann.result(
        "subscribe",
        json!({"channel": "secret:1", "token": of_room}),
    );
    let push = ann.push();
    assert_eq!(push["channel"], "secret:1");
    assert_eq!(push["unsubscribe"]["code"], 2501);
    assert_eq!(ann.closed(), (3005, "connection expired".to_owned()));
}

fn only_pings_and_the_end(events: &mut common::stream::Stream) {
    while let Some(event) = events.any() {
        assert_eq!(event.name, "ping", "{event:?}");
    }
}

#[test]
fn what_is_revoked_ends_at_once_on_every_transport() {
    let key = api_key::new_key().expect("the system is random");
    let hash = api_key::KeyHash::of(&key).to_string();
    let config = format!("{CONFIG}\n[keys.admin]\nhash = \"{hash}\"\nscopes = [\"admin\"]\n");
    let server = Server::start(&config);
    let admin = [("X-API-Key", &*key)];
    let revoke = |path: &str, body: Value| {
        let reply = server.post(path, &admin, body.to_string());
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["sessions"].clone()
    };
    let rooms = json!({"sub": "ann", "rooms": ["secret:*"]});
    let mut clients = [(); 2].map(|()| connected(&server, rooms.clone()));
    let mut bob = connected(&server, json!({"sub": "bob", "rooms": ["secret:*"]}));
    for client in clients.iter_mut().chain([&mut bob]) {
        client.subscribe("secret:1");
        client.subscribe("secret:2");
    }
    let stream = || {
        let header = format!("Bearer {}", token(rooms.clone()));
        common::stream::Stream::ask(
            &server,
            "GET",
            "/v1/rooms/secret:1/events",
            &[("Authorization", &header)],
            "",
        )
    };
    let mut events = stream();
    let path = "/v1/subscriptions/end";
    assert_eq!(revoke(path, json!({"user": "ann", "room": "secret:1"})), 3);
    for client in &mut clients {
        let push = client.push();
        assert_eq!(push["channel"], "secret:1");
        assert_eq!(push["unsubscribe"]["code"], 2000);
    }
    only_pings_and_the_end(&mut events);
    let mut events = stream();
    assert_eq!(revoke("/v1/sessions/disconnect", json!({"user": "ann"})), 3);
    for client in &mut clients {
        assert_eq!(client.closed(), (3503, "force disconnect".to_owned()));
    }
    only_pings_and_the_end(&mut events);
    bob.is_alive();
    server.publish("secret:1", "1");
    assert_eq!(bob.publication().0, "secret:1");
    assert_eq!(
        revoke("/v1/sessions/disconnect", json!({"user": "nobody"})),
        0
    );
    for body in [
        json!({}),
        json!({"user": ""}),
        json!({"user": "ann", "novel": 1}),
    ] {
        let reply = server.post("/v1/sessions/disconnect", &admin, body.to_string());
        assert_eq!(problem_of(&reply), "bad-fields", "{body}");
    }
    let reply = server.post("/v1/sessions/disconnect", &[("X-API-Key", "wrong")], "{}");
    assert_eq!(reply.status, 401);
}
