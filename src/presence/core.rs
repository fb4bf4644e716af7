//! One instance's view: its own table, the copies of the others', and what follows from all of them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use uuid::Uuid;

use super::{
    entry::{Count, InstanceId, Key, Value, Who},
    form::{Body, Message},
    members::{Arrival, Members, Push, Stats},
    own::Own,
    peer::Peer,
    subjects::{Event, Subject, Subjects, Turns},
};
use crate::{delta::RoomName, protocol::reply::ClientInfo};

/// Between two messages about what has changed, in ms.
const COALESCE: u64 = 100;

/// Stretches of the whole table that are said in one go.
const RANGES: usize = 16;

/// Entries of an instance that is gone which are taken out in one go.
const SWEEP: usize = 10_000;

/// Events that are sent in one go.
const EVENTS: usize = 256;

/// How much later than this one others may come back after an outage, in ms.
const REUNION: u64 = 10_000;

/// For how long a message of an instance that has stopped may come late, in ms.
const AFTERWARDS: u64 = 60_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long one who has gone is not missed, in ms.
    pub grace: u64,
    /// The largest room whose members are known by name.
    pub max_members: usize,
    /// Between two beats, in ms. An instance that is not heard of for three is gone.
    pub beat: u64,
    /// The backend hears of users.
    pub user_events: bool,
    /// There may be other instances.
    pub shared: bool,
}

/// What is known of a room's clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tracking {
    /// The clients are told who comes and goes.
    pub join_leave: bool,
    /// The backend hears of it.
    pub events: bool,
}

pub type Rules = Box<dyn Fn(&RoomName) -> Tracking + Send>;

/// What the shell is to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// In this order.
    pub messages: Vec<Message>,
    /// Rooms that have something to take with [`Core::pushes`].
    pub rooms: Vec<RoomName>,
    /// For the backend; each is to be answered with [`Core::sent`] or [`Core::unsent`].
    pub events: Vec<Event>,
}

/// A room's clients at this instance.
#[derive(Debug, Default)]
struct Local {
    members: HashMap<Uuid, Who>,
    /// Those of them who have no user.
    anonymous: u32,
    /// They are too many to be told by name.
    is_large: bool,
    /// Those of a room that is only counted.
    counted: Count,
}

impl Local {
    /// Whether the client was not there.
    fn insert(&mut self, client: Uuid, who: Who) -> bool {
        let was_there = self.remove(client);
        self.anonymous += u32::from(who.user.is_empty());
        self.members.insert(client, who);
        !was_there
    }

    /// Whether the client was there.
    fn remove(&mut self, client: Uuid) -> bool {
        let Some(who) = self.members.remove(&client) else {
            return false;
        };
        self.anonymous -= u32::from(who.user.is_empty());
        true
    }
}

/// The room has more clients than are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

pub struct Core {
    id: InstanceId,
    settings: Settings,
    rules: Rules,
    own: Own,
    peers: BTreeMap<InstanceId, Peer>,
    /// Those that have stopped, and until when they are remembered.
    stopped: BTreeMap<InstanceId, u64>,
    /// Entries of instances that are gone.
    sweep: Vec<BTreeMap<Key, Value>>,
    locals: HashMap<RoomName, Local>,
    sessions: HashMap<Arc<str>, u32>,
    members: Members,
    subjects: Subjects,
    said: Vec<Event>,
    /// Messages reach the others.
    connected: bool,
    /// When others will have said what seems to be due; none before the first connection.
    settled: Option<u64>,
    /// When an instance was last found, or missed.
    ranked: u64,
    flush_at: u64,
    beat_at: u64,
    ticked: u64,
    /// All are to be asked for their tables.
    asks_all: bool,
}

impl Core {
    pub fn new(id: InstanceId, settings: Settings, rules: Rules) -> Self {
        Self {
            id,
            settings,
            rules,
            own: Own::new(settings.shared),
            peers: BTreeMap::new(),
            stopped: BTreeMap::new(),
            sweep: Vec::new(),
            locals: HashMap::new(),
            sessions: HashMap::new(),
            members: Members::new(settings.grace, settings.max_members),
            subjects: Subjects::new(settings.grace),
            said: Vec::new(),
            connected: false,
            settled: None,
            ranked: 0,
            flush_at: 0,
            beat_at: 0,
            ticked: 0,
            asks_all: false,
        }
    }

