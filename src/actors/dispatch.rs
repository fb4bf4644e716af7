//! The end of the pipeline: hands each delta to its room, if that is in memory. A room nobody is in costs nothing here.

use std::{collections::HashMap, sync::Arc};

use actix::prelude::*;

use super::{
    registry::Registry,
    room::{Deltas, Reset, Room},
};
use crate::{
    delta::{Delta, RoomName},
    log::pipeline::Dispatch,
};

/// Runs on the pipeline's thread.
pub struct RoomDispatch {
    registry: Arc<Registry>,
    /// Waits for full rooms.
    waiter: tokio::runtime::Runtime,
}

impl RoomDispatch {
    pub fn new(registry: Arc<Registry>) -> std::io::Result<Self> {
        Ok(Self {
            registry,
            waiter: tokio::runtime::Builder::new_current_thread().build()?,
        })
    }

    fn hand(&self, room: &Addr<Room>, deltas: Vec<Arc<Delta>>) {
        // A closed mailbox is a room that has ended: who subscribes next finds the deltas in history.
        if let Err(SendError::Full(message)) = room.try_send(Deltas(deltas)) {
            let _ = self.waiter.block_on(room.send(message));
        }
    }
}

impl Dispatch for RoomDispatch {
    fn dispatch(&mut self, deltas: Vec<Arc<Delta>>) {
        // Rooms are independent of each other; within a room the order stays.
        let mut by_room: HashMap<RoomName, Vec<Arc<Delta>>> = HashMap::new();
        for delta in deltas {
            match by_room.get_mut(&delta.room) {
                Some(deltas) => deltas.push(delta),
                None => {
                    by_room.insert(delta.room.clone(), vec![delta]);
                }
            }
        }
        for (name, deltas) in by_room {
            if let Some(room) = self.registry.get(&name) {
                self.hand(&room.addr, deltas);
            }
        }
    }

    fn reset(&mut self) {
        for room in self.registry.all() {
            room.addr.do_send(Reset);
        }
    }
}
