//! Which rooms have a history.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde::Serialize;
use tracing::error;
use utoipa::ToSchema;

use super::{error::Problem, openapi::forms::RoomForm, query::Parameters, routes::State};
use crate::{access::pattern::Pattern, config::Scope, delta::RoomName};

const PARAMETERS: &[&str] = &["match", "after", "limit"];
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// Some rooms, in the order of their names.
#[derive(Serialize, ToSchema)]
#[schema(as = RoomsPage)]
struct Answer {
    rooms: Vec<Room>,
    /// Where to go on; left out at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    next: Option<RoomName>,
}

/// A room with a history.
#[derive(Serialize, ToSchema)]
struct Room {
    #[schema(value_type = String)]
    room: RoomName,
    /// Offset of the newest delta.
    newest: u64,
    /// Deltas kept.
    count: u64,
    /// Bytes kept.
    bytes: u64,
}

/// List the rooms that have a history.
///
/// If the answer has a `next`, go on with `after` set to it, also if `rooms` is empty.
#[utoipa::path(
    get,
    path = "/v1/rooms",
    operation_id = "list_rooms",
    tag = "reading",
    params(
        ("match" = Option<String>, Query, description = "Only rooms that match this pattern, in which `*` stands for anything.", example = "chat:*"),
        ("after" = inline(Option<RoomForm>), Query, description = "Only rooms behind this name."),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 1000, description = "Rooms to look at; 100 if it is left out.")
    ),
    responses((
        status = 200,
        description = "Rooms in the order of their names.",
        body = Answer,
        example = json!({"rooms": [{"room": "chat:1", "newest": 1102, "count": 1100, "bytes": 37290}], "next": "chat:1"})
    )),
    extensions(("x-problems" = json!([
        "bad-room-name", "unknown-parameter", "bad-parameter"
    ])))
)]
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
