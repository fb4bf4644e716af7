//! The client protocol without WebSockets, for proxies that break them: the SDK's transports `http_stream` and `sse`.
//! What the server says is the body of one long answer; what the client says comes by requests of its own, `/emulation`.
//!
//! Bounds: a request waits while the session may not be read, as a socket would.

use std::{
    collections::HashMap,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context as TaskContext, Poll},
};

use actix::{Actor, Addr, AsyncContext};
use actix_web::{
    HttpRequest, HttpResponse,
    body::{BodySize, MessageBody},
    web::{Data, Payload},
};
use bytes::Bytes;
use serde::Deserialize;
use uuid::Uuid;

use super::{
    body::{BodyWire, Dress, Feed, Reader},
    connection::Cut,
    credentials,
    error::Problem,
    publish::collect,
    query::Parameters,
    reading::Reading,
    routes::State,
};
use crate::{
    actors::session::{Hear, Session},
    metrics::Transport,
    protocol::reply::Emulated,
};

const HEADERS: [(&str, &str); 2] = [
    (
        "Cache-Control",
        "private, no-cache, no-store, must-revalidate, max-age=0",
    ),
    // A proxy that collects an answer before it passes it on would hold back all of it.
    ("X-Accel-Buffering", "no"),
];

/// Characters around a command, and escapes within it, that come on top of it in a request.
const ENVELOPE_BYTES: usize = 1024;

/// The sessions of this server that hear by requests, by their secrets.
pub struct Emulations {
    /// Tells this server from others behind the same address.
    node: Uuid,
    sessions: Mutex<HashMap<Uuid, Addr<Session>>>,
}

impl Default for Emulations {
    fn default() -> Self {
        Self {
            node: Uuid::new_v4(),
            sessions: Mutex::default(),
        }
    }
}

impl Emulations {
    fn add(self: &Arc<Self>, secret: Uuid, session: Addr<Session>) -> Listed {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.insert(secret, session);
        Listed {
            emulations: self.clone(),
            secret,
        }
    }

    fn get(&self, secret: Uuid) -> Option<Addr<Session>> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.get(&secret).cloned()
    }
}

/// A session's entry, for as long as somebody reads its stream.
struct Listed {
    emulations: Arc<Emulations>,
    secret: Uuid,
}

impl Drop for Listed {
    fn drop(&mut self) {
        let sessions = self.emulations.sessions.lock();
        let mut sessions = sessions.unwrap_or_else(PoisonError::into_inner);
        sessions.remove(&self.secret);
    }
}

/// What one client reads.
struct Stream {
    reader: Reader,
    _listed: Listed,
}

impl MessageBody for Stream {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        self.reader.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        Pin::new(&mut self.reader).poll_next(cx)
    }
}

/// `POST /connection/http_stream`: the body is the client's first commands.
pub async fn http_stream(
    request: HttpRequest,
    payload: Payload,
    state: Data<State>,
) -> Result<HttpResponse, Problem> {
    state.must_take_clients()?;
    Parameters::of(&request, &[])?;
    let most = state.services.limits.max_command_bytes;
    let commands = collect(request.headers(), payload, "a command", most).await?;
    let stream = begin(&request, &state, Transport::HttpStream, commands)?;
    let mut response = HttpResponse::Ok();
    response.insert_header(("Content-Type", "application/json"));
    HEADERS.into_iter().for_each(|header| {
        response.insert_header(header);
    });
    Ok(response.body(stream))
}

/// `GET /connection/sse?cf_connect=…`: the parameter is the client's first commands.
pub async fn sse(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    state.must_take_clients()?;
    let parameters = Parameters::of(&request, &["cf_connect"])?;
    let connect = parameters.text("cf_connect").unwrap_or_default();
    if connect.is_empty() {
        return Err(Problem::bad_parameter(
            "cf_connect",
            "",
            "the connect command",
        ));
    }
    let stream = begin(
        &request,
        &state,
        Transport::SseStream,
        connect.to_owned().into(),
    )?;
    let mut response = HttpResponse::Ok();
    response.insert_header(("Content-Type", "text/event-stream; charset=utf-8"));
    HEADERS.into_iter().for_each(|header| {
        response.insert_header(header);
    });
    Ok(response.body(stream))
}

fn begin(
    request: &HttpRequest,
    state: &Data<State>,
    transport: Transport,
    commands: Bytes,
) -> Result<Stream, Problem> {
    let admission = state.admit()?;
    let reading = Reading::of(request)?;
    let connection = request.conn_data::<Cut>().cloned().unwrap_or_default();
    let dress = match transport {
        Transport::SseStream => Dress::Data,
        _ => Dress::Lines,
    };
    let services = state.services.clone();
    let wire = BodyWire::new(services.limits.max_outbox_bytes, dress, connection);
    if transport == Transport::SseStream {
        // Something must come for the client to see that the stream is open.
        wire.say(Bytes::from_static(b"\r\n"));
    }
    let secret = Uuid::new_v4();
    let mut session = Session::new(
        transport,
        credentials::token(request.headers(), services.access.cookie()),
        wire.clone(),
        reading.frames.clone(),
        services,
        admission,
    );
    session.emulate(Emulated {
        session: secret.simple().to_string(),
        node: state.emulations.node.simple().to_string(),
    });
    let feed = Feed::new(wire.clone());
    let addr = Session::create(|ctx| {
        ctx.spawn(feed);
        session
    });
    // Its first message.
    addr.do_send(Hear(commands));
    Ok(Stream {
        reader: Reader::new(wire),
        _listed: state.emulations.add(secret, addr),
    })
}

/// What a client says to a session of its own.
#[derive(Deserialize)]
struct Said {
    session: String,
    node: String,
    data: String,
}

/// `POST /emulation`: answers 204; what there is to say comes on the stream.
pub async fn said(
    request: HttpRequest,
    payload: Payload,
    state: Data<State>,
) -> Result<HttpResponse, Problem> {
    state.must_take_clients()?;
    Parameters::of(&request, &[])?;
    let most = state.services.limits.max_command_bytes;
    let limit = 2 * most + ENVELOPE_BYTES;
    let envelope = collect(request.headers(), payload, "a request", limit).await?;
    let said: Said = serde_json::from_slice(&envelope).map_err(|error| {
        Problem::bad_body(format_args!("it takes session, node and data: {error}"))
    })?;
    if said.data.len() > most {
        return Err(Problem::too_large("what a client says", most));
    }
    if Uuid::try_parse(&said.node).ok() != Some(state.emulations.node) {
        return Err(Problem::not_found("a node of that name"));
    }
    let session = Uuid::try_parse(&said.session).ok();
    if let Some(session) = session.and_then(|secret| state.emulations.get(secret)) {
        // One that has ended meanwhile has told its client so by the end of its stream.
        let _ = session.send(Hear(said.data.into())).await;
    }
    Ok(HttpResponse::NoContent().finish())
}
