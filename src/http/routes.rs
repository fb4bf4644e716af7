//! Every route, one list; and what all of them share.

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, header},
    web::{self, ServiceConfig},
};

use super::{
    centrifugo,
    emulation::{self, Emulations},
    erase,
    error::Problem,
    events, health, history, openapi, page, polling, publish, revoke, rooms,
};
use crate::{
    actors::{
        Services,
        life::{Admission, Life},
    },
    config::Http,
    delta::RoomName,
};

/// Where clients' WebSockets go, the path that the SDKs' manuals name.
pub const WEBSOCKET_PATH: &str = "/connection/websocket";

/// What the handlers of one server share.
pub struct State {
    pub services: Arc<Services>,
    pub life: Arc<Life>,
    pub http: Http,
    /// Anybody on this machine may subscribe and publish.
    pub dev: bool,
    pub emulations: Arc<Emulations>,
}

impl State {
    /// Clients may connect, if they can show who they are.
    pub fn must_take_clients(&self) -> Result<(), Problem> {
        match self.services.access.takes_clients() {
            true => self.must_be_up(),
            false => Err(Problem::closed()),
        }
    }

    /// Nothing is taken on the way up and on the way down.
    pub fn must_be_up(&self) -> Result<(), Problem> {
        if self.life.is_draining() {
            return Err(Problem::draining());
        }
        match self.life.is_catching_up() {
            true => Err(Problem::catching_up(&self.services.progress())),
            false => Ok(()),
        }
    }

    /// Browsers tell where a page comes from; a page from anywhere could reach a server on its reader's machine.
    pub fn must_be_friendly(&self, origin: Option<&header::HeaderValue>) -> Result<(), Problem> {
        let Some(origin) = origin else { return Ok(()) };
        let origin = origin.to_str().unwrap_or_default();
        match self.http.allows(origin) {
            true => Ok(()),
            false => Err(Problem::foreign_origin(origin)),
        }
    }

    /// Where nothing is kept there is nothing to read or to erase.
    pub fn must_store(&self, room: &RoomName) -> Result<(), Problem> {
        match self.services.stores(room) {
            true => Ok(()),
            false => Err(Problem::not_stored(room)),
        }
    }

    /// A place for one more session.
    pub fn admit(&self) -> Result<Admission, Problem> {
        let limit = self.services.limits.max_sessions;
        let admission = self.life.admit(limit);
        admission.ok_or_else(|| Problem::full(limit))
    }

    /// A name that is valid, in a namespace that exists.
    pub fn room(&self, name: &str) -> Result<RoomName, Problem> {
        let room = RoomName::new(name).map_err(Problem::bad_room_name)?;
        match self.services.namespaces.of(&room) {
            Ok(_) => Ok(room),
            Err(unknown) => Err(Problem::unknown_namespace(unknown)),
        }
    }
}

/// All routes. WebSocket handshakes do not come here: see `websocket/mod.rs`.
pub fn configure(app: &mut ServiceConfig) {
    app.service(
        web::resource("/v1/rooms/{room}/deltas")
            .route(web::post().to(publish::one))
            .route(web::get().to(history::deltas))
            .route(web::delete().to(erase::all))
            .default_service(web::to(|r| wrong_method(r, &["GET", "POST", "DELETE"]))),
    )
    .service(
        web::resource("/v1/rooms/{room}/deltas/{offset}")
            .route(web::delete().to(erase::one))
            .default_service(web::to(|r| wrong_method(r, &["DELETE"]))),
    )
    .service(
        web::resource("/v1/deltas")
            .route(web::post().to(publish::batch))
            .route(web::get().to(polling::several))
            .default_service(web::to(|r| wrong_method(r, &["GET", "POST"]))),
    )
    .service(
        web::resource("/v1/rooms/{room}/events")
            .route(web::get().to(events::one))
            .default_service(web::to(|r| wrong_method(r, &["GET"]))),
    )
    .service(
        web::resource("/v1/events")
            .route(web::get().to(events::several))
            .default_service(web::to(|r| wrong_method(r, &["GET"]))),
    )
    .service(
        web::resource("/v1/rooms")
            .route(web::get().to(rooms::list))
            .default_service(web::to(|r| wrong_method(r, &["GET"]))),
    )
    .service(
        web::resource("/v1/sessions/disconnect")
            .route(web::post().to(revoke::disconnect))
            .default_service(web::to(|r| wrong_method(r, &["POST"]))),
    )
    .service(
        web::resource("/v1/subscriptions/end")
            .route(web::post().to(revoke::end))
            .default_service(web::to(|r| wrong_method(r, &["POST"]))),
    )
    .service(
        web::resource("/healthz")
            .route(web::get().to(health::live))
            .route(web::head().to(health::live))
            .default_service(web::to(|r| wrong_method(r, &["GET", "HEAD"]))),
    )
    .service(
        web::resource("/readyz")
            .route(web::get().to(health::ready))
            .route(web::head().to(health::ready))
            .default_service(web::to(|r| wrong_method(r, &["GET", "HEAD"]))),
    )
    .service(
        web::resource("/metrics")
            .route(web::get().to(health::figures))
            .route(web::head().to(health::figures))
            .default_service(web::to(|r| wrong_method(r, &["GET", "HEAD"]))),
    )
    .service(
        web::resource("/openapi.json")
            .route(web::get().to(openapi::document))
            .default_service(web::to(|r| wrong_method(r, &["GET"]))),
    )
    .service(
        web::resource("/docs")
            .route(web::get().to(openapi::page))
            .default_service(web::to(|r| wrong_method(r, &["GET"]))),
    )
    .service(
        web::resource("/docs/style.css")
            .route(web::get().to(openapi::style))
            .default_service(web::to(|r| wrong_method(r, &["GET"]))),
    )
    .service(
        web::resource("/")
            .route(web::get().to(page::index))
            .default_service(web::to(|r| wrong_method(r, &["GET"]))),
    )
    .service(
        web::resource("/page/{file}")
            .route(web::get().to(page::asset))
            .default_service(web::to(|r| wrong_method(r, &["GET"]))),
    )
    .service(
        web::resource("/api/{method}")
            .route(web::post().to(centrifugo::method))
            .default_service(web::to(|r| wrong_method(r, &["POST"]))),
    )
    .service(web::resource(WEBSOCKET_PATH).to(no_handshake))
    .service(
        web::resource("/connection/http_stream")
            .route(web::post().to(emulation::http_stream))
            .default_service(web::to(|r| wrong_method(r, &["POST"]))),
    )
    .service(
        web::resource("/connection/sse")
            .route(web::get().to(emulation::sse))
            .default_service(web::to(|r| wrong_method(r, &["GET"]))),
    )
    .service(
        web::resource("/emulation")
            .route(web::post().to(emulation::said))
            .default_service(web::to(|r| wrong_method(r, &["POST"]))),
    )
    .default_service(web::to(nothing_here));
}

async fn wrong_method(
    request: HttpRequest,
    allowed: &'static [&'static str],
) -> Result<HttpResponse, Problem> {
    Err(Problem::method_not_allowed(
        request.method().as_str(),
        allowed,
    ))
}

async fn no_handshake(request: HttpRequest) -> Result<HttpResponse, Problem> {
    match *request.method() {
        Method::GET => Err(Problem::upgrade_required(
            "the request has no \"Upgrade: websocket\" with \"Connection: upgrade\"",
        )),
        _ => wrong_method(request, &["GET"]).await,
    }
}

async fn nothing_here(request: HttpRequest) -> Result<HttpResponse, Problem> {
    Err(Problem::not_found(request.path()))
}
