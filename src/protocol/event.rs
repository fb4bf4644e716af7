//! Server-sent events (the `text/event-stream` of HTML), built once and shared by all streams of one room.
//!
//! A delta is an unnamed event. Its `id:` line comes first and says where a reader of that room alone stands; for readers
//! of several rooms [`of_several`] puts theirs in its place. No line of an event but its last is empty, since JSON that is
//! compact has no line feeds.

use bytes::{BufMut, Bytes, BytesMut};
use memchr::memmem;
use serde_json::value::RawValue;

use super::{
    bookmark::{Bookmark, SingleRoom},
    reply::Publication,
};
use crate::delta::{Delta, RoomName};

/// A sign of life that a page can see, other than a comment.
pub const PING: &[u8] = b"event: ping\ndata: {}\n\n";

const ID: &[u8] = b"id: ";
const END: &[u8] = b"\n\n";

/// The event of one delta.
pub fn write_delta(out: &mut BytesMut, ids: &SingleRoom, delta: &Delta) {
    out.reserve(128 + delta.room.as_str().len() + delta.id.len() + delta.data.len());
    out.put_slice(ID);
    ids.write(out, delta.offset);
    out.put_slice(b"\ndata: ");
    write_object(out, delta);
    out.put_slice(END);
}

/// A delta as SSE and polls have it: `{"room","offset","time","id","data"}`.
pub fn write_object(out: &mut BytesMut, delta: &Delta) {
    #[derive(serde::Serialize)]
    struct Object<'a> {
        room: &'a RoomName,
        offset: u64,
        time: u64,
        id: &'a str,
        /// The client that published it through its socket.
        #[serde(skip_serializing_if = "Option::is_none")]
        info: Option<&'a RawValue>,
        data: &'a RawValue,
    }
    let Publication { data, info, .. } = delta.into();
    let object = Object {
        room: &delta.room,
        offset: delta.offset,
        time: delta.time,
        id: &delta.id,
        info,
        data,
    };
    serde_json::to_writer(out.writer(), &object)
        .expect("plain structs with string keys, written to memory");
}

/// The event of a delta that is not stored. It has no `id:`, so that it moves nobody on.
pub fn write_unstored(out: &mut BytesMut, room: &RoomName, data: &Bytes, key: Option<&str>) {
    #[derive(serde::Serialize)]
    struct Object<'a> {
        room: &'a RoomName,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
        data: &'a RawValue,
    }
    let data = serde_json::from_slice(data).unwrap_or(RawValue::NULL);
    out.put_slice(b"data: ");
    serde_json::to_writer(
        out.writer(),
        &Object {
            room,
            id: key,
            data,
        },
    )
    .expect("plain structs with string keys, written to memory");
    out.put_slice(END);
}

/// Tells a reader that something of the room is missing for good, and that it goes on from `offset`.
pub fn reload(room: &RoomName, ids: &SingleRoom, offset: u64) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(ID);
    ids.write(&mut out, offset);
    out.put_slice(b"\nevent: reload\ndata: ");
    let data = serde_json::json!({"room": room, "offset": offset});
    out.put_slice(data.to_string().as_bytes());
    out.put_slice(END);
    out.freeze()
}

/// What a stream begins with: how long to wait before coming back, and a ping that carries where the reader stands, so
/// that one which is cut off before its first delta comes back to the same place.
pub fn opening(retry_ms: u64, at: &Bookmark) -> Bytes {
    Bytes::from(format!(
        "retry: {retry_ms}\nid: {at}\nevent: ping\ndata: {{}}\n\n"
    ))
}

/// What a stream ends with: how long to wait before coming back.
pub fn retry(ms: u64) -> Bytes {
    Bytes::from(format!("retry: {ms}\n\n"))
}

/// Events of one room as a reader of several gets them: with where it stands in all of them, which they move on.
pub fn of_several(events: &Bytes, at: &mut Bookmark) -> Bytes {
    let mut out = BytesMut::with_capacity(events.len() + 256);
    let mut rest = &events[..];
    while let Some(end) = memmem::find(rest, END) {
        let (event, behind) = rest.split_at(end + END.len());
        rest = behind;
        let own = event.strip_prefix(ID).and_then(|text| {
            let (id, body) = text.split_at(memchr::memchr(b'\n', text)?);
            Some((Bookmark::parse_single(id)?, body))
        });
        match own {
            Some((mark, body)) => {
                at.advance(mark);
                out.put_slice(ID);
                at.write(&mut out);
                out.put_slice(body);
            }
            None => out.put_slice(event),
        }
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::bookmark::{Key, Mark};

    fn room(name: &str) -> RoomName {
        RoomName::new(name).unwrap()
    }

    fn events(name: &str, offsets: &[u64]) -> Bytes {
        let ids = SingleRoom::new(&room(name), "e");
        let mut out = BytesMut::new();
        for &offset in offsets {
            let delta = Delta {
                room: room(name),
                offset,
                time: 1_764_025_200_000,
                id: "k\"1".into(),
                keyed: true,
                data: Bytes::from_static(br#"{"n":12345678901234567890}"#),
                info: Bytes::new(),
                exclude: None,
            };
            write_delta(&mut out, &ids, &delta);
        }
        out.freeze()
    }

    fn id(marks: &[(&str, u64)]) -> String {
        let marks = marks.iter().map(|&(room, offset)| Mark {
            room: Key::of(room),
            epoch: Key::of("e"),
            offset,
        });
        Bookmark::new(marks.collect()).to_string()
    }

    #[test]
    fn a_delta_is_an_unnamed_event_with_its_data_untouched() {
        let expected = format!(
            "id: {}\ndata: {}\n\n",
            id(&[("chat:é", 12)]),
            r#"{"room":"chat:é","offset":12,"time":1764025200000,"id":"k\"1","data":{"n":12345678901234567890}}"#
        );
        assert_eq!(events("chat:é", &[12]), expected);
    }

    #[test]
    fn a_reader_of_several_rooms_gets_the_same_events_with_ids_of_all_of_them() {
        let mut at = Bookmark::parse(&id(&[("a", 1), ("b", 2)])).unwrap();
        let ids = SingleRoom::new(&room("b"), "e");
        let both = [
            &events("a", &[5, 7])[..],
            PING,
            &reload(&room("b"), &ids, 9),
        ]
        .concat();
        let told = of_several(&both.into(), &mut at);
        let told = std::str::from_utf8(&told).unwrap();
        let [first, second, ping, reload, ""] = told.split("\n\n").collect::<Vec<_>>()[..] else {
            panic!("{told}");
        };
        assert!(first.starts_with(&format!(
            "id: {}\ndata: {{\"room\":\"a\",\"offset\":5",
            id(&[("a", 5), ("b", 2)])
        )));
        assert!(second.starts_with(&format!("id: {}\ndata: ", id(&[("a", 7), ("b", 2)]))));
        assert_eq!(ping, "event: ping\ndata: {}");
        let expected = format!(
            "id: {}\nevent: reload\ndata: {}",
            id(&[("a", 7), ("b", 9)]),
            r#"{"offset":9,"room":"b"}"#
        );
        assert_eq!(reload, expected);
    }
}
