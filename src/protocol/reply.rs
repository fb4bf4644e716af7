//! What the server sends: replies and pushes, in JSON one object a line.
//!
//! Two traps decide the forms here. A reply without `id` and without `push` is a ping to the SDKs, and a result object
//! must be there under its command's name even when it is empty.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;

use super::{
    codes::{Disconnect, ErrorCode, Unsubscribe},
    format::Codec,
    frame::{self, FrameBuilder},
    protobuf,
};
use crate::delta::{Delta, RoomName};

/// Who a session is to others. Both keys are always on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientInfo {
    /// Empty: anonymous.
    pub user: std::sync::Arc<str>,
    #[serde(rename = "client", serialize_with = "hyphenated")]
    pub id: uuid::Uuid,
    /// What the client's token tells others of it: one line of JSON.
    #[serde(
        rename = "conn_info",
        skip_serializing_if = "Option::is_none",
        serialize_with = "as_json"
    )]
    pub info: Option<std::sync::Arc<str>>,
}

fn as_json<S: Serializer>(
    info: &Option<std::sync::Arc<str>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let json = info.as_deref().map(serde_json::from_str::<&RawValue>);
    json.and_then(Result::ok).serialize(serializer)
}

fn hyphenated<S: Serializer>(id: &uuid::Uuid, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&id.hyphenated())
}

/// A successful reply's result, under the name of its command.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome<'a> {
    Connect(Connected<'a>),
    Refresh(Refreshed<'a>),
    SubRefresh(Lasting),
    Subscribe(Subscribed<'a>),
    /// Of a room that stores nothing: neither position nor recovery.
    #[serde(rename = "subscribe")]
    SubscribeUnstored {
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        was_recovering: bool,
    },
    Unsubscribe {},
    Publish {},
    Presence {
        presence: Presence<'a>,
    },
    PresenceStats {
        num_clients: usize,
        num_users: usize,
    },
    History {
        publications: Vec<Publication<'a>>,
        epoch: &'a str,
        offset: u64,
    },
    Error(ErrorCode),
}

#[derive(Debug, Serialize)]
pub struct Connected<'a> {
    pub client: String,
    pub version: &'a str,
    /// Seconds.
    pub ping: u64,
    pub pong: bool,
    #[serde(flatten)]
    pub lasting: Lasting,
    /// What a client without a socket says with each of its requests.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub emulated: Option<Emulated>,
}

/// How a client without a socket names its session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Emulated {
    /// A secret between the two.
    pub session: String,
    /// The server that has it.
    pub node: String,
}

#[derive(Debug, Serialize)]
pub struct Refreshed<'a> {
    pub client: String,
    pub version: &'a str,
    #[serde(flatten)]
    pub lasting: Lasting,
}

/// How long something lasts unless the client refreshes it. For ever, nothing is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Lasting {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) expires: bool,
    /// Seconds, at least 1 where it expires: SDKs take nothing else.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) ttl: u32,
}

impl Lasting {
    /// `ttl` is at least 1.
    pub fn seconds(ttl: u32) -> Self {
        Self { expires: true, ttl }
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The place from which a subscription goes on. All subscriptions are recoverable.
#[derive(Debug, Serialize)]
pub struct Subscribed<'a> {
    pub recoverable: bool,
    pub positioned: bool,
    pub epoch: &'a str,
    /// Recovered: the request's offset, which the client moves on publication by publication, so that a cut in the
    /// middle of a replay loses nothing. Else the room's position.
    pub offset: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub recovered: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub was_recovering: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub publications: Vec<Publication<'a>>,
    #[serde(flatten)]
    pub lasting: Lasting,
}

/// Clients of a room by id.
#[derive(Debug)]
pub struct Presence<'a>(pub &'a [ClientInfo]);

impl Serialize for Presence<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for info in self.0 {
            map.serialize_entry(&info.id.hyphenated().to_string(), info)?;
        }
        map.end()
    }
}

#[derive(Debug, Serialize)]
pub struct Publication<'a> {
    pub data: &'a RawValue,
    pub offset: u64,
    /// Milliseconds since the Unix epoch.
    pub time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Tags<'a>>,
}

/// What a publisher's own client recognises its delta by.
#[derive(Debug, Serialize)]
pub struct Tags<'a> {
    pub id: &'a str,
}

impl<'a> From<&'a Delta> for Publication<'a> {
    fn from(delta: &'a Delta) -> Self {
        Self {
            data: raw(&delta.data).unwrap_or(RawValue::NULL),
            offset: delta.offset,
            time: delta.time,
            info: raw(&delta.info),
            tags: delta.keyed.then_some(Tags { id: &delta.id }),
        }
    }
}

