//! Publishing: one delta, or a batch. A 2xx is on disk, or safe in a shared log.

use std::{sync::Arc, time::Instant};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{self, HeaderMap},
    },
    web::{Data, Path, Payload},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tracing::{Instrument, info_span};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    error::Problem,
    openapi::{
        RoomParameter,
        forms::{BatchForm, ClientForm, PlacementForm, ResultForm},
    },
    query::Parameters,
    routes::State,
};
use crate::{
    access::caller::Caller,
    config::Scope,
    delta::{Epoch, RoomName, compact_json, is_key},
    log::publisher::{NewDelta, PublishError, Published},
    metrics::Intake,
};

/// What a batch says about the client that published a delta.
const MAX_INFO_BYTES: usize = 8 * 1024;

/// Where a delta is.
#[derive(Serialize, ToSchema)]
pub struct Receipt<'a> {
    #[schema(value_type = String)]
    room: &'a RoomName,
    /// Its place: offsets grow strictly within a room, not by one.
    offset: u64,
    /// Names the life of the log: offsets of two epochs can't be compared.
    #[schema(value_type = String)]
    epoch: &'a Epoch,
    /// The idempotency key, or an id that the server made.
    id: &'a str,
    /// Milliseconds since the Unix epoch.
    time: u64,
}

/// A delta without its place: it was not asked for, or is not known yet.
#[derive(Serialize, ToSchema)]
pub struct IdOnly<'a> {
    id: &'a str,
}

/// One entry of the answer to a batch.
#[derive(Serialize)]
#[serde(untagged)]
enum Entry<'a> {
    Placed {
        status: u16,
        #[serde(flatten)]
        receipt: Receipt<'a>,
    },
    Unplaced {
        status: u16,
        id: &'a str,
    },
    Refused(&'a Problem),
}

/// What became of a delta that was published.
pub enum Outcome {
    Placed(Published),
    /// It has no place yet, or never gets one.
    Unplaced(Arc<str>),
}

/// What became of a batch.
#[derive(Serialize, ToSchema)]
#[schema(as = BatchResults)]
struct Answer<'a> {
    /// One for each entry, in their order.
    #[schema(value_type = Vec<ResultForm>)]
    results: Vec<Entry<'a>>,
}

/// A delta of a batch.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchEntry<'a> {
    room: String,
    /// One JSON value.
    #[serde(borrow)]
    #[schema(value_type = Value)]
    data: &'a RawValue,
    /// The idempotency key: 1 to 128 visible ASCII characters.
    id: Option<String>,
    /// The client that is not sent it live.
    exclude: Option<String>,
    /// The client that is named as the publisher, as in a history.
    #[serde(borrow)]
    #[schema(value_type = Option<Object>)]
    info: Option<&'a RawValue>,
}

impl<'a> From<&'a Published> for Receipt<'a> {
    fn from(published: &'a Published) -> Self {
        Self {
            room: &published.room,
            offset: published.offset,
            epoch: &published.epoch,
            id: &published.id,
            time: published.time,
        }
    }
}

