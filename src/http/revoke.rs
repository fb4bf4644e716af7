//! Taking back what a user may do, at once: `POST /v1/sessions/disconnect` and `POST /v1/subscriptions/end`.

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Payload},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tracing::info;
use utoipa::ToSchema;

use super::{
    error::Problem, openapi::forms::RoomForm, publish::collect, query::Parameters, routes::State,
};
use crate::{
    access::caller::Caller,
    actors::{
        hub::Revoked,
        revoking::{Ended, Others},
    },
    config::Scope,
    delta::compact_json,
};

const MAX_BODY_BYTES: usize = 16 * 1024;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Disconnect {
    #[schema(value_type = String, min_length = 1, example = "ann")]
    user: Arc<str>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct End {
    #[schema(value_type = String, min_length = 1, example = "ann")]
    user: Arc<str>,
    #[schema(value_type = RoomForm, example = "lobby")]
    room: String,
}

#[derive(Serialize, ToSchema)]
pub struct Answer {
    /// Sessions of the user on this server.
    sessions: usize,
    /// Other servers that were told; they act at once, too.
    others: usize,
}

/// End all sessions of a user.
///
/// They are closed with 3503, after which SDKs stay away. The user's tokens still count.
#[utoipa::path(
    post,
    path = "/v1/sessions/disconnect",
    operation_id = "disconnect",
    tag = "administering",
    request_body = Disconnect,
    responses((
        status = 200,
        description = "How many sessions the user has at this server, and how many others were told.",
        body = Answer,
        example = json!({"sessions": 2, "others": 1})
    )),
    extensions(("x-problems" = json!([
        "bad-json", "bad-body", "bad-fields", "too-large", "unknown-parameter", "others-unreachable"
    ])))
)]
pub async fn disconnect(
    request: HttpRequest,
    body: Payload,
    state: Data<State>,
) -> Result<HttpResponse, Problem> {
    let fields = "an object {\"user\":…}";
    let (_, Disconnect { user }) = asked(&request, body, &state, fields).await?;
    let answer = revoke(&state, user, Revoked::Sessions).await?;
    Ok(HttpResponse::Ok().json(answer))
}

/// End a user's subscription to a room.
///
/// Sockets are told with code 2000; streams and polls of the room end.
#[utoipa::path(
    post,
    path = "/v1/subscriptions/end",
    operation_id = "end_subscription",
    tag = "administering",
    request_body = End,
    responses((
        status = 200,
        description = "How many sessions the user has at this server, and how many others were told.",
        body = Answer,
        example = json!({"sessions": 2, "others": 1})
    )),
    extensions(("x-problems" = json!([
        "bad-json", "bad-body", "bad-fields", "too-large", "unknown-parameter", "bad-room-name", "unknown-namespace", "others-unreachable"
    ])))
)]
pub async fn end(
    request: HttpRequest,
    body: Payload,
    state: Data<State>,
) -> Result<HttpResponse, Problem> {
    let fields = "an object {\"user\":…,\"room\":…}";
    let (caller, End { user, room }) = asked(&request, body, &state, fields).await?;
    let room = state.touchable(&caller, &room)?;
    let answer = revoke(&state, user, Revoked::Room(room)).await?;
    Ok(HttpResponse::Ok().json(answer))
}

async fn asked<T: DeserializeOwned>(
    request: &HttpRequest,
    body: Payload,
    state: &State,
    fields: &str,
) -> Result<(Caller, T), Problem> {
    let caller = state.keyholder(request.headers(), Scope::Admin)?;
    Parameters::of(request, &[])?;
    let body = collect(request.headers(), body, "the request", MAX_BODY_BYTES).await?;
    let json = compact_json(&body).map_err(Problem::bad_json)?;
    let asked = serde_json::from_slice(&json).map_err(|_| Problem::bad_fields(fields))?;
    Ok((caller, asked))
}

/// Takes something back from a user, at all servers.
pub async fn revoke(state: &State, user: Arc<str>, what: Revoked) -> Result<Answer, Problem> {
    if user.is_empty() {
        return Err(Problem::bad_fields(
            "a user: anonymous clients have no name",
        ));
    }
    let Ended { sessions, others } = state.services.revoke(user.clone(), what.clone()).await;
    info!(%user, ?what, sessions, ?others, "revoked");
    match others {
        Others::Told(others) => Ok(Answer { sessions, others }),
        Others::Unreachable => Err(Problem::others_unreachable(sessions)),
    }
}