fn raw(json: &Bytes) -> Option<&RawValue> {
    (!json.is_empty())
        .then(|| serde_json::from_slice(json).ok())
        .flatten()
}

#[derive(Serialize)]
struct Reply<'a> {
    id: u32,
    #[serde(flatten)]
    outcome: &'a Outcome<'a>,
}

#[derive(Serialize)]
struct Push<'a> {
    channel: &'a RoomName,
    #[serde(flatten)]
    body: &'a PushBody<'a>,
}

/// What a push tells of its room.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PushBody<'a> {
    Pub(Publication<'a>),
    /// It has no offset, so that it moves nobody's position.
    #[serde(rename = "pub")]
    Unstored {
        data: &'a RawValue,
        #[serde(skip_serializing_if = "Option::is_none")]
        tags: Option<Tags<'a>>,
    },
    /// From a client, and without an offset, too.
    #[serde(rename = "pub")]
    Ephemeral {
        data: &'a RawValue,
        info: &'a ClientInfo,
    },
    Join {
        info: &'a ClientInfo,
    },
    Leave {
        info: &'a ClientInfo,
    },
    Unsubscribe(Unsubscribe),
}

/// Writes the reply to command `id`; `id` is not 0.
pub fn write_reply(frame: &mut FrameBuilder, id: u32, outcome: &Outcome<'_>) {
    match frame.codec() {
        Codec::Json => write(frame, &Reply { id, outcome }),
        Codec::Protobuf => frame.put(&protobuf::reply(id, outcome)),
    }
}

/// A reply as a frame of its own.
pub fn reply_frame(codec: Codec, id: u32, outcome: &Outcome<'_>) -> Bytes {
    let mut frame = FrameBuilder::new(codec);
    write_reply(&mut frame, id, outcome);
    finish(&mut frame)
}

/// A push of one delta.
pub fn write_delta(frame: &mut FrameBuilder, delta: &Delta) {
    // The hot path of fan-out and replay, by hand: a room's name needs no escaping and the data is JSON already.
    let plain = delta.info.is_empty() && !delta.keyed;
    if !plain || frame.codec() == Codec::Protobuf {
        return write_push(frame, &delta.room, &PushBody::Pub(delta.into()));
    }
    let line = frame.message();
    line.reserve(96 + delta.room.as_str().len() + delta.data.len());
    line.put_slice(b"{\"push\":{\"channel\":\"");
    line.put_slice(delta.room.as_str().as_bytes());
    line.put_slice(b"\",\"pub\":{\"data\":");
    line.put_slice(&delta.data);
    line.put_slice(b",\"offset\":");
    put_number(line, delta.offset);
    line.put_slice(b",\"time\":");
    put_number(line, delta.time);
    line.put_slice(b"}}}");
}

/// A push of data that is not stored, from a client: it has no offset, so that it moves nobody's position.
pub fn write_ephemeral(frame: &mut FrameBuilder, room: &RoomName, data: &Bytes, info: &ClientInfo) {
    let data = raw(data).unwrap_or(RawValue::NULL);
    write_push(frame, room, &PushBody::Ephemeral { data, info });
}

/// A push of a delta that is not stored: it has no offset, so that it moves nobody's position.
pub fn write_unstored(frame: &mut FrameBuilder, room: &RoomName, data: &Bytes, key: Option<&str>) {
    let data = raw(data).unwrap_or(RawValue::NULL);
    let tags = key.map(|id| Tags { id });
    write_push(frame, room, &PushBody::Unstored { data, tags });
}

pub fn join_frame(codec: Codec, room: &RoomName, info: &ClientInfo) -> Bytes {
    push_frame(codec, room, &PushBody::Join { info })
}

pub fn leave_frame(codec: Codec, room: &RoomName, info: &ClientInfo) -> Bytes {
    push_frame(codec, room, &PushBody::Leave { info })
}

pub fn unsubscribe_frame(codec: Codec, room: &RoomName, why: Unsubscribe) -> Bytes {
    push_frame(codec, room, &PushBody::Unsubscribe(why))
}

/// Tells a client without a socket what a close frame would.
pub fn disconnect_frame(why: Disconnect) -> Bytes {
    let push =
        serde_json::json!({"push": {"disconnect": {"code": why.code, "reason": why.reason}}});
    frame::text(push.to_string().as_bytes())
}

fn push_frame(codec: Codec, room: &RoomName, body: &PushBody<'_>) -> Bytes {
    let mut frame = FrameBuilder::new(codec);
    write_push(&mut frame, room, body);
    finish(&mut frame)
}

