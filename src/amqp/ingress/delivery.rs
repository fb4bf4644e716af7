//! Messages as the broker has them: what of them matters, and how they are put away and back.

use lapin::{
    BasicProperties,
    message::Delivery,
    types::{AMQPValue, FieldTable, ShortString},
};

use super::message::{Message, Refusal, RoomHeader};

/// The header that names rooms.
const ROOM: &str = "room";

/// Sends copies of a message to queues of its producer's choice, by whatever exchange it goes
/// through: never handed on to an exchange that other producers may not publish to.
const COPIES: [&str; 2] = ["CC", "BCC"];

const PERSISTENT: u8 = 2;

/// The headers of a message that was put away.
pub mod header {
    /// Tells it from others; made when it is put away.
    pub const ID: &str = "rejected-id";
    /// Why it is no delta, for people.
    pub const REASON: &str = "rejected-reason";
    /// The same, for programs.
    pub const CODE: &str = "rejected-code";
    /// The routing key it came with.
    pub const ROUTING_KEY: &str = "rejected-routing-key";
    /// When it was put away.
    pub const TIME: &str = "rejected-time";

    pub(super) const ALL: [&str; 5] = [ID, REASON, CODE, ROUTING_KEY, TIME];
}

/// Lets `work` see what matters of a message.
pub fn with_message<T>(delivery: &Delivery, work: impl FnOnce(Message) -> T) -> T {
    let headers = delivery.properties.headers().as_ref();
    let mut items = Vec::new();
    let room = match headers.and_then(|headers| headers.inner().get(ROOM)) {
        None => RoomHeader::Absent,
        Some(AMQPValue::FieldArray(array)) => {
            items.extend(array.as_slice().iter().map(text));
            RoomHeader::Several(&items)
        }
        Some(value) => text(value).map_or(RoomHeader::Other, RoomHeader::One),
    };
    let id = delivery.properties.message_id().as_ref();
    work(Message {
        routing_key: delivery.routing_key.as_str(),
        room,
        message_id: id.map(ShortString::as_str),
        body: &delivery.data,
    })
}

/// Some clients send strings as bytes.
fn text(value: &AMQPValue) -> Option<&[u8]> {
    match value {
        AMQPValue::LongString(text) => Some(text.as_bytes()),
        AMQPValue::ShortString(text) => Some(text.as_str().as_bytes()),
        AMQPValue::ByteArray(bytes) => Some(bytes.as_slice()),
        _ => None,
    }
}

/// The properties under which a message is put away; `time` in seconds since the Unix epoch.
pub fn rejected(delivery: &Delivery, refusal: &Refusal, id: &str, time: u64) -> BasicProperties {
    let mut headers = without(delivery, &COPIES);
    let mut set = |name: &str, value| {
        headers.insert(name.into(), value);
    };
    let text = |text: &str| AMQPValue::LongString(text.into());
    set(header::ID, text(id));
    set(header::REASON, text(&refusal.to_string()));
    set(header::CODE, text(refusal.code()));
    set(header::ROUTING_KEY, text(delivery.routing_key.as_str()));
    set(header::TIME, AMQPValue::Timestamp(time));
    kept(&delivery.properties).with_headers(headers)
}

/// The properties that a message had before it was put away.
pub fn restored(delivery: &Delivery) -> BasicProperties {
    kept(&delivery.properties).with_headers(without(delivery, &header::ALL))
}

fn without(delivery: &Delivery, names: &[&str]) -> FieldTable {
    let mut headers = FieldTable::default();
    let given = delivery.properties.headers().iter();
    for (name, value) in given.flat_map(|headers| headers.inner()) {
        if !names.contains(&name.as_str()) {
            headers.insert(name.clone(), value.clone());
        }
    }
    headers
}

/// What says something of the message itself. Left out are the expiration, which would take it out
/// of a queue that people look into, and the user, who must be the one that publishes.
fn kept(properties: &BasicProperties) -> BasicProperties {
    let mut kept = BasicProperties::default().with_delivery_mode(PERSISTENT);
    if let Some(of) = properties.message_id() {
        kept = kept.with_message_id(of.clone());
    }
    if let Some(of) = properties.content_type() {
        kept = kept.with_content_type(of.clone());
    }
    if let Some(of) = properties.content_encoding() {
        kept = kept.with_content_encoding(of.clone());
    }
    if let Some(of) = properties.correlation_id() {
        kept = kept.with_correlation_id(of.clone());
    }
    if let Some(of) = properties.app_id() {
        kept = kept.with_app_id(of.clone());
    }
    if let Some(of) = properties.timestamp() {
        kept = kept.with_timestamp(*of);
    }
    if let Some(of) = properties.kind() {
        kept = kept.with_type(of.clone());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(headers: &[(&str, AMQPValue)]) -> Delivery {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert((*name).into(), value.clone());
        }
        let mut delivery = Delivery::mock(1, "in".into(), "key".into(), false, b"1".to_vec());
        delivery.properties = BasicProperties::default()
            .with_headers(table)
            .with_message_id("id".into())
            .with_user_id("anna".into())
            .with_expiration("1".into());
        delivery
    }

    fn text(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    #[test]
    fn a_room_is_a_string_of_any_kind_or_an_array_of_them() {
        let room = |value: AMQPValue| {
            let delivery = delivery(&[("room", value)]);
            with_message(&delivery, |message| format!("{:?}", message.room))
        };
        let one = format!("{:?}", RoomHeader::One(b"a"));
        assert_eq!(room(text("a")), one);
        assert_eq!(room(AMQPValue::ShortString("a".into())), one);
        assert_eq!(room(AMQPValue::ByteArray(b"a"[..].into())), one);
        assert_eq!(room(AMQPValue::LongInt(1)), "Other");
        let items = [Some(&b"a"[..]), None];
        assert_eq!(
            room(AMQPValue::FieldArray(
                vec![text("a"), AMQPValue::Void].into()
            )),
            format!("{:?}", RoomHeader::Several(&items))
        );
        with_message(&delivery(&[]), |message| {
            assert_eq!(message.room, RoomHeader::Absent);
            assert_eq!(
                (message.routing_key, message.message_id),
                ("key", Some("id"))
            );
        });
    }

    #[test]
    fn what_is_put_away_and_put_back_is_the_same_message_without_what_would_harm() {
        let mut put_away = delivery(&[
            ("room", text("a b")),
            (
                "CC",
                AMQPValue::FieldArray(vec![text("roomwire.log.0")].into()),
            ),
        ]);
        put_away.properties = rejected(&put_away, &Refusal::NoRooms, "7", 9);
        let headers = put_away.properties.headers().as_ref().unwrap();
        let keys: Vec<_> = headers.inner().keys().map(ShortString::as_str).collect();
        let expected = [
            "rejected-code",
            "rejected-id",
            "rejected-reason",
            "rejected-routing-key",
            "rejected-time",
            "room",
        ];
        assert_eq!(keys, expected);
        assert!(put_away.properties.user_id().is_none());
        assert!(put_away.properties.expiration().is_none());
        assert_eq!(*put_away.properties.delivery_mode(), Some(PERSISTENT));
        let restored = restored(&put_away);
        let headers = restored.headers().as_ref().unwrap();
        assert_eq!(headers.inner().len(), 1);
        assert_eq!(restored.message_id().as_ref().unwrap().as_str(), "id");
    }
}
