//! What the server sends.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::messages as wire;
use crate::{
    delta::RoomName,
    protocol::reply::{ClientInfo, Outcome, Publication, PushBody, Tags},
};

/// The reply to command `id`.
pub fn reply(id: u32, outcome: &Outcome<'_>) -> wire::Reply {
    let mut reply = wire::Reply {
        id,
        ..Default::default()
    };
    match outcome {
        Outcome::Connect(connected) => {
            let emulated = connected.emulated.clone();
            let (session, node) = emulated.map(|by| (by.session, by.node)).unwrap_or_default();
            reply.connect = Some(wire::ConnectResult {
                client: connected.client.clone(),
                version: connected.version.into(),
                ping: count(connected.ping),
                pong: connected.pong,
                expires: connected.lasting.expires,
                ttl: connected.lasting.ttl,
                session,
                node,
            });
        }
        Outcome::Refresh(refreshed) => {
            reply.refresh = Some(wire::RefreshResult {
                client: refreshed.client.clone(),
                version: refreshed.version.into(),
                expires: refreshed.lasting.expires,
                ttl: refreshed.lasting.ttl,
            });
        }
        Outcome::SubRefresh(lasting) => {
            reply.sub_refresh = Some(wire::SubRefreshResult {
                expires: lasting.expires,
                ttl: lasting.ttl,
            });
        }
        Outcome::Subscribe(subscribed) => {
            reply.subscribe = Some(wire::SubscribeResult {
                recoverable: subscribed.recoverable,
                epoch: subscribed.epoch.into(),
                publications: subscribed.publications.iter().map(publication).collect(),
                recovered: subscribed.recovered,
                offset: subscribed.offset,
                positioned: subscribed.positioned,
                was_recovering: subscribed.was_recovering,
                expires: subscribed.lasting.expires,
                ttl: subscribed.lasting.ttl,
            });
        }
        Outcome::SubscribeUnstored { was_recovering } => {
            reply.subscribe = Some(wire::SubscribeResult {
                was_recovering: *was_recovering,
                ..Default::default()
            });
        }
        Outcome::Unsubscribe {} => reply.unsubscribe = Some(()),
        Outcome::Publish {} => reply.publish = Some(()),
        Outcome::Presence { presence } => {
            let clients = presence.0.iter().map(client);
            let by_id = clients.map(|info| (info.client.clone(), info));
            reply.presence = Some(wire::PresenceResult {
                presence: by_id.collect(),
            });
        }
        Outcome::PresenceStats {
            num_clients,
            num_users,
        } => {
            reply.presence_stats = Some(wire::PresenceStatsResult {
                num_clients: count(*num_clients),
                num_users: count(*num_users),
            });
        }
        Outcome::History {
            publications,
            epoch,
            offset,
        } => {
            reply.history = Some(wire::HistoryResult {
                publications: publications.iter().map(publication).collect(),
                epoch: (*epoch).into(),
                offset: *offset,
            });
        }
        Outcome::Error(error) => {
            reply.error = Some(wire::Error {
                code: error.code,
                message: error.message.clone().into(),
                temporary: error.temporary,
            });
        }
    }
    reply
}

/// A message that answers no command.
pub fn push(room: &RoomName, body: &PushBody<'_>) -> wire::Reply {
    let mut push = wire::Push {
        channel: room.as_str().into(),
        ..Default::default()
    };
    let member = |info| {
        let info = Some(client(info));
        Some(wire::Member { info })
    };
    match body {
        PushBody::Pub(delta) => push.publication = Some(publication(delta)),
        PushBody::Unstored { data, tags } => {
            push.publication = Some(wire::Publication {
                data: bytes(data),
                tags: tags_of(tags.as_ref()),
                ..Default::default()
            });
        }
        PushBody::Ephemeral { data, info } => {
            push.publication = Some(wire::Publication {
                data: bytes(data),
                info: Some(client(info)),
                ..Default::default()
            });
        }
        PushBody::Join { info } => push.join = member(info),
        PushBody::Leave { info } => push.leave = member(info),
        PushBody::Unsubscribe(why) => {
            push.unsubscribe = Some(wire::Unsubscribe {
                code: why.code,
                reason: why.reason.into(),
            });
        }
    }
    wire::Reply {
        push: Some(push),
        ..Default::default()
    }
}

fn publication(publication: &Publication<'_>) -> wire::Publication {
    wire::Publication {
        data: bytes(publication.data),
        info: publication.info.and_then(publisher),
        offset: publication.offset,
        tags: tags_of(publication.tags.as_ref()),
        // A time that does not fit lies 292 million years ahead.
        time: publication.time.cast_signed(),
    }
}

fn tags_of(tags: Option<&Tags<'_>>) -> std::collections::BTreeMap<String, String> {
    let pair = |tags: &Tags<'_>| ("id".to_owned(), tags.id.to_owned());
    tags.map(pair).into_iter().collect()
}

/// A delta keeps its publisher as JSON.
fn publisher(info: &RawValue) -> Option<wire::ClientInfo> {
    #[derive(Deserialize)]
    struct Publisher<'a> {
        #[serde(borrow)]
        user: Cow<'a, str>,
        #[serde(borrow)]
        client: Cow<'a, str>,
        #[serde(borrow)]
        conn_info: Option<&'a RawValue>,
    }
    let publisher: Publisher<'_> = serde_json::from_str(info.get()).ok()?;
    Some(wire::ClientInfo {
        user: publisher.user.into(),
        client: publisher.client.into(),
        conn_info: publisher.conn_info.map(bytes).unwrap_or_default(),
    })
}

fn client(info: &ClientInfo) -> wire::ClientInfo {
    wire::ClientInfo {
        user: (*info.user).into(),
        client: info.id.hyphenated().to_string(),
        conn_info: info
            .info
            .as_ref()
            .map(|json| Bytes::copy_from_slice(json.as_bytes()))
            .unwrap_or_default(),
    }
}

fn bytes(json: &RawValue) -> Bytes {
    Bytes::copy_from_slice(json.get().as_bytes())
}

fn count(number: impl TryInto<u32>) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}
