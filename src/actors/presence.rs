//! Presence as rooms and sessions see it: the [`Core`] with a lock and a clock.
//!
//! Everything under the lock is short, so rooms and sessions call it as it is and no queue stands between: what a room
//! has to tell after one of its clients came or went it can take at once, in order with what else it sends. Where others
//! are the cause, the room is told to look.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use actix::prelude::*;
use bytes::Bytes;
use uuid::Uuid;

use crate::{
    config::Namespaces,
    delta::RoomName,
    presence::{
        core::{Core, Settings, Tracking},
        entry::{Count, InstanceId},
        members::{Arrival, Push},
    },
    protocol::{format::Codec, reply::ClientInfo},
    rooms::sequence::answers,
};

/// Presence has something for the room.
#[derive(Message)]
#[rtype(result = "()")]
pub struct PresenceNews;

pub struct Presence {
    start: Instant,
    core: Mutex<Core>,
}

impl Presence {
    pub fn new(settings: Settings, namespaces: Namespaces) -> Self {
        let rules = move |room: &RoomName| {
            let namespace = namespaces.of(room);
            namespace.map_or_else(
                |_| Tracking::default(),
                |of| Tracking {
                    join_leave: of.join_leave,
                    events: of.events && settings.shared,
                },
            )
        };
        let id = InstanceId(Uuid::new_v4().as_u64_pair().0);
        Self {
            start: Instant::now(),
            core: Mutex::new(Core::new(id, settings, Box::new(rules))),
        }
    }

    pub fn id(&self) -> InstanceId {
        self.core().id()
    }

    /// Works on the core; gets the time that it is to be given.
    pub fn with<T>(&self, work: impl FnOnce(&mut Core, u64) -> T) -> T {
        let mut core = self.core();
        // Under the lock, so that time never goes backwards for the core.
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        work(&mut core, now)
    }

    /// A client came into a room whose members are known by name.
    pub fn come(&self, room: &RoomName, info: &ClientInfo) -> (Arrival, Vec<Push>) {
        self.with(|core, now| (core.come(now, room, info), core.pushes(room)))
    }

    /// A client left such a room.
    pub fn go(&self, room: &RoomName, client: Uuid) -> Vec<Push> {
        self.with(|core, now| {
            core.go(now, room, client);
            core.pushes(room)
        })
    }

    pub fn count(&self, room: &RoomName, count: Count) {
        self.with(|core, now| core.count(now, room, count));
    }

    pub fn room_ended(&self, room: &RoomName) {
        self.with(|core, now| core.room_ended(now, room));
    }

    /// What a room has to tell its clients.
    pub fn pushes(&self, room: &RoomName) -> Vec<Push> {
        self.core().pushes(room)
    }

    /// The frame that answers who is in a room, or how many (`stats`).
    pub fn answer(&self, room: &RoomName, codec: Codec, command: u32, stats: bool) -> Bytes {
        match stats {
            true => {
                let stats = self.core().stats(room);
                answers::presence_stats(codec, command, stats)
            }
            false => {
                let present = self.core().list(room);
                answers::presence(codec, command, present)
            }
        }
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        // A change that was cut short by a panic leaves at worst a wrong count of a room.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
