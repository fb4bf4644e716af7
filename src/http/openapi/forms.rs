//! Forms in the description that no single type of the code has.

use serde_json::json;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        AllOfBuilder, ArrayBuilder, ObjectBuilder, Ref, RefOr, Type,
        schema::{AnyOfBuilder, Schema, SchemaFormat, SchemaType},
    },
};

use crate::delta::MAX_ROOM_NAME_BYTES;

/// The rule for the names of rooms, as far as a pattern can tell it.
const ROOM_PATTERN: &str = r"^[\p{L}\p{N}_\-.@#,=+~$!&]+(:[\p{L}\p{N}_\-.:@#,=+~$!&]+)?$";

/// A room's name.
pub struct RoomForm;

impl ToSchema for RoomForm {}
impl PartialSchema for RoomForm {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(1))
            .max_length(Some(MAX_ROOM_NAME_BYTES))
            .pattern(Some(ROOM_PATTERN))
            .into()
    }
}

/// Which end of a history comes first.
pub struct OrderForm;

impl ToSchema for OrderForm {}
impl PartialSchema for OrderForm {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(["oldest", "newest"]))
            .into()
    }
}

/// The id of a client.
pub struct ClientForm;

impl ToSchema for ClientForm {}
impl PartialSchema for ClientForm {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::Custom("uuid".to_owned())))
            .into()
    }
}

/// A place or, for whoever does without it, the id alone.
pub struct PlacementForm;

impl ToSchema for PlacementForm {}
impl PartialSchema for PlacementForm {
    fn schema() -> RefOr<Schema> {
        AnyOfBuilder::new()
            .item(Ref::from_schema_name("Receipt"))
            .item(Ref::from_schema_name("IdOnly"))
            .into()
    }
}

/// What became of an entry of a batch: a place with 200 or 201, an id with 202, or a problem.
pub struct ResultForm;

impl ToSchema for ResultForm {}
impl PartialSchema for ResultForm {
    fn schema() -> RefOr<Schema> {
        let status = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(200))
            .maximum(Some(202));
        let status = ObjectBuilder::new()
            .property("status", status)
            .required("status")
            .build();
        let placed = AllOfBuilder::new()
            .item(Ref::from_schema_name("Receipt"))
            .item(status.clone());
        let unplaced = AllOfBuilder::new()
            .item(Ref::from_schema_name("IdOnly"))
            .item(status);
        AnyOfBuilder::new()
            .item(placed)
            .item(unplaced)
            .item(Ref::from_schema_name("Problem"))
            .into()
    }
}

/// A batch. Entries are judged one by one, so no entry makes the whole wrong.
pub struct BatchForm;

impl ToSchema for BatchForm {}
impl PartialSchema for BatchForm {
    fn schema() -> RefOr<Schema> {
        let other = ObjectBuilder::new()
            .schema_type(SchemaType::AnyValue)
            .description(Some("Anything else is refused by itself."));
        let entry = AnyOfBuilder::new()
            .item(Ref::from_schema_name("BatchEntry"))
            .item(other);
        ArrayBuilder::new().items(entry).into()
    }
}

/// What a poll of several rooms has found.
pub struct PollForm;

impl ToSchema for PollForm {}
impl PartialSchema for PollForm {
    fn schema() -> RefOr<Schema> {
        let whole = || {
            ObjectBuilder::new()
                .schema_type(Type::Integer)
                .minimum(Some(0))
        };
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let any = ObjectBuilder::new().schema_type(SchemaType::AnyValue);
        let mut delta = ObjectBuilder::new()
            .property("room", text())
            .property("offset", whole())
            .property("time", whole())
            .property("id", text())
            .property("data", any);
        for name in ["room", "offset", "time", "id", "data"] {
            delta = delta.required(name);
        }
        let more = ObjectBuilder::new().schema_type(Type::Boolean);
        let mut poll = ObjectBuilder::new()
            .property("deltas", ArrayBuilder::new().items(delta))
            .property("reload", ArrayBuilder::new().items(text()))
            .property("more", more)
            .property("position", text());
        for name in ["deltas", "reload", "more", "position"] {
            poll = poll.required(name);
        }
        poll.into()
    }
}

/// A problem document.
pub struct ProblemForm;

impl ToSchema for ProblemForm {
    fn name() -> std::borrow::Cow<'static, str> {
        "Problem".into()
    }
}
impl PartialSchema for ProblemForm {
    fn schema() -> RefOr<Schema> {
        let text = |description: &str| {
            ObjectBuilder::new()
                .schema_type(Type::String)
                .description(Some(description))
        };
        let status = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(400))
            .maximum(Some(599));
        ObjectBuilder::new()
            .description(Some(
                "What went wrong (RFC 9457). Some problems have further members.",
            ))
            .property(
                "type",
                text("Which problem it is; never changes its meaning."),
            )
            .property("title", text("The same for each type."))
            .property("status", status)
            .property(
                "detail",
                text("For people: what was wrong, and what would be right."),
            )
            .required("type")
            .required("title")
            .required("status")
            .required("detail")
            .examples([json!({
                "type": "urn:roomwire:problem:draining", "title": "Stopping", "status": 503,
                "detail": "the server is stopping", "retry_after": 1
            })])
            .into()
    }
}
