//! Recovery over HTTP: `GET /v1/rooms/{room}/deltas`.

use std::time::Duration;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path},
};
use serde::Serialize;
use serde_json::value::RawValue;
use tracing::error;
use utoipa::ToSchema;

use super::{
    error::Problem,
    openapi::{RoomParameter, forms::OrderForm},
    polling,
    query::Parameters,
    reading::Place,
    routes::State,
};
use crate::{
    actors::Reach,
    delta::{Epoch, MAX_OFFSET, RoomName},
    protocol::reply::Publication,
    rooms::{
        history::{History, Page, PageLimit},
        store::{Order, StoreError},
    },
};

const PARAMETERS: &[&str] = &[
    "after", "since", "before", "order", "epoch", "limit", "wait",
];
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// What a parameter that is an offset takes.
const POSITION: &str = "a position: a whole number below 2^53";

/// Bytes of one answer; the first delta may exceed them.
const MAX_BYTES: usize = 1024 * 1024;

/// Where the answer is to begin.
#[derive(Clone, Copy)]
enum From {
    /// Behind an offset; 0 is in front of the oldest delta that is kept.
    After(u64),
    /// At a time, in ms since the Unix epoch, inclusive.
    Since(u64),
}

/// What is asked of a room's history.
#[derive(Clone, Copy)]
struct Question {
    from: From,
    /// Below this offset.
    before: Option<u64>,
    order: Order,
    limit: PageLimit,
}

/// Some deltas of a room.
#[derive(Serialize, ToSchema)]
#[schema(as = HistoryPage)]
struct Answer<'a> {
    #[schema(value_type = String)]
    room: &'a RoomName,
    /// Names the life of the log: offsets of two epochs can't be compared.
    #[schema(value_type = String)]
    epoch: &'a Epoch,
    /// Whether nothing is missing between the place that was asked for and what is answered. If something is, the
    /// client reloads its state and goes on from `newest`.
    recovered: bool,
    deltas: Vec<Line<'a>>,
    /// Offset of the room's newest delta; 0 if it never had one.
    newest: u64,
    /// Whether the limit cut the answer off.
    more: bool,
}

/// A delta that is kept.
#[derive(Serialize, ToSchema)]
#[schema(as = KeptDelta)]
struct Line<'a> {
    offset: u64,
    /// Milliseconds since the Unix epoch.
    time: u64,
    /// The idempotency key, or an id that the server made.
    id: &'a str,
    /// The client that published it through its socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    info: Option<&'a RawValue>,
    /// The JSON that was published.
    #[schema(value_type = serde_json::Value)]
    data: &'a RawValue,
}

struct Read {
    /// Everything up to here was looked at.
    end: u64,
    page: Page,
    newest: u64,
    recovered: bool,
}

impl Read {
    fn is_nothing(&self) -> bool {
        self.recovered && self.page.deltas.is_empty()
    }
}

