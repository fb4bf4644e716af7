//! Taking back what a user may do, at once: `POST /v1/sessions/disconnect` and `POST /v1/subscriptions/end`.

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Payload},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tracing::info;

use super::{error::Problem, publish::collect, query::Parameters, routes::State};
use crate::{access::caller::Caller, actors::hub::Revoked, config::Scope, delta::compact_json};

const MAX_BODY_BYTES: usize = 16 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Disconnect {
    user: Arc<str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    user: Arc<str>,
    room: String,
}

#[derive(Serialize)]
struct Answer {
    /// Sessions of the user on this server.
    sessions: usize,
}

pub async fn disconnect(
    request: HttpRequest,
    body: Payload,
    state: Data<State>,
) -> Result<HttpResponse, Problem> {
    let fields = "an object {\"user\":…}";
    let (_, Disconnect { user }) = asked(&request, body, &state, fields).await?;
    revoke(&state, user, Revoked::Sessions).await
}

pub async fn end(
    request: HttpRequest,
    body: Payload,
    state: Data<State>,
) -> Result<HttpResponse, Problem> {
    let fields = "an object {\"user\":…,\"room\":…}";
    let (caller, End { user, room }) = asked(&request, body, &state, fields).await?;
    let room = state.touchable(&caller, &room)?;
    revoke(&state, user, Revoked::Room(room)).await
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

async fn revoke(state: &State, user: Arc<str>, what: Revoked) -> Result<HttpResponse, Problem> {
    if user.is_empty() {
        return Err(Problem::bad_fields(
            "a user: anonymous clients have no name",
        ));
    }
    let sessions = state.services.hubs.revoke(&user, &what).await;
    info!(%user, ?what, sessions, "revoked");
    Ok(HttpResponse::Ok().json(Answer { sessions }))
}