    pub fn id(&self) -> InstanceId {
        self.id
    }

    /// A client came into a room whose members are known by name.
    pub fn come(&mut self, now: u64, room: &RoomName, info: &ClientInfo) -> Arrival {
        let local = self.locals.entry(room.clone()).or_default();
        let who = Who::from(info);
        let is_new = local.insert(info.id, who.clone());
        if local.is_large {
            self.recount(now, room);
            return Arrival::Silent;
        }
        if local.members.len() > self.settings.max_members {
            self.enlarge(now, room);
            return Arrival::Silent;
        }
        let key = Key::Member(room.clone(), info.id);
        let arrival = self.set(now, &key, Some(Value::Who(who)));
        self.track_room(now, room);
        match is_new {
            true => arrival,
            false => Arrival::Silent,
        }
    }

    /// A client left such a room, or its session ended.
    pub fn go(&mut self, now: u64, room: &RoomName, client: Uuid) {
        let Some(local) = self.locals.get_mut(room) else {
            return;
        };
        if !local.remove(client) {
            return;
        }
        if !local.is_large {
            self.set(now, &Key::Member(room.clone(), client), None);
        } else if local.members.len() <= self.settings.max_members / 2 {
            self.reduce(now, room);
        } else {
            self.recount(now, room);
        }
        self.track_room(now, room);
    }

    /// So many clients are now in a room that is only counted.
    pub fn count(&mut self, now: u64, room: &RoomName, count: Count) {
        let local = self.locals.entry(room.clone()).or_default();
        local.counted = count;
        self.recount(now, room);
        self.track_room(now, room);
    }

    /// A room has failed: whoever was in it at this instance must come back.
    pub fn room_ended(&mut self, now: u64, room: &RoomName) {
        let Some(local) = self.locals.remove(room) else {
            return;
        };
        for client in local.members.into_keys() {
            self.set(now, &Key::Member(room.clone(), client), None);
        }
        self.set(now, &Key::Count(room.clone()), None);
        self.track_room(now, room);
    }

    /// A session of a user began.
    pub fn user_came(&mut self, now: u64, user: &Arc<str>) {
        if !self.settings.user_events || user.is_empty() {
            return;
        }
        let sessions = self.sessions.entry(user.clone()).or_default();
        *sessions += 1;
        if *sessions == 1 {
            self.track(
                now,
                Key::User(user.clone()),
                Subject::User(user.clone()),
                true,
            );
        }
    }

    /// A session of a user ended.
    pub fn user_went(&mut self, now: u64, user: &Arc<str>) {
        let Some(sessions) = self.sessions.get_mut(user) else {
            return;
        };
        *sessions -= 1;
        if *sessions == 0 {
            self.sessions.remove(user);
            self.track(
                now,
                Key::User(user.clone()),
                Subject::User(user.clone()),
                false,
            );
        }
    }

    pub fn stats(&self, room: &RoomName) -> Stats {
        self.members.stats(room)
    }

    /// Rooms with somebody in them at any instance, in no order, and the number of their clients. Goes through all rooms.
    pub fn occupied(&self) -> impl Iterator<Item = (&RoomName, usize)> {
        self.members.occupied()
    }

    /// For each room with somebody in it at this instance, the number of clients here.
    pub fn here(&self) -> impl Iterator<Item = usize> {
        let locals = self.locals.values();
        let clients = locals.map(|local| local.members.len() + local.counted.clients as usize);
        clients.filter(|&clients| clients > 0)
    }

