//! The only table from what goes wrong to what is answered: problem documents as of RFC 9457.
//!
//! The kinds, with what they mean to a client, are those of `docs/problems.md`:
#![doc = include_str!("../../docs/problems.md")]

use std::fmt;

use actix_web::{
    HttpResponse, ResponseError,
    http::{
        StatusCode,
        header::{self, HeaderName, HeaderValue},
    },
};
use bytes::Bytes;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Value, json};

use crate::{
    access::{caller::Denied, token::TokenError},
    actors::Progress,
    config::UnknownNamespace,
    delta::{BadJson, BadRoomName, RoomName},
};

/// The content type of every problem document.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// Seconds until a queue has emptied, or a restarted server is there again.
const RETRY_SOON: u64 = 1;
/// Seconds until other clients may have left, or a person may have made room.
const RETRY_LATER: u64 = 10;

/// Longest piece of a request that a `detail` repeats, in characters.
const MAX_QUOTED: usize = 100;

/// What went wrong, as the client is told it. Serialises to the document.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    kind: Kind,
    detail: String,
    members: Vec<(&'static str, Value)>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    BadJson,
    BadBody,
    BadBatch,
    BadFields,
    BadRoomName,
    UnknownNamespace,
    UnknownParameter,
    BadParameter,
    BadIdempotencyKey,
    BadClientId,
    UnsupportedProtocol,
    Unauthorized,
    TokenExpired,
    Forbidden,
    Closed,
    ForeignOrigin,
    NotFound,
    NoSuchDelta,
    NotStored,
    MethodNotAllowed,
    TooLarge,
    TooManyDeltas,
    UpgradeRequired,
    Internal,
    NotTaken,
    OutcomeUnknown,
    Full,
    Draining,
    CatchingUp,
    Behind,
    NoSpace,
}

impl Kind {
    /// The last word of the type, the status and the title. None of them ever changes its meaning.
    const fn row(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::BadJson => ("bad-json", S::BAD_REQUEST, "Not JSON"),
            Self::BadBody => ("bad-body", S::BAD_REQUEST, "Bad body"),
            Self::BadBatch => ("bad-batch", S::BAD_REQUEST, "Not a batch"),
            Self::BadFields => ("bad-fields", S::BAD_REQUEST, "Bad fields"),
            Self::BadRoomName => ("bad-room-name", S::BAD_REQUEST, "Bad room name"),
            Self::UnknownNamespace => ("unknown-namespace", S::NOT_FOUND, "Unknown namespace"),
            Self::UnknownParameter => ("unknown-parameter", S::BAD_REQUEST, "Unknown parameter"),
            Self::BadParameter => ("bad-parameter", S::BAD_REQUEST, "Bad parameter"),
            Self::BadIdempotencyKey => {
                ("bad-idempotency-key", S::BAD_REQUEST, "Bad idempotency key")
            }
            Self::BadClientId => ("bad-client-id", S::BAD_REQUEST, "Bad client id"),
            Self::UnsupportedProtocol => (
                "unsupported-protocol",
                S::BAD_REQUEST,
                "Unsupported protocol",
            ),
            Self::Unauthorized => ("unauthorized", S::UNAUTHORIZED, "Unauthorized"),
            Self::TokenExpired => ("token-expired", S::UNAUTHORIZED, "Token expired"),
            Self::Forbidden => ("forbidden", S::FORBIDDEN, "Forbidden"),
            Self::Closed => ("closed", S::FORBIDDEN, "Closed"),
            Self::ForeignOrigin => ("foreign-origin", S::FORBIDDEN, "Foreign origin"),
            Self::NotFound => ("not-found", S::NOT_FOUND, "Not found"),
            Self::NoSuchDelta => ("no-such-delta", S::NOT_FOUND, "No such delta"),
            Self::NotStored => ("not-stored", S::NOT_FOUND, "Not stored"),
            Self::MethodNotAllowed => (
                "method-not-allowed",
                S::METHOD_NOT_ALLOWED,
                "Method not allowed",
            ),
            Self::TooLarge => ("too-large", S::PAYLOAD_TOO_LARGE, "Too large"),
            Self::TooManyDeltas => ("too-many-deltas", S::PAYLOAD_TOO_LARGE, "Too many deltas"),
            Self::UpgradeRequired => ("upgrade-required", S::UPGRADE_REQUIRED, "Upgrade required"),
            Self::Internal => ("internal", S::INTERNAL_SERVER_ERROR, "Internal error"),
            Self::NotTaken => ("not-taken", S::SERVICE_UNAVAILABLE, "Not taken"),
            Self::OutcomeUnknown => ("outcome-unknown", S::SERVICE_UNAVAILABLE, "Outcome unknown"),
            Self::Full => ("full", S::SERVICE_UNAVAILABLE, "Full"),
            Self::Draining => ("draining", S::SERVICE_UNAVAILABLE, "Stopping"),
            Self::CatchingUp => ("catching-up", S::SERVICE_UNAVAILABLE, "Catching up"),
            Self::Behind => ("behind", S::SERVICE_UNAVAILABLE, "Behind"),
            Self::NoSpace => ("no-space", S::INSUFFICIENT_STORAGE, "No space"),
        }
    }
}

