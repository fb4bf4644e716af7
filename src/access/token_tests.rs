use std::{fs, path::PathBuf};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    super::{Access, Unwelcome},
    *,
};
use crate::config::{Access as Settings, Config, Secret};

const SECRET: &str = "a secret that only this test has got";
const OTHER: &str = "another secret that nobody has asked";
const NOW: u64 = 1_764_025_200;

// Keys that were made for these tests and are used for nothing else.
const RSA: &[u8] = include_bytes!("fixtures/rsa.pem");
const EC: &[u8] = include_bytes!("fixtures/ec.pem");
const ED: &[u8] = include_bytes!("fixtures/ed.pem");

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/access/fixtures")).join(name)
}

fn settings() -> Settings {
    Settings {
        token_secrets: vec![Secret::from(SECRET.to_owned())],
        ..Config::default().access
    }
}

fn access(settings: &Settings) -> Access {
    Access::open(settings, &[], false).unwrap()
}

fn with_files(files: &[&str]) -> Access {
    access(&Settings {
        token_secrets: vec![],
        token_key_files: files.iter().map(|name| fixture(name)).collect(),
        ..settings()
    })
}

fn signed(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, key).unwrap()
}

fn token(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    signed(Algorithm::HS256, &key, claims)
}

fn ann() -> Value {
    json!({"sub": "ann"})
}

fn refused(access: &Access, token: &str) -> TokenError {
    match access.client(token, NOW) {
        Err(Unwelcome::Token(why)) => why,
        other => panic!("{token} gave {other:?}"),
    }
}

fn refused_claims(claims: Value) -> TokenError {
    refused(&access(&settings()), &token(&claims))
}

#[test]
fn every_algorithm_is_taken_from_its_own_kind_of_key() {
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    let by_secret = access(&settings());
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let client = by_secret.client(&signed(algorithm, &secret, &ann()), NOW);
        assert_eq!(&*client.unwrap().user, "ann", "{algorithm:?}");
    }
    let rsa = EncodingKey::from_rsa_pem(RSA).unwrap();
    let ec = EncodingKey::from_ec_pem(EC).unwrap();
    let ed = EncodingKey::from_ed_pem(ED).unwrap();
    for (algorithm, key, file) in [
        (Algorithm::RS256, &rsa, "rsa.pub.pem"),
        (Algorithm::RS512, &rsa, "rsa.pub.pem"),
        (Algorithm::ES256, &ec, "ec.pub.pem"),
        (Algorithm::EdDSA, &ed, "ed.pub.pem"),
    ] {
        let token = signed(algorithm, key, &ann());
        for files in [&[file][..], &["jwks.json"], &["jwks.json", file]] {
            let client = with_files(files).client(&token, NOW);
            assert_eq!(&*client.unwrap().user, "ann", "{algorithm:?} {files:?}");
        }
        let others: Vec<_> = ["rsa.pub.pem", "ec.pub.pem", "ed.pub.pem"]
            .into_iter()
            .filter(|other| *other != file)
            .collect();
        let why = refused(&with_files(&others), &token);
        assert_eq!(why, TokenError::Signature, "{algorithm:?}");
        assert_eq!(refused(&by_secret, &token), TokenError::Signature);
    }
}

#[test]
fn a_key_of_a_jwks_is_found_by_its_id_and_only_for_its_algorithm() {
    let access = with_files(&["jwks.json"]);
    let key = EncodingKey::from_ec_pem(EC).unwrap();
    let with_id = |id: &str| {
        let header = Header {
            kid: Some(id.to_owned()),
            ..Header::new(Algorithm::ES256)
        };
        encode(&header, &ann(), &key).unwrap()
    };
    assert!(access.client(&with_id("ec"), NOW).is_ok());
    assert_eq!(refused(&access, &with_id("rsa")), TokenError::Signature);
    assert_eq!(
        refused(&access, &with_id("for-encryption")),
        TokenError::Signature
    );
}