/// Read what was missed.
///
/// `recovered` tells whether nothing is missing between the place that was asked for and the first delta of the answer.
/// If something is, load the room's state from your own API again, and go on with `after` set to `newest`.
///
/// While `more` is true, ask again with `after` (with `order=newest`: `before`) set to the last offset of the answer.
#[utoipa::path(
    get,
    path = "/v1/rooms/{room}/deltas",
    operation_id = "read_history",
    tag = "reading",
    params(
        RoomParameter,
        ("after" = Option<u64>, Query, minimum = 0, maximum = 9007199254740991_u64, description = "Begin behind this offset. `0`, the default, begins with the oldest delta that is kept."),
        ("since" = Option<String>, Query, pattern = r"^([0-9]{1,18}|(19[7-9]|20[0-9])[0-9]-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+ -](0[0-9]|1[0-4]):[0-5][0-9]))$", description = "Begin with the first delta of this time or later: RFC 3339, or milliseconds since the Unix epoch. Not together with `after`.", example = "2026-11-25T10:00:00Z"),
        ("before" = Option<u64>, Query, minimum = 0, maximum = 9007199254740991_u64, description = "End in front of this offset."),
        ("order" = inline(Option<OrderForm>), Query, description = "Which delta comes first; `oldest` if it is left out."),
        ("epoch" = Option<String>, Query, description = "The epoch that `after` belongs to. Left out, any fits."),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 1000, description = "Deltas in one answer; 100 if it is left out. An answer also ends before 1 MiB of deltas."),
        ("wait" = Option<u64>, Query, minimum = 0, maximum = 60, description = "Seconds that the answer may take if there is nothing yet; 0 if it is left out. Not together with `before` or `order=newest`.")
    ),
    responses((
        status = 200,
        description = "What there is, and whether it is all.",
        body = Answer<'static>,
        example = json!({
            "room": "lobby", "epoch": "4009e9d5f63545d0bab6774de917bfc9", "recovered": true,
            "deltas": [{"offset": 2, "time": 1795563272398_u64, "id": "msg-42", "data": {"text": "hello"}}],
            "newest": 6, "more": true
        })
    )),
    extensions(("x-problems" = json!([
        "bad-room-name", "unknown-parameter", "bad-parameter", "unknown-namespace", "full", "behind"
    ])))
)]
pub async fn deltas(
    request: HttpRequest,
    room: Path<String>,
    state: Data<State>,
) -> Result<HttpResponse, Problem> {
    let reader = state.reader(request.headers())?;
    let parameters = Parameters::of(&request, PARAMETERS)?;
    let room = state.readable(&reader, &room)?;
    state.must_store(&room)?;
    let question = question(&parameters)?;
    let wait = wait(&parameters, question)?;
    let asked = parameters.text("epoch").unwrap_or_default();
    let (epoch, mut read) = look(&state, &room, asked, question).await?;
    if read.is_nothing() && !wait.is_zero() {
        let place = Place::behind(&room, &epoch, read.end);
        polling::hold(&request, &state, &reader, &[place], wait).await?;
        (_, read) = look(&state, &room, &epoch, question).await?;
    }
    Ok(HttpResponse::Ok()
        .insert_header(("Cache-Control", "no-store"))
        .json(Answer {
            room: &room,
            epoch: &epoch,
            recovered: read.recovered,
            deltas: read.page.deltas.iter().map(line).collect(),
            newest: read.newest,
            more: read.page.more,
        }))
}

/// Reads once. `asked` is the epoch of the place, empty for any.
async fn look(
    state: &State,
    room: &RoomName,
    asked: &str,
    question: Question,
) -> Result<(Epoch, Read), Problem> {
    let history = state.services.history.clone();
    let epoch = history.epoch(room);
    let same_life = asked.is_empty() || *asked == *epoch;
    if let From::After(after) = question.from
        && same_life
        && after > history.durable(room)
        && state.services.reach(room, after).await == Reach::Behind
    {
        return Err(Problem::behind());
    }
    let name = room.clone();
    let read = move || match same_life {
        true => read(&history, &name, question),
        false => lost(&history, &name),
    };
    Ok((epoch, blocking(read).await?))
}

/// Reads on a blocking thread. What fails is for the log, and not for strangers.
pub async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Problem> {
    match actix_web::web::block(read).await {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(error)) => {
            error!(%error, "history can't be read");
            Err(Problem::internal())
        }
        Err(error) => {
            error!(%error, "reading history failed");
            Err(Problem::internal())
        }
    }
}

fn line(delta: &crate::delta::Delta) -> Line<'_> {
    let Publication { data, info, .. } = delta.into();
    Line {
        offset: delta.offset,
        time: delta.time,
        id: &delta.id,
        info,
        data,
    }
}

fn question(parameters: &Parameters) -> Result<Question, Problem> {
    let order = match parameters.text("order") {
        None | Some("oldest") => Order::Ascending,
        Some("newest") => Order::Descending,
        Some(other) => {
            return Err(Problem::bad_parameter(
                "order",
                other,
                "oldest, to begin with the oldest delta, or newest",
            ));
        }
    };
    Ok(Question {
        from: place(parameters)?,
        before: parameters.parsed("before", POSITION, |&offset: &u64| offset <= MAX_OFFSET)?,
        order,
        limit: limit(parameters)?,
    })
}

