//! The HTTP door: publishing, and reading histories.

use std::time::Duration;

use awc::{
    Client, ClientRequest, ClientResponse,
    error::{ConnectError, SendRequestError},
    http::{StatusCode, header},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{client::address::ServerUrl, delta::RoomName};

/// A publish waits for the server's disk; an answer that takes longer than this is taken for lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Where a published delta stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    pub room: String,
    pub offset: u64,
    pub epoch: String,
    pub id: String,
    /// Milliseconds since the Unix epoch.
    pub time: u64,
}

/// A server's refusal (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("{status} {title}: {detail}")]
pub struct Problem {
    pub status: u16,
    #[serde(default, rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub title: String,
    #[serde(default)]
    pub detail: String,
    /// When to try again, in seconds; read from the `Retry-After` header where there is one.
    #[serde(default)]
    pub retry_after: Option<u64>,
}

impl Problem {
    /// Whether the same request, with its keys, may give positions later: the server is full,
    /// stopping, or out of disk space, or has yet to read back what it published.
    pub fn is_temporary(&self) -> bool {
        self.is_published() || matches!(self.status, 503 | 507)
    }

    /// Whether the delta is in the log for good, and only its position is not known yet.
    pub fn is_published(&self) -> bool {
        self.status == StatusCode::ACCEPTED.as_u16()
    }

    fn not_read_back() -> Self {
        Self {
            status: StatusCode::ACCEPTED.as_u16(),
            kind: String::new(),
            title: "published".into(),
            detail: "the server has yet to read back from the log where".into(),
            retry_after: None,
        }
    }

    /// Whether nothing was published, so that even a delta without an id can be sent again.
    pub fn is_not_taken(&self) -> bool {
        self.kind == "urn:roomwire:problem:not-taken"
    }
}

/// Why a request has no result.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("cannot reach {url}: {reason}")]
    Unreachable { url: ServerUrl, reason: String },
    /// What became of the request is unknown.
    #[error("lost the answer of {url}: {reason}")]
    Lost { url: ServerUrl, reason: String },
    #[error(transparent)]
    Problem(#[from] Problem),
    #[error("{url} answered {what}; is it a Roomwire server?")]
    Unexpected { url: ServerUrl, what: String },
}

/// A server that is ready.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Readiness {
    /// Of a log that it shares with others, in their order.
    #[serde(default)]
    pub partitions: Vec<Reading>,
}

/// How a server reads a partition of its log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    pub connected: bool,
    /// The last position that it has read.
    pub read: u64,
    /// Positions that it knows to be ahead.
    pub behind: u64,
    pub lag_seconds: f64,
}

/// One entry of a batch: taken, or refused by itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Outcome {
    Accepted(Accepted),
    Refused(Problem),
}

/// Which of a room's deltas are asked for.
#[derive(Debug, Clone, Default, Serialize)]
pub struct HistoryQuery {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Milliseconds since the Unix epoch; not together with `after`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// Deltas in one answer, at most [`HistoryQuery::MOST`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    #[serde(rename = "order", serialize_with = "order")]
    pub newest_first: bool,
}

fn order<S: serde::Serializer>(newest_first: &bool, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(if *newest_first { "newest" } else { "oldest" })
}

impl HistoryQuery {
    /// Most deltas that a server gives in one answer.
    pub const MOST: u64 = 1000;

    /// Asks for what comes behind the last delta of a page.
    pub fn go_on_behind(&mut self, offset: u64, epoch: String) {
        if self.newest_first {
            self.before = Some(offset);
        } else {
            self.after = Some(offset);
            self.since = None;
            self.epoch = Some(epoch);
        }
    }
}

/// Deltas of one room, in the order asked for.
#[derive(Debug, Deserialize)]
pub struct HistoryPage {
    pub epoch: String,
    /// Whether nothing is missing between what was asked for and what is here.
    pub recovered: bool,
    pub deltas: Vec<HistoryDelta>,
    /// Offset of the room's newest delta.
    pub newest: u64,
    /// Whether the limit cut the page off.
    pub more: bool,
}

