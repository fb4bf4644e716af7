//! Recovery over HTTP: `GET /v1/rooms/{room}/deltas`.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path},
};
use serde::Serialize;
use serde_json::value::RawValue;
use tracing::error;

use super::{error::Problem, query::Parameters, routes::State};
use crate::{
    actors::Reach,
    delta::{Epoch, MAX_OFFSET, RoomName},
    protocol::reply::Publication,
    rooms::{
        history::{History, Page, PageLimit},
        store::{Order, StoreError},
    },
};

const PARAMETERS: &[&str] = &["after", "since", "before", "order", "epoch", "limit"];
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

#[derive(Serialize)]
struct Answer<'a> {
    room: &'a RoomName,
    epoch: &'a Epoch,
    /// Whether nothing is missing between the place that was asked for and what is answered. If something is, the
    /// client reloads its state and goes on from `newest`.
    recovered: bool,
    deltas: Vec<Line<'a>>,
    newest: u64,
    more: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    offset: u64,
    time: u64,
    id: &'a str,
    /// The client that published it through its socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a RawValue>,
    data: &'a RawValue,
}

struct Read {
    page: Page,
    newest: u64,
    recovered: bool,
}

pub async fn deltas(
    request: HttpRequest,
    room: Path<String>,
    state: Data<State>,
) -> Result<HttpResponse, Problem> {
    state.must_be_open()?;
    let parameters = Parameters::of(&request, PARAMETERS)?;
    let room = state.room(&room)?;
    let question = question(&parameters)?;
    let history = state.services.history.clone();
    let epoch = history.epoch(&room);
    let same_life = parameters
        .text("epoch")
        .is_none_or(|asked| asked.is_empty() || *asked == *epoch);
    if let From::After(after) = question.from
        && same_life
        && after > history.durable(&room)
        && state.services.reach(&room, after).await == Reach::Behind
    {
        return Err(Problem::behind());
    }
    let name = room.clone();
    let read = actix_web::web::block(move || match same_life {
        true => read(&history, &name, question),
        false => lost(&history, &name),
    });
    let read = match read.await {
        Ok(Ok(read)) => read,
        Ok(Err(error)) => {
            error!(room.name = %room, %error, "history can't be read");
            return Err(Problem::internal());
        }
        Err(error) => {
            error!(room.name = %room, %error, "reading history failed");
            return Err(Problem::internal());
        }
    };
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
    let expected = format!("a whole number from 1 to {MAX_LIMIT}");
    let limit = parameters.parsed("limit", &expected, |n| (1..=MAX_LIMIT).contains(n))?;
    Ok(Question {
        from: place(parameters)?,
        before: parameters.parsed("before", POSITION, |&offset: &u64| offset <= MAX_OFFSET)?,
        order,
        limit: PageLimit {
            deltas: limit.unwrap_or(DEFAULT_LIMIT),
            bytes: MAX_BYTES,
        },
    })
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
        (None, Some(since)) => time(since).map(From::Since).ok_or_else(|| {
            Problem::bad_parameter(
                "since",
                since,
                "a time: RFC 3339, or milliseconds since 1970-01-01T00:00:00Z",
            )
        }),
        (None, None) => Ok(From::After(0)),
    }
}

/// RFC 3339, or ms since the Unix epoch.
fn time(text: &str) -> Option<u64> {
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
        newest: history.head(room)?.newest,
        page,
        recovered: complete,
    })
}

/// The position can't be recovered; what is newest is told, so that the client can go on from there.
fn lost(history: &History, room: &RoomName) -> Result<Read, StoreError> {
    Ok(Read {
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
        assert_eq!(time("1764025200123"), Some(1_764_025_200_123));
        assert_eq!(time("2025-11-24T23:00:00.123Z"), Some(1_764_025_200_123));
        assert_eq!(
            time("2025-11-25T00:00:00.123+01:00"),
            Some(1_764_025_200_123)
        );
        assert_eq!(
            time("2025-11-25T00:00:00.123 01:00"),
            Some(1_764_025_200_123)
        );
        assert_eq!(time("yesterday"), None);
        assert_eq!(time("1900-01-01T00:00:00Z"), None);
    }
}
