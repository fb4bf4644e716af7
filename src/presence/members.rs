//! Who is in which room, over all tables, and what the clients of this instance are told about it.
//!
//! What clients are told is about persons: a user is one, whatever number of clients they have, and an anonymous client
//! is one for itself. A person who has gone is missed only after the grace, so that one who comes back by then, to any
//! instance, has never left.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use uuid::Uuid;

use super::entry::{Count, Who};
use crate::{delta::RoomName, protocol::reply::ClientInfo};

/// Pushes of one room that may wait for it. A room that falls further behind misses the oldest.
const MAX_PUSHES: usize = 4_096;

/// What a room's clients are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Push {
    Join(ClientInfo),
    Leave(ClientInfo),
}

/// How many are in a room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub clients: usize,
    /// Users, and one more if anybody is anonymous. Where members are not known by name, every client that has a user is
    /// taken for a user of its own.
    pub users: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Person {
    User(Arc<str>),
    Client(Uuid),
}

impl Person {
    fn of(who: &Who, client: Uuid) -> Self {
        match who.user.is_empty() {
            true => Self::Client(client),
            false => Self::User(who.user.clone()),
        }
    }
}

#[derive(Debug)]
struct Presence {
    /// Clients.
    here: u32,
    /// Of the client that came or went last.
    info: ClientInfo,
    /// When they will be missed.
    leaves: Option<u64>,
}

#[derive(Debug, Default)]
struct Room {
    persons: HashMap<Person, Presence>,
    /// Users among them who are here.
    users: u32,
    /// Clients among the members, and the anonymous among them.
    members: Count,
    /// Clients that are only counted.
    counted: Count,
    /// Tables that count, and those of them that do so because the room is large.
    counts: u32,
    large: u32,
    /// Members who are with this instance.
    local: u32,
    /// Clients are told who comes and goes.
    tells: bool,
    pushes: VecDeque<Push>,
}

/// How [`Members::arrive`] was for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// A person appeared, and everybody is told.
    New,
    /// The person was there, or has not been missed.
    Known,
    /// Nobody is told anything about this room.
    Silent,
}

#[derive(Debug)]
pub struct Members {
    grace: u64,
    max: usize,
    rooms: HashMap<RoomName, Room>,
    leaving: BTreeSet<(u64, RoomName, Person)>,
    /// Rooms that have pushes.
    news: BTreeSet<RoomName>,
    dropped: u64,
}

impl Members {
    /// `grace` in ms. A room with more than `max` clients has only a number.
    pub fn new(grace: u64, max: usize) -> Self {
        Self {
            grace,
            max,
            rooms: HashMap::new(),
            leaving: BTreeSet::new(),
            news: BTreeSet::new(),
            dropped: 0,
        }
    }

    /// A client is in a room. `tells`: the room's clients are told who comes and goes.
    pub fn arrive(
        &mut self,
        room: &RoomName,
        client: Uuid,
        who: &Who,
        (is_local, tells): (bool, bool),
    ) -> Arrival {
        let state = self.rooms.entry(room.clone()).or_default();
        state.tells = tells;
        state.local += u32::from(is_local);
        state.members.clients += 1;
        let person = Person::of(who, client);
        match person {
            Person::User(_) => {}
            Person::Client(_) => state.members.anonymous += 1,
        }
        let is_user = matches!(person, Person::User(_));
        let present = state.persons.entry(person.clone());
        let info = who.info(client);
        let mut is_known = true;
        let present = present.or_insert_with(|| {
            is_known = false;
            Presence {
                here: 0,
                info: info.clone(),
                leaves: None,
            }
        });
        present.here += 1;
        state.users += u32::from(is_user && present.here == 1);
        if let Some(when) = present.leaves.take() {
            self.leaving.remove(&(when, room.clone(), person));
        }
        if !state.may_tell(self.max) {
            return Arrival::Silent;
        }
        if is_known {
            return Arrival::Known;
        }
        self.push(room, Push::Join(info));
        Arrival::New
    }

