//! What tokens say, and whether it counts now.

use std::sync::Arc;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{
    Client, Grants,
    keyset::{Claims, KeySet},
    pattern::Pattern,
};
use crate::delta::compact_json;

/// Longest token that is looked at. Longer ones would be work for nothing: headers of requests end below.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Longest name of a user: it stands in every room that the user is in.
const MAX_USER_BYTES: usize = 255;

/// Longest `info`, for the same reason.
const MAX_INFO_BYTES: usize = 1024;

/// Why a token does not count. The texts never show anything of the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("no key is configured that a token could be checked with")]
    NoKeys,
    #[error(
        "the token is no JWT: three parts in base64url, joined by dots, of which two are JSON objects"
    )]
    Form,
    #[error(
        "the token's header is not understood: it takes alg HS256, HS384, HS512, RS256, RS384, RS512, ES256, ES384 or EdDSA, and no crit"
    )]
    Header,
    #[error("the token is not signed by any of the configured keys")]
    Signature,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    Early,
    #[error("the token's claim {name} is {takes}")]
    Claim {
        name: &'static str,
        takes: &'static str,
    },
    #[error("the token is for another audience")]
    Audience,
    #[error("the token is from another issuer")]
    Issuer,
    #[error("this is a subscription token, for one room, and a connection token is needed")]
    ForSubscription,
    #[error("the token is for another room")]
    Room,
    #[error("the token is for another user")]
    User,
}

/// What is asked of every token besides its signature.
#[derive(Debug, Default)]
pub struct TokenRules {
    pub audience: Option<String>,
    pub issuer: Option<String>,
    /// Seconds that clocks may differ by.
    pub leeway: u64,
}

impl TokenRules {
    /// Who a connection token is for.
    pub fn connection(&self, keys: &KeySet, token: &str, now: u64) -> Result<Client, TokenError> {
        let claims = self.verified(keys, token, now)?;
        if claims.contains_key("channel") {
            return Err(TokenError::ForSubscription);
        }
        let rooms: Vec<String> =
            optional(&claims, "rooms", "an array of texts")?.unwrap_or_default();
        Ok(Client {
            user: user(&claims)?,
            info: info(&claims)?,
            expires: seconds(&claims, "exp")?,
            grants: (!rooms.is_empty()).then(|| {
                let rooms = rooms.iter().map(|text| Pattern::new(text)).collect();
                Box::new(Grants { rooms })
            }),
        })
    }

    /// Until when a subscription token lets `user` follow `room`; `None` is for ever.
    pub fn subscription(
        &self,
        keys: &KeySet,
        token: &str,
        user: &str,
        room: &str,
        now: u64,
    ) -> Result<Option<u64>, TokenError> {
        let claims = self.verified(keys, token, now)?;
        let takes = "the name of a room in a subscription token";
        let channel: Option<String> = optional(&claims, "channel", takes)?;
        let named = channel.ok_or(TokenError::Claim {
            name: "channel",
            takes,
        })?;
        if named != room {
            return Err(TokenError::Room);
        }
        if *self::user(&claims)? != *user {
            return Err(TokenError::User);
        }
        seconds(&claims, "exp")
    }

    fn verified(&self, keys: &KeySet, token: &str, now: u64) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Form);
        }
        let claims = keys.verify(token)?;
        if let Some(expected) = &self.issuer
            && optional(&claims, "iss", "a text")?.as_ref() != Some(expected)
        {
            return Err(TokenError::Issuer);
        }
        if let Some(expected) = &self.audience {
            let named = optional(&claims, "aud", "a text, or an array of texts")?;
            if !named.is_some_and(|named: Audience| named.has(expected)) {
                return Err(TokenError::Audience);
            }
        }
        if seconds(&claims, "nbf")?.is_some_and(|from| now + self.leeway < from) {
            return Err(TokenError::Early);
        }
        match seconds(&claims, "exp")? {
            Some(end) if end.saturating_add(self.leeway) <= now => Err(TokenError::Expired),
            _ => Ok(claims),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn has(&self, name: &String) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Several(several) => several.contains(name),
        }
    }
}

/// A claim that is there has the right form: `null` is not the same as nothing.
fn optional<T: DeserializeOwned>(
    claims: &Claims,
    name: &'static str,
    takes: &'static str,
) -> Result<Option<T>, TokenError> {
    let Some(raw) = claims.get(name) else {
        return Ok(None);
    };
    match serde_json::from_str(raw.get()) {
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(TokenError::Claim { name, takes }),
    }
}

/// A time in seconds, which may have a fraction (RFC 7519 §2).
fn seconds(claims: &Claims, name: &'static str) -> Result<Option<u64>, TokenError> {
    let takes = "a number of seconds since 1970-01-01T00:00:00Z";
    let time: Option<f64> = optional(claims, name, takes)?;
    match time {
        Some(time) if !(0.0..=9e15).contains(&time) => Err(TokenError::Claim { name, takes }),
        time => Ok(time.map(|seconds| seconds as u64)),
    }
}

fn user(claims: &Claims) -> Result<Arc<str>, TokenError> {
    let takes = "a text of up to 255 bytes without control characters";
    let user: String = optional(claims, "sub", takes)?.unwrap_or_default();
    match user.len() <= MAX_USER_BYTES && !user.contains(char::is_control) {
        true => Ok(user.into()),
        false => Err(TokenError::Claim { name: "sub", takes }),
    }
}

fn info(claims: &Claims) -> Result<Option<Arc<str>>, TokenError> {
    let claim = |raw: &RawValue| {
        let one_line = compact_json(raw.get().as_bytes()).ok();
        let one_line = one_line.filter(|json| json.len() <= MAX_INFO_BYTES)?;
        std::str::from_utf8(&one_line).ok().map(Arc::from)
    };
    match claims.get("info").map(|raw| claim(raw)) {
        None => Ok(None),
        Some(Some(info)) => Ok(Some(info)),
        Some(None) => Err(TokenError::Claim {
            name: "info",
            takes: "JSON of up to 1024 bytes",
        }),
    }
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
