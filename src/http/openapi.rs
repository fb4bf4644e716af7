//! The description of the HTTP API (OpenAPI 3.1), put together from what stands beside the handlers, and a page that
//! shows it.

pub mod forms;
mod html;
mod problems;

use std::sync::LazyLock;

use actix_web::{HttpResponse, http::header};
use bytes::Bytes;
use serde_json::Value;
use utoipa::{
    IntoParams, OpenApi, PartialSchema,
    openapi::{
        Required,
        path::{Parameter, ParameterBuilder, ParameterIn},
    },
};

use self::problems::Problems;
use super::{erase, events, health, history, polling, publish, revoke, rooms};

/// What the page may load: its style.
const POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Roomwire",
        description = "Publish small JSON deltas to rooms, and read what was missed. Clients that follow rooms live \
                       use the WebSocket at `/connection/websocket`, which speaks Centrifugo's client protocol and is \
                       not described here, nor is Centrifugo's HTTP API at `/api`.\n\n\
                       Every error is a problem document (RFC 9457): decide by its `type`."
    ),
    paths(
        publish::one,
        publish::batch,
        erase::one,
        erase::all,
        history::deltas,
        polling::several,
        events::one,
        events::several,
        rooms::list,
        revoke::disconnect,
        revoke::end,
        health::live,
        health::ready,
        health::figures,
        document,
        page,
    ),
    tags(
        (name = "publishing", description = "For backends: what happened is told to rooms."),
        (name = "reading", description = "For those who come back, and for looking back."),
        (name = "administering", description = "For administrators: what a user may do no more."),
        (name = "operating", description = "For operators, load balancers and tools."),
    ),
    components(schemas(publish::Receipt, publish::IdOnly, publish::BatchEntry, forms::ProblemForm)),
    modifiers(&Problems)
)]
struct Api;

/// The document as it is sent, and the page.
static DOCUMENT: LazyLock<(Bytes, Bytes)> = LazyLock::new(|| {
    let api = Api::openapi();
    let mut json = serde_json::to_value(&api).expect("a description is text, numbers and maps");
    for item in json["paths"].as_object_mut().into_iter().flatten() {
        for operation in item.1.as_object_mut().into_iter().flatten() {
            let parameters = operation.1.get_mut("parameters");
            let parameters = parameters.and_then(Value::as_array_mut);
            for parameter in parameters.into_iter().flatten() {
                without_null(&mut parameter["schema"]);
            }
        }
    }
    let page = html::page(&json);
    (json.to_string().into(), page.into())
});

/// A parameter may be left out, and is never null.
fn without_null(schema: &mut Value) {
    if let Some(Value::Array(types)) = schema.get("type") {
        let present = types.iter().find(|name| *name != "null");
        schema["type"] = present.cloned().unwrap_or_default();
    }
    if let Some(Value::Array(forms)) = schema.get("oneOf") {
        let present = forms.iter().find(|form| form["type"] != "null");
        *schema = present.cloned().unwrap_or_default();
    }
}

/// The room in a path.
pub struct RoomParameter;

impl IntoParams for RoomParameter {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let parameter = ParameterBuilder::new()
            .name("room")
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .description(Some(
                "The room: letters and digits of any script, and `_-.:@#,=+~$!&`. What stands before its first `:` is \
                 its namespace, which the server's configuration must define.",
            ))
            .schema(Some(forms::RoomForm::schema()))
            .example(Some("lobby".into()));
        vec![parameter.build()]
    }
}

/// This description.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "operating",
    responses((status = 200, description = "OpenAPI 3.1.", content_type = "application/json"))
)]
pub async fn document() -> HttpResponse {
    let (json, _) = &*DOCUMENT;
    HttpResponse::Ok()
        .content_type("application/json")
        .body(json.clone())
}

/// This description as a page.
#[utoipa::path(
    get,
    path = "/docs",
    tag = "operating",
    responses((status = 200, description = "HTML without scripts.", content_type = "text/html"))
)]
pub async fn page() -> HttpResponse {
    let (_, page) = &*DOCUMENT;
    asset("text/html; charset=utf-8", page.clone())
}

/// `GET /docs/style.css`
pub async fn style() -> HttpResponse {
    let style = include_str!("openapi/style.css");
    asset(
        "text/css; charset=utf-8",
        Bytes::from_static(style.as_bytes()),
    )
}

fn asset(kind: &'static str, content: Bytes) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(kind)
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        // A later version of the server has another page.
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(content)
}

#[cfg(test)]
mod tests;
