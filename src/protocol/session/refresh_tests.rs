use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::*;
use crate::config::{Config, RoomAccess, Secret};

const SECRET: &str = "a secret that only this test has got";
const NOW: u64 = 1_764_025_200;
/// What a client has behind the end of a token.
const GRACE: u64 = 25;

fn token(claims: Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    encode(&Header::default(), &claims, &key).unwrap()
}

struct Client {
    session: Session,
    access: Access,
    namespaces: Namespaces,
    now: u64,
}

impl Client {
    fn new() -> Self {
        let mut settings = Config::default().access;
        settings.token_secrets = vec![Secret::from(SECRET.to_owned())];
        let limits = SessionSettings {
            ping_interval: 25,
            max_rooms: 9,
            max_delta_bytes: 16,
        };
        let public = Namespace {
            access: RoomAccess::Public,
            ..Namespace::default()
        };
        Self {
            session: Session::new(Uuid::nil(), None, limits),
            access: Access::open(&settings, &[], false).unwrap(),
            namespaces: [("public", public)].into_iter().collect(),
            now: NOW,
        }
    }

    /// A client with a token of these claims besides its user.
    fn connected(mut claims: Value) -> Self {
        let mut client = Self::new();
        claims["sub"] = json!("ann");
        let (reply, _) = client.ask("connect", json!({"token": token(claims)}));
        assert!(reply["connect"].is_object(), "{reply}");
        client
    }

    /// The reply, `null` if it is not the session's to give, and the effects.
    fn ask(&mut self, command: &str, request: Value) -> (Value, Vec<Effect>) {
        let policy = Policy {
            namespaces: &self.namespaces,
            access: &self.access,
            now: self.now,
        };
        let (mut replies, mut effects) = (FrameBuilder::default(), Vec::new());
        let frame = json!({"id": 7, command: request}).to_string();
        let frame = frame.as_bytes();
        self.session
            .receive(frame, policy, &mut replies, &mut effects);
        let frame = replies.finish().unwrap_or_default();
        let start = frame.iter().position(|&b| b == b'{').unwrap_or(frame.len());
        let reply = serde_json::from_slice(&frame[start..]).unwrap_or_default();
        (reply, effects)
    }

    fn subscribe(&mut self, room: &str, claims: Option<Value>) -> Vec<Effect> {
        let token = claims.map(|mut claims| {
            claims["sub"] = json!("ann");
            claims["channel"] = json!(room);
            token(claims)
        });
        let token = token.unwrap_or_default();
        let request = json!({"channel": room, "token": token});
        self.ask("subscribe", request).1
    }

    fn expire(&mut self, now: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.session.expire(now, &mut effects);
        effects
    }
}

fn end(room: &str, number: u32, why: Unsubscribe) -> Effect {
    Effect::End {
        room: RoomName::new(room).unwrap(),
        number,
        why,
    }
}

#[test]
fn a_token_that_ends_says_so_and_is_refreshed_in_time_or_ends_the_session() {
    let mut client = Client::new();
    let ends = |end: u64| json!({"token": token(json!({"sub": "ann", "exp": end}))});
    let (reply, _) = client.ask("connect", ends(NOW + 60));
    let connected = &reply["connect"];
    assert_eq!(
        (&connected["expires"], &connected["ttl"]),
        (&json!(true), &json!(60))
    );
    assert_eq!(client.session.next_deadline(), Some(NOW + 60 + GRACE));
    client.now = NOW + 60;
    let (reply, effects) = client.ask("refresh", ends(NOW + 120));
    let refreshed = &reply["refresh"];
    assert_eq!(
        (&refreshed["expires"], &refreshed["ttl"]),
        (&json!(true), &json!(60))
    );
    assert!(refreshed["client"].is_string() && refreshed["version"].is_string());
    assert!(effects.is_empty());
    assert!(client.expire(NOW + 60 + GRACE).is_empty());
    let over = client.expire(NOW + 120 + GRACE);
    assert_eq!(over, [Effect::Close(Disconnect::EXPIRED)]);
}