/// Publish one delta.
///
/// The answer is sent when the delta is on disk, or safe in a shared log. A key that was used before publishes nothing, and
/// is answered 200 with the first delta's place.
#[utoipa::path(
    post,
    path = "/v1/rooms/{room}/deltas",
    operation_id = "publish_delta",
    tag = "publishing",
    params(
        RoomParameter,
        ("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,128}$", description = "1 to 128 visible ASCII characters, bare or in quotes. Makes trying again safe.", example = "msg-42"),
        ("Roomwire-Exclude-Client" = inline(Option<ClientForm>), Header, description = "The id of a client that is not sent the delta live."),
        ("Prefer" = Option<String>, Header, description = "`return=minimal` is answered with the id alone.", example = "return=minimal")
    ),
    request_body(content = Value, content_type = "application/json", description = "The delta: one JSON value, whatever the content type says.", example = json!({"text": "hello"})),
    responses(
        (status = 201, description = "Published.", body = PlacementForm, example = json!({
            "room": "lobby", "offset": 2, "epoch": "4009e9d5f63545d0bab6774de917bfc9", "id": "msg-42", "time": 1795563272398_u64
        })),
        (status = 200, description = "The key was used before; nothing was published.", body = PlacementForm),
        (status = 202, description = "Safe in the shared log, and its place is not known yet.", body = IdOnly<'static>)
    ),
    extensions(("x-problems" = json!([
        "bad-json", "bad-body", "bad-room-name", "unknown-parameter", "bad-parameter", "bad-idempotency-key",
        "bad-client-id", "unknown-namespace", "too-large", "not-taken", "outcome-unknown", "no-space"
    ])))
)]
pub async fn one(
    request: HttpRequest,
    room: Path<String>,
    body: Payload,
    state: Data<State>,
) -> Result<HttpResponse, Problem> {
    let publisher = state.keyholder(request.headers(), Scope::Publish)?;
    Parameters::of(&request, &[])?;
    let room = state.touchable(&publisher, &room)?;
    let key = idempotency_key(request.headers())?;
    let exclude = excluded_client(request.headers())?;
    let body = collect(
        request.headers(),
        body,
        "a delta",
        state.services.publish.max_delta_bytes,
    )
    .await?;
    let delta = NewDelta {
        room: room.clone(),
        body: compact_json(&body).map_err(Problem::bad_json)?,
        key,
        info: Bytes::new(),
        exclude,
    };
    let span = info_span!("publish", room.name = %room, client = peer(&request));
    let outcome = publish(&state, vec![delta]).instrument(span).await.pop();
    let published = match outcome.unwrap_or(Err(PublishError::OutcomeUnknown))? {
        Outcome::Unplaced(id) => return Ok(HttpResponse::Accepted().json(IdOnly { id: &id })),
        Outcome::Placed(published) => published,
    };
    let mut response = HttpResponse::build(status(&published));
    if prefers_minimal(request.headers()) {
        response.insert_header(("Preference-Applied", "return=minimal"));
        return Ok(response.json(IdOnly { id: &published.id }));
    }
    Ok(response.json(Receipt::from(&published)))
}

/// Publish several deltas.
///
/// The valid ones are published in the order given; they are not one transaction. An entry that is refused does not stop
/// the others.
#[utoipa::path(
    post,
    path = "/v1/deltas",
    operation_id = "publish_deltas",
    tag = "publishing",
    request_body(content = inline(BatchForm), content_type = "application/json", description = "An array of entries.", example = json!([
        {"room": "lobby", "data": {"n": 1}}, {"room": "chat:42", "data": 2, "id": "msg-43"}
    ])),
    responses((status = 200, description = "What became of each entry.", body = Answer<'static>, example = json!({"results": [
        {"status": 201, "room": "lobby", "offset": 6, "epoch": "4009e9d5f63545d0bab6774de917bfc9", "id": "01a20fe9394377258cf1ec1b31f9ea78", "time": 1795563272515_u64}
    ]}))),
    extensions(("x-problems" = json!([
        "bad-json", "bad-body", "bad-batch", "unknown-parameter", "bad-parameter", "too-large",
        "too-many-deltas"
    ])))
)]
pub async fn batch(
    request: HttpRequest,
    body: Payload,
    state: Data<State>,
) -> Result<HttpResponse, Problem> {
    let publisher = state.keyholder(request.headers(), Scope::Publish)?;
    Parameters::of(&request, &[])?;
    let limits = &state.services.publish;
    let body = collect(request.headers(), body, "a batch", limits.max_batch_bytes).await?;
    compact_json(&body).map_err(Problem::bad_json)?;
    let entries: Vec<&RawValue> = serde_json::from_slice(&body).map_err(|_| {
        Problem::bad_batch("a batch is an array of entries, and this is another value")
    })?;
    if entries.len() > limits.max_batch {
        return Err(Problem::too_many_deltas(entries.len(), limits.max_batch));
    }
    let checked: Vec<Result<NewDelta, Problem>> = entries
        .into_iter()
        .map(|entry| state.checked(&publisher, entry))
        .collect();
    let valid: Vec<NewDelta> = checked.iter().flatten().cloned().collect();
    let span = info_span!("publish", deltas = valid.len(), client = peer(&request));
    let mut published = publish(&state, valid).instrument(span).await.into_iter();
    let outcomes: Vec<Result<Outcome, Problem>> = checked
        .into_iter()
        .map(|entry| {
            entry?;
            let outcome = published.next();
            Ok(outcome.unwrap_or(Err(PublishError::OutcomeUnknown))?)
        })
        .collect();
    let results = outcomes
        .iter()
        .map(|outcome| match outcome {
            Ok(Outcome::Placed(published)) => Entry::Placed {
                status: status(published).as_u16(),
                receipt: published.into(),
            },
            Ok(Outcome::Unplaced(id)) => Entry::Unplaced {
                status: StatusCode::ACCEPTED.as_u16(),
                id,
            },
            Err(problem) => Entry::Refused(problem),
        })
        .collect();
    Ok(HttpResponse::Ok().json(Answer { results }))
}

