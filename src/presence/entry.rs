//! What an instance's table says, entry by entry.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{delta::RoomName, protocol::reply::ClientInfo};

/// One life of one instance; a random number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceId(pub u64);

/// What an entry is about. Members come before counts, so that a room that turns from the one to the other is counted
/// twice for a moment and never not at all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Key {
    /// A user of whom the backend hears has a session here.
    #[serde(rename = "u")]
    User(Arc<str>),
    /// A room of which the backend hears has somebody here.
    #[serde(rename = "r")]
    Room(RoomName),
    /// A client is in a room whose members are known by name.
    #[serde(rename = "m")]
    Member(RoomName, #[serde(with = "client")] Uuid),
    /// So many clients are in a room who are not known by name.
    #[serde(rename = "c")]
    Count(RoomName),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// Of users and rooms: whether the backend has been told that they are there.
    #[serde(rename = "t")]
    Told(bool),
    #[serde(rename = "w")]
    Who(Who),
    #[serde(rename = "c")]
    Count(Count),
}

/// A client as others see it, but for its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// Empty: anonymous.
    #[serde(rename = "u", default, skip_serializing_if = "str::is_empty")]
    pub user: Arc<str>,
    /// What its token tells others of it: JSON.
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    pub info: Option<Arc<str>>,
}

/// Clients of a room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    #[serde(rename = "n")]
    pub clients: u32,
    /// Those of them who have no user.
    #[serde(rename = "a", default)]
    pub anonymous: u32,
    /// The room's members are known by name where they are fewer.
    #[serde(rename = "l", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_large: bool,
}

impl Key {
    /// Whether a value is one for this key.
    pub fn fits(&self, value: &Value) -> bool {
        matches!(
            (self, value),
            (Self::User(_) | Self::Room(_), Value::Told(_))
                | (Self::Member(..), Value::Who(_))
                | (Self::Count(_), Value::Count(_))
        )
    }

    /// About how many bytes an entry takes in a message.
    pub fn weight(&self, value: Option<&Value>) -> usize {
        let of_value = match value {
            Some(Value::Who(who)) => who.user.len() + who.info.as_ref().map_or(0, |of| of.len()),
            _ => 0,
        };
        of_value
            + match self {
                Self::User(user) => 24 + user.len(),
                Self::Room(room) => 24 + room.as_str().len(),
                Self::Member(room, _) => 72 + room.as_str().len(),
                Self::Count(room) => 48 + room.as_str().len(),
            }
    }
}

impl From<&ClientInfo> for Who {
    fn from(info: &ClientInfo) -> Self {
        Self {
            user: info.user.clone(),
            info: info.info.clone(),
        }
    }
}

impl Who {
    /// With its id.
    pub fn info(&self, id: Uuid) -> ClientInfo {
        ClientInfo {
            user: self.user.clone(),
            id,
            info: self.info.clone(),
        }
    }
}

/// A client's id as 32 hexadecimal digits.
pub(super) mod client {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use uuid::Uuid;

    pub fn serialize<S: Serializer>(id: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&id.simple())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Uuid::try_parse(&text).map_err(D::Error::custom)
    }
}

/// A number for an entry, the same on every machine. Those of a table are put together by xor, so that two tables are
/// known to be alike whatever order they were filled in.
pub fn digest(key: &Key, value: &Value) -> u64 {
    let mut hash = Fnv::default();
    match key {
        Key::User(user) => hash.text(1, user),
        Key::Room(room) => hash.text(2, room.as_str()),
        Key::Member(room, client) => {
            hash.text(3, room.as_str());
            hash.bytes(client.as_bytes());
        }
        Key::Count(room) => hash.text(4, room.as_str()),
    }
    match value {
        Value::Told(told) => hash.bytes(&[5, u8::from(*told)]),
        Value::Who(who) => {
            hash.text(6, &who.user);
            hash.text(7, who.info.as_deref().unwrap_or_default());
        }
        Value::Count(count) => {
            hash.bytes(&count.clients.to_be_bytes());
            hash.bytes(&count.anonymous.to_be_bytes());
            hash.bytes(&[u8::from(count.is_large)]);
        }
    }
    hash.0
}

/// FNV-1a. Not for what somebody may want to collide: a table that is wrongly taken for another is stale, no more.
pub(super) struct Fnv(pub u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    pub fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// A text of a kind, with an end that no text has within.
    pub fn text(&mut self, kind: u8, text: &str) {
        self.bytes(&[kind]);
        self.bytes(text.as_bytes());
        self.bytes(&[0xFF]);
    }
}
