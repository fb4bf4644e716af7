//! Reads messages of Protobuf as they would be in JSON.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use serde_json::{Map, Value, json};

use super::super::messages as wire;
use crate::protocol::frame::payload;

/// The messages of a frame of Protobuf, each as it would be in JSON.
pub fn read(frame: &Bytes) -> Vec<Value> {
    let (bytes, mut messages) = (payload(frame), vec![]);
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        messages.push(message(
            wire::Reply::decode_length_delimited(&mut rest).unwrap(),
        ));
    }
    messages
}

/// The messages of a frame of JSON.
pub fn lines(frame: &Bytes) -> Vec<Value> {
    let text = payload(frame);
    let lines = text.split(|&byte| byte == b'\n');
    lines
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// What is left out in JSON is left out here.
fn object(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let empty = [
        json!(0),
        json!(""),
        json!(false),
        json!([]),
        json!({}),
        Value::Null,
    ];
    let fields = fields
        .into_iter()
        .filter(|(_, value)| !empty.contains(value));
    Value::Object(
        fields
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    )
}

fn parsed(json: &Bytes) -> Value {
    match json.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(json).unwrap(),
    }
}

fn message(reply: wire::Reply) -> Value {
    let mut told = Map::new();
    let mut tell = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            told.insert(name.to_owned(), value);
        }
    };
    tell("id", (reply.id > 0).then(|| json!(reply.id)));
    tell(
        "error",
        reply.error.map(|e| {
            object([
                ("code", json!(e.code)),
                ("message", json!(e.message)),
                ("temporary", json!(e.temporary)),
            ])
        }),
    );
    tell("push", reply.push.map(push));
    tell(
        "connect",
        reply.connect.map(|c| {
            object([
                ("client", json!(c.client)),
                ("version", json!(c.version)),
                ("ping", json!(c.ping)),
                ("pong", json!(c.pong)),
                ("session", json!(c.session)),
                ("node", json!(c.node)),
                ("expires", json!(c.expires)),
                ("ttl", json!(c.ttl)),
            ])
        }),
    );
    tell(
        "subscribe",
        reply.subscribe.map(|s| {
            object([
                ("recoverable", json!(s.recoverable)),
                ("positioned", json!(s.positioned)),
                ("epoch", json!(s.epoch)),
                ("offset", json!(s.offset)),
                ("recovered", json!(s.recovered)),
                ("was_recovering", json!(s.was_recovering)),
                ("publications", publications(s.publications)),
                ("expires", json!(s.expires)),
                ("ttl", json!(s.ttl)),
            ])
        }),
    );
    tell(
        "refresh",
        reply.refresh.map(|r| {
            object([
                ("client", json!(r.client)),
                ("version", json!(r.version)),
                ("expires", json!(r.expires)),
                ("ttl", json!(r.ttl)),
            ])
        }),
    );
    tell(
        "sub_refresh",
        reply
            .sub_refresh
            .map(|r| object([("expires", json!(r.expires)), ("ttl", json!(r.ttl))])),
    );
    tell("unsubscribe", reply.unsubscribe.map(|()| json!({})));
    tell("publish", reply.publish.map(|()| json!({})));
    tell(
        "presence",
        reply.presence.map(|p| {
            let clients: BTreeMap<_, _> = p
                .presence
                .into_iter()
                .map(|(id, c)| (id, info(c)))
                .collect();
            json!({ "presence": clients })
        }),
    );
    tell(
        "presence_stats",
        reply
            .presence_stats
            .map(|s| json!({"num_clients": s.num_clients, "num_users": s.num_users})),
    );
    tell(
        "history",
        reply.history.map(|h| {
            let publications = publications(h.publications);
            json!({"publications": publications, "epoch": h.epoch, "offset": h.offset})
        }),
    );
    Value::Object(told)
}

fn push(push: wire::Push) -> Value {
    let member = |member: wire::Member| json!({ "info": member.info.map(info) });
    object([
        ("channel", json!(push.channel)),
        ("pub", push.publication.map(publication).into()),
        ("join", push.join.map(member).into()),
        ("leave", push.leave.map(member).into()),
        (
            "unsubscribe",
            push.unsubscribe
                .map(|u| json!({"code": u.code, "reason": u.reason}))
                .into(),
        ),
    ])
}

fn publications(all: Vec<wire::Publication>) -> Value {
    all.into_iter().map(publication).collect()
}

fn publication(publication: wire::Publication) -> Value {
    let mut told = object([
        ("info", publication.info.map(info).into()),
        ("offset", json!(publication.offset)),
        ("time", json!(publication.time)),
        ("tags", json!(publication.tags)),
    ]);
    told["data"] = parsed(&publication.data);
    told
}

/// Both names are always there.
fn info(info: wire::ClientInfo) -> Value {
    let mut told = object([("conn_info", parsed(&info.conn_info))]);
    told["user"] = json!(info.user);
    told["client"] = json!(info.client);
    told
}