impl Problem {
    pub fn bad_json(error: BadJson) -> Self {
        let problem = Self::new(Kind::BadJson, error.to_string());
        match error {
            BadJson::Syntax { line, column, .. } => {
                problem.with("line", line).with("column", column)
            }
            BadJson::Empty | BadJson::Encoding { .. } | BadJson::TooDeep { .. } => problem,
        }
    }

    /// The body did not arrive as HTTP says; `reason` tells why.
    pub fn bad_body(reason: impl fmt::Display) -> Self {
        Self::new(Kind::BadBody, format!("the body can't be read: {reason}"))
    }

    /// `reason` says what of the batch is wrong and what would be right.
    pub fn bad_batch(reason: impl Into<String>) -> Self {
        Self::new(Kind::BadBatch, reason)
    }

    /// `expected` says what the body is to be.
    pub fn bad_fields(expected: &str) -> Self {
        Self::new(
            Kind::BadFields,
            format!("the body is JSON, but not {expected}"),
        )
    }

    pub fn bad_room_name(error: BadRoomName) -> Self {
        Self::new(Kind::BadRoomName, error.to_string())
    }

    pub fn unknown_namespace(error: UnknownNamespace) -> Self {
        Self::new(Kind::UnknownNamespace, error.to_string())
    }

    pub fn unknown_parameter(name: &str, allowed: &[&str]) -> Self {
        let name = quoted(name);
        let takes = match allowed {
            [] => "none".to_owned(),
            allowed => allowed.join(", "),
        };
        Self::new(
            Kind::UnknownParameter,
            format!("there is no parameter {name} here; it takes {takes}"),
        )
        .with("allowed", allowed)
    }

    /// `expected` completes "it takes …".
    pub fn bad_parameter(name: &str, value: &str, expected: &str) -> Self {
        let value = quoted(value);
        Self::new(
            Kind::BadParameter,
            format!("the parameter {name} is {value}; it takes {expected}"),
        )
        .with("parameter", name)
    }

    pub fn bad_idempotency_key(key: &str) -> Self {
        let key = quoted(key);
        Self::new(
            Kind::BadIdempotencyKey,
            format!("the idempotency key is {key}; it takes 1 to 128 visible ASCII characters"),
        )
    }

    pub fn bad_client_id(id: &str) -> Self {
        let id = quoted(id);
        Self::new(
            Kind::BadClientId,
            format!(
                "the client to exclude is {id}; it takes the UUID that the server gave the client \
                 when it connected"
            ),
        )
    }

    /// `offered` are the sub-protocols that the client asked for.
    pub fn unsupported_protocol(offered: &str) -> Self {
        let offered = quoted(offered);
        Self::new(
            Kind::UnsupportedProtocol,
            format!(
                "the WebSocket offers the sub-protocol {offered}; this server speaks \
                 \"centrifuge-json\", which is also what no sub-protocol means, and \"centrifuge-protobuf\""
            ),
        )
    }

