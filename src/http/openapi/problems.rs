//! Problems in the description: operations name theirs in `x-problems`, and this writes them out as the manual has them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::{
    Modify,
    openapi::{
        ContentBuilder, HeaderBuilder, ObjectBuilder, OpenApi, Ref, ResponseBuilder, Type,
        example::ExampleBuilder,
        path::{Operation, PathItem},
        security::{
            ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
        },
    },
};

use crate::http::error::CONTENT_TYPE;

const NAMES: &str = "x-problems";

/// What any request may be answered.
const ANYWHERE: [&str; 2] = ["foreign-origin", "internal"];

/// What whoever needs a key or a token may be answered as well.
const OF_CALLERS: [&str; 6] = [
    "unauthorized",
    "token-expired",
    "forbidden",
    "closed",
    "draining",
    "catching-up",
];

/// The tag of operations that are open to all.
const OPEN: &str = "operating";

/// Gives every operation the responses of its problems.
pub struct Problems;

/// A row of the manual.
struct Row {
    slug: &'static str,
    status: &'static str,
    title: &'static str,
    meaning: &'static str,
}

impl Modify for Problems {
    fn modify(&self, api: &mut OpenApi) {
        let components = api.components.get_or_insert_default();
        components.add_security_scheme(
            "key",
            SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
                "X-API-Key",
                "An API key of the server's configuration, for backends and operators.",
            ))),
        );
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The token of a client, for reading, or an API key."));
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer.build()));
        for item in api.paths.paths.values_mut() {
            operations(item).for_each(describe);
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [
        &mut item.get,
        &mut item.head,
        &mut item.post,
        &mut item.delete,
    ]
    .into_iter()
    .flatten()
}

fn describe(operation: &mut Operation) {
    let named = operation
        .extensions
        .as_mut()
        .and_then(|extensions| extensions.remove(NAMES));
    if operation
        .extensions
        .as_ref()
        .is_some_and(|extensions| extensions.is_empty())
    {
        operation.extensions = None;
    }
    let named: Vec<String> = named
        .map(|names| serde_json::from_value(names).expect("a test reads all lists of names"))
        .unwrap_or_default();
    let tags = operation.tags.iter().flatten();
    let of_callers = match tags.into_iter().any(|tag| tag == OPEN) {
        true => &[][..],
        false => &OF_CALLERS,
    };
    if !of_callers.is_empty() {
        let needs = |name: &str| SecurityRequirement::new::<_, [&str; 0], &str>(name, []);
        // With `--dev`, and for rooms that are open, nothing is needed.
        let nothing = SecurityRequirement::default();
        operation.security = Some(vec![nothing, needs("key"), needs("bearer")]);
    }
    let mut by_status: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    let manual = manual();
    let named = named.iter().map(String::as_str);
    for name in named.chain(of_callers.iter().copied()).chain(ANYWHERE) {
        let row = manual.iter().find(|row| row.slug == name);
        let row = row.unwrap_or_else(|| panic!("the manual has no problem {name}"));
        by_status.entry(row.status).or_default().push(row);
    }
    for (status, rows) in by_status {
        let meanings = rows
            .iter()
            .map(|row| format!("`{}`: {}", row.slug, row.meaning));
        let meanings: Vec<_> = meanings.collect();
        let examples = rows.iter().map(|row| {
            let example = ExampleBuilder::new()
                .summary(row.title)
                .value(Some(document(row)));
            (row.slug, example.build())
        });
        let content = ContentBuilder::new()
            .schema(Some(Ref::from_schema_name("Problem")))
            .examples_from_iter(examples)
            .build();
        let mut response = ResponseBuilder::new()
            .description(meanings.join("\n\n"))
            .content(CONTENT_TYPE, content);
        if rows.iter().any(|row| is_temporary(row)) {
            let seconds = ObjectBuilder::new().schema_type(Type::Integer).build();
            let header = HeaderBuilder::new()
                .schema(Some(seconds))
                .description(Some("Seconds after which to try again."));
            response = response.header("Retry-After", header.build());
        }
        let responses = &mut operation.responses.responses;
        responses.insert(status.to_owned(), response.build().into());
    }
}

fn is_temporary(row: &Row) -> bool {
    matches!(row.status, "503" | "507")
}

fn document(row: &Row) -> Value {
    let mut document = json!({
        "type": format!("urn:roomwire:problem:{}", row.slug),
        "title": row.title,
        "status": row.status.parse::<u16>().unwrap_or_default(),
        "detail": row.meaning,
    });
    if is_temporary(row) {
        document["retry_after"] = 1.into();
    }
    document
}

/// A test holds the manual's table against the code.
fn manual() -> Vec<Row> {
    let rows = include_str!("../../../docs/problems.md").lines();
    rows.filter_map(|line| {
        let rest = line.strip_prefix("| `urn:roomwire:problem:")?;
        let (slug, rest) = rest.split_once("` | ")?;
        let mut cells = rest.split(" | ");
        Some(Row {
            slug,
            status: cells.next()?,
            title: cells.next()?,
            meaning: cells.next()?,
        })
    })
    .collect()
}