    /// Who is in a room, in the order of their ids.
    pub fn list(&self, room: &RoomName) -> Result<Vec<ClientInfo>, TooMany> {
        if !self.members.are_listed(room) {
            return Err(TooMany);
        }
        let ends = Key::Member(room.clone(), Uuid::nil())..=Key::Member(room.clone(), Uuid::max());
        let peers = self.peers.values().map(Peer::entries);
        let mut members: Vec<ClientInfo> = std::iter::once(self.own.entries())
            .chain(peers)
            .chain(&self.sweep)
            .flat_map(|table| table.range(ends.clone()))
            .filter_map(|entry| match entry {
                (Key::Member(_, client), Value::Who(who)) => Some(who.info(*client)),
                _ => None,
            })
            .collect();
        members.sort_unstable_by_key(|info| info.id);
        members.dedup_by_key(|info| info.id);
        Ok(members)
    }

    /// Takes what a room's clients are to be told, in this order.
    pub fn pushes(&mut self, room: &RoomName) -> Vec<Push> {
        self.members.pushes(room)
    }

    /// Other instances that are known to live.
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    /// Events that the backend is not known to have been told.
    pub fn due(&self) -> usize {
        self.subjects.due()
    }

    /// Pushes and events that were given up, since the last call.
    pub fn take_dropped(&mut self) -> (u64, u64) {
        (self.members.take_dropped(), self.subjects.take_given_up())
    }

    /// From here on messages reach the others, and theirs come.
    pub fn connected(&mut self, now: u64) {
        self.connected = true;
        let settle = 2 * self.settings.beat;
        self.settled = Some(match self.settled {
            None => now + settle,
            // Those who were lost with the connection look as if they were gone.
            Some(_) => now + settle.max(REUNION),
        });
        self.asks_all = true;
        self.beat_at = now;
    }

    /// No message reaches anybody, and none comes.
    pub fn disconnected(&mut self) {
        self.connected = false;
    }

    /// A message came; one's own changes nothing.
    pub fn heard(&mut self, now: u64, message: Message) {
        let Message { from, body } = message;
        if from == self.id || self.stopped.contains_key(&from) {
            return;
        }
        if matches!(body, Body::Bye) {
            self.stopped.insert(from, now + AFTERWARDS);
            return self.forget(now, from);
        }
        let beat = self.settings.beat;
        let peer = self
            .peers
            .entry(from)
            .or_insert_with(|| Peer::new(now, beat));
        peer.heard(now);
        match body {
            Body::Changes { number, entries } => {
                if peer.accepts(number) {
                    for (key, value) in entries {
                        self.set_of(now, from, &key, value);
                    }
                }
            }
            Body::Range {
                number,
                after,
                upto,
                entries,
            } => {
                if peer.accepts(number) {
                    let entries: BTreeMap<Key, Value> = entries.into_iter().collect();
                    let known = peer.keys(after.as_ref(), upto.as_ref());
                    for key in known.iter().filter(|key| !entries.contains_key(key)) {
                        self.set_of(now, from, key, None);
                    }
                    for (key, value) in entries {
                        self.set_of(now, from, &key, Some(value));
                    }
                }
            }
            Body::Beat {
                number,
                digest,
                next,
            } => peer.beat(now, number, digest, next),
            Body::Want { of } => {
                if of.is_none_or(|of| of == self.id) {
                    self.own.ask();
                }
            }
            Body::Said { events } => {
                for event in events {
                    self.hear_said(now, &event);
                }
            }
            Body::Bye => {}
        }
    }

    /// The broker has an event.
    pub fn sent(&mut self, now: u64, event: Event) {
        self.subjects.sent(now, &event);
        self.keep_told(now, &event);
        if self.settings.shared {
            self.said.push(event);
        }
    }

    /// The broker may not have an event.
    pub fn unsent(&mut self, event: &Event) {
        self.subjects.unsaid(event);
    }

