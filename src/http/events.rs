//! Server-sent events: `GET /v1/rooms/{room}/events` and `GET /v1/events?room=a&room=b`.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path},
};

use super::{
    error::Problem,
    openapi::{RoomParameter, forms::RoomForm},
    query::Parameters,
    reading::{self, Reading},
    routes::State,
};
use crate::{
    access::caller::Caller,
    actors::hub::SessionWire,
    metrics::Transport,
    protocol::{bookmark::SingleRoom, event},
};

const OF_ONE: &[&str] = &["after", "epoch", "since", "last"];
const OF_SEVERAL: &[&str] = &["room", "after", "since", "last"];

/// Follow a room as server-sent events.
#[utoipa::path(
    get,
    path = "/v1/rooms/{room}/events",
    operation_id = "follow_room",
    tag = "reading",
    params(
        RoomParameter,
        ("after" = Option<String>, Query, description = "Where to begin: `0` is in front of the oldest deltas that are kept, an offset behind it, and a position, as events and polls carry it, where that client stood. Left out, with what comes next.", example = "0"),
        ("since" = Option<String>, Query, description = "Begin with this time: RFC 3339, or milliseconds since the Unix epoch. Not together with `after` or `last`."),
        ("last" = Option<u64>, Query, minimum = 1, maximum = 1000, description = "Begin with the newest so many deltas of each room."),
        ("epoch" = Option<String>, Query, description = "The epoch that an offset belongs to. Left out, any fits."),
        ("Last-Event-ID" = Option<String>, Header, description = "The position that a browser comes back with; wins over all parameters.")
    ),
    responses((
        status = 200,
        description = "A stream. Deltas are events without a name, whose data is `{\"room\",\"offset\",\"time\",\"id\",\"data\"}`; `event: reload` names a room of which something is missing for good, `event: ping` comes when nothing else does. The `id` of an event is the position behind it.",
        body = String,
        content_type = "text/event-stream"
    )),
    extensions(("x-problems" = json!([
        "bad-room-name", "unknown-parameter", "bad-parameter", "unknown-namespace", "full"
    ])))
)]
pub async fn one(
    request: HttpRequest,
    room: Path<String>,
    state: Data<State>,
) -> Result<HttpResponse, Problem> {
    let caller = state.reader(request.headers())?;
    let parameters = Parameters::of(&request, OF_ONE)?;
    open(&request, caller, &parameters, vec![&room], &state).await
}

/// Follow several rooms as server-sent events.
#[utoipa::path(
    get,
    path = "/v1/events",
    operation_id = "follow_rooms",
    tag = "reading",
    params(
        ("room" = inline(Vec<RoomForm>), Query, min_items = 1, max_items = 128, description = "The rooms, one parameter each."),
        ("after" = Option<String>, Query, description = "Where to begin: `0` is in front of the oldest deltas that are kept, an offset behind it, and a position, as events and polls carry it, where that client stood. Left out, with what comes next.", example = "0"),
        ("since" = Option<String>, Query, description = "Begin with this time: RFC 3339, or milliseconds since the Unix epoch. Not together with `after` or `last`."),
        ("last" = Option<u64>, Query, minimum = 1, maximum = 1000, description = "Begin with the newest so many deltas of each room."),
        ("Last-Event-ID" = Option<String>, Header, description = "The position that a browser comes back with; wins over all parameters.")
    ),
    responses((
        status = 200,
        description = "A stream. Deltas are events without a name, whose data is `{\"room\",\"offset\",\"time\",\"id\",\"data\"}`; `event: reload` names a room of which something is missing for good, `event: ping` comes when nothing else does. The `id` of an event is the position behind it.",
        body = String,
        content_type = "text/event-stream"
    )),
    extensions(("x-problems" = json!([
        "bad-room-name", "unknown-parameter", "bad-parameter", "unknown-namespace", "full"
    ])))
)]
pub async fn several(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    let caller = state.reader(request.headers())?;
    let parameters = Parameters::with_many(&request, OF_SEVERAL, "room")?;
    open(
        &request,
        caller,
        &parameters,
        parameters.all("room").collect(),
        &state,
    )
    .await
}

async fn open(
    request: &HttpRequest,
    caller: Caller,
    parameters: &Parameters,
    names: Vec<&str>,
    state: &Data<State>,
) -> Result<HttpResponse, Problem> {
    let rooms = reading::rooms(state, &caller, names)?;
    let from = reading::from(request, parameters)?;
    let places = reading::places(state, rooms, from).await?;
    let reading = Reading::of(request)?;
    let (reader, wire, retry_ms) =
        reading.start(request, state, Transport::Events, &caller, &places)?;
    wire.say(event::opening(retry_ms, &reading::bookmark_of(&places)));
    for place in places.iter().filter(|place| place.incomplete) {
        let epoch = state.services.history.epoch(&place.room);
        let ids = SingleRoom::new(&place.room, &epoch);
        wire.push(&event::reload(&place.room, &ids, place.mark.offset));
    }
    Ok(HttpResponse::Ok()
        .insert_header(("Content-Type", "text/event-stream"))
        .insert_header(("Cache-Control", "no-store"))
        // A proxy that collects an answer before it passes it on would hold back all of it.
        .insert_header(("X-Accel-Buffering", "no"))
        .body(reader))
}
