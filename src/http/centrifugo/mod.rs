//! Centrifugo's HTTP API at `/api/{method}`, so that a backend which speaks it needs another URL and nothing else.
//!
//! Names and forms are Centrifugo's. Each method goes the way of the route of `/v1` that does the same, with the same keys,
//! scopes and rooms. What a method can't do is refused with error 108, and never left out silently.

mod administering;
mod asking;
mod error;
mod fields;
mod publishing;

use std::{borrow::Cow, collections::HashMap};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::HeaderMap,
    web::{Data, Path, Payload},
};
use futures_util::{StreamExt, stream};
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::value::{RawValue, to_raw_value};
use tracing::{Instrument, info_span};

use self::fields::Fields;
use super::{
    error::Problem,
    publish::{collect, peer},
    routes::State,
};
use crate::{
    access::caller::Caller,
    config::Scope,
    delta::{RoomName, compact_json},
    protocol::codes::ErrorCode,
};

/// Commands of a batch that are performed at a time, where the caller does not mind their order.
const PARALLEL: usize = 16;

/// What became of a command: its result as JSON.
type Answer = Result<Box<RawValue>, ErrorCode>;

/// An answer under the name that its result has on the wire.
struct Reply<'a> {
    name: Cow<'a, str>,
    answer: Answer,
}

impl Serialize for Reply<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut reply = serializer.serialize_map(Some(1))?;
        match &self.answer {
            Ok(result) => reply.serialize_entry(&self.name, result)?,
            Err(error) => reply.serialize_entry("error", error)?,
        }
        reply.end()
    }
}

#[derive(Serialize)]
struct Replies<'a> {
    replies: Vec<Reply<'a>>,
}

/// One request: what its commands need of it.
struct Api<'a> {
    state: &'a State,
    headers: &'a HeaderMap,
}

/// `POST /api/{method}`
pub async fn method(
    request: HttpRequest,
    method: Path<String>,
    body: Payload,
    state: Data<State>,
) -> Result<HttpResponse, Problem> {
    let headers = request.headers();
    let api = Api {
        state: &state,
        headers,
    };
    api.must_be_known()?;
    let limit = state.services.publish.max_batch_bytes;
    let body = collect(headers, body, "a request", limit).await?;
    let body = compact_json(&body).map_err(Problem::bad_json)?;
    let json: &RawValue = serde_json::from_slice(&body).map_err(Problem::bad_body)?;
    let span = info_span!("centrifugo", client = peer(&request));
    let answer = async {
        match method.as_str() {
            "batch" => match api.batch(json).await {
                Ok(replies) => HttpResponse::Ok().json(Replies { replies }),
                Err(error) => result(Err(error)),
            },
            method => result(api.perform(method, json).await),
        }
    };
    Ok(answer.instrument(span).await)
}

fn result(answer: Answer) -> HttpResponse {
    HttpResponse::Ok().json(Reply {
        name: "result".into(),
        answer,
    })
}

impl Api<'_> {
    /// Whoever has no key of this server is told so by HTTP; a key that lacks a scope, by each command that needs it.
    fn must_be_known(&self) -> Result<(), Problem> {
        match self.state.keyholder(self.headers, Scope::Publish) {
            Err(problem) if !problem.is_forbidden() => Err(problem),
            _ => Ok(()),
        }
    }

    fn caller(&self, scope: Scope) -> Result<Caller, ErrorCode> {
        Ok(self.state.keyholder(self.headers, scope)?)
    }

    /// The room that the field `channel` names, if the caller has the scope and may touch it.
    fn room(&self, fields: &mut Fields<'_>, scope: Scope) -> Result<RoomName, ErrorCode> {
        let caller = self.caller(scope)?;
        let channel: String = fields.need("channel")?;
        Ok(self.state.touchable(&caller, &channel)?)
    }

    async fn perform(&self, method: &str, parameters: &RawValue) -> Answer {
        let fields = Fields::read(parameters)?;
        match method {
            "publish" => publishing::publish(self, fields).await,
            "broadcast" => publishing::broadcast(self, fields).await,
            "history" => asking::history(self, fields).await,
            "presence" => asking::presence(self, fields),
            "presence_stats" => asking::presence_stats(self, fields),
            "channels" => asking::channels(self, fields),
            "info" => asking::info(self, fields),
            "disconnect" => administering::disconnect(self, fields).await,
            "unsubscribe" => administering::unsubscribe(self, fields).await,
            "history_remove" => administering::history_remove(self, fields).await,
            _ => Err(ErrorCode::NOT_AVAILABLE.because("this server does not have the method")),
        }
    }

    async fn batch<'a>(&self, parameters: &'a RawValue) -> Result<Vec<Reply<'a>>, ErrorCode> {
        let mut fields = Fields::read(parameters)?;
        let commands: Vec<HashMap<Cow<'a, str>, &'a RawValue>> = fields.need("commands")?;
        let parallel: bool = fields.take("parallel")?.unwrap_or_default();
        fields.end()?;
        let limit = self.state.services.publish.max_batch;
        if commands.len() > limit {
            return Err(ErrorCode::LIMIT_EXCEEDED.because(format_args!(
                "a batch takes up to {limit} commands, and this one has {}",
                commands.len()
            )));
        }
        let replies = commands.into_iter().map(|command| self.reply(command));
        let at_a_time = if parallel { PARALLEL } else { 1 };
        Ok(stream::iter(replies).buffered(at_a_time).collect().await)
    }

    async fn reply<'a>(&self, command: HashMap<Cow<'a, str>, &'a RawValue>) -> Reply<'a> {
        let mut command = command.into_iter();
        match (command.next(), command.next()) {
            (Some((method, parameters)), None) => Reply {
                answer: self.perform(&method, parameters).await,
                name: method,
            },
            _ => Reply {
                name: Cow::default(),
                answer: Err(ErrorCode::BAD_REQUEST
                    .because("a command of a batch is an object with the name of one method")),
            },
        }
    }
}

/// A result in its form on the wire.
fn answer(result: &impl Serialize) -> Answer {
    to_raw_value(result).map_err(|error| ErrorCode::INTERNAL.because(error))
}