fn write_push(frame: &mut FrameBuilder, channel: &RoomName, body: &PushBody<'_>) {
    #[derive(Serialize)]
    struct Line<'a> {
        push: Push<'a>,
    }
    match frame.codec() {
        Codec::Json => {
            let push = Push { channel, body };
            write(frame, &Line { push });
        }
        Codec::Protobuf => frame.put(&protobuf::push(channel, body)),
    }
}

fn write(frame: &mut FrameBuilder, message: &impl Serialize) {
    serde_json::to_writer(frame.message().writer(), message)
        .expect("plain structs with string keys, written to memory");
}

fn finish(frame: &mut FrameBuilder) -> Bytes {
    frame.finish().expect("a message was just written")
}

fn put_number(line: &mut BytesMut, number: u64) {
    let mut digits = [0_u8; 20];
    let (mut start, mut rest) = (digits.len(), number);
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    line.put_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::frame::text;

    fn delta(keyed: bool, info: &'static str) -> Delta {
        Delta {
            room: RoomName::new("chat:é").unwrap(),
            offset: 12,
            time: 1_764_025_200_000,
            id: "k\"1".into(),
            keyed,
            data: Bytes::from_static(br#"{"n":12345678901234567890}"#),
            info: info.into(),
            exclude: None,
        }
    }

    fn written(delta: &Delta) -> Bytes {
        let mut frame = FrameBuilder::default();
        write_delta(&mut frame, delta);
        frame.finish().unwrap()
    }

    #[test]
    fn a_delta_is_pushed_with_its_data_untouched() {
        let line = r#"{"push":{"channel":"chat:é","pub":{"data":{"n":12345678901234567890},"offset":12,"time":1764025200000}}}"#;
        assert_eq!(written(&delta(false, "")), text(line.as_bytes()));
    }

    #[test]
    fn a_keyed_delta_carries_its_key_and_a_clients_delta_its_client() {
        let line = r#"{"push":{"channel":"chat:é","pub":{"data":{"n":12345678901234567890},"offset":12,"time":1764025200000,"info":{"user":"","client":"c"},"tags":{"id":"k\"1"}}}}"#;
        let delta = delta(true, r#"{"user":"","client":"c"}"#);
        assert_eq!(written(&delta), text(line.as_bytes()));
    }

    #[test]
    fn empty_results_stand_under_the_name_of_their_command() {
        let line = br#"{"id":5,"unsubscribe":{}}"#;
        assert_eq!(
            reply_frame(Codec::Json, 5, &Outcome::Unsubscribe {}),
            text(line)
        );
        let outcome = Outcome::Presence {
            presence: Presence(&[]),
        };
        assert_eq!(
            reply_frame(Codec::Json, 6, &outcome),
            text(br#"{"id":6,"presence":{"presence":{}}}"#)
        );
        let error = Outcome::Error(ErrorCode::NOT_AVAILABLE);
        assert_eq!(
            reply_frame(Codec::Json, 7, &error),
            text(br#"{"id":7,"error":{"code":108,"message":"not available"}}"#)
        );
    }

    #[test]
    fn a_fresh_subscription_is_told_its_position_and_no_word_of_recovery() {
        let subscribed = Subscribed {
            recoverable: true,
            positioned: true,
            epoch: "e",
            offset: 3,
            recovered: false,
            was_recovering: false,
            publications: vec![],
            lasting: Lasting::default(),
        };
        let line = br#"{"id":2,"subscribe":{"recoverable":true,"positioned":true,"epoch":"e","offset":3}}"#;
        assert_eq!(
            reply_frame(Codec::Json, 2, &Outcome::Subscribe(subscribed)),
            text(line)
        );
    }

    #[test]
    fn pushes_without_offset_and_about_members_have_all_that_sdks_demand() {
        let room = RoomName::new("r").unwrap();
        let info = ClientInfo {
            user: "".into(),
            id: uuid::Uuid::nil(),
            info: None,
        };
        let mut frame = FrameBuilder::default();
        write_ephemeral(&mut frame, &room, &Bytes::from_static(b"1"), &info);
        assert_eq!(
            frame.finish().unwrap(),
            text(br#"{"push":{"channel":"r","pub":{"data":1,"info":{"user":"","client":"00000000-0000-0000-0000-000000000000"}}}}"#)
        );
        assert_eq!(
            join_frame(Codec::Json, &room, &info),
            text(br#"{"push":{"channel":"r","join":{"info":{"user":"","client":"00000000-0000-0000-0000-000000000000"}}}}"#)
        );
        assert_eq!(
            unsubscribe_frame(Codec::Json, &room, Unsubscribe::INSUFFICIENT_STATE),
            text(br#"{"push":{"channel":"r","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#)
        );
    }
}
