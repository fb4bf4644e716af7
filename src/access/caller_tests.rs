use jsonwebtoken::{EncodingKey, Header, encode};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{super::api_key::KeyHash, *};
use crate::config::{ApiKey as KeySettings, Config, Namespaces, Secret};

const SECRET: &str = "a secret that only this test has got";
const NOW: u64 = 1_764_025_200;

fn key(name: &str, scopes: &[Scope], rooms: &[&str]) -> KeySettings {
    KeySettings {
        name: name.to_owned(),
        hash: KeyHash::of(name),
        scopes: scopes.to_vec(),
        rooms: rooms.iter().map(|&text| text.to_owned()).collect(),
    }
}

fn access(dev: bool) -> Access {
    let mut settings = Config::default().access;
    settings.token_secrets = vec![Secret::from(SECRET.to_owned())];
    let keys = [
        key("writer", &[Scope::Publish], &["*"]),
        key("reader", &[Scope::Read, Scope::Publish], &["chat:*"]),
        key("admin", &[Scope::Admin], &["*"]),
    ];
    Access::open(&settings, &keys, dev).unwrap()
}

fn token(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    encode(&Header::default(), claims, &key).unwrap()
}

fn room(name: &str) -> RoomName {
    RoomName::new(name).unwrap()
}

fn key_header(key: &str) -> Shown<'_> {
    Shown {
        api_key: Some(key),
        ..Shown::default()
    }
}

fn bearer(text: &str) -> Shown<'_> {
    Shown {
        bearer: Some(text),
        ..Shown::default()
    }
}

fn cookie(text: &str) -> Shown<'_> {
    Shown {
        cookie: Some(text),
        ..Shown::default()
    }
}

#[test]
fn a_key_does_what_its_scopes_say_in_the_rooms_that_it_is_for() {
    let access = access(false);
    for shown in [key_header, bearer] {
        let writer = access.keyholder(shown("writer"), Scope::Publish).unwrap();
        assert_eq!(writer.may_touch(&room("lobby")), Ok(()));
        let reader = access.keyholder(shown("reader"), Scope::Publish).unwrap();
        assert_eq!(reader.may_touch(&room("chat:1")), Ok(()));
        let refused = reader.may_touch(&room("lobby")).unwrap_err();
        assert!(matches!(refused, Denied::RoomOfKey { .. }) && !refused.is_unknown());
        let no_scope = |denied| matches!(denied, Err(Denied::Scope { .. }));
        assert!(no_scope(access.keyholder(shown("admin"), Scope::Publish)));
        assert!(no_scope(access.keyholder(shown("writer"), Scope::Admin)));
        assert!(no_scope(access.reader(shown("writer"), NOW)));
        let reader = access.reader(shown("reader"), NOW).unwrap();
        for open in [
            RoomAccess::Public,
            RoomAccess::Token,
            RoomAccess::UserLimited,
        ] {
            assert_eq!(reader.may_read(&room("chat:1"), open), Ok(()));
            assert!(reader.may_read(&room("lobby"), open).is_err());
        }
    }
}

#[test]
fn whoever_shows_nothing_does_nothing_unless_the_server_runs_for_development() {
    let nothing = Shown::default();
    let closed = access(false);
    for scope in [Scope::Publish, Scope::Admin] {
        assert_eq!(closed.keyholder(nothing, scope), Err(Denied::NoKey));
        assert_eq!(access(true).keyholder(nothing, scope), Ok(Caller::Anybody));
    }
    assert_eq!(closed.reader(nothing, NOW), Err(Denied::Nothing));
    let anybody = access(true).reader(nothing, NOW).unwrap();
    assert_eq!(anybody.may_read(&room("r"), RoomAccess::Public), Ok(()));
    assert!(anybody.may_read(&room("r"), RoomAccess::Token).is_err());
}