#[derive(Debug, Deserialize)]
pub struct HistoryDelta {
    pub offset: u64,
    /// Milliseconds since the Unix epoch.
    pub time: u64,
    pub id: String,
    pub info: Option<Box<RawValue>>,
    pub data: Box<RawValue>,
}

/// Some of the rooms that have a history.
#[derive(Debug, Deserialize)]
pub struct RoomsPage {
    pub rooms: Vec<RoomEntry>,
    /// Behind which room to go on; none at the end.
    pub next: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct RoomEntry {
    pub room: String,
}

/// Keeps its connections for the next request; cheap to clone, bound to its thread.
#[derive(Clone)]
pub struct HttpClient {
    client: Client,
    url: ServerUrl,
}

impl HttpClient {
    pub fn new(url: ServerUrl) -> Self {
        let mut client = Client::builder().timeout(ANSWER_TIMEOUT);
        if let Some(bearer) = url.bearer() {
            client = client.bearer_auth(bearer);
        }
        Self {
            client: client.finish(),
            url,
        }
    }

    /// Publishes one JSON value; the server takes it once per `key`, however often it is sent.
    pub async fn publish(
        &self,
        room: &RoomName,
        json: Bytes,
        key: &str,
    ) -> Result<Accepted, HttpError> {
        let request = self
            .client
            .post(self.room_url(room))
            .insert_header((header::CONTENT_TYPE, "application/json"))
            .insert_header(("Idempotency-Key", key));
        self.answer(request, json).await
    }

    /// What the server says of itself and of its log.
    pub async fn readiness(&self) -> Result<Readiness, HttpError> {
        let request = self.client.get(format!("{}/readyz", self.url));
        self.answer(request, Bytes::new()).await
    }

    /// Publishes `batch`, a JSON array of `{"room","data","id"?}`; its outcomes are in the order of
    /// its entries.
    pub async fn publish_batch(&self, batch: Bytes) -> Result<Vec<Outcome>, HttpError> {
        #[derive(Deserialize)]
        struct Results {
            results: Vec<Outcome>,
        }
        let request = self
            .client
            .post(format!("{}/v1/deltas", self.url))
            .insert_header((header::CONTENT_TYPE, "application/json"));
        let answer: Results = self.answer(request, batch).await?;
        Ok(answer.results)
    }

    /// Reads a page of a room's history.
    pub async fn history(
        &self,
        room: &RoomName,
        query: &HistoryQuery,
    ) -> Result<HistoryPage, HttpError> {
        let request = self
            .client
            .get(self.room_url(room))
            .query(query)
            .expect("numbers and texts make a query string");
        self.answer(request, Bytes::new()).await
    }

    /// Reads names of rooms that match `pattern` and come behind `after`.
    pub async fn rooms(
        &self,
        pattern: &str,
        after: Option<&RoomName>,
    ) -> Result<RoomsPage, HttpError> {
        let mut query = vec![("match", pattern), ("limit", "1000")];
        query.extend(after.map(|after| ("after", after.as_str())));
        let request = self
            .client
            .get(format!("{}/v1/rooms", self.url))
            .query(&query)
            .expect("texts make a query string");
        self.answer(request, Bytes::new()).await
    }

    fn room_url(&self, room: &RoomName) -> String {
        let mut url = format!("{}/v1/rooms/", self.url);
        percent_encode(room.as_str(), &mut url);
        url + "/deltas"
    }

    async fn answer<T: for<'a> Deserialize<'a>>(
        &self,
        request: ClientRequest,
        body: Bytes,
    ) -> Result<T, HttpError> {
        let mut response = request.send_body(body).await.map_err(|error| match error {
            SendRequestError::Connect(error) => self.unreachable(error),
            error => self.lost(error),
        })?;
        let status = response.status();
        let body = response
            .body()
            .limit(MAX_ANSWER_BYTES)
            .await
            .map_err(|error| self.lost(error))?;
        if status == StatusCode::ACCEPTED {
            return Err(Problem::not_read_back().into());
        }
        if !status.is_success() {
            return Err(self.problem(status, &response, &body));
        }
        serde_json::from_slice(&body).map_err(|error| HttpError::Unexpected {
            url: self.url.clone(),
            what: format!("{status} with a body that was not expected ({error})"),
        })
    }

