//! API keys, each with what it may do.

use super::reader::Reader;
use crate::access::api_key::KeyHash;

/// What a key lets its holder do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Publish,
    /// Read rooms over HTTP.
    Read,
    /// Erase deltas, and end sessions and subscriptions.
    Admin,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub name: String,
    pub hash: KeyHash,
    pub scopes: Vec<Scope>,
    /// Patterns of the rooms that it is for.
    pub rooms: Vec<String>,
}

impl Scope {
    const ALL: [Self; 3] = [Self::Publish, Self::Read, Self::Admin];

    pub fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == text)
    }
}

impl ApiKey {
    pub(super) fn read_all(from: &mut Reader) -> Vec<Self> {
        let names = from.names("keys", "ASCII letters, digits, _ and -", |name| {
            let right = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            !name.is_empty() && name.chars().all(right)
        });
        let keys = names.into_iter().filter_map(|name| Self::read(from, name));
        keys.collect()
    }

    /// `None` if it is wrong, which the reader has noted.
    fn read(from: &mut Reader, name: String) -> Option<Self> {
        let key = |setting: &str| format!("keys.{name}.{setting}");
        let hash = from.demanded_secret(
            &key("hash"),
            "sha256: and 64 hexadecimal digits, as `roomwire key new` prints them",
            KeyHash::parse,
        );
        let scopes = from.texts_or(
            &key("scopes"),
            &["publish"],
            "some of \"publish\", \"read\" and \"admin\"",
            |text| Scope::parse(text).is_some(),
        );
        let rooms = from.texts_or(
            &key("rooms"),
            &["*"],
            "names of rooms, in which each * stands for any characters",
            |text| !text.is_empty(),
        );
        Some(Self {
            scopes: scopes
                .iter()
                .filter_map(|text| Scope::parse(text))
                .collect(),
            rooms,
            hash: hash?,
            name,
        })
    }
}
