//! Who may do what: tokens of clients, and the rules of namespaces. Pure: time is an argument, and nothing here knows
//! how a request came.
//!
//! A client shows a connection token, a JWT that the application's backend has signed. It names the user, and may name
//! rooms. Whether a room may be followed is decided in one place, [`rules`], for every transport.

pub mod api_key;
pub mod caller;
pub mod keyset;
pub mod pattern;
pub mod rules;
pub mod token;

use std::sync::Arc;

use self::{
    api_key::ApiKeys,
    keyset::{KeyFileError, KeySet},
    pattern::Pattern,
    token::{TokenError, TokenRules},
};
use crate::{
    config::{Access as Settings, ApiKey as Key},
    delta::RoomName,
};

/// What decides about clients on this server. Made from the settings; made anew when they change.
#[derive(Debug)]
pub struct Access {
    keys: KeySet,
    rules: TokenRules,
    anonymous: bool,
    dev: bool,
    api_keys: ApiKeys,
    cookie: Option<String>,
}

/// Who a client is, and what its connection token lets it do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Client {
    /// Empty: anonymous.
    pub user: Arc<str>,
    /// What others may know of it: one line of JSON.
    pub info: Option<Arc<str>>,
    /// Seconds since the Unix epoch.
    pub expires: Option<u64>,
    /// `None` if the token names no room.
    pub grants: Option<Box<Grants>>,
}

/// What a connection token opens, whatever the namespaces say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// Rooms that the client may follow.
    pub rooms: Vec<Pattern>,
}

impl Grants {
    fn open(&self, room: &RoomName) -> bool {
        self.rooms.iter().any(|pattern| pattern.matches(room))
    }
}

/// Why a client may not connect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unwelcome {
    #[error("a token is needed")]
    NoToken,
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl Access {
    /// Reads the key files. With `dev`, clients may come without a token, and publishers without a key.
    pub fn open(settings: &Settings, keys: &[Key], dev: bool) -> Result<Self, KeyFileError> {
        Ok(Self {
            keys: KeySet::read(&settings.token_secrets, &settings.token_key_files)?,
            rules: TokenRules {
                audience: settings.token_audience.clone(),
                issuer: settings.token_issuer.clone(),
                leeway: settings.token_leeway.as_secs(),
            },
            anonymous: settings.anonymous || dev,
            dev,
            api_keys: ApiKeys::new(keys),
            cookie: settings.token_cookie.clone(),
        })
    }

    /// Whether any client could connect at all.
    pub fn takes_clients(&self) -> bool {
        self.anonymous || !self.keys.is_empty()
    }

    /// Whether there is an API key, or none is needed.
    pub fn takes_keys(&self) -> bool {
        self.dev || !self.api_keys.is_empty()
    }

    /// The cookie that may hold a client's token.
    pub fn cookie(&self) -> Option<&str> {
        self.cookie.as_deref()
    }

    /// Who comes with `token`; empty stands for none. `now` is in seconds since the Unix epoch.
    pub fn client(&self, token: &str, now: u64) -> Result<Client, Unwelcome> {
        match token {
            "" if self.anonymous => Ok(Client::default()),
            "" => Err(Unwelcome::NoToken),
            token => Ok(self.rules.connection(&self.keys, token, now)?),
        }
    }

    /// Until when `user` may follow `room` by a subscription token, in seconds since the Unix epoch; `None` is for ever.
    pub fn subscription(
        &self,
        token: &str,
        user: &str,
        room: &str,
        now: u64,
    ) -> Result<Option<u64>, TokenError> {
        self.rules.subscription(&self.keys, token, user, room, now)
    }
}
