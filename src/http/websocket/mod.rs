//! From a WebSocket handshake to a session actor on the raw socket.
//!
//! Every request with `Upgrade: websocket`, whatever its path and method, and every CONNECT leaves the HTTP server here,
//! past its routes and middleware; so path, method, origin and access are checked here.

mod pump;
mod wire;

use std::{rc::Rc, sync::Arc};

use actix::Actor;
use actix_codec::{Framed, FramedParts};
use actix_http::{
    Request, Response,
    body::BodySize,
    h1::{self, Message},
    ws::handshake_response,
};
use actix_web::{
    HttpMessage,
    http::{Method, header},
};
use bytes::Bytes;
use futures_util::SinkExt;

use self::{pump::Pump, wire::SocketWire};
use super::{
    connection::Connection,
    credentials,
    error::Problem,
    origin::no_sniffing,
    routes::{State, WEBSOCKET_PATH},
};
use crate::{
    actors::{hub::LocalHub, life::Admission, session::Session},
    metrics::Transport,
    protocol::format::Codec,
};

/// The client protocol's names where sub-protocols are named.
const PROTOCOLS: [(&str, Codec); 2] = [
    ("centrifuge-json", Codec::Json),
    ("centrifuge-protobuf", Codec::Protobuf),
];

/// The hubs of this worker thread for clients with a socket, by what they speak.
#[derive(Clone)]
pub struct Sockets {
    pub json: Rc<LocalHub>,
    pub protobuf: Rc<LocalHub>,
}

/// What is spoken on a socket, and the name to answer with if it was asked for by name.
type Spoken = (Option<&'static str>, Codec);

type Handshake = Framed<Connection, h1::Codec>;

/// Answers one handshake, and starts its session on this thread.
pub async fn upgrade(
    request: Request,
    mut connection: Handshake,
    state: Arc<State>,
    sockets: Sockets,
) -> Result<(), actix_web::Error> {
    let ((protocol, codec), admission) = match check(&request, &state) {
        Ok(accepted) => accepted,
        Err(problem) => {
            state.services.metrics.connection_refused(problem.slug());
            return refuse(&mut connection, &problem).await;
        }
    };
    let mut response = handshake_response(request.head());
    if let Some(protocol) = protocol {
        response.insert_header((header::SEC_WEBSOCKET_PROTOCOL, protocol));
    }
    let accepted = response.finish().drop_body();
    let switch: Message<(Response<()>, BodySize)> = Message::Item((accepted, BodySize::None));
    connection.send(switch).await?;
    let FramedParts { io, read_buf, .. } = connection.into_parts();
    let limits = &state.services.limits;
    let wire = Rc::new(SocketWire::new(io.into_inner(), limits.max_outbox_bytes));
    let pump = Pump::new(wire.clone(), limits.max_command_bytes, read_buf);
    let hub = match codec {
        Codec::Json => sockets.json,
        Codec::Protobuf => sockets.protobuf,
    };
    let token = credentials::token(request.headers(), state.services.access.cookie());
    let session = Session::new(
        Transport::WebSocket,
        token,
        wire,
        hub,
        state.services.clone(),
        admission,
    );
    Session::create(|ctx| {
        use actix::AsyncContext;
        ctx.spawn(pump);
        session
    });
    Ok(())
}

fn check(request: &Request, state: &State) -> Result<(Spoken, Admission), Problem> {
    if request.path() != WEBSOCKET_PATH {
        return Err(Problem::not_found(request.path()));
    }
    if request.method() != Method::GET {
        return Err(Problem::method_not_allowed(
            request.method().as_str(),
            &["GET"],
        ));
    }
    state.must_be_friendly(request.headers().get(header::ORIGIN))?;
    state.must_take_clients()?;
    actix_http::ws::verify_handshake(request.head())
        .map_err(|error| Problem::upgrade_required(&error.to_string()))?;
    let spoken = spoken(request)?;
    Ok((spoken, state.admit()?))
}

/// Of the sub-protocols that are asked for, the first that is spoken here.
///
/// Without any it is JSON, or what the query asks for, and then no sub-protocol may be answered: clients that asked for
/// none refuse one. An empty header counts as none, as one SDK sends it.
fn spoken(request: &Request) -> Result<Spoken, Problem> {
    let asked: Vec<&str> = request
        .headers()
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    if asked.is_empty() {
        let query = request.uri().query().unwrap_or_default();
        let asks = |pair| matches!(pair, "format=protobuf" | "cf_protocol=protobuf");
        return Ok(match query.split('&').any(asks) {
            true => (None, Codec::Protobuf),
            false => (None, Codec::Json),
        });
    }
    let known = |name: &&str| PROTOCOLS.into_iter().find(|(known, _)| known == name);
    match asked.iter().find_map(known) {
        Some((name, codec)) => Ok((Some(name), codec)),
        None => Err(Problem::unsupported_protocol(&asked.join(", "))),
    }
}

async fn refuse(connection: &mut Handshake, problem: &Problem) -> Result<(), actix_web::Error> {
    let (status, headers, body) = problem.to_response_parts();
    let mut response = Response::build(status);
    for header in headers.into_iter().chain([no_sniffing()]) {
        response.insert_header(header);
    }
    response.force_close();
    let size = BodySize::Sized(body.len() as u64);
    let head: Message<(Response<()>, BodySize)> =
        Message::Item((response.finish().drop_body(), size));
    connection.send(head).await?;
    connection.send(h1::Message::Chunk(Some(body))).await?;
    let end: Option<Bytes> = None;
    connection.send(h1::Message::Chunk(end)).await?;
    Ok(())
}
