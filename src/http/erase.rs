//! Taking deltas back: `DELETE` on a delta, or on all of a room up to now.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path},
};
use serde::Serialize;
use tracing::{Instrument, info, info_span};

use super::{error::Problem, query::Parameters, routes::State};
use crate::{
    config::Scope,
    delta::{Epoch, Erasure, MAX_OFFSET, RoomName},
    log::publisher::{PublishError, Published},
};

/// Whoever is at this position or behind it has none of what was erased.
#[derive(Serialize)]
struct Receipt<'a> {
    room: &'a RoomName,
    offset: u64,
    epoch: &'a Epoch,
    time: u64,
}

#[derive(Serialize)]
struct InTheLog<'a> {
    room: &'a RoomName,
}

/// `DELETE /v1/rooms/{room}/deltas/{offset}`
pub async fn one(
    request: HttpRequest,
    path: Path<(String, String)>,
    state: Data<State>,
) -> Result<HttpResponse, Problem> {
    let caller = state.keyholder(request.headers(), Scope::Admin)?;
    let (room, offset) = path.into_inner();
    let parameters = Parameters::of(&request, &["epoch"])?;
    let expected = "the offset of a delta: a whole number from 1, below 2^53";
    let offset = offset
        .parse()
        .ok()
        .filter(|offset| (1..=MAX_OFFSET).contains(offset))
        .ok_or_else(|| Problem::bad_parameter("offset", &offset, expected))?;
    let room = state.touchable(&caller, &room)?;
    erase(room, Erasure::One(offset), &parameters, &state).await
}

/// `DELETE /v1/rooms/{room}/deltas`
pub async fn all(
    request: HttpRequest,
    room: Path<String>,
    state: Data<State>,
) -> Result<HttpResponse, Problem> {
    let caller = state.keyholder(request.headers(), Scope::Admin)?;
    let parameters = Parameters::of(&request, &["before", "epoch"])?;
    let expected = "an offset: a whole number from 1, below 2^53";
    let fits = |offset: &u64| (1..=MAX_OFFSET).contains(offset);
    let before = parameters.parsed("before", expected, fits)?;
    let last = before.map_or(MAX_OFFSET, |before| before - 1);
    let room = state.touchable(&caller, &room)?;
    erase(room, Erasure::Upto(last), &parameters, &state).await
}

async fn erase(
    room: RoomName,
    erasure: Erasure,
    parameters: &Parameters,
    state: &State,
) -> Result<HttpResponse, Problem> {
    state.must_store(&room)?;
    let epoch = state.services.history.epoch(&room);
    let asked = parameters.text("epoch").unwrap_or_default();
    if !asked.is_empty() && *asked != *epoch {
        return Err(Problem::other_epoch(&epoch));
    }
    let span = info_span!("erase", room.name = %room);
    let erased = state.services.publisher.erase(room.clone(), erasure);
    match (erased.instrument(span.clone()).await, erasure) {
        (Ok(Published { found: false, .. }), Erasure::One(offset)) => {
            Err(Problem::no_such_delta(&room, offset))
        }
        (Ok(erased), _) => {
            span.in_scope(|| info!(?erasure, position = erased.offset, "deltas were erased"));
            Ok(HttpResponse::Ok().json(Receipt {
                room: &erased.room,
                offset: erased.offset,
                epoch: &erased.epoch,
                time: erased.time,
            }))
        }
        (Err(PublishError::Unplaced { .. }), _) => {
            Ok(HttpResponse::Accepted().json(InTheLog { room: &room }))
        }
        (Err(PublishError::OutcomeUnknown), _) => Err(Problem::erasure_unknown()),
        (Err(error), _) => Err(error.into()),
    }
}