impl State {
    fn checked(&self, publisher: &Caller, entry: &RawValue) -> Result<NewDelta, Problem> {
        let entry: BatchEntry = serde_json::from_str(entry.get())
            .map_err(|error| Problem::bad_batch(entry_error(&error)))?;
        let info = entry.info.map(checked_info).transpose()?;
        Ok(NewDelta {
            info: info.unwrap_or_default(),
            exclude: entry.exclude.as_deref().map(client_id).transpose()?,
            ..self.new_delta(publisher, &entry.room, entry.data, entry.id.as_deref())?
        })
    }

    /// What `publisher` says to the room of that name, if it may, with its idempotency key.
    pub fn new_delta(
        &self,
        publisher: &Caller,
        room: &str,
        data: &RawValue,
        key: Option<&str>,
    ) -> Result<NewDelta, Problem> {
        let room = self.touchable(publisher, room)?;
        let limit = self.services.publish.max_delta_bytes;
        if data.get().len() > limit {
            return Err(Problem::too_large("a delta", limit));
        }
        Ok(NewDelta {
            room,
            body: compact_json(data.get().as_bytes()).map_err(Problem::bad_json)?,
            key: key.map(checked_key).transpose()?,
            info: Bytes::new(),
            exclude: None,
        })
    }
}

fn checked_info(info: &RawValue) -> Result<Bytes, Problem> {
    let json = info.get();
    match json.starts_with('{') && json.len() <= MAX_INFO_BYTES {
        true => compact_json(json.as_bytes()).map_err(Problem::bad_json),
        false => Err(Problem::bad_batch(format!(
            "info is no object of up to {MAX_INFO_BYTES} bytes; it names a client, as a history does"
        ))),
    }
}

fn entry_error(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or(&text);
    let reason = reason.replace("struct BatchEntry", "an object");
    format!(
        "{reason}; an entry is {{\"room\":…,\"data\":…,\"id\":…,\"exclude\":…,\"info\":…}}, of which the last three may be left out"
    )
}

/// Publishes, and counts what became of it.
pub async fn publish(state: &State, deltas: Vec<NewDelta>) -> Vec<Result<Outcome, PublishError>> {
    let mut stored = Vec::new();
    let passed: Vec<_> = deltas
        .into_iter()
        .map(|delta| match state.services.stores(&delta.room) {
            true => {
                stored.push(delta);
                None
            }
            false => Some(Outcome::Unplaced(state.services.pass(delta))),
        })
        .collect();
    let mut stored = store(state, stored).await.into_iter();
    let outcomes = passed.into_iter().map(|passed| match passed {
        Some(passed) => Ok(passed),
        None => match stored.next() {
            Some(Ok(published)) => Ok(Outcome::Placed(published)),
            Some(Err(PublishError::Unplaced { id })) => Ok(Outcome::Unplaced(id)),
            Some(Err(error)) => Err(error),
            None => Err(PublishError::OutcomeUnknown),
        },
    });
    outcomes.collect()
}

