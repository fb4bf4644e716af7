//! Where a broker is, and with which credentials: those never show.

use std::fmt;

use lapin::uri::AMQPUri;

/// Seconds between heartbeats of a connection whose address names none. Two that are missed end it.
const HEARTBEAT_SECONDS: u16 = 10;

/// A broker's address, `amqp://user:password@host:port/vhost` or with `amqps://`. Shown without
/// user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(Box<AMQPUri>);

/// Why a text is no address. Does not show the text, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the address of a broker is amqp://user:password@host:port/vhost, or amqps://…; here {reason}"
)]
pub struct BadAddress {
    reason: String,
}

impl Address {
    pub fn parse(text: &str) -> Result<Self, BadAddress> {
        let bad = |reason: String| BadAddress { reason };
        let rest = text
            .strip_prefix("amqp://")
            .or_else(|| text.strip_prefix("amqps://"))
            .ok_or_else(|| bad("it begins with neither".into()))?;
        let mut uri: AMQPUri = text.parse().map_err(bad)?;
        if let Some(host) = ipv6_literal(rest) {
            // The parser knows names and IPv4 only, and would take the local host.
            uri.authority.host = host.into();
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        Ok(Self(Box::new(uri)))
    }

    pub fn vhost(&self) -> &str {
        &self.0.vhost
    }

    /// The whole address, to connect with.
    pub(super) fn uri(&self) -> AMQPUri {
        (*self.0).clone()
    }
}

fn ipv6_literal(rest: &str) -> Option<&str> {
    let authority = rest.split(['/', '?']).next()?;
    let host = authority.rsplit('@').next()?;
    host.strip_prefix('[')?.split_once(']').map(|(ip, _)| ip)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AMQPUri {
            scheme,
            authority,
            vhost,
            ..
        } = &*self.0;
        match authority.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", authority.host, authority.port)?,
            false => write!(f, "{scheme}://{}:{}", authority.host, authority.port)?,
        }
        match vhost.as_str() {
            "/" => Ok(()),
            vhost => write!(f, "/{vhost}"),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_shows_where_the_broker_is_and_no_credentials() {
        let address = Address::parse("amqps://anna:s3cret@mq.example:5999/chat").unwrap();
        assert_eq!(address.to_string(), "amqps://mq.example:5999/chat");
        assert_eq!(
            format!("{address:?}"),
            "Address(amqps://mq.example:5999/chat)"
        );
        assert_eq!(address.uri().authority.userinfo.password, "s3cret");
    }

    #[test]
    fn defaults_are_rabbitmqs_own() {
        let address = Address::parse("amqp://localhost").unwrap();
        assert_eq!(address.to_string(), "amqp://localhost:5672");
        assert_eq!(address.uri().vhost, "/");
        assert_eq!(address.uri().query.heartbeat, Some(HEARTBEAT_SECONDS));
    }

    #[test]
    fn an_ipv6_host_is_taken_as_it_stands() {
        let address = Address::parse("amqp://anna:pass@[::1]:5699/%2f").unwrap();
        assert_eq!(address.to_string(), "amqp://[::1]:5699");
        assert_eq!(address.uri().authority.host, "::1");
    }

    #[test]
    fn what_is_wrong_is_told_without_the_password() {
        for text in [
            "http://anna:s3cret@mq",
            "amqp:anna:s3cret@mq",
            "amqp://anna:s3cret@mq:port",
            "amqp://anna:s3cret@mq/?heartbeat=s3cret",
        ] {
            let error = Address::parse(text).unwrap_err().to_string();
            assert!(error.starts_with("the address of a broker is amqp://"));
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
