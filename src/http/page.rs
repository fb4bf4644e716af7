//! The live page of `--dev`: one room, any transport, and what an outage does. Its files are part of the program, so it
//! works without a network; the SDK among them is the official one, unmodified.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header,
    web::{Data, Path},
};

use super::{error::Problem, routes::State};

/// What the page may load and connect to: nothing but this server.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// `GET /`
pub async fn index(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    file(&request, &state, HTML, include_str!("page/index.html"))
}

/// `GET /page/{file}`
pub async fn asset(
    request: HttpRequest,
    name: Path<String>,
    state: Data<State>,
) -> Result<HttpResponse, Problem> {
    let (kind, content) = match name.as_str() {
        "page.css" => ("text/css; charset=utf-8", include_str!("page/page.css")),
        "page.js" => (SCRIPT, include_str!("page/page.js")),
        "transports.js" => (SCRIPT, include_str!("page/transports.js")),
        "centrifuge.js" => (SCRIPT, include_str!("page/centrifuge.js")),
        "icon.svg" => ("image/svg+xml", include_str!("page/icon.svg")),
        _ => return Err(Problem::not_found(request.path())),
    };
    file(&request, &state, kind, content)
}

fn file(
    request: &HttpRequest,
    state: &State,
    kind: &str,
    content: &'static str,
) -> Result<HttpResponse, Problem> {
    if !state.dev {
        return Err(Problem::not_found(request.path()));
    }
    Ok(HttpResponse::Ok()
        .content_type(kind)
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        // A later version of the server has another page.
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(content))
}
