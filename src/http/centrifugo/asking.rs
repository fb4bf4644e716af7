//! `history`, `presence`, `presence_stats`, `channels` and `info`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Answer, Api, answer, fields::Fields};
use crate::{
    access::pattern::Pattern,
    actors::asking::Asked,
    config::Scope,
    delta::RoomName,
    http::error::Problem,
    protocol::{
        codes::ErrorCode,
        reply::{Presence, Publication},
        session::Recover,
    },
};

/// Most rooms that `channels` answers with.
const MAX_CHANNELS: usize = 10_000;

/// What a pattern of Centrifugo may have beside `*`. None of it is ever in a room's name.
const SPECIAL: &[char] = &['?', '[', ']', '{', '}', '\\'];

#[derive(Default, Deserialize)]
#[serde(default)]
struct Position {
    offset: u64,
    epoch: String,
}

#[derive(Serialize)]
struct History<'a> {
    publications: Vec<Publication<'a>>,
    offset: u64,
    epoch: &'a str,
}

#[derive(Serialize)]
struct Present<'a> {
    presence: Presence<'a>,
}

#[derive(Serialize)]
struct Channels {
    channels: BTreeMap<RoomName, Channel>,
}

#[derive(Serialize)]
struct Channel {
    num_clients: usize,
}

pub async fn history(api: &Api<'_>, mut fields: Fields<'_>) -> Answer {
    let room = api.room(&mut fields, Scope::Read)?;
    let limit: Option<i64> = fields.take("limit")?;
    let since: Option<Position> = fields.take("since")?;
    let reverse: Option<bool> = fields.take("reverse")?;
    fields.end()?;
    api.state.must_store(&room)?;
    let reverse = reverse.unwrap_or_default();
    if reverse && since.as_ref().is_some_and(|since| since.offset == 0) {
        return Err(ErrorCode::BAD_REQUEST.because("nothing stands before offset 0"));
    }
    let asked = Asked {
        room,
        limit: limit.unwrap_or_default(),
        since: since.map(|since| Recover {
            offset: since.offset,
            epoch: since.epoch.into(),
        }),
        reverse,
    };
    let found = api.state.services.read_history(asked).await?;
    answer(&History {
        publications: found.deltas.iter().map(Publication::from).collect(),
        offset: found.offset,
        epoch: &found.epoch,
    })
}

pub fn presence(api: &Api<'_>, mut fields: Fields<'_>) -> Answer {
    let room = api.room(&mut fields, Scope::Read)?;
    fields.end()?;
    let services = &api.state.services;
    let namespace = services.namespaces.of(&room);
    if !namespace.map_err(Problem::unknown_namespace)?.presence {
        return Err(ErrorCode::NOT_AVAILABLE.because("the room's namespace keeps no presence"));
    }
    let present = services.presence.with(|core, _| core.list(&room));
    let present = present.map_err(|_| {
        ErrorCode::NOT_AVAILABLE.because("too many are in the room; ask for presence_stats")
    })?;
    answer(&Present {
        presence: Presence(&present),
    })
}

pub fn presence_stats(api: &Api<'_>, mut fields: Fields<'_>) -> Answer {
    let room = api.room(&mut fields, Scope::Read)?;
    fields.end()?;
    let presence = &api.state.services.presence;
    let stats = presence.with(|core, _| core.stats(&room));
    answer(&json!({"num_clients": stats.clients, "num_users": stats.users}))
}

/// Rooms with somebody in them, at any server, of those that the key is for.
pub fn channels(api: &Api<'_>, mut fields: Fields<'_>) -> Answer {
    let caller = api.caller(Scope::Read)?;
    let pattern: Option<String> = fields.take("pattern")?;
    fields.end()?;
    let pattern = pattern.filter(|pattern| !pattern.is_empty());
    if pattern.as_ref().is_some_and(|text| text.contains(SPECIAL)) {
        return Err(ErrorCode::NOT_AVAILABLE
            .because("in a pattern * stands for any characters, and there is nothing else"));
    }
    let pattern = Pattern::new(pattern.as_deref().unwrap_or("*"));
    let presence = &api.state.services.presence;
    let channels: BTreeMap<RoomName, Channel> = presence.with(|core, _| {
        let meant = core
            .occupied()
            .filter(|(room, _)| pattern.matches(room) && caller.may_touch(room).is_ok());
        meant
            .map(|(room, num_clients)| (room.clone(), Channel { num_clients }))
            .take(MAX_CHANNELS + 1)
            .collect()
    });
    match channels.len() > MAX_CHANNELS {
        true => Err(ErrorCode::LIMIT_EXCEEDED.because(format_args!(
            "more than {MAX_CHANNELS} rooms match; ask with a pattern that fewer do"
        ))),
        false => answer(&Channels { channels }),
    }
}

/// This server alone.
pub fn info(api: &Api<'_>, fields: Fields<'_>) -> Answer {
    api.caller(Scope::Read)?;
    fields.end()?;
    let presence = &api.state.services.presence;
    let (uptime, channels, subs) = presence.with(|core, now| {
        let (channels, subs) = core.here().fold((0, 0_usize), |(channels, subs), here| {
            (channels + 1, subs + here)
        });
        (now / 1000, channels, subs)
    });
    let uid = format!("{:016x}", presence.id().0);
    answer(&json!({"nodes": [{
        "uid": uid,
        "name": format!("roomwire-{uid}"),
        "version": env!("CARGO_PKG_VERSION"),
        "num_clients": api.state.life.sessions(),
        "num_channels": channels,
        "num_subs": subs,
        "uptime": uptime,
    }]}))
}