    /// Whoever asks has not shown that it may.
    pub fn denied(why: Denied) -> Self {
        let kind = match why {
            Denied::Token(TokenError::Expired) => Kind::TokenExpired,
            _ if why.is_unknown() => Kind::Unauthorized,
            _ => Kind::Forbidden,
        };
        let mut problem = Self::new(kind, why.to_string());
        if why.is_unknown() {
            let bearer = HeaderValue::from_static("Bearer realm=\"roomwire\"");
            problem.headers.push((header::WWW_AUTHENTICATE, bearer));
        }
        problem
    }

    /// Everything is, unless the server runs for development.
    pub fn closed() -> Self {
        Self::new(
            Kind::Closed,
            "this is not open on this server: to let everybody on this machine in, start it with \
             --dev; to let backends in, add an API key, which `roomwire key new` makes; to let \
             clients in, set access.token_secrets or access.token_key_files",
        )
    }

    pub fn foreign_origin(origin: &str) -> Self {
        let origin = quoted(origin);
        Self::new(
            Kind::ForeignOrigin,
            format!("pages of the origin {origin} may not connect; add it to http.allowed_origins"),
        )
    }

    pub fn not_found(path: &str) -> Self {
        let path = quoted(path);
        Self::new(Kind::NotFound, format!("there is nothing at {path}"))
    }

    /// Nothing that could be erased is at `offset` in `room`.
    pub fn no_such_delta(room: &RoomName, offset: u64) -> Self {
        Self::new(
            Kind::NoSuchDelta,
            format!(
                "room {room} has no delta at offset {offset}; it never had one, or it has trimmed it"
            ),
        )
    }

    /// What is to be erased is of another life of the log than `epoch`.
    pub fn other_epoch(epoch: &str) -> Self {
        Self::new(
            Kind::NoSuchDelta,
            format!("nothing is left of another epoch than {epoch}"),
        )
    }

    pub fn not_stored(room: &RoomName) -> Self {
        let namespace = room.namespace();
        Self::new(
            Kind::NotStored,
            format!(
                "nothing is kept of room {room}: namespaces.{namespace}.store is false, so there is \
                 nothing to read or to erase"
            ),
        )
    }

