//! From what a producer sent to the deltas in it, or to the reason why it holds none. Pure.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;

use crate::{
    config::{Namespaces, UnknownNamespace},
    delta::{BadJson, BadRoomName, MAX_KEY_BYTES, RoomName, compact_json, is_key},
    log::publisher::NewDelta,
};

/// Longest piece of a message that a reason repeats, in characters.
const MAX_QUOTED: usize = 100;

/// A message, as far as it matters.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    pub routing_key: &'a str,
    pub room: RoomHeader<'a>,
    pub message_id: Option<&'a str>,
    pub body: &'a [u8],
}

/// The header `room`. It wins over the routing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomHeader<'a> {
    Absent,
    /// A string, whatever its bytes.
    One(&'a [u8]),
    /// An array; none stands for an item that is no string.
    Several(&'a [Option<&'a [u8]>]),
    /// Of another type.
    Other,
}

/// What a message may hold; the same as what may be posted.
#[derive(Debug, Clone)]
pub struct Rules {
    pub max_delta_bytes: usize,
    /// Rooms of one message.
    pub max_rooms: usize,
    /// The bytes of a message's deltas together.
    pub max_total_bytes: usize,
    pub namespaces: Namespaces,
}

/// Why a message is no delta.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the header \"room\" is neither a string nor an array of strings")]
    HeaderType,
    #[error("item {index} of the header \"room\" is no string; all of them are names of rooms")]
    ItemType { index: usize },
    #[error("the header \"room\" is an empty array; it names at least one room, or is left out")]
    NoRooms,
    #[error("the header \"room\" is not valid UTF-8 at byte {at}")]
    Encoding { at: usize },
    #[error("the header \"room\" names {rooms} rooms; it takes at most {limit}")]
    TooManyRooms { rooms: usize, limit: usize },
    #[error(transparent)]
    RoomName(#[from] BadRoomName),
    #[error(transparent)]
    Namespace(#[from] UnknownNamespace),
    #[error(
        "nothing is kept of room {room:?}, as namespaces.{}.store is false; what is in a queue is kept: publish over HTTP",
        room.namespace()
    )]
    NotStored { room: RoomName },
    #[error(
        "the message_id is {quoted}; it takes 1 to {MAX_KEY_BYTES} visible ASCII characters, or is left out"
    )]
    Key { quoted: String },
    #[error("the body has {bytes} bytes; a delta takes at most {limit}")]
    TooLarge { bytes: usize, limit: usize },
    #[error("the body has {bytes} bytes, for {rooms} rooms; together that may be {limit}")]
    TooMuch {
        bytes: usize,
        rooms: usize,
        limit: usize,
    },
    #[error(transparent)]
    Json(#[from] BadJson),
}

impl Refusal {
    /// Never changes its meaning. Where the same can be wrong with a publish over HTTP, it is the
    /// last word of that problem's type.
    pub fn code(&self) -> &'static str {
        match self {
            Self::HeaderType
            | Self::ItemType { .. }
            | Self::NoRooms
            | Self::Encoding { .. }
            | Self::RoomName(_) => "bad-room-name",
            Self::TooManyRooms { .. } => "too-many-deltas",
            Self::Namespace(_) => "unknown-namespace",
            Self::NotStored { .. } => "not-stored",
            Self::Key { .. } => "bad-idempotency-key",
            Self::TooLarge { .. } | Self::TooMuch { .. } => "too-large",
            Self::Json(_) => "bad-json",
        }
    }
}

/// The deltas of a message, one for each of its rooms in their order; a room that is named twice
/// counts once.
pub fn deltas(message: Message, rules: &Rules) -> Result<Vec<NewDelta>, Refusal> {
    let rooms = rooms(message, rules)?;
    let key = message.message_id.map(key).transpose()?;
    let bytes = message.body.len();
    let limit = rules.max_delta_bytes;
    if bytes > limit {
        return Err(Refusal::TooLarge { bytes, limit });
    }
    let body = compact_json(message.body)?;
    let limit = rules.max_total_bytes;
    // Limits are far below what would overflow.
    if rooms.len() > 1 && body.len() * rooms.len() > limit {
        let rooms = rooms.len();
        return Err(Refusal::TooMuch {
            bytes,
            rooms,
            limit,
        });
    }
    let delta = |room| NewDelta {
        room,
        body: body.clone(),
        key: key.clone(),
        info: Bytes::new(),
        exclude: None,
    };
    Ok(rooms.into_iter().map(delta).collect())
}

fn rooms(message: Message, rules: &Rules) -> Result<Vec<RoomName>, Refusal> {
    let room = |name: &[u8]| -> Result<RoomName, Refusal> {
        let name = std::str::from_utf8(name).map_err(|error| Refusal::Encoding {
            at: error.valid_up_to(),
        })?;
        let room = RoomName::new(name)?;
        match rules.namespaces.of(&room)?.store {
            true => Ok(room),
            false => Err(Refusal::NotStored { room }),
        }
    };
    match message.room {
        RoomHeader::Absent => Ok(vec![room(message.routing_key.as_bytes())?]),
        RoomHeader::One(name) => Ok(vec![room(name)?]),
        RoomHeader::Several([]) => Err(Refusal::NoRooms),
        RoomHeader::Several(names) if names.len() > rules.max_rooms => Err(Refusal::TooManyRooms {
            rooms: names.len(),
            limit: rules.max_rooms,
        }),
        RoomHeader::Several(names) => {
            let mut seen = HashSet::new();
            let mut rooms = Vec::with_capacity(names.len());
            for (index, name) in names.iter().enumerate() {
                let room = room(name.ok_or(Refusal::ItemType { index })?)?;
                if seen.insert(room.clone()) {
                    rooms.push(room);
                }
            }
            Ok(rooms)
        }
        RoomHeader::Other => Err(Refusal::HeaderType),
    }
}