#[test]
fn a_refresh_takes_a_good_token_of_the_same_user() {
    for (claims, close) in [
        (json!({"sub": "bob"}), Disconnect::INVALID_TOKEN),
        (json!({}), Disconnect::INVALID_TOKEN),
        (
            json!({"sub": "ann", "channel": "r"}),
            Disconnect::INVALID_TOKEN,
        ),
        (json!({"sub": "ann", "exp": NOW - 60}), Disconnect::EXPIRED),
    ] {
        let mut client = Client::connected(json!({"exp": NOW + 60}));
        let (reply, effects) = client.ask("refresh", json!({"token": token(claims)}));
        assert_eq!((reply, effects), (Value::Null, vec![Effect::Close(close)]));
    }
    let mut client = Client::connected(json!({"exp": NOW + 60}));
    let (_, effects) = client.ask("refresh", json!({}));
    assert_eq!(effects, [Effect::Close(Disconnect::INVALID_TOKEN)]);
    let mut client = Client::connected(json!({"exp": NOW + 60}));
    let (reply, _) = client.ask("refresh", json!({"token": token(json!({"sub": "ann"}))}));
    assert_eq!(
        reply["refresh"].get("expires"),
        None,
        "from now on it lasts"
    );
    assert_eq!(client.session.next_deadline(), None);
}

#[test]
fn a_refresh_ends_what_the_new_token_does_not_open() {
    let mut client = Client::connected(json!({"rooms": ["chat", "news"]}));
    client.subscribe("chat", None);
    client.subscribe("news", None);
    client.subscribe("public:1", None);
    client.subscribe("own", Some(json!({})));
    let narrower = token(json!({"sub": "ann", "rooms": ["news"]}));
    let (_, effects) = client.ask("refresh", json!({"token": narrower}));
    assert_eq!(effects, [end("chat", 1, Unsubscribe::REVOKED)]);
}

#[test]
fn a_subscription_lasts_as_long_as_its_token_and_is_refreshed_by_itself() {
    let mut client = Client::connected(json!({}));
    let effects = client.subscribe("a", Some(json!({"exp": NOW + 60})));
    let lasts = |effect: &Effect| match effect {
        Effect::Subscribe { lasting, .. } => *lasting,
        other => panic!("{other:?}"),
    };
    assert_eq!(lasts(&effects[0]), Lasting::seconds(60));
    let effects = client.subscribe("b", Some(json!({"exp": NOW + 60})));
    assert_eq!(lasts(&effects[0]), Lasting::seconds(60));
    let another = |room: &str, end: u64| {
        let token = token(json!({"sub": "ann", "channel": room, "exp": end}));
        json!({"channel": room, "token": token})
    };
    let (reply, _) = client.ask("sub_refresh", another("a", NOW + 120));
    assert_eq!(reply["sub_refresh"], json!({"expires": true, "ttl": 120}));
    let over = client.expire(NOW + 60 + GRACE);
    assert_eq!(over, [end("b", 2, Unsubscribe::EXPIRED)]);
    assert!(
        client.expire(NOW + 60 + GRACE).is_empty(),
        "it is told once"
    );
    client.ask("unsubscribe", json!({"channel": "a"}));
    assert_eq!(
        client.session.next_deadline(),
        None,
        "who has left has no end"
    );
}

#[test]
fn a_subscription_is_refreshed_only_by_a_token_for_it() {
    let refreshed = |channel: &str, claims: Value| {
        let mut client = Client::connected(json!({}));
        client.subscribe("a", Some(json!({"exp": NOW + 60})));
        let request = json!({"channel": channel, "token": token(claims)});
        client.ask("sub_refresh", request)
    };
    for (channel, claims, code) in [
        ("", json!({"sub": "ann", "channel": "a"}), 107),
        ("b", json!({"sub": "ann", "channel": "b"}), 103),
        ("a", json!({"sub": "ann", "channel": "b"}), 103),
        ("a", json!({"sub": "ann"}), 103),
        (
            "a",
            json!({"sub": "ann", "channel": "a", "exp": NOW - 60}),
            110,
        ),
    ] {
        let (reply, effects) = refreshed(channel, claims);
        assert_eq!((&reply["error"]["code"], effects), (&json!(code), vec![]));
    }
    let (_, effects) = refreshed("a", json!({"sub": "bob", "channel": "a"}));
    assert_eq!(effects, [Effect::Close(Disconnect::INVALID_TOKEN)]);
}
