//! Server-sent events: `GET /v1/rooms/{room}/events` and `GET /v1/events?room=a&room=b`.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path},
};

use super::{
    error::Problem,
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

pub async fn one(
    request: HttpRequest,
    room: Path<String>,
    state: Data<State>,
) -> Result<HttpResponse, Problem> {
    let caller = state.reader(request.headers())?;
    let parameters = Parameters::of(&request, OF_ONE)?;
    open(&request, caller, &parameters, vec![&room], &state).await
}

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
    let reading = request
        .app_data::<Reading>()
        .ok_or_else(Problem::internal)?;
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
