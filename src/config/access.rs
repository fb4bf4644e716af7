//! How clients prove who they are.

use std::{fmt, path::PathBuf, time::Duration};

use super::{
    reader::Reader,
    units::{MINUTE, SECOND},
};

/// HS256 needs a secret as long as its hash (RFC 7518 §3.2).
const LEAST_SECRET_BYTES: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Clients may connect without a token. With `dev` they always may.
    pub anonymous: bool,
    /// Shared with the backends that sign tokens; several while one replaces another.
    pub token_secrets: Vec<Secret>,
    /// Files with public keys, each PEM or a JWKS.
    pub token_key_files: Vec<PathBuf>,
    /// What `aud` must name, and `iss` must be, if anything.
    pub token_audience: Option<String>,
    pub token_issuer: Option<String>,
    /// What the clocks of signer and server may differ by.
    pub token_leeway: Duration,
    /// The cookie that may hold a client's token, if any.
    pub token_cookie: Option<String>,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one use that it has.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(not shown)")
    }
}

impl Access {
    pub(super) fn read(from: &mut Reader) -> Self {
        // A public key is known to everybody: whoever took it for a secret would believe any token.
        let right =
            |text: &str| text.len() >= LEAST_SECRET_BYTES && !text.starts_with("-----BEGIN");
        let secrets = from.secrets(
            "access.token_secrets",
            "secrets of at least 32 bytes; the files of public keys are for access.token_key_files",
            right,
        );
        let files = from.texts(
            "access.token_key_files",
            "files with public keys: PEM (RSA, P-256, P-384 or Ed25519), or a JWKS",
            |text| !text.is_empty(),
        );
        let mut text = |key: &str| {
            let any = |text: &str| Some(text.to_owned());
            let text = from.text(key, String::new(), "a text, or nothing", any);
            (!text.is_empty()).then_some(text)
        };
        let (token_audience, token_issuer) =
            (text("access.token_audience"), text("access.token_issuer"));
        Self {
            token_secrets: secrets.into_iter().map(Secret).collect(),
            token_key_files: files.into_iter().map(PathBuf::from).collect(),
            token_audience,
            token_issuer,
            token_leeway: from.duration(
                "access.token_leeway",
                5 * SECOND,
                Duration::ZERO..=5 * MINUTE,
            ),
            token_cookie: {
                let cookie = from.text(
                    "access.token_cookie",
                    String::new(),
                    "the name of a cookie (ASCII letters, digits, - and _), or nothing",
                    |text| {
                        let right = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
                        text.chars().all(right).then(|| text.to_owned())
                    },
                );
                (!cookie.is_empty()).then_some(cookie)
            },
            anonymous: from.switch("access.anonymous", false),
        }
    }
}