    fn problem<S>(
        &self,
        status: StatusCode,
        response: &ClientResponse<S>,
        body: &[u8],
    ) -> HttpError {
        let Ok(mut problem) = serde_json::from_slice::<Problem>(body) else {
            return HttpError::Unexpected {
                url: self.url.clone(),
                what: status.to_string(),
            };
        };
        let seconds = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        problem.retry_after = seconds.or(problem.retry_after);
        problem.into()
    }

    fn unreachable(&self, error: ConnectError) -> HttpError {
        HttpError::Unreachable {
            url: self.url.clone(),
            reason: match error {
                ConnectError::Io(error) => error.to_string(),
                error => error.to_string(),
            },
        }
    }

    fn lost(&self, error: impl ToString) -> HttpError {
        HttpError::Lost {
            url: self.url.clone(),
            reason: error.to_string(),
        }
    }
}

fn percent_encode(text: &str, into: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(byte as char);
        } else {
            *into += &format!("%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake::FakeServer;

    #[actix_rt::test]
    async fn a_delta_is_published_under_its_room_with_its_key() {
        let server = FakeServer::start([(
            201,
            r#"{"room":"a#é","offset":7,"epoch":"e","id":"k","time":1}"#,
        )])
        .await;
        let room = RoomName::new("a#é").unwrap();
        let accepted = HttpClient::new(server.url())
            .publish(&room, "{\"x\":1}".into(), "k")
            .await
            .unwrap();
        assert_eq!(accepted.offset, 7);
        let request = &server.requests()[0];
        assert!(
            request
                .head
                .starts_with("POST /v1/rooms/a%23%C3%A9/deltas ")
        );
        assert!(request.head.contains("idempotency-key: k\r\n"));
        assert_eq!(request.body, "{\"x\":1}");
    }

    #[actix_rt::test]
    async fn a_batch_is_answered_entry_by_entry() {
        let server = FakeServer::start([(
            200,
            r#"{"results":[{"status":201,"room":"a","offset":7,"epoch":"e","id":"k","time":1},
                {"status":400,"type":"urn:x","title":"bad room name","detail":"why"}]}"#,
        )])
        .await;
        let outcomes = HttpClient::new(server.url())
            .publish_batch("[]".into())
            .await
            .unwrap();
        assert!(matches!(&outcomes[0], Outcome::Accepted(accepted) if accepted.offset == 7));
        let Outcome::Refused(problem) = &outcomes[1] else {
            panic!("{outcomes:?}");
        };
        assert_eq!(problem.to_string(), "400 bad room name: why");
    }

    #[actix_rt::test]
    async fn a_refusal_tells_its_detail_and_when_to_come_back() {
        let server = FakeServer::start([(
            503,
            r#"{"status":503,"type":"urn:x","title":"not taken","detail":"the queue is full"}"#,
        )])
        .await;
        let error = HttpClient::new(server.url())
            .publish_batch("[]".into())
            .await
            .unwrap_err();
        let HttpError::Problem(problem) = error else {
            panic!("{error}");
        };
        assert!(problem.is_temporary());
        assert_eq!(problem.retry_after, Some(1));
        assert_eq!(problem.to_string(), "503 not taken: the queue is full");
    }

    #[actix_rt::test]
    async fn what_is_no_roomwire_server_is_named() {
        let server = FakeServer::start([(200, "<html>")]).await;
        let client = HttpClient::new(server.url());
        let error = client.publish_batch("[]".into()).await.unwrap_err();
        assert!(
            error.to_string().ends_with("is it a Roomwire server?"),
            "{error}"
        );

        let nobody: ServerUrl = "http://127.0.0.1:1".parse().unwrap();
        let error = HttpClient::new(nobody).publish_batch("[]".into()).await;
        assert_eq!(
            error.unwrap_err().to_string(),
            "cannot reach http://127.0.0.1:1: Connection refused (os error 111)"
        );
    }
}
