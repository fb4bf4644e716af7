//! What operators and load balancers ask.

use actix_web::{HttpResponse, web::Data};
use serde_json::json;

use super::{error::Problem, routes::State};
use crate::metrics;

/// `GET /healthz`: the process answers.
pub async fn live() -> HttpResponse {
    HttpResponse::Ok().json(json!({"status": "ok"}))
}

/// `GET /readyz`: the server takes clients and publishes.
pub async fn ready(state: Data<State>) -> Result<HttpResponse, Problem> {
    if state.life.is_draining() {
        return Err(Problem::draining());
    }
    if state.life.has_failed() {
        return Err(Problem::internal());
    }
    Ok(HttpResponse::Ok().json(json!({
        "status": "ready",
        "sessions": state.life.sessions(),
        "rooms": state.services.registry.len(),
    })))
}

/// `GET /metrics`: figures for Prometheus.
pub async fn figures(state: Data<State>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(metrics::CONTENT_TYPE)
        .body(state.services.metrics.render())
}
