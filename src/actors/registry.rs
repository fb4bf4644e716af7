//! From a room's name to its live actor. The one table that all threads look into: read for a look-up, written when a
//! room starts or ends.
//!
//! Nothing is lost to a room that is just going: who sends it something that must be handled holds a [`Ticket`], and a
//! room with tickets out does not retire.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use actix::{Addr, dev::ToEnvelope, prelude::*};

use super::room::Room;
use crate::delta::RoomName;

/// One life of a room: its actor, and a key that tells it from an earlier one of the same name.
#[derive(Clone)]
pub struct RoomRef {
    pub key: u64,
    pub addr: Addr<Room>,
}

impl PartialEq for RoomRef {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for RoomRef {}

impl Hash for RoomRef {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

/// Keeps a room from retiring until the message that holds it is handled, or dropped.
pub struct Ticket(Arc<AtomicUsize>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

struct Entry {
    room: RoomRef,
    tickets: Arc<AtomicUsize>,
}

#[derive(Default)]
pub struct Registry {
    rooms: RwLock<HashMap<RoomName, Entry>>,
    last_key: AtomicU64,
}

/// Why a message did not reach its room.
pub enum Unsent<M> {
    /// The mailbox is full; the room is still to be reached at this address.
    Full(M, Addr<Room>),
    /// The room has failed; the next look-up starts it anew.
    Failed,
}

impl Registry {
    pub fn get(&self, name: &RoomName) -> Option<RoomRef> {
        let rooms = self.rooms.read().unwrap_or_else(PoisonError::into_inner);
        rooms.get(name).map(|entry| entry.room.clone())
    }

    /// The address of a room that is in memory, for a message that it must handle before it retires.
    pub fn hold(&self, name: &RoomName) -> Option<(Addr<Room>, Ticket)> {
        let rooms = self.rooms.read().unwrap_or_else(PoisonError::into_inner);
        let entry = rooms.get(name)?;
        Some((entry.room.addr.clone(), entry.ticket()))
    }

    /// Rooms that are in memory.
    pub fn len(&self) -> usize {
        let rooms = self.rooms.read().unwrap_or_else(PoisonError::into_inner);
        rooms.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rooms in memory whose name `is_meant`.
    pub fn all(&self, is_meant: impl Fn(&RoomName) -> bool) -> Vec<RoomRef> {
        let rooms = self.rooms.read().unwrap_or_else(PoisonError::into_inner);
        let meant = rooms.iter().filter(|(name, _)| is_meant(name));
        meant.map(|(_, entry)| entry.room.clone()).collect()
    }

    /// Sends a message to a room, which is started by `start` on this thread if it is not there. `start` gets the
    /// room's key.
    pub fn tell<M>(
        &self,
        name: &RoomName,
        start: impl FnOnce(u64) -> Addr<Room>,
        message: impl FnOnce(Ticket) -> M,
    ) -> Result<(), Unsent<M>>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        Room: Handler<M>,
        Context<Room>: ToEnvelope<Room, M>,
    {
        {
            let rooms = self.rooms.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(entry) = rooms.get(name) {
                return entry.send(message);
            }
        }
        let mut rooms = self.rooms.write().unwrap_or_else(PoisonError::into_inner);
        let entry = rooms.entry(name.clone()).or_insert_with(|| {
            let key = self.last_key.fetch_add(1, Ordering::Relaxed) + 1;
            let addr = start(key);
            Entry {
                room: RoomRef { key, addr },
                tickets: Arc::default(),
            }
        });
        entry.send(message)
    }

    /// Sends a message to a room that is in memory; `None` if it is not.
    ///
    /// By the registry's own address: every address has one place for itself in a mailbox that is full, so one that was
    /// made for the message would always find it free.
    pub fn pass<M>(&self, name: &RoomName, message: M) -> Option<Result<(), Unsent<M>>>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        Room: Handler<M>,
        Context<Room>: ToEnvelope<Room, M>,
    {
        let rooms = self.rooms.read().unwrap_or_else(PoisonError::into_inner);
        rooms.get(name).map(|entry| entry.try_send(message))
    }

    /// Takes a room out, unless something is on its way to it.
    pub fn retire(&self, name: &RoomName, key: u64) -> bool {
        let mut rooms = self.rooms.write().unwrap_or_else(PoisonError::into_inner);
        match rooms.get(name) {
            Some(entry) if entry.room.key != key => true,
            Some(entry) if entry.tickets.load(Ordering::Acquire) > 0 => false,
            _ => {
                rooms.remove(name);
                true
            }
        }
    }

    /// Takes out a room that has failed. What was on its way to it is lost.
    pub fn forget(&self, name: &RoomName, key: u64) {
        let mut rooms = self.rooms.write().unwrap_or_else(PoisonError::into_inner);
        if rooms.get(name).is_some_and(|entry| entry.room.key == key) {
            rooms.remove(name);
        }
    }
}

impl Entry {
    fn ticket(&self) -> Ticket {
        self.tickets.fetch_add(1, Ordering::AcqRel);
        Ticket(self.tickets.clone())
    }

    fn send<M>(&self, message: impl FnOnce(Ticket) -> M) -> Result<(), Unsent<M>>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        Room: Handler<M>,
        Context<Room>: ToEnvelope<Room, M>,
    {
        self.try_send(message(self.ticket()))
    }

    fn try_send<M>(&self, message: M) -> Result<(), Unsent<M>>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        Room: Handler<M>,
        Context<Room>: ToEnvelope<Room, M>,
    {
        match self.room.addr.try_send(message) {
            Ok(()) => Ok(()),
            Err(SendError::Full(message)) => Err(Unsent::Full(message, self.room.addr.clone())),
            Err(SendError::Closed(_)) => Err(Unsent::Failed),
        }
    }
}