/// A token with this header as it stands, signed with HS256 by `key`.
fn forged(header: &str, key: &[u8]) -> String {
    let whole = token(&ann());
    let claims = whole.split('.').nth(1).unwrap();
    let message = format!("{}.{claims}", in_base64(header));
    let key = EncodingKey::from_secret(key);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn in_base64(text: &str) -> String {
    // The claims of a token are what is asked for, in base64url.
    let json = serde_json::from_str::<Value>(text).unwrap();
    let token = token(&json);
    token.split('.').nth(1).unwrap().to_owned()
}

#[test]
fn a_token_without_a_signature_is_none() {
    let access = access(&settings());
    let none = forged(r#"{"alg":"none","typ":"JWT"}"#, SECRET.as_bytes());
    let unsigned = format!("{}.", none.rsplit_once('.').unwrap().0);
    for token in [&none, &unsigned] {
        assert_eq!(refused(&access, token), TokenError::Header);
    }
    for alg in ["None", "NONE", "hs256", "", "ES512", "PS256"] {
        let header = json!({"alg": alg}).to_string();
        let why = refused(&access, &forged(&header, SECRET.as_bytes()));
        let expected = [TokenError::Header, TokenError::Signature];
        assert!(expected.contains(&why), "{alg:?}: {why:?}");
    }
    let whole = token(&ann());
    let without = format!("{}.", whole.rsplit_once('.').unwrap().0);
    assert_eq!(refused(&access, &without), TokenError::Signature);
}

#[test]
fn a_public_key_is_not_taken_for_a_secret() {
    for name in ["rsa.pub.pem", "ec.pub.pem", "ed.pub.pem"] {
        let text = fs::read(fixture(name)).unwrap();
        let trimmed = text.trim_ascii_end();
        for secret in [&text[..], trimmed] {
            let token = forged(r#"{"alg":"HS256"}"#, secret);
            for access in [with_files(&[name]), with_files(&["jwks.json"])] {
                assert_eq!(refused(&access, &token), TokenError::Signature, "{name}");
            }
        }
    }
}

#[test]
fn a_header_that_asks_for_an_extension_is_refused() {
    let header = r#"{"alg":"HS256","crit":["b64"],"b64":true}"#;
    let why = refused(&access(&settings()), &forged(header, SECRET.as_bytes()));
    assert_eq!(why, TokenError::Header);
}

#[test]
fn what_is_no_token_is_refused() {
    let access = access(&settings());
    let whole = token(&ann());
    for text in [
        "x",
        "..",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        &whole[..whole.len() - 1],
        &whole.replace('.', " ."),
        &format!("{whole}="),
        &format!("{whole}.x"),
        &format!("Bearer {whole}"),
        &"x".repeat(MAX_TOKEN_BYTES + 1),
        "\u{e9}.\u{e9}.\u{e9}",
    ] {
        refused(&access, text);
    }
    let list = token(&json!(["sub", "ann"]));
    assert_eq!(refused(&access, &list), TokenError::Form);
}

#[test]
fn several_secrets_count_while_one_replaces_another_and_no_other() {
    let of = |secret: &str| {
        let key = EncodingKey::from_secret(secret.as_bytes());
        signed(Algorithm::HS256, &key, &ann())
    };
    let both = access(&Settings {
        token_secrets: [SECRET, OTHER]
            .map(|text| Secret::from(text.to_owned()))
            .into(),
        ..settings()
    });
    assert!(both.client(&of(SECRET), NOW).is_ok() && both.client(&of(OTHER), NOW).is_ok());
    assert_eq!(
        refused(&access(&settings()), &of(OTHER)),
        TokenError::Signature
    );
    let none = access(&Config::default().access);
    assert_eq!(refused(&none, &of(SECRET)), TokenError::NoKeys);
}

#[test]
fn a_token_counts_from_its_nbf_to_its_exp_with_some_leeway() {
    let access = access(&settings());
    let leeway = Config::default().access.token_leeway.as_secs();
    for (claims, expected) in [
        (json!({"exp": NOW + 1}), Ok(Some(NOW + 1))),
        (json!({"exp": NOW - leeway + 1}), Ok(Some(NOW - leeway + 1))),
        (json!({"exp": NOW - leeway}), Err(TokenError::Expired)),
        (json!({"exp": 0}), Err(TokenError::Expired)),
        (json!({"exp": (NOW + 7) as f64 + 0.5}), Ok(Some(NOW + 7))),
        (json!({"nbf": NOW + leeway}), Ok(None)),
        (json!({"nbf": NOW + leeway + 1}), Err(TokenError::Early)),
        (json!({"iat": NOW + 1000}), Ok(None)),
    ] {
        let client = access.client(&token(&claims), NOW);
        let expires = client.map(|client| client.expires);
        assert_eq!(expires, expected.map_err(Unwelcome::Token), "{claims}");
    }
}

#[test]
fn a_claim_of_the_wrong_form_is_not_taken_for_one_that_is_missing() {
    let long = "u".repeat(MAX_USER_BYTES + 1);
    for (name, values) in [
        (
            "exp",
            vec![json!("1"), json!(null), json!(-1), json!(1e300), json!({})],
        ),
        ("nbf", vec![json!("1"), json!(null)]),
        (
            "sub",
            vec![json!(7), json!(null), json!(long), json!("a\nb")],
        ),
        ("rooms", vec![json!("chat:*"), json!(null), json!([1])]),
        ("info", vec![json!("i".repeat(MAX_INFO_BYTES))]),
    ] {
        for value in values {
            let why = refused_claims(json!({ name: value }));
            assert!(
                matches!(why, TokenError::Claim { name: told, .. } if told == name),
                "{name}: {value} gave {why:?}"
            );
        }
    }
}

#[test]
fn the_user_its_info_and_its_rooms_come_from_the_token() {
    let claims = json!({"sub": "ann", "info": {"name": "Ann"}, "rooms": ["chat:*"], "novel": 1});
    let client = access(&settings()).client(&token(&claims), NOW).unwrap();
    let grants = Grants {
        rooms: vec![Pattern::new("chat:*")],
    };
    let expected = Client {
        user: "ann".into(),
        info: Some(r#"{"name":"Ann"}"#.into()),
        expires: None,
        grants: Some(Box::new(grants)),
    };
    assert_eq!(client, expected);
    let nobody = access(&settings()).client(&token(&json!({})), NOW);
    assert_eq!(nobody, Ok(Client::default()));
}

#[test]
fn without_a_token_only_a_server_that_is_open_to_anybody_is_entered() {
    assert_eq!(access(&settings()).client("", NOW), Err(Unwelcome::NoToken));
    let anonymous = Settings {
        anonymous: true,
        ..settings()
    };
    assert_eq!(access(&anonymous).client("", NOW), Ok(Client::default()));
    let dev = Access::open(&settings(), &[], true).unwrap();
    assert_eq!(dev.client("", NOW), Ok(Client::default()));
    // A token that is wrong is wrong everywhere.
    refused(&dev, "x");
}

#[test]
fn audience_and_issuer_are_asked_for_where_they_are_configured() {
    let strict = access(&Settings {
        token_audience: Some("chat".to_owned()),
        token_issuer: Some("login".to_owned()),
        ..settings()
    });
    for (aud, iss, expected) in [
        (json!("chat"), json!("login"), Ok(())),
        (json!(["x", "chat"]), json!("login"), Ok(())),
        (json!("chats"), json!("login"), Err(TokenError::Audience)),
        (json!([]), json!("login"), Err(TokenError::Audience)),
        (json!("chat"), json!("Login"), Err(TokenError::Issuer)),
    ] {
        let given = strict.client(&token(&json!({"aud": aud, "iss": iss})), NOW);
        let expected = expected.map_err(Unwelcome::Token);
        assert_eq!(given.map(|_| ()), expected, "{aud} {iss}");
    }
    assert_eq!(
        refused(&strict, &token(&json!({"iss": "login"}))),
        TokenError::Audience
    );
    assert_eq!(
        refused(&strict, &token(&json!({"aud": "chat"}))),
        TokenError::Issuer
    );
    let any = json!({"aud": "chats", "iss": 5});
    assert!(access(&settings()).client(&token(&any), NOW).is_ok());
}

#[test]
fn a_subscription_token_is_for_one_room_of_one_user() {
    let access = access(&settings());
    let ask = |claims: Value, user: &str, room: &str| {
        access.subscription(&token(&claims), user, room, NOW)
    };
    let good = json!({"sub": "ann", "channel": "chat:1", "exp": NOW + 60});
    assert_eq!(ask(good.clone(), "ann", "chat:1"), Ok(Some(NOW + 60)));
    assert_eq!(ask(good.clone(), "ann", "chat:2"), Err(TokenError::Room));
    assert_eq!(ask(good.clone(), "bob", "chat:1"), Err(TokenError::User));
    assert_eq!(ask(good, "", "chat:1"), Err(TokenError::User));
    let anonymous = json!({"channel": "chat:1"});
    assert_eq!(ask(anonymous.clone(), "", "chat:1"), Ok(None));
    assert_eq!(ask(anonymous, "ann", "chat:1"), Err(TokenError::User));
    let old = json!({"sub": "ann", "channel": "chat:1", "exp": NOW - 60});
    assert_eq!(ask(old, "ann", "chat:1"), Err(TokenError::Expired));
    let connection = ask(ann(), "ann", "chat:1");
    assert!(matches!(
        connection,
        Err(TokenError::Claim {
            name: "channel",
            ..
        })
    ));
    // Nor is it a connection token, whoever leaks it.
    let subscription = json!({"sub": "ann", "channel": "chat:1", "rooms": ["*"]});
    assert_eq!(refused_claims(subscription), TokenError::ForSubscription);
    assert_eq!(
        refused_claims(json!({"channel": null})),
        TokenError::ForSubscription
    );
}

#[test]
fn a_key_file_that_can_not_be_used_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let open = |content: &str| {
        let file = directory.path().join("keys");
        fs::write(&file, content).unwrap();
        let told = Access::open(
            &Settings {
                token_key_files: vec![file.clone()],
                ..settings()
            },
            &[],
            false,
        );
        let told = told.unwrap_err().to_string();
        assert!(told.contains(&file.display().to_string()), "{told}");
        told
    };
    let private = std::str::from_utf8(EC).unwrap();
    assert!(open(private).contains("holds a private key"));
    assert!(
        open("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n").contains("is PEM")
    );
    assert!(open("hello").contains("is neither PEM nor a JWKS"));
    assert!(open(r#"{"keys":[]}"#).contains("a JWKS without a key"));
    let missing = Settings {
        token_key_files: vec![directory.path().join("nothing")],
        ..settings()
    };
    let told = Access::open(&missing, &[], false).unwrap_err().to_string();
    assert!(told.ends_with("nothing can't be read"), "{told}");
}

proptest! {
    /// One character of a token is another one: it counts no more.
    #[test]
    fn a_token_that_was_changed_anywhere_is_refused(at in 0_usize..200, other in "[A-Za-z0-9_.-]") {
        let access = access(&settings());
        let whole = token(&json!({"sub": "ann", "rooms": ["chat:*"], "exp": NOW + 60}));
        let at = at % whole.len();
        let mut changed = whole.clone();
        changed.replace_range(at..=at, &other);
        prop_assume!(changed != whole);
        prop_assert!(access.client(&changed, NOW).is_err());
    }

    #[test]
    fn no_text_makes_the_check_panic(text in ".{0,80}") {
        let _ = access(&settings()).client(&text, NOW);
    }
}
