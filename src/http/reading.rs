//! What streams of events and polls have in common: which rooms a client reads, from where, and how its session begins.

use std::{cell::RefCell, rc::Rc};

use actix::{Actor, AsyncContext};
use actix_web::{HttpRequest, web::Data};

use super::{
    body::{BodyWire, Dress, Feed, Reader},
    connection::Cut,
    error::Problem,
    history::{blocking, time},
    query::Parameters,
    routes::State,
};
use crate::{
    access::caller::Caller,
    actors::{
        follower::{Follow, Follower},
        hub::LocalHub,
    },
    delta::{Epoch, MAX_OFFSET, RoomName},
    log::publisher::wall_clock_ms,
    metrics::Transport,
    protocol::{
        bookmark::{self, Bookmark, Key, Mark},
        codes::Disconnect,
        session::Recover,
    },
    rooms::{history::History, sequence::Start, store::StoreError},
};

/// Most that `last` gives of each room.
const MAX_LAST: u32 = 1000;

/// The epoch of no log: positions in it are lost.
const FOREIGN: &str = "_";

/// The hubs of this worker thread, for those who read an answer's body.
#[derive(Clone)]
pub struct Reading {
    pub events: Rc<LocalHub>,
    pub frames: Rc<LocalHub>,
}

/// Where a client wants to begin, in all of its rooms.
#[derive(Debug, Clone, PartialEq)]
pub enum From {
    /// With what comes next.
    Now,
    /// With the oldest that is kept.
    Oldest,
    /// Behind an offset, of any epoch if that is empty.
    Offset { offset: u64, epoch: String },
    /// Where it stood; a room that is not in it begins now.
    Bookmark(Bookmark),
    /// At a time, in ms since the Unix epoch, inclusive.
    Since(u64),
    /// With the newest so many.
    Last(u32),
    /// Behind something that is no position at all.
    Lost,
}

/// Where a client begins in one room.
#[derive(Debug, Clone)]
pub struct Place {
    pub room: RoomName,
    pub mark: Mark,
    pub start: Start,
    /// Something that was asked for is not kept any more.
    pub incomplete: bool,
}

impl Place {
    /// The place of somebody who has everything up to `offset`.
    pub fn behind(room: &RoomName, epoch: &Epoch, offset: u64) -> Self {
        let epoch: &str = epoch;
        Self {
            room: room.clone(),
            mark: Mark {
                room: Key::of(room.as_str()),
                epoch: Key::of(epoch),
                offset,
            },
            start: Start::Behind(Recover {
                offset,
                epoch: epoch.into(),
            }),
            incomplete: false,
        }
    }
}

impl Reading {
    pub fn of(request: &HttpRequest) -> Result<&Self, Problem> {
        request.app_data().ok_or_else(Problem::internal)
    }

    /// Starts the session of a reader of these places. It ends with what is returned, or when the reader's token does.
    pub fn start(
        &self,
        request: &HttpRequest,
        state: &Data<State>,
        transport: Transport,
        caller: &Caller,
        places: &[Place],
    ) -> Result<(Reader, Rc<BodyWire>, u64), Problem> {
        let admission = state.admit()?;
        let retry_ms = retry_ms(admission.session());
        let several = (places.len() > 1).then(|| bookmark_of(places));
        let connection = request.conn_data::<Cut>().cloned().unwrap_or_default();
        let services = state.services.clone();
        let max_bytes = services.limits.max_outbox_bytes;
        let dress = Dress::Events {
            retry_ms,
            several: several.map(RefCell::new),
        };
        let wire = BodyWire::new(max_bytes, dress, connection);
        let rooms: Vec<Follow> = places
            .iter()
            .map(|place| (place.room.clone(), place.start.clone()))
            .collect();
        let hub = self.events.clone();
        let follower = Follower::new(
            rooms,
            caller.user(),
            transport,
            wire.clone(),
            hub,
            services,
            admission,
        );
        let feed = Feed::new(wire.clone());
        let lasts = caller.lasts(wall_clock_ms() / 1000);
        Follower::create(|ctx| {
            ctx.spawn(feed);
            if let Some(time) = lasts {
                ctx.run_later(time, |follower, _| follower.end(Disconnect::EXPIRED));
            }
            follower
        });
        Ok((Reader::new(wire.clone()), wire, retry_ms))
    }
}

/// Between 1 and 3 s, another one for each session: so that clients of a server that stops come back one by one.
fn retry_ms(session: u64) -> u64 {
    1_000 + session.wrapping_mul(613) % 2_000
}

pub fn bookmark_of(places: &[Place]) -> Bookmark {
    Bookmark::new(places.iter().map(|place| place.mark).collect())
}

