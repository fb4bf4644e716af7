//! The keys that tokens are checked with: shared secrets, and public keys from PEM or JWKS files.
//!
//! Each key says which algorithms it is for, and a token is only checked by keys that are for the one it names: a token
//! that is signed with the text of a public key as if that were a secret finds no key.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey,
    crypto::verify,
    dangerous::insecure_decode_claims,
    decode_header,
    errors::ErrorKind,
    jwk::{Jwk, JwkSet, PublicKeyUse},
};
use serde_json::value::RawValue;

use super::token::TokenError;
use crate::config::Secret;

/// Claims by name, as they were written.
pub type Claims = HashMap<String, Box<RawValue>>;

/// Why a key file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("access.token_key_files: {} can't be read", file.display())]
    Unreadable { file: PathBuf, source: io::Error },
    #[error(
        "access.token_key_files: {} {reason}; it takes a public key in PEM, or a JWKS",
        file.display()
    )]
    Unusable { file: PathBuf, reason: String },
}

#[derive(Debug)]
struct Key {
    /// `kid` of a JWKS.
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

#[derive(Debug, Default)]
pub struct KeySet(Vec<Key>);

impl KeySet {
    pub fn read(secrets: &[Secret], files: &[PathBuf]) -> Result<Self, KeyFileError> {
        let of_secret = |secret: &Secret| Key {
            id: None,
            algorithms: algorithms(AlgorithmFamily::Hmac),
            key: DecodingKey::from_secret(secret.reveal().as_bytes()),
        };
        let mut keys: Vec<Key> = secrets.iter().map(of_secret).collect();
        for file in files {
            let text = fs::read_to_string(file).map_err(|source| KeyFileError::Unreadable {
                file: file.clone(),
                source,
            })?;
            keys.extend(keys_of(&text).map_err(|reason| unusable(file, reason))?);
        }
        Ok(Self(keys))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The claims of a token that one of the keys has signed. Nothing else of it is looked at.
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        if self.0.is_empty() {
            return Err(TokenError::NoKeys);
        }
        let header = decode_header(token).map_err(|error| match error.kind() {
            // An algorithm that does not exist, `none` among them, is no part of a header.
            ErrorKind::Json(_) => TokenError::Header,
            _ => TokenError::Form,
        })?;
        if header.crit.is_some() {
            return Err(TokenError::Header);
        }
        let fits = |key: &&Key| {
            let named = header.kid.as_ref().zip(key.id.as_ref());
            key.algorithms.contains(&header.alg) && named.is_none_or(|(asked, has)| asked == has)
        };
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Form)?;
        let signed = self.0.iter().filter(fits).any(|key| {
            let verified = verify(signature, message.as_bytes(), &key.key, header.alg);
            verified.unwrap_or(false)
        });
        if signed {
            return insecure_decode_claims(token).map_err(|_| TokenError::Form);
        }
        Err(TokenError::Signature)
    }
}

fn unusable(file: &Path, reason: String) -> KeyFileError {
    KeyFileError::Unusable {
        file: file.to_owned(),
        reason,
    }
}

fn keys_of(text: &str) -> Result<Vec<Key>, String> {
    if text.contains("PRIVATE KEY") {
        return Err("holds a private key, which has no place on this server".to_owned());
    }
    if text.contains("-----BEGIN") {
        let parsers = [
            DecodingKey::from_rsa_pem,
            DecodingKey::from_ec_pem,
            DecodingKey::from_ed_pem,
        ];
        let public = text.contains("PUBLIC KEY-----");
        let mut parsed = parsers
            .into_iter()
            .filter_map(|parse| parse(text.as_bytes()).ok());
        let key = public.then(|| parsed.next()).flatten();
        let key = key.ok_or("is PEM, but no public key that is known here")?;
        return Ok(vec![
            usable(key, None, None).ok_or("has a key of an unknown kind")?,
        ]);
    }
    let set: JwkSet = serde_json::from_str(text)
        .map_err(|error| format!("is neither PEM nor a JWKS: {error}"))?;
    // A set may hold keys for other purposes.
    let keys: Vec<Key> = set.keys.iter().filter_map(of_jwk).collect();
    match keys.is_empty() {
        true => Err("is a JWKS without a key that can be used".to_owned()),
        false => Ok(keys),
    }
}

fn of_jwk(jwk: &Jwk) -> Option<Key> {
    let common = &jwk.common;
    let signs = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
    let only = match common.key_algorithm {
        Some(algorithm) => Some(Algorithm::try_from(algorithm).ok()?),
        None => None,
    };
    let key = DecodingKey::from_jwk(jwk).ok().filter(|_| signs)?;
    usable(key, only, common.key_id.clone())
}

/// `None` if there is no algorithm, of those that it is for, that the key works with.
fn usable(key: DecodingKey, only: Option<Algorithm>, id: Option<String>) -> Option<Key> {
    // An error, other than a signature that is wrong, is one of the key.
    let works = |algorithm: &Algorithm| {
        only.is_none_or(|only| only == *algorithm) && verify("AAAA", b"", &key, *algorithm).is_ok()
    };
    let algorithms: Vec<_> = algorithms(key.family()).into_iter().filter(works).collect();
    (!algorithms.is_empty()).then_some(Key {
        id,
        algorithms,
        key,
    })
}

fn algorithms(family: AlgorithmFamily) -> Vec<Algorithm> {
    match family {
        AlgorithmFamily::Hmac => vec![Algorithm::HS256, Algorithm::HS384, Algorithm::HS512],
        AlgorithmFamily::Rsa => vec![Algorithm::RS256, Algorithm::RS384, Algorithm::RS512],
        AlgorithmFamily::Ec => vec![Algorithm::ES256, Algorithm::ES384],
        AlgorithmFamily::Ed => vec![Algorithm::EdDSA],
    }
}
