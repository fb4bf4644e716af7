//! The end of a pipeline: hands each delta to its room, if that is in memory. A room nobody is in costs nothing here.

use std::{collections::HashMap, sync::Arc};

use actix::{Handler, Message};

use super::{
    registry::{Registry, Unsent},
    room::{Deltas, Erase, Reset, Room},
};
use crate::{
    delta::{Delta, Erasure, RoomName, partition_of},
    log::pipeline::Dispatch,
};

/// Runs on the pipeline's thread.
pub struct RoomDispatch {
    registry: Arc<Registry>,
    /// The one whose rooms are served here.
    partition: u16,
    /// Of how many.
    partitions: u16,
    /// Waits for full rooms.
    waiter: tokio::runtime::Runtime,
}

impl RoomDispatch {
    /// For `partition` of `partitions`.
    pub fn new(registry: Arc<Registry>, partition: u16, partitions: u16) -> std::io::Result<Self> {
        Ok(Self {
            registry,
            partition,
            partitions,
            waiter: tokio::runtime::Builder::new_current_thread().build()?,
        })
    }

    /// Rooms are independent of each other; within a room the order stays.
    pub(super) fn by_room(deltas: Vec<Arc<Delta>>) -> HashMap<RoomName, Vec<Arc<Delta>>> {
        let mut by_room: HashMap<RoomName, Vec<Arc<Delta>>> = HashMap::new();
        for delta in deltas {
            match by_room.get_mut(&delta.room) {
                Some(deltas) => deltas.push(delta),
                None => {
                    by_room.insert(delta.room.clone(), vec![delta]);
                }
            }
        }
        by_room
    }

    fn hand<M>(&self, name: &RoomName, message: M)
    where
        M: Message<Result = ()> + Send + 'static,
        Room: Handler<M>,
    {
        // Who subscribes to a room that is not there, or has failed, finds everything in history.
        if let Some(Err(Unsent::Full(message, room))) = self.registry.pass(name, message) {
            let _ = self.waiter.block_on(room.send(message));
        }
    }
}

impl Dispatch for RoomDispatch {
    fn dispatch(&mut self, deltas: Vec<Arc<Delta>>) {
        for (name, deltas) in Self::by_room(deltas) {
            self.hand(&name, Deltas(deltas));
        }
    }

    fn erase(&mut self, room: &RoomName, erasure: Erasure) {
        self.hand(room, Erase(erasure));
    }

    fn reset(&mut self) {
        let own = |name: &RoomName| partition_of(name, self.partitions) == self.partition;
        for room in self.registry.all(own) {
            room.addr.do_send(Reset);
        }
    }
}
