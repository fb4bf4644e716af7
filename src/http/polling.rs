//! Long polls: `GET /v1/deltas?room=a&room=b`, and how a poll of any kind is held.
//!
//! A poll that finds nothing becomes a session, whose rooms wake it with their first event; then it reads again. What it
//! answers always comes from history, in the same form as what it would have found at once.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web::Data};
use bytes::{BufMut, BytesMut};
use serde::Serialize;

use super::{
    error::Problem,
    history::{blocking, limit},
    openapi::forms::{PollForm, RoomForm},
    query::Parameters,
    reading::{self, Place, Reading},
    routes::State,
};
use crate::{
    access::caller::Caller,
    delta::{Delta, RoomName},
    metrics::Transport,
    protocol::{bookmark::Key, event, session::Recover},
    rooms::{
        history::{History, PageLimit},
        sequence::Start,
        store::StoreError,
    },
};

const PARAMETERS: &[&str] = &["room", "after", "since", "last", "limit", "wait"];

/// Seconds. Proxies often end a request that is silent for a minute.
const MAX_WAIT: u64 = 60;

/// What a poll has found.
struct Found {
    deltas: Vec<Delta>,
    /// Rooms of which something is missing for good.
    reload: Vec<RoomName>,
    /// The limit cut the answer off.
    more: bool,
}

#[derive(Serialize)]
struct Tail<'a> {
    reload: &'a [RoomName],
    more: bool,
    position: String,
}

/// Read what is new in several rooms.
///
/// Go on with `after` set to the `position` of the answer. `reload` names rooms of which something is missing for good.
#[utoipa::path(
    get,
    path = "/v1/deltas",
    operation_id = "poll_rooms",
    tag = "reading",
    params(
        ("room" = inline(Vec<RoomForm>), Query, min_items = 1, max_items = 128, description = "The rooms, one parameter each."),
        ("after" = Option<String>, Query, description = "Where to begin: `0` is in front of the oldest deltas that are kept, an offset behind it, and a position, as events and polls carry it, where that client stood. Left out, with what comes next.", example = "0"),
        ("since" = Option<String>, Query, description = "Begin with this time: RFC 3339, or milliseconds since the Unix epoch. Not together with `after` or `last`."),
        ("last" = Option<u64>, Query, minimum = 1, maximum = 1000, description = "Begin with the newest so many deltas of each room."),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 1000, description = "Deltas in one answer; 100 if it is left out."),
        ("wait" = Option<u64>, Query, minimum = 0, maximum = 60, description = "Seconds that the answer may take if there is nothing yet; 0 if it is left out."),
        ("Last-Event-ID" = Option<String>, Header, description = "The position that a browser comes back with; wins over all parameters.")
    ),
    responses((
        status = 200,
        description = "What is new, and where to go on.",
        body = inline(PollForm),
        example = json!({
            "deltas": [{"room": "lobby", "offset": 1, "time": 1795563272398_u64, "id": "msg-42", "data": {"text": "hello"}}],
            "reload": [], "more": false, "position": "1~mJBcKiFC.lk1GFQk-BB.PG-E2lEuB"
        })
    )),
    extensions(("x-problems" = json!([
        "bad-room-name", "unknown-parameter", "bad-parameter", "unknown-namespace", "full"
    ])))
)]
pub async fn several(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    let caller = state.reader(request.headers())?;
    let parameters = Parameters::with_many(&request, PARAMETERS, "room")?;
    let rooms = reading::rooms(&state, &caller, parameters.all("room").collect())?;
    rooms.iter().try_for_each(|room| state.must_store(room))?;
    let from = reading::from(&request, &parameters)?;
    let (limit, wait) = (limit(&parameters)?, wait(&parameters)?);
    let places = reading::places(&state, rooms, from).await?;
    let (mut places, mut found) = read(&state, places, limit).await?;
    if found.is_nothing() && !wait.is_zero() {
        hold(&request, &state, &caller, &places, wait).await?;
        (places, found) = read(&state, places, limit).await?;
    }
    Ok(found.answer(&places))
}

