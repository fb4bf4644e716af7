//! What operators and load balancers ask.

use actix_web::{HttpResponse, web::Data};
use serde_json::json;

use super::{error::Problem, routes::State};
use crate::{
    log::publisher::{PublishError, Refusal},
    metrics,
};

/// Whether the process answers.
#[utoipa::path(
    method(get, head),
    path = "/healthz",
    tag = "operating",
    responses((status = 200, description = "It does.", body = Value, example = json!({"status": "ok"})))
)]
pub async fn live() -> HttpResponse {
    HttpResponse::Ok().json(json!({"status": "ok"}))
}

/// Whether the server takes clients and publishes.
///
/// With a log on RabbitMQ the answer has `partitions`, and how far each is.
#[utoipa::path(
    method(get, head),
    path = "/readyz",
    tag = "operating",
    responses((
        status = 200,
        description = "It does.",
        body = Value,
        example = json!({"status": "ready", "sessions": 12, "rooms": 3})
    )),
    extensions(("x-problems" = json!(["draining", "catching-up"])))
)]
pub async fn ready(state: Data<State>) -> Result<HttpResponse, Problem> {
    if state.life.is_draining() {
        return Err(Problem::draining());
    }
    if state.life.has_failed() {
        return Err(Problem::internal());
    }
    if state.life.is_catching_up() {
        return Err(Problem::catching_up(&state.services.progress()));
    }
    if state.services.is_shared() {
        match state.services.publisher.refusal() {
            Some(PublishError::NoSpace) => return Err(Problem::reads_nothing("its disk is full")),
            Some(PublishError::NotTaken {
                why: Refusal::Reopening,
            }) => return Err(Problem::reads_nothing("its database failed")),
            _ => {}
        }
    }
    let mut answer = json!({
        "status": "ready",
        "sessions": state.life.sessions(),
        "rooms": state.services.registry.len(),
    });
    if state.services.is_shared() {
        let partitions = state.services.kept().map(|log| {
            let status = log.status();
            json!({
                "connected": status.connected,
                "lost_connections": status.lost_connections,
                "read": status.current,
                "behind": status.behind,
                "lag_seconds": status.lag.as_secs_f64(),
            })
        });
        answer["partitions"] = partitions.collect();
        if let Some(why) = state.services.publisher.refusal() {
            answer["refuses_publishes"] = why.to_string().into();
        }
    }
    if let Some(ingress) = &state.services.ingress {
        let figures = ingress.figures();
        answer["ingress"] = json!({
            "connected": figures.connected,
            "holds": figures.holds,
            "taken": figures.taken,
            "rejected": figures.rejected,
            "in_flight": figures.in_flight,
            "waiting": figures.waiting,
            "stalled_seconds": figures.stalled.as_secs_f64(),
        });
    }
    Ok(HttpResponse::Ok().json(answer))
}

/// Figures in Prometheus' text format.
#[utoipa::path(
    method(get, head),
    path = "/metrics",
    tag = "operating",
    responses((status = 200, description = "All figures.", body = String, content_type = "text/plain"))
)]
pub async fn figures(state: Data<State>) -> HttpResponse {
    for (partition, log) in state.services.kept().enumerate() {
        state.services.metrics.log(partition, &log.status());
    }
    if let Some(ingress) = &state.services.ingress {
        state.services.metrics.ingress(&ingress.figures());
    }
    HttpResponse::Ok()
        .content_type(metrics::CONTENT_TYPE)
        .body(state.services.metrics.render())
}