async fn store(state: &State, deltas: Vec<NewDelta>) -> Vec<Result<Published, PublishError>> {
    if deltas.is_empty() {
        return vec![];
    }
    for delta in &deltas {
        state.services.look_at_size(&delta.room, delta.body.len());
    }
    let started = Instant::now();
    let outcomes = state.services.publisher.publish(deltas).await;
    let metrics = &state.services.metrics;
    for outcome in &outcomes {
        let intake = match outcome {
            Ok(published) if published.repeated => Intake::Repeated,
            Ok(_) => Intake::Applied,
            Err(error) => Intake::from(error),
        };
        metrics.deltas_in(intake, 1);
        if outcome.is_ok() {
            metrics.publish_took(started.elapsed());
        }
    }
    outcomes
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::NotTaken { why } => Self::not_taken(why),
            // Whoever can tell that it is safe does so before.
            PublishError::OutcomeUnknown | PublishError::Unplaced { .. } => Self::outcome_unknown(),
            PublishError::NoSpace => Self::no_space(),
        }
    }
}

fn status(published: &Published) -> StatusCode {
    match published.repeated {
        true => StatusCode::OK,
        false => StatusCode::CREATED,
    }
}

/// Reads a body of at most `limit` bytes.
pub async fn collect(
    headers: &HeaderMap,
    mut body: Payload,
    what: &str,
    limit: usize,
) -> Result<Bytes, Problem> {
    // A publisher that says how much is to come need not send it all to be told that it is too much.
    let announced = headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(Problem::too_large(what, limit));
    }
    let mut whole = BytesMut::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(Problem::bad_body)?;
        if whole.len() + chunk.len() > limit {
            return Err(Problem::too_large(what, limit));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<Arc<str>>, Problem> {
    let mut keys = headers.get_all("Idempotency-Key");
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    if keys.next().is_some() {
        return Err(Problem::bad_idempotency_key("more than one header"));
    }
    let key = key
        .to_str()
        .map_err(|_| Problem::bad_idempotency_key("bytes that are not visible ASCII"))?;
    // The form of the IETF draft is a quoted string (RFC 8941); most clients send it bare.
    let bare = key
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(key);
    checked_key(bare).map(Some)
}

/// The client that is not to be sent the delta live, as it caused it.
fn excluded_client(headers: &HeaderMap) -> Result<Option<Uuid>, Problem> {
    let mut clients = headers.get_all("Roomwire-Exclude-Client");
    let Some(client) = clients.next() else {
        return Ok(None);
    };
    if clients.next().is_some() {
        return Err(Problem::bad_client_id("more than one header"));
    }
    client_id(client.to_str().unwrap_or("not ASCII")).map(Some)
}

fn client_id(text: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(text).map_err(|_| Problem::bad_client_id(text))
}

fn checked_key(key: &str) -> Result<Arc<str>, Problem> {
    match is_key(key) {
        true => Ok(key.into()),
        false => Err(Problem::bad_idempotency_key(key)),
    }
}

/// Whether the publisher does without the position (RFC 7240).
fn prefers_minimal(headers: &HeaderMap) -> bool {
    let mut preferences = headers
        .get_all("Prefer")
        .filter_map(|value| value.to_str().ok());
    preferences.any(|value| value.split(',').any(|p| p.trim() == "return=minimal"))
}

/// Who sends a request, for the log.
pub fn peer(request: &HttpRequest) -> Option<String> {
    request.peer_addr().map(|address| address.to_string())
}