/// The rooms of a request: the one of its path, or those of its parameters. `reader` may read all of them.
pub fn rooms(state: &State, reader: &Caller, names: Vec<&str>) -> Result<Vec<RoomName>, Problem> {
    let most = bookmark::MAX_ROOMS.min(state.services.limits.max_rooms_per_session);
    if names.is_empty() || names.len() > most {
        let expected = format!("1 to {most} rooms");
        let given = format!("given {} times", names.len());
        return Err(Problem::bad_parameter("room", &given, &expected));
    }
    let mut rooms: Vec<RoomName> = Vec::with_capacity(names.len());
    for name in names {
        let room = state.readable(reader, name)?;
        let key = Key::of(room.as_str());
        if rooms.iter().any(|known| Key::of(known.as_str()) == key) {
            return Err(Problem::bad_parameter("room", name, "each room once"));
        }
        rooms.push(room);
    }
    Ok(rooms)
}

/// Where a request wants to begin. `Last-Event-ID` wins: a browser that comes back repeats the address of its first
/// request.
pub fn from(request: &HttpRequest, parameters: &Parameters) -> Result<From, Problem> {
    let last_event = request.headers().get("Last-Event-ID");
    if let Some(id) = last_event.filter(|id| !id.is_empty()) {
        let bookmark = id.to_str().ok().and_then(Bookmark::parse);
        // A browser sends it again and again: an error would shut it out for good.
        return Ok(bookmark.map_or(From::Lost, From::Bookmark));
    }
    let given: Vec<&str> = ["after", "since", "last"]
        .into_iter()
        .filter(|name| parameters.text(name).is_some())
        .collect();
    if let [first, second, ..] = given[..] {
        let value = parameters.text(second).unwrap_or_default();
        let expected = format!("nothing where {first} is given");
        return Err(Problem::bad_parameter(second, value, &expected));
    }
    let epoch = parameters.text("epoch").unwrap_or_default();
    if let Some(after) = parameters.text("after") {
        return after_of(after, epoch);
    }
    if let Some(since) = parameters.text("since") {
        return time(since).map(From::Since);
    }
    let expected = format!("a whole number from 1 to {MAX_LAST}");
    let last = parameters.parsed("last", &expected, |n| (1..=MAX_LAST).contains(n))?;
    Ok(last.map_or(From::Now, From::Last))
}

fn after_of(after: &str, epoch: &str) -> Result<From, Problem> {
    if after == "0" {
        return Ok(From::Oldest);
    }
    if let Some(bookmark) = Bookmark::parse(after) {
        return Ok(From::Bookmark(bookmark));
    }
    match after.parse() {
        Ok(offset) if offset <= MAX_OFFSET => Ok(From::Offset {
            offset,
            epoch: epoch.to_owned(),
        }),
        _ => Err(Problem::bad_parameter(
            "after",
            after,
            "0, an offset, or a position as events and polls carry it",
        )),
    }
}

/// Finds where the rooms begin; reads the disk only where it must.
pub async fn places(
    state: &State,
    rooms: Vec<RoomName>,
    from: From,
) -> Result<Vec<Place>, Problem> {
    let history = state.services.history.clone();
    let all = move || -> Result<Vec<Place>, StoreError> {
        let place = |room| place(&history, room, &from);
        rooms.into_iter().map(place).collect()
    };
    blocking(all).await
}

fn place(history: &History, room: RoomName, from: &From) -> Result<Place, StoreError> {
    let epoch: Epoch = history.epoch(&room);
    let behind = |offset, epoch: &str| {
        let epoch = epoch.into();
        (offset, Start::Behind(Recover { offset, epoch }), false)
    };
    let kept = |offset| (offset, Start::Kept(offset), false);
    let mut mark = Mark {
        room: Key::of(room.as_str()),
        epoch: Key::of(&epoch),
        offset: 0,
    };
    let (offset, start, incomplete) = match from {
        From::Now => kept(history.durable(&room)),
        From::Oldest => kept(history.head(&room)?.floor),
        From::Last(count) => kept(history.before_newest(&room, *count)?),
        From::Since(time) => {
            let since = history.since(&room, *time)?;
            (since.after, Start::Kept(since.after), !since.complete)
        }
        From::Offset { offset, epoch } => behind(*offset, epoch),
        From::Lost => behind(0, FOREIGN),
        From::Bookmark(bookmark) => match bookmark.mark(&room) {
            None => kept(history.durable(&room)),
            Some(known) if known.epoch == mark.epoch => behind(known.offset, &epoch),
            Some(known) => {
                mark = known;
                behind(known.offset, FOREIGN)
            }
        },
    };
    mark.offset = offset;
    Ok(Place {
        room,
        mark,
        start,
        incomplete,
    })
}
