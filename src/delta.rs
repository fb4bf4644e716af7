//! The vocabulary of the whole server: room names, positions and deltas.

use std::{borrow::Borrow, fmt, sync::Arc};

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;
use uuid::Uuid;

/// Longest room name, in bytes. AMQP routing keys end there, and so do the names of the client protocol.
pub const MAX_ROOM_NAME_BYTES: usize = 255;

/// Deepest nesting of a delta: JSON readers of several languages give up not far above it.
pub const MAX_JSON_DEPTH: usize = 128;

/// Positions stay below 2^53, so that a client whose numbers are doubles reads them exactly.
pub const MAX_OFFSET: u64 = (1 << 53) - 1;

/// Longest idempotency key, in bytes.
pub const MAX_KEY_BYTES: usize = 128;

/// The namespace of a room whose name has no `:`.
pub const DEFAULT_NAMESPACE: &str = "default";

const NAME_PUNCTUATION: &str = "_-.:@#,=+~$!&";

/// A valid room name, `room` or `namespace:rest`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomName(Arc<str>);

/// Why a text is no room name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRoomName {
    #[error("a room name is empty; it takes 1 to {MAX_ROOM_NAME_BYTES} bytes")]
    Empty,
    #[error("a room name has {bytes} bytes; it takes 1 to {MAX_ROOM_NAME_BYTES}")]
    TooLong { bytes: usize },
    #[error(
        "room name {name:?} has {character:?} at byte {at}; it takes letters, digits and {NAME_PUNCTUATION}"
    )]
    Character {
        name: String,
        character: char,
        at: usize,
    },
    #[error(
        "room name {name:?} has nothing {side} its first \":\"; it is \"room\" or \"namespace:rest\""
    )]
    HalfNamespace { name: String, side: &'static str },
}

impl RoomName {
    pub fn new(name: &str) -> Result<Self, BadRoomName> {
        if name.is_empty() {
            return Err(BadRoomName::Empty);
        }
        if name.len() > MAX_ROOM_NAME_BYTES {
            return Err(BadRoomName::TooLong { bytes: name.len() });
        }
        let allowed = |c: char| c.is_alphanumeric() || NAME_PUNCTUATION.contains(c);
        if let Some((at, character)) = name.char_indices().find(|&(_, c)| !allowed(c)) {
            return Err(BadRoomName::Character {
                name: name.into(),
                character,
                at,
            });
        }
        match name.split_once(':') {
            Some(("", _)) => Err(BadRoomName::HalfNamespace {
                name: name.into(),
                side: "before",
            }),
            Some((_, "")) => Err(BadRoomName::HalfNamespace {
                name: name.into(),
                side: "behind",
            }),
            _ => Ok(Self(name.into())),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the first `:`, or [`DEFAULT_NAMESPACE`].
    pub fn namespace(&self) -> &str {
        self.0
            .split_once(':')
            .map_or(DEFAULT_NAMESPACE, |(namespace, _)| namespace)
    }
}

impl Borrow<str> for RoomName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Serialize for RoomName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RoomName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::new(&name).map_err(de::Error::custom)
    }
}

/// Which of a log's `partitions` (at least 1) holds the room. Never another one for the same two: where a delta lies and
/// what its position means depend on it.
pub fn partition_of(room: &RoomName, partitions: u16) -> u16 {
    let hash = crc32fast::hash(room.as_str().as_bytes());
    u16::try_from(hash % u32::from(partitions)).expect("a remainder is below its divisor")
}

/// Whether a text may be an idempotency key: 1 to [`MAX_KEY_BYTES`] visible ASCII characters.
pub fn is_key(text: &str) -> bool {
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    visible && (1..=MAX_KEY_BYTES).contains(&text.len())
}

/// Names the life of a log: positions of two epochs can't be compared. Never empty, never `_`: the client protocol
/// gives both a meaning of their own ("any" and "invalidated").
pub type Epoch = Arc<str>;

/// Where a delta stands: offsets of one room grow strictly within one epoch, not necessarily by one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Position {
    pub offset: u64,
    pub epoch: Epoch,
}

/// One change, as it was ordered and stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    pub room: RoomName,
    pub offset: u64,
    /// Milliseconds since the Unix epoch; never going backwards in a room.
    pub time: u64,
    /// The publisher's idempotency key, or an id made for it.
    pub id: Arc<str>,
    /// Whether `id` was given by the publisher.
    pub keyed: bool,
    /// One line of valid JSON.
    pub data: Bytes,
    /// The client that published through its socket, as JSON; empty for all others.
    pub info: Bytes,
    /// The client that is not sent it live. History does not keep this, so that a replay leaves nothing out.
    pub exclude: Option<Uuid>,
}

/// Which deltas of a room are taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Erasure {
    /// The one at this offset.
    One(u64),
    /// All up to this offset.
    Upto(u64),
}

impl Erasure {
    pub fn covers(self, offset: u64) -> bool {
        match self {
            Self::One(erased) => offset == erased,
            Self::Upto(last) => offset <= last,
        }
    }

    /// The erasure as it is once it has its own place: what comes behind it is another matter.
    pub fn placed_at(self, position: u64) -> Self {
        match self {
            Self::One(offset) => Self::One(offset),
            Self::Upto(last) => Self::Upto(last.min(position)),
        }
    }
}