    pub fn method_not_allowed(method: &str, allowed: &[&'static str]) -> Self {
        let takes = allowed.join(", ");
        let mut problem = Self::new(
            Kind::MethodNotAllowed,
            format!("{} is not possible here; it takes {takes}", quoted(method)),
        )
        .with("allowed", allowed);
        let takes = HeaderValue::from_str(&takes).expect("names of methods are ASCII");
        problem.headers.push((header::ALLOW, takes));
        problem
    }

    /// `what` begins the sentence: "a delta", "a batch". `limit` is in bytes.
    pub fn too_large(what: &str, limit: usize) -> Self {
        Self::new(
            Kind::TooLarge,
            format!("{what} takes up to {limit} bytes, and this one is larger"),
        )
        .with("limit", limit)
    }

    pub fn too_many_deltas(count: usize, limit: usize) -> Self {
        Self::new(
            Kind::TooManyDeltas,
            format!("a batch takes up to {limit} deltas, and this one has {count}"),
        )
        .with("limit", limit)
    }

    /// `reason` says what the handshake lacks.
    pub fn upgrade_required(reason: &str) -> Self {
        let mut problem = Self::new(
            Kind::UpgradeRequired,
            format!("this path takes WebSocket handshakes (RFC 6455) only: {reason}"),
        );
        problem.headers.extend([
            (header::UPGRADE, HeaderValue::from_static("websocket")),
            (
                header::SEC_WEBSOCKET_VERSION,
                HeaderValue::from_static("13"),
            ),
        ]);
        problem
    }

    /// What failed is for the log, and not for strangers.
    pub fn internal() -> Self {
        Self::new(Kind::Internal, "the server failed; its log says why")
    }

    pub fn not_taken(why: impl fmt::Display) -> Self {
        Self::new(Kind::NotTaken, format!("nothing was published: {why}")).retry_after(RETRY_SOON)
    }

    pub fn outcome_unknown() -> Self {
        Self::new(
            Kind::OutcomeUnknown,
            "it is not known whether this was published; \
             with the same idempotency key, trying again is safe",
        )
        .retry_after(RETRY_SOON)
    }

    pub fn erasure_unknown() -> Self {
        Self::new(
            Kind::OutcomeUnknown,
            "it is not known whether this was erased; trying again is safe",
        )
        .retry_after(RETRY_SOON)
    }

    pub fn no_space() -> Self {
        Self::new(
            Kind::NoSpace,
            "nothing was published: the server's disk is full; \
             what was published before can still be read",
        )
        .retry_after(RETRY_LATER)
    }

    /// The server reads no more of a shared log, so its clients hear nothing new.
    pub fn reads_nothing(why: &str) -> Self {
        Self::new(
            Kind::Behind,
            format!("the server reads nothing more of the shared log: {why}"),
        )
        .retry_after(RETRY_LATER)
    }

    /// `limit` sessions are open.
    pub fn full(limit: usize) -> Self {
        Self::new(
            Kind::Full,
            format!("{limit} sessions are open, and the server takes no more"),
        )
        .with("limit", limit)
        .retry_after(RETRY_LATER)
    }

    pub fn draining() -> Self {
        Self::new(Kind::Draining, "the server is stopping").retry_after(RETRY_SOON)
    }

    pub fn catching_up(progress: &[Progress]) -> Self {
        let partitions: Vec<_> = progress
            .iter()
            .map(|of| json!({"read": of.read, "end": of.end}))
            .collect();
        Self::new(
            Kind::CatchingUp,
            "the server has just started and reads what it does not have yet",
        )
        .with("partitions", partitions)
        .retry_after(RETRY_SOON)
    }

    /// A position is asked for that the server has yet to read.
    pub fn behind() -> Self {
        Self::new(
            Kind::Behind,
            "the position is ahead of what this server has read; it may be there in a moment",
        )
        .retry_after(RETRY_SOON)
    }

    fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            members: Vec::new(),
            headers: Vec::new(),
        }
    }

    fn with(mut self, member: &'static str, value: impl Into<Value>) -> Self {
        self.members.push((member, value.into()));
        self
    }

    fn retry_after(mut self, seconds: u64) -> Self {
        self.headers.push((header::RETRY_AFTER, seconds.into()));
        self.with("retry_after", seconds)
    }

    /// The last word of the type: a stable name, for the labels of figures and logs.
    pub fn slug(&self) -> &'static str {
        let (slug, _, _) = self.kind.row();
        slug
    }

    /// Whether whoever asks is known, and may not do just this.
    pub fn is_forbidden(&self) -> bool {
        self.kind == Kind::Forbidden
    }

    /// What was wrong and what would be right, for people.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    pub fn status(&self) -> StatusCode {
        let (_, status, _) = self.kind.row();
        status
    }

    /// Status, headers (the content's length is not among them) and body, for those who write
    /// responses themselves.
    pub fn to_response_parts(&self) -> (StatusCode, Vec<(HeaderName, HeaderValue)>, Bytes) {
        let body = serde_json::to_vec(self).expect("texts and numbers always make JSON");
        let mut headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE))];
        headers.extend(self.headers.iter().cloned());
        (self.status(), headers, body.into())
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (slug, status, title) = self.kind.row();
        let mut document = serializer.serialize_map(None)?;
        document.serialize_entry("type", &format_args!("urn:roomwire:problem:{slug}"))?;
        document.serialize_entry("title", title)?;
        document.serialize_entry("status", &status.as_u16())?;
        document.serialize_entry("detail", &self.detail)?;
        for (member, value) in &self.members {
            document.serialize_entry(member, value)?;
        }
        document.end()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.slug(), self.detail)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status()
    }

    fn error_response(&self) -> HttpResponse {
        let (status, headers, body) = self.to_response_parts();
        let mut response = HttpResponse::build(status);
        for header in headers {
            response.insert_header(header);
        }
        response.body(body)
    }
}

/// As much of a piece of a request as a text repeats.
pub fn quoted(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests;
