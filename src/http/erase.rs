//! Taking deltas back: `DELETE` on a delta, or on all of a room up to now.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path},
};
use serde::Serialize;
use tracing::{Instrument, info, info_span};
use utoipa::ToSchema;

use super::{error::Problem, openapi::RoomParameter, query::Parameters, routes::State};
use crate::{
    config::Scope,
    delta::{Epoch, Erasure, MAX_OFFSET, RoomName},
    log::publisher::{PublishError, Published},
};

/// Whoever is at this position or behind it has none of what was erased.
#[derive(Serialize, ToSchema)]
#[schema(as = ErasureReceipt)]
struct Receipt<'a> {
    #[schema(value_type = String)]
    room: &'a RoomName,
    /// The erasure's own place in the log.
    offset: u64,
    #[schema(value_type = String)]
    epoch: &'a Epoch,
    /// Milliseconds since the Unix epoch.
    time: u64,
}

/// Safe in a shared log, at a place that is not known yet.
#[derive(Serialize, ToSchema)]
#[schema(as = ErasureInTheLog)]
struct InTheLog<'a> {
    #[schema(value_type = String)]
    room: &'a RoomName,
}

/// Erase one delta.
///
/// Its place stays, so positions keep their meaning. Clients that have it are not told.
#[utoipa::path(
    delete,
    path = "/v1/rooms/{room}/deltas/{offset}",
    operation_id = "erase_delta",
    tag = "publishing",
    params(
        RoomParameter,
        ("offset" = u64, Path, minimum = 1, maximum = 9007199254740991_u64, description = "The delta's place."),
        ("epoch" = Option<String>, Query, description = "Erase only if the log still has this epoch.")
    ),
    responses(
        (status = 200, description = "Erased, and safe.", body = Receipt<'static>, example = json!({
            "room": "lobby", "offset": 7, "epoch": "4009e9d5f63545d0bab6774de917bfc9", "time": 1795563272998_u64
        })),
        (status = 202, description = "Safe in a shared log; this server has not read that far yet.", body = InTheLog<'static>)
    ),
    extensions(("x-problems" = json!([
        "bad-room-name", "unknown-parameter", "bad-parameter", "unknown-namespace", "no-such-delta",
        "not-taken", "outcome-unknown", "no-space"
    ])))
)]
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

/// Erase all deltas of a room.
///
/// Takes all that was published up to now, also what is trimmed and only in the log. Erasing twice is no error.
#[utoipa::path(
    delete,
    path = "/v1/rooms/{room}/deltas",
    operation_id = "erase_deltas",
    tag = "publishing",
    params(
        RoomParameter,
        ("before" = Option<u64>, Query, minimum = 1, maximum = 9007199254740991_u64, description = "Only deltas in front of this offset."),
        ("epoch" = Option<String>, Query, description = "Erase only if the log still has this epoch.")
    ),
    responses(
        (status = 200, description = "Erased, and safe.", body = Receipt<'static>, example = json!({
            "room": "lobby", "offset": 7, "epoch": "4009e9d5f63545d0bab6774de917bfc9", "time": 1795563272998_u64
        })),
        (status = 202, description = "Safe in a shared log; this server has not read that far yet.", body = InTheLog<'static>)
    ),
    extensions(("x-problems" = json!([
        "bad-room-name", "unknown-parameter", "bad-parameter", "unknown-namespace", "no-such-delta",
        "not-taken", "outcome-unknown", "no-space"
    ])))
)]
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
    Ok(match take_back(state, &room, erasure).await? {
        Some(erased) => HttpResponse::Ok().json(Receipt {
            room: &erased.room,
            offset: erased.offset,
            epoch: &erased.epoch,
            time: erased.time,
        }),
        None => HttpResponse::Accepted().json(InTheLog { room: &room }),
    })
}

/// Erases, and says where that stands in the log; `None` if it is safe in a shared one, at a place that is not known yet.
pub async fn take_back(
    state: &State,
    room: &RoomName,
    erasure: Erasure,
) -> Result<Option<Published>, Problem> {
    let span = info_span!("erase", room.name = %room);
    let erased = state.services.publisher.erase(room.clone(), erasure);
    match (erased.instrument(span.clone()).await, erasure) {
        (Ok(Published { found: false, .. }), Erasure::One(offset)) => {
            Err(Problem::no_such_delta(room, offset))
        }
        (Ok(erased), _) => {
            span.in_scope(|| info!(?erasure, position = erased.offset, "deltas were erased"));
            Ok(Some(erased))
        }
        (Err(PublishError::Unplaced { .. }), _) => Ok(None),
        (Err(PublishError::OutcomeUnknown), _) => Err(Problem::erasure_unknown()),
        (Err(error), _) => Err(error.into()),
    }
}