/// Why bytes are no delta.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadJson {
    #[error("the body is empty; a delta is one JSON value")]
    Empty,
    #[error("not valid UTF-8 at byte {at}; JSON is UTF-8")]
    Encoding { at: usize },
    #[error("not one JSON value: {reason} at line {line}, column {column}")]
    Syntax {
        reason: String,
        line: usize,
        column: usize,
    },
    #[error("nested more than {MAX_JSON_DEPTH} levels deep, at byte {at}")]
    TooDeep { at: usize },
}

/// Checks that `body` is one JSON value and takes out the whitespace between its tokens; all else stays as it was
/// written, numbers of any size and the order of keys included.
pub fn compact_json(body: &[u8]) -> Result<Bytes, BadJson> {
    let text = std::str::from_utf8(body).map_err(|error| BadJson::Encoding {
        at: error.valid_up_to(),
    })?;
    if text.trim_ascii().is_empty() {
        return Err(BadJson::Empty);
    }
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| BadJson::Syntax {
        // serde_json ends its sentence with the place, which the variant names itself.
        reason: error
            .to_string()
            .split(" at line ")
            .next()
            .unwrap_or_default()
            .to_owned(),
        line: error.line(),
        column: error.column(),
    })?;
    strip_whitespace(raw.get())
}

fn strip_whitespace(json: &str) -> Result<Bytes, BadJson> {
    let mut out = BytesMut::with_capacity(json.len());
    let (mut in_string, mut escaped, mut depth) = (false, false, 0_usize);
    for (at, &byte) in json.as_bytes().iter().enumerate() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
        } else {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => continue,
                b'"' => in_string = true,
                b'{' | b'[' => {
                    depth += 1;
                    if depth > MAX_JSON_DEPTH {
                        return Err(BadJson::TooDeep { at });
                    }
                }
                b'}' | b']' => depth -= 1,
                _ => {}
            }
        }
        out.extend_from_slice(&[byte]);
    }
    Ok(out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_belongs_to_what_stands_before_its_first_colon() {
        assert_eq!(RoomName::new("chat:a:b").unwrap().namespace(), "chat");
        assert_eq!(RoomName::new("lobby").unwrap().namespace(), "default");
    }

    #[test]
    fn a_bad_name_is_told_the_rule_and_the_character() {
        assert_eq!(
            RoomName::new("two words").unwrap_err().to_string(),
            "room name \"two words\" has ' ' at byte 3; it takes letters, digits and _-.:@#,=+~$!&"
        );
        assert_eq!(
            RoomName::new(&"é".repeat(128)).unwrap_err(),
            BadRoomName::TooLong { bytes: 256 }
        );
        assert!(RoomName::new(&"x".repeat(255)).is_ok());
        assert!(RoomName::new("").is_err() && RoomName::new(":x").is_err());
        assert!(RoomName::new("x:").is_err() && RoomName::new("a\nb").is_err());
    }

    #[test]
    fn a_room_never_changes_its_partition() {
        let partition = |name, partitions| partition_of(&RoomName::new(name).unwrap(), partitions);
        let of_four = ["lobby", "chat:1", "chat:2", "chat:3", "é"].map(|name| partition(name, 4));
        assert_eq!(of_four, [3, 2, 0, 2, 2]);
        assert_eq!(partition("lobby", 1), 0);
        assert_eq!(partition("lobby", u16::MAX), 8924);
    }

    #[test]
    fn rooms_spread_over_all_partitions() {
        let mut rooms = [0; 4];
        for n in 0..4_000 {
            let room = RoomName::new(&format!("chat:{n}")).unwrap();
            rooms[usize::from(partition_of(&room, 4))] += 1;
        }
        assert!(
            rooms.iter().all(|count| (900..1_100).contains(count)),
            "{rooms:?}"
        );
    }

    #[test]
    fn whitespace_between_tokens_goes_and_nothing_else_changes() {
        let body = b" {\"b\" : 12345678901234567890 ,\r\n\t\"a\": [1.0, 1e2, \"x \\\" \\n y\"] } ";
        assert_eq!(
            &compact_json(body).unwrap()[..],
            br#"{"b":12345678901234567890,"a":[1.0,1e2,"x \" \n y"]}"#
        );
    }

    #[test]
    fn bad_json_is_told_where_it_breaks() {
        assert_eq!(
            compact_json(b"{\n  \"a\": tru }").unwrap_err().to_string(),
            "not one JSON value: expected ident at line 2, column 11"
        );
        assert_eq!(
            compact_json(b"\"\xff\"").unwrap_err(),
            BadJson::Encoding { at: 1 }
        );
        assert_eq!(compact_json(b" \n").unwrap_err(), BadJson::Empty);
        assert!(matches!(
            compact_json(b"{} {}").unwrap_err(),
            BadJson::Syntax { .. }
        ));
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert_eq!(
            compact_json(deep.as_bytes()).unwrap_err(),
            BadJson::TooDeep { at: 128 }
        );
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "[ \\n\"\\\\a-zé]{0,8}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::btree_map("[a-z \"]{0,4}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn compacting_a_pretty_document_gives_its_compact_form(value in json()) {
            let pretty = serde_json::to_vec_pretty(&value).unwrap();
            let compact = compact_json(&pretty).unwrap();
            prop_assert_eq!(&compact[..], &serde_json::to_vec(&value).unwrap()[..]);
            prop_assert!(!compact.contains(&b'\n'));
        }
    }
}
