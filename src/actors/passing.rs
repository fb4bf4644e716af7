//! Deltas of rooms that store nothing: straight from the publisher to whoever is there.

use std::sync::Arc;

use uuid::Uuid;

use super::{Services, Topic, room::Pass};
use crate::{
    config::Slow,
    delta::RoomName,
    log::publisher::{NewDelta, wall_clock_ms},
    metrics::Intake,
    presence::form::Unstored,
    rooms::sequence::{Passing, Terms},
};

impl Services {
    /// Whether the room's deltas are kept.
    pub fn stores(&self, room: &RoomName) -> bool {
        self.namespaces
            .of(room)
            .is_ok_and(|namespace| namespace.store)
    }

    /// What the room's namespace asks of it.
    pub(super) fn terms(&self, room: &RoomName) -> Terms {
        match self.namespaces.of(room) {
            Ok(namespace) => Terms {
                stored: namespace.store,
                skips: namespace.slow == Slow::Skip,
            },
            Err(_) => Terms::default(),
        }
    }

    /// Delivers a delta to whoever is in its room at this moment, at other servers as well as it goes; gives its id. A
    /// room that has no place for it, as it has much to do, drops it.
    pub fn pass(&self, delta: NewDelta) -> Arc<str> {
        self.tell_others(&delta);
        let passing = Passing {
            data: delta.body,
            key: delta.key.clone(),
            exclude: delta.exclude,
            stamped: wall_clock_ms(),
        };
        let dropped = matches!(self.registry.pass(&delta.room, Pass(passing)), Some(Err(_)));
        let intake = match dropped {
            true => Intake::Dropped,
            false => Intake::Passed,
        };
        self.metrics.deltas_in(intake, 1);
        delta
            .key
            .unwrap_or_else(|| Uuid::now_v7().simple().to_string().into())
    }

    fn tell_others(&self, delta: &NewDelta) {
        let Some(others) = &self.others else {
            return;
        };
        let message = Unstored {
            from: self.presence.id(),
            room: delta.room.clone(),
            key: delta.key.clone(),
            exclude: delta.exclude,
            data: delta.body.clone(),
        };
        if !others.tell(Topic::Unstored, message.encode()) {
            self.metrics.presence().ephemeral_dropped();
        }
    }
}