fn key(id: &str) -> Result<Arc<str>, Refusal> {
    match is_key(id) {
        true => Ok(id.into()),
        false => Err(Refusal::Key {
            quoted: format!("{:?}", id.chars().take(MAX_QUOTED).collect::<String>()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Namespace;
    use proptest::prelude::*;

    fn rules() -> Rules {
        Rules {
            max_delta_bytes: 40,
            max_rooms: 3,
            max_total_bytes: 60,
            namespaces: Namespaces::from_iter([
                ("chat", Namespace::default()),
                (
                    "ticker",
                    Namespace {
                        store: false,
                        ..Namespace::default()
                    },
                ),
            ]),
        }
    }

    fn message<'a>(routing_key: &'a str, body: &'a [u8]) -> Message<'a> {
        Message {
            routing_key,
            room: RoomHeader::Absent,
            message_id: None,
            body,
        }
    }

    fn names(message: Message) -> Vec<String> {
        let deltas = deltas(message, &rules()).unwrap();
        deltas.iter().map(|of| of.room.to_string()).collect()
    }

    fn refused(message: Message) -> (&'static str, String) {
        let refusal = deltas(message, &rules()).unwrap_err();
        (refusal.code(), refusal.to_string())
    }

    #[test]
    fn the_routing_key_is_the_room_and_the_message_id_the_key() {
        let message = Message {
            message_id: Some("order-7"),
            ..message("chat:1", b" {\"a\": 1} ")
        };
        let expected = NewDelta {
            room: RoomName::new("chat:1").unwrap(),
            body: Bytes::from_static(b"{\"a\":1}"),
            key: Some("order-7".into()),
            info: Bytes::new(),
            exclude: None,
        };
        assert_eq!(deltas(message, &rules()), Ok(vec![expected]));
    }

    #[test]
    fn the_header_wins_over_the_routing_key_and_a_comma_is_part_of_a_name() {
        let one = RoomHeader::One(b"a,b");
        let message = message("no room!", b"1");
        assert_eq!(
            names(Message {
                room: one,
                ..message
            }),
            ["a,b"]
        );
        let several = [&b"x"[..], b"chat:2", b"x"].map(Some);
        let room = RoomHeader::Several(&several);
        assert_eq!(names(Message { room, ..message }), ["x", "chat:2"]);
    }

    #[test]
    fn one_room_of_several_that_is_wrong_refuses_the_whole_message() {
        let message = message("lobby", b"1");
        let several = [Some(&b"a"[..]), Some(b"b c")];
        let room = RoomHeader::Several(&several);
        assert_eq!(refused(Message { room, ..message }).0, "bad-room-name");
        let several = [Some(&b"a"[..]), None];
        let room = RoomHeader::Several(&several);
        let (_, reason) = refused(Message { room, ..message });
        assert!(reason.starts_with("item 1 of the header"), "{reason}");
    }

    #[test]
    fn whatever_is_wrong_has_a_code_and_a_reason() {
        let good = message("lobby", b"1");
        let with = |room| Message { room, ..good };
        let four = [Some(&b"a"[..]); 4];
        let three = [&b"a"[..], b"b", b"c"].map(Some);
        let long = Message {
            room: RoomHeader::Several(&three),
            ..message("", b"\"12345678901234567890\"")
        };
        let cases = [
            (with(RoomHeader::Other), "bad-room-name", "neither a string"),
            (
                with(RoomHeader::Several(&[])),
                "bad-room-name",
                "at least one",
            ),
            (
                with(RoomHeader::One(b"a\xff")),
                "bad-room-name",
                "at byte 1",
            ),
            (
                with(RoomHeader::Several(&four)),
                "too-many-deltas",
                "at most 3",
            ),
            (message("", b"1"), "bad-room-name", "a room name is empty"),
            (message("x:1", b"1"), "unknown-namespace", "[namespaces.x]"),
            (
                message("ticker:1", b"1"),
                "not-stored",
                "namespaces.ticker.store",
            ),
            (message("lobby", b""), "bad-json", "the body is empty"),
            (message("lobby", b"{\"a\":"), "bad-json", "line 1, column 5"),
            (
                message("lobby", &[b'1'; 41]),
                "too-large",
                "has 41 bytes; a delta takes at most 40",
            ),
            (long, "too-large", "22 bytes, for 3 rooms"),
            (
                Message {
                    message_id: Some(""),
                    ..good
                },
                "bad-idempotency-key",
                "is \"\"; it takes 1 to 128",
            ),
        ];
        for (message, code, words) in cases {
            let (got, reason) = refused(message);
            assert_eq!(got, code, "{message:?}");
            assert!(reason.contains(words), "{reason}");
        }
    }

    proptest! {
        #[test]
        fn no_message_is_both_taken_and_larger_than_may_be(
            key in ".{0,12}", body: Vec<u8>, id in prop::option::of(".{0,200}"),
            items in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..4)), 0..5),
        ) {
            let items: Vec<_> = items.iter().map(Option::as_deref).collect();
            for room in [RoomHeader::Absent, RoomHeader::Several(&items)] {
                let message = Message { routing_key: &key, room, message_id: id.as_deref(), body: &body };
                if let Ok(deltas) = deltas(message, &rules()) {
                    prop_assert!((1..=3).contains(&deltas.len()));
                    let bytes: usize = deltas.iter().map(|delta| delta.body.len()).sum();
                    prop_assert!(bytes <= 60);
                }
            }
        }
    }
}
