//! `GET /v1/rooms`: which rooms have a history.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde::Serialize;
use tracing::error;

use super::{error::Problem, query::Parameters, routes::State};
use crate::{access::pattern::Pattern, config::Scope, delta::RoomName};

const PARAMETERS: &[&str] = &["match", "after", "limit"];
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

#[derive(Serialize)]
struct Answer {
    rooms: Vec<Room>,
    /// Where to go on; left out at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<RoomName>,
}

#[derive(Serialize)]
struct Room {
    room: RoomName,
    /// Offset of the newest delta.
    newest: u64,
    /// Deltas kept.
    count: u64,
    /// Bytes kept.
    bytes: u64,
}

pub async fn list(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    let reader = state.keyholder(request.headers(), Scope::Read)?;
    let parameters = Parameters::of(&request, PARAMETERS)?;
    let pattern = parameters.text("match").unwrap_or("*").to_owned();
    let after = parameters.text("after").map(RoomName::new).transpose();
    let after = after.map_err(Problem::bad_room_name)?;
    let expected = format!("a whole number from 1 to {MAX_LIMIT}");
    let limit = parameters.parsed("limit", &expected, |n| (1..=MAX_LIMIT).contains(n))?;
    let history = state.services.history.clone();
    let read = actix_web::web::block(move || {
        let wanted = Pattern::new(&pattern);
        let prefix = wanted.prefix();
        let limit = limit.unwrap_or(DEFAULT_LIMIT);
        history.rooms(prefix, after.as_ref(), limit, |room| {
            wanted.matches(room) && reader.may_touch(room).is_ok()
        })
    });
    let found = match read.await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            error!(%error, "the list of rooms can't be read");
            return Err(Problem::internal());
        }
        Err(error) => {
            error!(%error, "reading the list of rooms failed");
            return Err(Problem::internal());
        }
    };
    let rooms = found.rooms.into_iter().map(|(room, head)| Room {
        room,
        newest: head.newest,
        count: head.count,
        bytes: head.bytes,
    });
    Ok(HttpResponse::Ok()
        .insert_header(("Cache-Control", "no-store"))
        .json(Answer {
            rooms: rooms.collect(),
            next: found.next,
        }))
}