    /// What is due. To be called often: what waits for it is late by as much as that takes.
    pub fn tick(&mut self, now: u64) -> Output {
        // A process that was stopped, and goes on, must first hear what it has missed.
        if now > self.ticked + 3 * self.settings.beat {
            let heard = now + 2 * self.settings.beat;
            self.settled = self.settled.map(|settled| settled.max(heard));
        }
        self.ticked = now;
        self.expire(now);
        self.members.tick(now);
        self.subjects.tick(now);
        let mut output = Output {
            rooms: self.members.news().iter().cloned().collect(),
            ..Output::default()
        };
        if !self.connected {
            return output;
        }
        self.say(now, &mut output.messages);
        let beat = self.settings.beat;
        if let Some(settled) = self.settled.filter(|settled| now >= *settled) {
            let mut live: Vec<_> = self.peers.keys().copied().collect();
            live.push(self.id);
            let turns = Turns {
                own: self.id,
                live: &live,
                since: self.ranked.max(settled),
                settle: 2 * COALESCE,
                step: 2 * beat,
            };
            output.events = self.subjects.send(now, turns, EVENTS);
        }
        output
    }

    /// The last message of an instance that stops.
    pub fn bye(&self) -> Message {
        self.message(Body::Bye)
    }

    fn say(&mut self, now: u64, messages: &mut Vec<Message>) {
        if now >= self.flush_at {
            self.flush_at = now + COALESCE;
            let mut bodies = Vec::new();
            bodies.extend(std::iter::from_fn(|| self.own.changes()));
            // Behind the changes: who hears of a subject should know it.
            if !self.said.is_empty() {
                let events = std::mem::take(&mut self.said);
                bodies.push(Body::Said { events });
            }
            let ranges = std::iter::from_fn(|| self.own.range());
            bodies.extend(ranges.take(RANGES));
            messages.extend(bodies.into_iter().map(|body| self.message(body)));
            if now >= self.beat_at {
                self.beat_at = now + self.settings.beat;
                messages.push(self.message(Body::Beat {
                    number: self.own.number(),
                    digest: self.own.digest(),
                    next: self.settings.beat,
                }));
                self.own.begin_pass();
            }
        }
        if std::mem::take(&mut self.asks_all) {
            messages.push(self.message(Body::Want { of: None }));
        }
        let lacking = self
            .peers
            .iter_mut()
            .filter_map(|(id, peer)| peer.asks(now).then_some(*id));
        let wants: Vec<_> = lacking.map(|of| Body::Want { of: Some(of) }).collect();
        messages.extend(wants.into_iter().map(|body| self.message(body)));
    }

    fn expire(&mut self, now: u64) {
        self.stopped.retain(|_, until| *until > now);
        let silent = self.peers.iter().filter(|(_, peer)| peer.expires() <= now);
        let silent: Vec<_> = silent.map(|(id, _)| *id).collect();
        silent.into_iter().for_each(|id| self.forget(now, id));
        for _ in 0..SWEEP {
            let Some(table) = self.sweep.last_mut() else {
                break;
            };
            match table.pop_first() {
                Some((key, value)) => {
                    self.changed(now, &key, Some(value), None, false);
                }
                None => drop(self.sweep.pop()),
            }
        }
    }

    fn forget(&mut self, now: u64, id: InstanceId) {
        if let Some(peer) = self.peers.remove(&id) {
            self.ranked = now;
            self.sweep.push(peer.into_entries());
        }
    }

    fn message(&self, body: Body) -> Message {
        Message {
            from: self.id,
            body,
        }
    }

    /// The room is too large here for its members to be told by name.
    fn enlarge(&mut self, now: u64, room: &RoomName) {
        let Some(local) = self.locals.get_mut(room) else {
            return;
        };
        local.is_large = true;
        let clients: Vec<_> = local.members.keys().copied().collect();
        self.recount(now, room);
        for client in clients {
            self.set(now, &Key::Member(room.clone(), client), None);
        }
        self.track_room(now, room);
    }

    /// The room is small enough again.
    fn reduce(&mut self, now: u64, room: &RoomName) {
        let Some(local) = self.locals.get_mut(room) else {
            return;
        };
        local.is_large = false;
        let members: Vec<_> = local.members.clone().into_iter().collect();
        for (client, who) in members {
            let key = Key::Member(room.clone(), client);
            self.set(now, &key, Some(Value::Who(who)));
        }
        self.recount(now, room);
    }

