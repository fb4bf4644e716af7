//! Who sends a request: its headers as `access` takes them, and its answers as problems.
//!
//! Whatever reads rooms over HTTP asks [`State::reader`] and [`State::readable`], so that no transport differs.

use actix_web::http::header::{self, HeaderMap};

use super::{error::Problem, routes::State};
use crate::{
    access::caller::{Caller, Shown},
    config::Scope,
    delta::RoomName,
    log::publisher::wall_clock_ms,
};

const API_KEY: &str = "X-API-Key";

/// What a request's headers show. `cookie` names the one that may hold a client's token.
pub fn shown<'a>(headers: &'a HeaderMap, cookie: Option<&str>) -> Shown<'a> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let authorization = |scheme| credentials_of(scheme, text(header::AUTHORIZATION.as_str())?);
    Shown {
        api_key: text(API_KEY).or_else(|| authorization("apikey")),
        bearer: authorization("bearer"),
        cookie: cookie.and_then(|name| cookie_of(headers, name)),
    }
}

/// A client's token, as a handshake may show it.
pub fn token(headers: &HeaderMap, cookie: Option<&str>) -> Option<Box<str>> {
    let shown = shown(headers, cookie);
    shown.bearer.or(shown.cookie).map(Box::from)
}

fn credentials_of<'a>(scheme: &str, authorization: &'a str) -> Option<&'a str> {
    let (named, credentials) = authorization.split_once(' ')?;
    named
        .eq_ignore_ascii_case(scheme)
        .then(|| credentials.trim())
}

fn cookie_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let cookies = headers.get_all(header::COOKIE);
    let mut pairs = cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(named, _)| *named == name)?;
    Some(value.trim_matches('"'))
}

impl State {
    /// Who wants to read.
    pub fn reader(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let access = &self.services.access;
        if !access.takes_clients() && !access.takes_keys() {
            return Err(Problem::closed());
        }
        self.must_be_up()?;
        let shown = shown(headers, access.cookie());
        access
            .reader(shown, wall_clock_ms() / 1000)
            .map_err(Problem::denied)
    }

    /// The room of that name, if `reader` may read it.
    pub fn readable(&self, reader: &Caller, name: &str) -> Result<RoomName, Problem> {
        let room = self.room(name)?;
        let namespace = self.services.namespaces.of(&room);
        let access = namespace.map_err(Problem::unknown_namespace)?.access;
        reader.may_read(&room, access).map_err(Problem::denied)?;
        Ok(room)
    }

    /// Who wants to do what takes a key with `scope`.
    pub fn keyholder(&self, headers: &HeaderMap, scope: Scope) -> Result<Caller, Problem> {
        let access = &self.services.access;
        if !access.takes_keys() {
            return Err(Problem::closed());
        }
        self.must_be_up()?;
        let shown = shown(headers, None);
        access.keyholder(shown, scope).map_err(Problem::denied)
    }

    /// The room of that name, if `caller` may touch it.
    pub fn touchable(&self, caller: &Caller, name: &str) -> Result<RoomName, Problem> {
        let room = self.room(name)?;
        caller.may_touch(&room).map_err(Problem::denied)?;
        Ok(room)
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn credentials_are_read_from_their_headers_alone() {
        let all = headers(&[
            ("Authorization", "bearer  a.b.c "),
            ("X-API-Key", "k"),
            ("Cookie", "other=1; roomwire=\"d.e.f\"; roomwire=later"),
        ]);
        let shown_with = |cookie| shown(&all, cookie);
        assert_eq!(shown_with(None).bearer, Some("a.b.c"));
        assert_eq!(shown_with(None).api_key, Some("k"));
        assert_eq!(shown_with(None).cookie, None);
        assert_eq!(shown_with(Some("roomwire")).cookie, Some("d.e.f"));
        assert_eq!(shown_with(Some("oomwire")).cookie, None);
        let of_centrifugo = headers(&[("Authorization", "apikey k")]);
        assert_eq!(shown(&of_centrifugo, None).api_key, Some("k"));
        assert_eq!(shown(&of_centrifugo, None).bearer, None);
        for authorization in ["Basic a.b.c", "Bearer", "a.b.c"] {
            let headers = headers(&[("Authorization", authorization)]);
            assert_eq!(shown(&headers, None).bearer, None, "{authorization}");
        }
    }
}