    /// A client is in a room no more.
    pub fn depart(&mut self, now: u64, room: &RoomName, client: Uuid, who: &Who, is_local: bool) {
        let Some(state) = self.rooms.get_mut(room) else {
            return;
        };
        let person = Person::of(who, client);
        let Some(present) = state.persons.get_mut(&person) else {
            return;
        };
        present.here -= 1;
        present.info = who.info(client);
        state.local -= u32::from(is_local);
        if state.local == 0 {
            // Nobody is left whom it could be told.
            state.pushes.clear();
            self.news.remove(room);
        }
        state.members.clients -= 1;
        let is_gone = present.here == 0;
        match person {
            Person::Client(_) => state.members.anonymous -= 1,
            Person::User(_) => state.users -= u32::from(is_gone),
        }
        if is_gone && state.tells {
            let when = now + self.grace;
            present.leaves = Some(when);
            self.leaving.insert((when, room.clone(), person));
        } else if is_gone {
            state.persons.remove(&person);
        }
        self.forget_if_empty(room);
    }

    /// A table's count of a room has changed.
    pub fn count(&mut self, room: &RoomName, old: Option<Count>, new: Option<Count>) {
        let state = self.rooms.entry(room.clone()).or_default();
        if let Some(new) = new {
            state.counted.clients += new.clients;
            state.counted.anonymous += new.anonymous;
            state.counts += 1;
            state.large += u32::from(new.is_large);
        }
        if let Some(old) = old {
            state.counted.clients -= old.clients;
            state.counted.anonymous -= old.anonymous;
            state.counts -= 1;
            state.large -= u32::from(old.is_large);
        }
        self.forget_if_empty(room);
    }

    /// Misses those whose grace is over.
    pub fn tick(&mut self, now: u64) {
        while self.leaving.first().is_some_and(|(when, ..)| *when <= now)
            && let Some((_, room, person)) = self.leaving.pop_first()
        {
            let Some(state) = self.rooms.get_mut(&room) else {
                continue;
            };
            let Some(gone) = state.persons.remove(&person) else {
                continue;
            };
            if state.may_tell(self.max) {
                self.push(&room, Push::Leave(gone.info));
            }
            self.forget_if_empty(&room);
        }
    }

    pub fn stats(&self, room: &RoomName) -> Stats {
        let Some(room) = self.rooms.get(room) else {
            return Stats::default();
        };
        let (members, counted) = (room.members, room.counted);
        let has_anonymous = members.anonymous + counted.anonymous > 0;
        let users = room.users + counted.clients - counted.anonymous + u32::from(has_anonymous);
        Stats {
            clients: room.clients() as usize,
            users: users as usize,
        }
    }

    /// Rooms with somebody in them, in no order, and the number of their clients. Goes through all rooms.
    pub fn occupied(&self) -> impl Iterator<Item = (&RoomName, usize)> {
        let rooms = self.rooms.iter();
        let clients = rooms.map(|(name, room)| (name, room.clients() as usize));
        clients.filter(|&(_, clients)| clients > 0)
    }

    /// Whether a room is small enough for its members to be listed, and all of them are known by name.
    pub fn are_listed(&self, room: &RoomName) -> bool {
        self.rooms
            .get(room)
            .is_none_or(|state| state.is_small(self.max))
    }

    /// Rooms that have something to tell.
    pub fn news(&self) -> &BTreeSet<RoomName> {
        &self.news
    }

    /// Takes what a room has to tell.
    pub fn pushes(&mut self, room: &RoomName) -> Vec<Push> {
        if !self.news.remove(room) {
            return Vec::new();
        }
        let state = self.rooms.get_mut(room);
        let pushes = state.map(|state| std::mem::take(&mut state.pushes).into());
        self.forget_if_empty(room);
        pushes.unwrap_or_default()
    }

    /// How many pushes were never taken, since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    fn push(&mut self, room: &RoomName, push: Push) {
        if let Some(state) = self.rooms.get_mut(room) {
            if state.pushes.len() == MAX_PUSHES {
                state.pushes.pop_front();
                self.dropped += 1;
            }
            state.pushes.push_back(push);
            self.news.insert(room.clone());
        }
    }

    fn forget_if_empty(&mut self, room: &RoomName) {
        let is_empty = |room: &Room| room.persons.is_empty() && room.counts == 0;
        if self.rooms.get(room).is_some_and(is_empty) {
            self.rooms.remove(room);
            self.news.remove(room);
        }
    }
}

impl Room {
    fn clients(&self) -> u32 {
        self.members.clients + self.counted.clients
    }

    fn is_small(&self, max: usize) -> bool {
        self.large == 0 && self.members.clients as usize <= max
    }

    fn may_tell(&self, max: usize) -> bool {
        self.tells && self.local > 0 && self.is_small(max)
    }
}