    /// Tells how many are in a room that is counted, or too large.
    fn recount(&mut self, now: u64, room: &RoomName) {
        let Some(local) = self.locals.get(room) else {
            return;
        };
        let mut count = local.counted;
        if local.is_large {
            count.anonymous += local.anonymous;
            count.clients += local.members.len() as u32;
            count.is_large = true;
        }
        let value = (count.clients > 0).then_some(Value::Count(count));
        self.set(now, &Key::Count(room.clone()), value);
    }

    /// Tells whether anybody is in a room of which the backend hears, and forgets one that is empty.
    fn track_room(&mut self, now: u64, room: &RoomName) {
        let local = self.locals.get(room);
        let here = local.is_some_and(|of| !of.members.is_empty() || of.counted.clients > 0);
        if !here {
            self.locals.remove(room);
        }
        if (self.rules)(room).events {
            self.track(
                now,
                Key::Room(room.clone()),
                Subject::Room(room.clone()),
                here,
            );
        }
    }

    fn track(&mut self, now: u64, key: Key, subject: Subject, here: bool) {
        if self.own.get(&key).is_some() != here {
            let told = self.subjects.is_told(&subject);
            self.set(now, &key, here.then_some(Value::Told(told)));
        }
    }

    /// The backend was told.
    fn hear_said(&mut self, now: u64, event: &Event) {
        self.subjects.said(now, event);
        self.keep_told(now, event);
    }

    /// Those who have the subject keep in their tables what the backend was told, for those who come later.
    fn keep_told(&mut self, now: u64, event: &Event) {
        let key = match event.subject.clone() {
            Subject::Room(room) => Key::Room(room),
            Subject::User(user) => Key::User(user),
        };
        if self.own.get(&key).is_some() {
            self.set(now, &key, Some(Value::Told(event.present)));
        }
    }

    fn set(&mut self, now: u64, key: &Key, value: Option<Value>) -> Arrival {
        let old = self.own.set(key, value.clone());
        self.changed(now, key, old, value, true)
    }

    fn set_of(&mut self, now: u64, id: InstanceId, key: &Key, value: Option<Value>) {
        if let Some(peer) = self.peers.get_mut(&id) {
            let old = peer.set(key, value.clone());
            self.changed(now, key, old, value, false);
        }
    }

    fn changed(
        &mut self,
        now: u64,
        key: &Key,
        old: Option<Value>,
        new: Option<Value>,
        is_local: bool,
    ) -> Arrival {
        let mut arrival = Arrival::Silent;
        if old == new {
            return arrival;
        }
        match key {
            Key::Member(room, client) => {
                if let Some(Value::Who(who)) = new {
                    let tells = (self.rules)(room).join_leave;
                    arrival = self.members.arrive(room, *client, &who, (is_local, tells));
                }
                if let Some(Value::Who(who)) = old {
                    self.members.depart(now, room, *client, &who, is_local);
                }
            }
            Key::Count(room) => {
                let count = |value: Option<Value>| match value {
                    Some(Value::Count(count)) => Some(count),
                    _ => None,
                };
                self.members.count(room, count(old), count(new));
            }
            Key::Room(room) => self.subject(now, Subject::Room(room.clone()), old, new),
            Key::User(user) => self.subject(now, Subject::User(user.clone()), old, new),
        }
        arrival
    }

    fn subject(&mut self, now: u64, subject: Subject, old: Option<Value>, new: Option<Value>) {
        match (old, new) {
            (None, Some(Value::Told(told))) => {
                let learned = told && !self.subjects.is_told(&subject);
                if self.subjects.appear(now, &subject, told) {
                    let present = false;
                    self.said.push(Event { subject, present });
                } else if learned {
                    let present = true;
                    self.hear_said(now, &Event { subject, present });
                }
            }
            (Some(_), None) => self.subjects.vanish(now, &subject),
            // Another instance knows it.
            (Some(_), Some(Value::Told(true))) if !self.subjects.is_told(&subject) => {
                let present = true;
                self.hear_said(now, &Event { subject, present });
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
