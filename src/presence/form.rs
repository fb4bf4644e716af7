//! The messages between instances, and their form on the bus: a byte that says which form it is, and JSON.
//!
//! Fields that are not known are passed over, so that a later build can add some. One that must change the form takes
//! another byte: instances that don't know it ignore the message, and those who sent it are unknown to them.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    entry::{InstanceId, Key, Value, Who, client},
    subjects::Event,
};
use crate::{delta::RoomName, protocol::reply::ClientInfo};

/// The form of this build.
const FORM: u8 = 1;

/// Bytes of entries that one message carries, about.
pub const MESSAGE_BYTES: usize = 32 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub from: InstanceId,
    pub body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// Entries have changed; those without a value are gone.
    Changes {
        /// One more than that of the sender's last message of this kind or the next.
        number: u64,
        entries: Vec<(Key, Option<Value>)>,
    },
    /// Between two keys, the sender's table holds these entries and no others.
    Range {
        number: u64,
        /// Not itself in the range; none: from the beginning.
        after: Option<Key>,
        /// The last of the range; none: to the end.
        upto: Option<Key>,
        entries: Vec<(Key, Value)>,
    },
    /// The sender lives.
    Beat {
        /// Of the last numbered message.
        number: u64,
        /// Of the whole table.
        digest: u64,
        /// Milliseconds to the next one.
        next: u64,
    },
    /// Somebody lacks what was said: `of` one instance, or of all.
    Want { of: Option<InstanceId> },
    /// The backend was told.
    Said { events: Vec<Event> },
    /// The sender stops; nobody is there any more.
    Bye,
}

#[derive(Debug, thiserror::Error)]
pub enum FormError {
    #[error("a message between instances is in form {0}, which this build does not know")]
    Unknown(u8),
    #[error("a message between instances is empty")]
    Empty,
    #[error("a message between instances can't be read: {0}")]
    Json(#[from] serde_json::Error),
    #[error("a message between instances has an entry with a value of another kind")]
    Mismatch,
}

impl Message {
    pub fn encode(&self) -> Bytes {
        encoded(self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FormError> {
        let message: Self = serde_json::from_slice(json(bytes)?)?;
        let fits = match &message.body {
            Body::Changes { entries, .. } => entries
                .iter()
                .all(|(key, value)| value.as_ref().is_none_or(|value| key.fits(value))),
            Body::Range { entries, .. } => entries.iter().all(|(key, value)| key.fits(value)),
            _ => true,
        };
        fits.then_some(message).ok_or(FormError::Mismatch)
    }
}

/// What a client said to a room, for the clients of other instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ephemeral {
    pub from: InstanceId,
    pub room: RoomName,
    pub info: ClientInfo,
    pub data: Bytes,
}

#[derive(Serialize, Deserialize)]
struct EphemeralForm<'a> {
    from: InstanceId,
    room: RoomName,
    #[serde(with = "client")]
    client: Uuid,
    who: Who,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// The message that [`decode_ephemeral`] reads. `data` is JSON.
pub fn encode_ephemeral(
    from: InstanceId,
    room: &RoomName,
    info: &ClientInfo,
    data: &[u8],
) -> Bytes {
    let form = EphemeralForm {
        from,
        room: room.clone(),
        client: info.id,
        who: Who::from(info),
        data: serde_json::from_slice(data).unwrap_or(RawValue::NULL),
    };
    encoded(&form)
}

pub fn decode_ephemeral(bytes: &[u8]) -> Result<Ephemeral, FormError> {
    let form: EphemeralForm<'_> = serde_json::from_slice(json(bytes)?)?;
    Ok(Ephemeral {
        from: form.from,
        room: form.room,
        info: form.who.info(form.client),
        data: Bytes::copy_from_slice(form.data.get().as_bytes()),
    })
}

/// A delta of a room that stores nothing, for the clients of other instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unstored {
    pub from: InstanceId,
    pub room: RoomName,
    /// The idempotency key, if the publisher gave one.
    pub key: Option<Arc<str>>,
    /// The client that is not to be sent it.
    pub exclude: Option<Uuid>,
    /// JSON.
    pub data: Bytes,
}

#[derive(Serialize, Deserialize)]
struct UnstoredForm<'a> {
    from: InstanceId,
    room: RoomName,
    key: Option<Arc<str>>,
    exclude: Option<String>,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl Unstored {
    pub fn encode(&self) -> Bytes {
        encoded(&UnstoredForm {
            from: self.from,
            room: self.room.clone(),
            key: self.key.clone(),
            exclude: self.exclude.map(|client| client.to_string()),
            data: serde_json::from_slice(&self.data).unwrap_or(RawValue::NULL),
        })
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FormError> {
        let form: UnstoredForm<'_> = serde_json::from_slice(json(bytes)?)?;
        Ok(Self {
            from: form.from,
            room: form.room,
            key: form.key,
            exclude: form
                .exclude
                .and_then(|client| Uuid::try_parse(&client).ok()),
            data: Bytes::copy_from_slice(form.data.get().as_bytes()),
        })
    }
}

/// A user may do something no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    pub from: InstanceId,
    /// The same each time it is said.
    pub id: String,
    pub user: Arc<str>,
    /// Follow this room; none: anything.
    pub room: Option<RoomName>,
}

impl Revocation {
    pub fn encode(&self) -> Bytes {
        encoded(self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FormError> {
        Ok(serde_json::from_slice(json(bytes)?)?)
    }
}

fn encoded(form: &impl Serialize) -> Bytes {
    let mut bytes = vec![FORM];
    serde_json::to_writer(&mut bytes, form)
        .expect("texts and numbers have a form in JSON, and memory takes them");
    bytes.into()
}

fn json(bytes: &[u8]) -> Result<&[u8], FormError> {
    match bytes {
        [FORM, json @ ..] => Ok(json),
        [other, ..] => Err(FormError::Unknown(*other)),
        [] => Err(FormError::Empty),
    }
}