/// The parameter `limit`, with the bound that every answer has.
pub fn limit(parameters: &Parameters) -> Result<PageLimit, Problem> {
    let expected = format!("a whole number from 1 to {MAX_LIMIT}");
    let limit = parameters.parsed("limit", &expected, |n| (1..=MAX_LIMIT).contains(n))?;
    Ok(PageLimit {
        deltas: limit.unwrap_or(DEFAULT_LIMIT),
        bytes: MAX_BYTES,
    })
}

/// Only who reads towards what is new can wait for it.
fn wait(parameters: &Parameters, question: Question) -> Result<Duration, Problem> {
    let wait = polling::wait(parameters)?;
    let looks_back = question.before.is_some() || question.order == Order::Descending;
    match parameters.text("wait") {
        Some(wait) if looks_back => Err(Problem::bad_parameter(
            "wait",
            wait,
            "nothing where before or order=newest is given",
        )),
        _ => Ok(wait),
    }
}

fn place(parameters: &Parameters) -> Result<From, Problem> {
    let after = parameters.parsed("after", POSITION, |&offset: &u64| offset <= MAX_OFFSET)?;
    match (after, parameters.text("since")) {
        (Some(_), Some(since)) => Err(Problem::bad_parameter(
            "since",
            since,
            "nothing where after is given",
        )),
        (Some(offset), None) => Ok(From::After(offset)),
        (None, Some(since)) => time(since).map(From::Since),
        (None, None) => Ok(From::After(0)),
    }
}

/// The parameter `since`.
pub fn time(text: &str) -> Result<u64, Problem> {
    parse_time(text).ok_or_else(|| {
        Problem::bad_parameter(
            "since",
            text,
            "a time: RFC 3339, or milliseconds since 1970-01-01T00:00:00Z",
        )
    })
}

/// RFC 3339, or ms since the Unix epoch.
fn parse_time(text: &str) -> Option<u64> {
    if let Ok(ms) = text.parse() {
        return Some(ms);
    }
    // In a query string an unescaped `+` arrives as a space.
    let time: jiff::Timestamp = text.replace(' ', "+").parse().ok()?;
    u64::try_from(time.as_millisecond()).ok()
}

fn read(history: &History, room: &RoomName, question: Question) -> Result<Read, StoreError> {
    let from = question.from;
    let (after, complete) = match from {
        From::After(offset) => (offset, true),
        From::Since(time) => {
            let since = history.since(room, time)?;
            (since.after, since.complete)
        }
    };
    let end = history.durable(room);
    let upto = question
        .before
        .map_or(end, |before| before.saturating_sub(1));
    let page = history.range(room, after, upto, question.limit, question.order)?;
    // The oldest that is kept is what `after=0` asks for, so there nothing can be missing.
    let from_the_oldest = matches!(from, From::After(0));
    let reaches =
        page.floor <= after || from_the_oldest || (complete && matches!(from, From::Since(_)));
    if after > end || !reaches {
        return lost(history, room);
    }
    Ok(Read {
        end,
        newest: history.head(room)?.newest,
        page,
        recovered: complete,
    })
}

/// The position can't be recovered; what is newest is told, so that the client can go on from there.
fn lost(history: &History, room: &RoomName) -> Result<Read, StoreError> {
    Ok(Read {
        end: history.durable(room),
        newest: history.head(room)?.newest,
        page: Page::default(),
        recovered: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_rfc_3339_or_milliseconds() {
        assert_eq!(parse_time("1764025200123"), Some(1_764_025_200_123));
        assert_eq!(
            parse_time("2025-11-24T23:00:00.123Z"),
            Some(1_764_025_200_123)
        );
        assert_eq!(
            parse_time("2025-11-25T00:00:00.123+01:00"),
            Some(1_764_025_200_123)
        );
        assert_eq!(
            parse_time("2025-11-25T00:00:00.123 01:00"),
            Some(1_764_025_200_123)
        );
        assert_eq!(parse_time("yesterday"), None);
        assert_eq!(parse_time("1900-01-01T00:00:00Z"), None);
    }
}