#[test]
fn a_wrong_key_is_refused_everywhere_and_a_cookie_never_holds_one() {
    for dev in [false, true] {
        let access = access(dev);
        for shown in [key_header("nobody"), bearer("nobody")] {
            let refused = access.keyholder(shown, Scope::Publish);
            assert_eq!(refused, Err(Denied::UnknownKey));
            assert!(access.reader(shown, NOW).unwrap_err().is_unknown());
        }
        assert!(
            access
                .reader(cookie("reader"), NOW)
                .unwrap_err()
                .is_unknown()
        );
        // A page of another site could have its reader's browser send it.
        let by_cookie = access.keyholder(cookie("writer"), Scope::Publish);
        assert!(!matches!(by_cookie, Ok(Caller::Key(_))));
    }
}

#[test]
fn a_clients_token_publishes_nothing() {
    let token = token(&json!({"sub": "ann", "rooms": ["*"]}));
    for shown in [key_header(&token), bearer(&token)] {
        let refused = access(true).keyholder(shown, Scope::Publish);
        assert_eq!(refused, Err(Denied::UnknownKey));
    }
    let ann = access(false).reader(bearer(&token), NOW).unwrap();
    assert_eq!(ann.may_touch(&room("lobby")), Err(Denied::NoKey));
}

#[test]
fn an_expired_token_is_refused_as_such() {
    let old = token(&json!({"exp": NOW - 60}));
    for shown in [bearer(&old), cookie(&old)] {
        let refused = access(false).reader(shown, NOW).unwrap_err();
        assert_eq!(refused, Denied::Token(TokenError::Expired));
    }
    let lasting = token(&json!({"exp": NOW + 60}));
    let caller = access(false).reader(cookie(&lasting), NOW).unwrap();
    assert_eq!(caller.lasts(NOW), Some(Duration::from_secs(60)));
}

/// Whether a socket with this token may subscribe to the room.
fn by_socket(access: &Access, namespaces: &Namespaces, token: &str, name: &str) -> bool {
    use crate::protocol::{
        frame::FrameBuilder,
        session::{Effect, Policy, Session, SessionSettings},
    };
    let settings = SessionSettings {
        ping_interval: 25,
        max_rooms: 2,
        max_delta_bytes: 16,
    };
    let mut session = Session::new(uuid::Uuid::nil(), None, settings);
    let policy = Policy {
        namespaces,
        access,
        now: NOW,
    };
    let mut effects = Vec::new();
    let frame = format!(
        "{}\n{}",
        json!({"id": 1, "connect": {"token": token}}),
        json!({"id": 2, "subscribe": {"channel": name}})
    );
    session.receive(
        frame.as_bytes(),
        policy,
        &mut FrameBuilder::default(),
        &mut effects,
    );
    let subscribes = |effect: &Effect| matches!(effect, Effect::Subscribe { .. });
    effects.iter().any(subscribes)
}

fn by_http(access: &Access, namespaces: &Namespaces, token: &str, name: &str) -> bool {
    let room = room(name);
    let open = namespaces.of(&room).unwrap().access;
    [bearer(token), cookie(token)].into_iter().all(|shown| {
        let reader = access.reader(shown, NOW);
        reader.is_ok_and(|reader| reader.may_read(&room, open).is_ok())
    })
}

proptest! {
    /// The same client, the same room: over HTTP it may read what it may follow over a socket, and nothing else.
    #[test]
    fn no_room_is_open_one_way_and_closed_another(
        user in "(ann|bob|)",
        pattern in "(pub:|tok:|lim:|)[ab#*]{0,4}",
        expires in 0_u64..3,
        name in "(pub|tok|lim):[ab]{1,2}(#ann|#bob|#ann,bob|#)?",
    ) {
        use crate::config::Namespace;
        let with = |access| Namespace { access, ..Namespace::default() };
        let namespaces: Namespaces = [
            ("pub", with(RoomAccess::Public)),
            ("tok", with(RoomAccess::Token)),
            ("lim", with(RoomAccess::UserLimited)),
        ].into_iter().collect();
        let claims = json!({"sub": user, "rooms": [pattern], "exp": NOW - 30 + 30 * expires});
        let token = token(&claims);
        let access = access(false);
        prop_assert_eq!(
            by_socket(&access, &namespaces, &token, &name),
            by_http(&access, &namespaces, &token, &name)
        );
    }
}
