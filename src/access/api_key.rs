//! API keys: what backends publish with, and what administrators use. The configuration holds their hashes alone.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::pattern::Pattern;
use crate::{
    config::{ApiKey as Settings, Scope},
    delta::RoomName,
};

/// Before a key's random part, so that a key is known for one where it was left lying about.
const PREFIX: &str = "rwk_";

/// Random bytes of a new key. With so many, a fast hash gives nothing away.
const RANDOM_BYTES: usize = 32;

/// The SHA-256 of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Reads `sha256:` and 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        let digits = text.strip_prefix("sha256:")?;
        let read = base16ct::mixed::decode(digits, &mut hash).ok()?.len();
        (read == hash.len()).then_some(Self(hash))
    }
}

impl std::fmt::Display for KeyHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sha256:{}", base16ct::lower::encode_string(&self.0))
    }
}

/// A key that nobody has seen before, made of the system's randomness.
pub fn new_key() -> Result<String, getrandom::Error> {
    let mut random = [0; RANDOM_BYTES];
    getrandom::fill(&mut random)?;
    Ok(format!(
        "{PREFIX}{}",
        base16ct::lower::encode_string(&random)
    ))
}

#[derive(Debug, Clone, PartialEq)]
pub struct ApiKey {
    /// As the configuration calls it.
    name: String,
    hash: KeyHash,
    scopes: Vec<Scope>,
    rooms: Vec<Pattern>,
}

impl ApiKey {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    pub fn covers(&self, room: &RoomName) -> bool {
        self.rooms.iter().any(|pattern| pattern.matches(room))
    }
}

/// All keys of a server.
#[derive(Debug, Default)]
pub struct ApiKeys(Vec<Arc<ApiKey>>);

impl ApiKeys {
    pub fn new(settings: &[Settings]) -> Self {
        let key = |settings: &Settings| ApiKey {
            name: settings.name.clone(),
            hash: settings.hash,
            scopes: settings.scopes.clone(),
            rooms: settings
                .rooms
                .iter()
                .map(|text| Pattern::new(text))
                .collect(),
        };
        Self(settings.iter().map(key).map(Arc::new).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Looks at all of them, each in the same time, whichever fits.
    pub fn find(&self, key: &str) -> Option<&Arc<ApiKey>> {
        let hash = KeyHash::of(key);
        let mut found = None;
        for known in &self.0 {
            if known.hash.0.ct_eq(&hash.0).into() {
                found = Some(known);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_reads_back_and_a_key_itself_is_none() {
        let key = new_key().unwrap();
        assert_eq!(key.len(), PREFIX.len() + 2 * RANDOM_BYTES);
        assert_ne!(key, new_key().unwrap());
        let shown = KeyHash::of(&key).to_string();
        assert_eq!(KeyHash::parse(&shown), Some(KeyHash::of(&key)));
        for wrong in [
            &*key,
            "",
            "sha256:",
            &shown[7..],
            &shown[..70],
            &format!("{shown}00"),
        ] {
            assert_eq!(KeyHash::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_key_is_found_among_several_by_itself_alone() {
        let named = |name: &str| Settings {
            name: name.to_owned(),
            hash: KeyHash::of(&format!("key of {name}")),
            scopes: vec![Scope::Publish],
            rooms: vec!["chat:*".to_owned()],
        };
        let keys = ApiKeys::new(&["old", "new"].map(named));
        for name in ["old", "new"] {
            let key = keys.find(&format!("key of {name}")).unwrap();
            assert_eq!(key.name(), name);
            assert!(key.has(Scope::Publish) && !key.has(Scope::Admin));
            assert!(key.covers(&RoomName::new("chat:1").unwrap()));
            assert!(!key.covers(&RoomName::new("lobby").unwrap()));
        }
        let hash = KeyHash::of("key of old").to_string();
        for wrong in ["", "key of nobody", "key of ol", &hash] {
            assert_eq!(keys.find(wrong), None, "{wrong:?}");
        }
    }
}
