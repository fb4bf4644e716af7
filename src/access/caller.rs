//! Who sends an HTTP request, and what it may do. The same rules as for sockets, in the same [`rules`].

use std::{sync::Arc, time::Duration};

use super::{Access, Client, Unwelcome, api_key::ApiKey, rules, token::TokenError};
use crate::{
    config::{RoomAccess, Scope},
    delta::RoomName,
};

/// What a request shows of its sender; of several, the first counts.
#[derive(Clone, Copy, Default)]
pub struct Shown<'a> {
    /// `X-API-Key`, or `Authorization: apikey`: an API key.
    pub api_key: Option<&'a str>,
    /// `Authorization: Bearer`: an API key, or a client's token.
    pub bearer: Option<&'a str>,
    /// A client's token.
    pub cookie: Option<&'a str>,
}

/// Who may do something, within its bounds.
#[derive(Debug, Clone, PartialEq)]
pub enum Caller {
    /// With `dev`, whoever shows nothing.
    Anybody,
    Key(Arc<ApiKey>),
    Client(Client),
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("an API key is needed, as \"Authorization: Bearer\" or X-API-Key")]
    NoKey,
    #[error("a token or an API key is needed, as \"Authorization: Bearer\"")]
    Nothing,
    #[error("the API key is not one of this server's")]
    UnknownKey,
    #[error(transparent)]
    Token(TokenError),
    #[error("the API key {key:?} does not have the scope {:?}", scope.name())]
    Scope { key: String, scope: Scope },
    #[error("the API key {key:?} is not for the room {room:?}")]
    RoomOfKey { key: String, room: RoomName },
    #[error("the room {room:?} is not open to this client; its token must name it in rooms")]
    Room { room: RoomName },
}

impl Denied {
    /// Whether other credentials would be answered differently, in place of more rights for these.
    pub fn is_unknown(&self) -> bool {
        use Denied as D;
        matches!(self, D::NoKey | D::Nothing | D::UnknownKey | D::Token(_))
    }
}

impl Access {
    /// Who wants to do what takes an API key with `scope`.
    pub fn keyholder(&self, shown: Shown<'_>, scope: Scope) -> Result<Caller, Denied> {
        let Some(key) = shown.api_key.or(shown.bearer) else {
            return self.dev.then_some(Caller::Anybody).ok_or(Denied::NoKey);
        };
        let key = self.api_keys.find(key).ok_or(Denied::UnknownKey)?;
        with_scope(key, scope)
    }

    /// Who wants to read. `now` is in seconds since the Unix epoch.
    pub fn reader(&self, shown: Shown<'_>, now: u64) -> Result<Caller, Denied> {
        if let Some(key) = shown.api_key {
            let key = self.api_keys.find(key).ok_or(Denied::UnknownKey)?;
            return with_scope(key, Scope::Read);
        }
        if let Some(key) = shown.bearer.and_then(|bearer| self.api_keys.find(bearer)) {
            return with_scope(key, Scope::Read);
        }
        let token = shown.bearer.or(shown.cookie).unwrap_or_default();
        self.client(token, now)
            .map(Caller::Client)
            .map_err(|why| match why {
                Unwelcome::NoToken => Denied::Nothing,
                Unwelcome::Token(why) => Denied::Token(why),
            })
    }
}

impl Caller {
    /// Whether the room is open to it; `access` is what the room's namespace says.
    pub fn may_read(&self, room: &RoomName, access: RoomAccess) -> Result<(), Denied> {
        match self {
            Self::Client(Client { user, grants, .. }) => {
                rules::admits(access, user, grants.as_deref(), room)
                    .then_some(())
                    .ok_or_else(|| Denied::Room { room: room.clone() })
            }
            Self::Anybody | Self::Key(_) => self.may_touch(room),
        }
    }

    /// Whether it may do in this room what its scope is for.
    pub fn may_touch(&self, room: &RoomName) -> Result<(), Denied> {
        match self {
            Self::Key(key) if !key.covers(room) => Err(Denied::RoomOfKey {
                key: key.name().to_owned(),
                room: room.clone(),
            }),
            // A client has no scope.
            Self::Client(_) => Err(Denied::NoKey),
            Self::Anybody | Self::Key(_) => Ok(()),
        }
    }

    /// Empty unless it is a client with a name.
    pub fn user(&self) -> Arc<str> {
        match self {
            Self::Client(client) => client.user.clone(),
            Self::Anybody | Self::Key(_) => Arc::default(),
        }
    }

    /// For how long a client's token counts; `None` is for ever. `now` is in seconds since the Unix epoch.
    pub fn lasts(&self, now: u64) -> Option<Duration> {
        match self {
            Self::Client(Client {
                expires: Some(end), ..
            }) => Some(Duration::from_secs(end.saturating_sub(now))),
            _ => None,
        }
    }
}

fn with_scope(key: &Arc<ApiKey>, scope: Scope) -> Result<Caller, Denied> {
    match key.has(scope) {
        true => Ok(Caller::Key(key.clone())),
        false => Err(Denied::Scope {
            key: key.name().to_owned(),
            scope,
        }),
    }
}

#[cfg(test)]
#[path = "caller_tests.rs"]
mod tests;