/// The parameter `wait`; zero if it is not given.
pub fn wait(parameters: &Parameters) -> Result<Duration, Problem> {
    let expected = format!("a whole number of seconds from 0 to {MAX_WAIT}");
    let wait = parameters.parsed("wait", &expected, |seconds| *seconds <= MAX_WAIT)?;
    Ok(Duration::from_secs(wait.unwrap_or(0)))
}

/// Waits until one of the rooms has something new, or the time is over, or the server stops.
pub async fn hold(
    request: &HttpRequest,
    state: &Data<State>,
    caller: &Caller,
    places: &[Place],
    wait: Duration,
) -> Result<(), Problem> {
    let reading = Reading::of(request)?;
    let (reader, ..) = reading.start(request, state, Transport::Poll, caller, places)?;
    // Either way there is an answer.
    let _ = tokio::time::timeout(wait, reader.any()).await;
    Ok(())
}

/// Reads behind the places, and moves them on.
async fn read(
    state: &State,
    mut places: Vec<Place>,
    limit: PageLimit,
) -> Result<(Vec<Place>, Found), Problem> {
    let history = state.services.history.clone();
    let read = move || -> Result<(Vec<Place>, Found), StoreError> {
        let mut found = Found {
            deltas: Vec::new(),
            reload: Vec::new(),
            more: false,
        };
        let mut left = limit;
        for place in &mut places {
            found.read(&history, place, &mut left)?;
        }
        Ok((places, found))
    };
    blocking(read).await
}

impl Found {
    fn is_nothing(&self) -> bool {
        self.deltas.is_empty() && self.reload.is_empty()
    }

    /// Reads behind one place, within what is left of the limit.
    fn read(
        &mut self,
        history: &History,
        place: &mut Place,
        left: &mut PageLimit,
    ) -> Result<(), StoreError> {
        if left.deltas == 0 || left.bytes == 0 {
            self.more = true;
            return Ok(());
        }
        let (epoch, end) = (history.epoch(&place.room), history.durable(&place.room));
        let after = place.mark.offset;
        let page = history.page(&place.room, after, end, *left)?;
        let lost = match &place.start {
            Start::Behind(Recover { offset, epoch: at }) => {
                let same_life = at.is_empty() || **at == *epoch;
                !same_life || *offset > end || page.floor > *offset
            }
            _ => false,
        };
        if lost || std::mem::take(&mut place.incomplete) {
            self.reload.push(place.room.clone());
        }
        let mut reached = end.max(page.floor);
        if !lost {
            if page.more {
                self.more = true;
                reached = page.deltas.last().map_or(after, |delta| delta.offset);
            }
            left.deltas -= page.deltas.len();
            let bytes: usize = page.deltas.iter().map(|delta| delta.data.len()).sum();
            left.bytes = left.bytes.saturating_sub(bytes);
            self.deltas.extend(page.deltas);
        }
        place.mark.offset = reached;
        place.mark.epoch = Key::of(&epoch);
        // What it stands behind now it has seen.
        place.start = Start::Behind(Recover {
            offset: reached,
            epoch: (&*epoch).into(),
        });
        Ok(())
    }

    fn answer(&self, places: &[Place]) -> HttpResponse {
        let mut body = BytesMut::from(&b"{\"deltas\":["[..]);
        for (at, delta) in self.deltas.iter().enumerate() {
            if at > 0 {
                body.put_u8(b',');
            }
            event::write_object(&mut body, delta);
        }
        let tail = Tail {
            reload: &self.reload,
            more: self.more,
            position: reading::bookmark_of(places).to_string(),
        };
        let tail = serde_json::to_vec(&tail).expect("texts and a flag always make JSON");
        // What follows the brace of an object of its own.
        body.put_slice(b"],");
        body.put_slice(&tail[1..]);
        HttpResponse::Ok()
            .insert_header(("Content-Type", "application/json"))
            .insert_header(("Cache-Control", "no-store"))
            .body(body.freeze())
    }
}
