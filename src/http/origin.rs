//! What a page of another origin may do here, and what every answer tells a browser: middleware of all routes.
//!
//! A crate for CORS would answer refused pages and preflights in a form of its own; here they are problems and 204.

use actix_web::{
    HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        Method,
        header::{self, HeaderName, HeaderValue},
    },
    middleware::Next,
    web::Data,
};

use super::routes::State;

/// What any of the paths takes; the path itself refuses what is not for it.
const METHODS: &str = "GET, POST, DELETE, OPTIONS";

/// Seconds that a browser goes without asking again.
const MAX_AGE: &str = "300";

/// What a script may read of an answer beside what it always may.
const EXPOSED: &str = "Retry-After";

/// What keeps browsers from guessing that an answer is a script or a page.
pub fn no_sniffing() -> (HeaderName, HeaderValue) {
    let name = header::X_CONTENT_TYPE_OPTIONS;
    (name, HeaderValue::from_static("nosniff"))
}

/// Refuses requests of foreign pages before anything is done for them, answers the preflights of the others, and lets
/// them read what they are answered.
pub async fn guard(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let origin = request.headers().get(header::ORIGIN);
    let state = request.app_data::<Data<State>>();
    let refused = state.and_then(|state| state.must_be_friendly(origin).err());
    let is_for_pages = is_for_pages(request.path());
    let is_shared = is_for_pages && refused.is_none() && origin.is_some();
    let mut response = match refused {
        Some(problem) => request.error_response(problem),
        None if is_shared && is_preflight(&request) => preflight(request),
        None => next.call(request).await?.map_into_boxed_body(),
    };
    let origin = response.request().headers().get(header::ORIGIN).cloned();
    let headers = response.headers_mut();
    let (name, value) = no_sniffing();
    headers.insert(name, value);
    if is_for_pages {
        // Also without an origin: a cache must not give that answer to a page.
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    if let Some(origin) = origin.filter(|_| is_shared) {
        let text = HeaderValue::from_static;
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, text("true"));
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, text(EXPOSED));
    }
    Ok(response)
}

/// Whether pages of other origins have business there. The rest is for people and for monitoring.
fn is_for_pages(path: &str) -> bool {
    let is_in = |tree: &str| {
        let rest = path.strip_prefix(tree);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    ["/v1", "/api", "/emulation"].into_iter().any(is_in)
        || ["/connection/http_stream", "/connection/sse"].contains(&path)
}

fn is_preflight(request: &ServiceRequest) -> bool {
    let asks = header::ACCESS_CONTROL_REQUEST_METHOD;
    *request.method() == Method::OPTIONS && request.headers().contains_key(asks)
}

fn preflight(request: ServiceRequest) -> ServiceResponse<BoxBody> {
    let mut answer = HttpResponse::NoContent();
    answer
        .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, METHODS))
        .insert_header((header::ACCESS_CONTROL_MAX_AGE, MAX_AGE));
    let asked = header::ACCESS_CONTROL_REQUEST_HEADERS;
    if let Some(asked) = request.headers().get(asked) {
        answer.insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone()));
    }
    let answer = answer.finish();
    request.into_response(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_and_pages_are_not_for_pages_of_other_origins() {
        for path in [
            "/v1/rooms/a/deltas",
            "/v1/nothing",
            "/api/publish",
            "/api",
            "/emulation",
            "/connection/sse",
        ] {
            assert!(is_for_pages(path), "{path}");
        }
        for path in ["/", "/metrics", "/v10/rooms", "/apis", "/docs", "/page/v1"] {
            assert!(!is_for_pages(path), "{path}");
        }
    }
}
