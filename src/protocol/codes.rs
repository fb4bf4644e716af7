//! Numbers of the protocol: errors in replies, ends of subscriptions, closes of connections.
//!
//! Source: `errors.go`, `unsubscribe.go` and `disconnect.go` of `centrifugal/centrifuge`.

use std::borrow::Cow;

use serde::Serialize;

/// An error in a reply. Both `code` and `message` are mandatory on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorCode {
    pub code: u32,
    pub message: Cow<'static, str>,
    /// The client should try again after a pause.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub temporary: bool,
}

const fn error(code: u32, message: &'static str, temporary: bool) -> ErrorCode {
    ErrorCode {
        code,
        message: Cow::Borrowed(message),
        temporary,
    }
}

impl ErrorCode {
    pub const INTERNAL: Self = error(100, "internal server error", true);
    pub const UNKNOWN_CHANNEL: Self = error(102, "unknown channel", false);
    pub const PERMISSION_DENIED: Self = error(103, "permission denied", false);
    pub const METHOD_NOT_FOUND: Self = error(104, "method not found", false);
    pub const ALREADY_SUBSCRIBED: Self = error(105, "already subscribed", false);
    pub const LIMIT_EXCEEDED: Self = error(106, "limit exceeded", false);
    pub const BAD_REQUEST: Self = error(107, "bad request", false);
    pub const NOT_AVAILABLE: Self = error(108, "not available", false);
    /// The client fetches another token and tries again.
    pub const TOKEN_EXPIRED: Self = error(109, "token expired", false);
    /// The token that a subscription was to be refreshed with.
    pub const EXPIRED: Self = error(110, "expired", false);
    pub const TOO_MANY_REQUESTS: Self = error(111, "too many requests", true);
    pub const UNRECOVERABLE_POSITION: Self = error(112, "unrecoverable position", false);

    /// The same code with the standard text and what exactly is wrong.
    pub fn because(self, detail: impl std::fmt::Display) -> Self {
        Self {
            message: format!("{}: {detail}", self.message).into(),
            ..self
        }
    }
}

/// Why the server ends a connection. Clients return after every code but 3500–3999 and 4500–4999.
///
/// The reason is never empty and never valid JSON: centrifuge-js ignores the code of an empty one, and reads
/// `reconnect` from one that parses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnect {
    pub code: u16,
    pub reason: &'static str,
}

impl Disconnect {
    const fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason }
    }

    /// The client closed; echoed to it.
    pub const NORMAL: Self = Self::new(1000, "bye");
    /// A frame breaks RFC 6455.
    pub const PROTOCOL_ERROR: Self = Self::new(1002, "protocol error");
    /// A command is longer than `limits.max_command_bytes`.
    pub const TOO_BIG: Self = Self::new(1009, "message size limit");
    /// The client was told that it may not connect, and did not close itself.
    pub const CLOSED: Self = Self::new(3000, "connection closed");
    pub const SHUTDOWN: Self = Self::new(3001, "shutdown");
    pub const INTERNAL: Self = Self::new(3004, "internal server error");
    /// The client's token has ended.
    pub const EXPIRED: Self = Self::new(3005, "connection expired");
    pub const SLOW: Self = Self::new(3008, "slow");
    pub const INSUFFICIENT_STATE: Self = Self::new(3010, "insufficient state");
    pub const NO_PONG: Self = Self::new(3012, "no pong");
    pub const INVALID_TOKEN: Self = Self::new(3500, "invalid token");
    pub const BAD_REQUEST: Self = Self::new(3501, "bad request");
    pub const STALE: Self = Self::new(3502, "stale");
    /// An administrator has ended the session.
    pub const FORCED: Self = Self::new(3503, "force disconnect");
    pub const NOT_AVAILABLE: Self = Self::new(3508, "not available");
}

/// Why the server ends one subscription. From 2500 on the client subscribes again at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Unsubscribe {
    pub code: u32,
    pub reason: &'static str,
}

impl Unsubscribe {
    /// The client may not follow the room any more.
    pub const REVOKED: Self = Self {
        code: 2000,
        reason: "server unsubscribe",
    };
    /// Its token was not refreshed.
    pub const EXPIRED: Self = Self {
        code: 2501,
        reason: "subscription expired",
    };
    /// The history was trimmed past the place that the replay had come to.
    pub const INSUFFICIENT_STATE: Self = Self {
        code: 2500,
        reason: "insufficient state",
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_close_reason_is_empty_or_parses_as_json_or_is_too_long_for_a_close_frame() {
        for close in [
            Disconnect::NORMAL,
            Disconnect::PROTOCOL_ERROR,
            Disconnect::TOO_BIG,
            Disconnect::CLOSED,
            Disconnect::SHUTDOWN,
            Disconnect::INTERNAL,
            Disconnect::EXPIRED,
            Disconnect::SLOW,
            Disconnect::INSUFFICIENT_STATE,
            Disconnect::NO_PONG,
            Disconnect::INVALID_TOKEN,
            Disconnect::BAD_REQUEST,
            Disconnect::STALE,
            Disconnect::FORCED,
            Disconnect::NOT_AVAILABLE,
        ] {
            assert!((1..=123).contains(&close.reason.len()), "{close:?}");
            assert!(
                serde_json::from_str::<serde_json::Value>(close.reason).is_err(),
                "{close:?}"
            );
        }
    }

    #[test]
    fn an_error_carries_code_and_message_and_temporary_only_if_so() {
        assert_eq!(
            serde_json::to_string(&ErrorCode::PERMISSION_DENIED).unwrap(),
            r#"{"code":103,"message":"permission denied"}"#
        );
        assert_eq!(
            serde_json::to_string(&ErrorCode::INTERNAL.because("x")).unwrap(),
            r#"{"code":100,"message":"internal server error: x","temporary":true}"#
        );
    }
}
