//! The live half of a server, without actors: rooms, hubs and sessions with mailboxes that are emptied on command.

use std::collections::{BTreeMap, VecDeque};

use roomwire::{
    delta::RoomName,
    protocol::{
        codes::Disconnect,
        format::{Codec, Format},
        frame::FrameBuilder,
        reply::{self, Outcome},
        session::{self as protocol, Effect, Policy, SessionSettings},
    },
    rooms::{
        fanout::{FanOut, Notice, Wire as _},
        history::History,
        sequence::{HubId, Join, Op, SubId},
    },
};
use uuid::Uuid;

use crate::{
    path::Handed,
    random::pick,
    rooms::{Life, Message, access, index_of, namespaces},
    tell,
    wire::{News, Wire},
};

const HUBS: usize = 2;

#[derive(Default)]
struct Hub {
    table: FanOut<u64, Wire>,
    mailbox: VecDeque<ToHub>,
}

enum ToHub {
    Work { room: u64, ops: Vec<Op> },
    RoomFailed { room: u64, name: RoomName },
}

struct Session {
    core: protocol::Session,
    hub: usize,
    wire: Wire,
    /// Frames of the client that were not read yet.
    inbox: VecDeque<String>,
}

#[derive(Default)]
pub struct Server {
    /// The registry.
    rooms: BTreeMap<usize, Life>,
    last_room: u64,
    hubs: [Hub; HUBS],
    sessions: BTreeMap<u64, Session>,
    last_session: u64,
}

impl Server {
    pub fn connect(&mut self, wire: Wire) -> u64 {
        self.last_session += 1;
        let id = self.last_session;
        let settings = SessionSettings {
            ping_interval: 25,
            max_rooms: 128,
            max_delta_bytes: 1024,
        };
        let hub = id as usize % HUBS;
        self.hubs[hub].table.open(id, wire.clone());
        let session = Session {
            core: protocol::Session::new(Uuid::from_u128(id.into()), None, settings),
            hub,
            wire,
            inbox: VecDeque::new(),
        };
        self.sessions.insert(id, session);
        id
    }

    /// A frame of a client arrives, if its session still is there.
    pub fn receive(&mut self, session: u64, frame: String) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.inbox.push_back(frame);
        }
    }

    /// Everything is gone. The clients notice when they have read what was on its way to them.
    pub fn crash(&mut self) {
        for session in self.sessions.values() {
            session.wire.end();
        }
        *self = Self {
            last_session: self.last_session,
            ..Self::default()
        };
    }

    /// Brings to the rooms' mailboxes what the pipeline hands out.
    pub fn dispatch(&mut self, handed: Handed) {
        match handed {
            Handed::Deltas(deltas) => {
                for (&room, life) in &mut self.rooms {
                    let own = deltas.iter().filter(|delta| index_of(&delta.room) == room);
                    let own: Vec<_> = own.cloned().collect();
                    if !own.is_empty() {
                        life.send(Message::Deltas(own));
                    }
                }
            }
            Handed::Erased(room, erasure) => {
                if let Some(life) = self.rooms.get_mut(&index_of(&room)) {
                    life.send(Message::Erase(erasure));
                }
            }
            Handed::Reset => self
                .rooms
                .values_mut()
                .for_each(|life| life.send(Message::Reset)),
        }
    }

    pub fn step_room(&mut self, which: u16, history: &History) -> bool {
        let Some(room) = self.pick_room(which, Life::can_step) else {
            return false;
        };
        let goes_on = self
            .rooms
            .get_mut(&room)
            .is_some_and(|life| life.step(history));
        if !goes_on {
            self.fail(room);
        }
        true
    }

    pub fn flush_room(&mut self, which: u16) -> bool {
        let Some(room) = self.pick_room(which, |_| true) else {
            return false;
        };
        let Some(life) = self.rooms.get_mut(&room) else {
            return false;
        };
        let due = life.flush();
        let any = !due.is_empty();
        for (hub, ops) in due {
            tell(|| format!("room {} gives hub {} {ops:?}", life.name, hub.number));
            let room = life.key;
            self.hubs[hub.number]
                .mailbox
                .push_back(ToHub::Work { room, ops });
        }
        any
    }

    pub fn read_page(&mut self, which: u16, history: &History, deltas: usize) -> bool {
        self.any_room(which, |life| life.read_page(which, history, deltas))
    }

    pub fn bring_page(&mut self, which: u16) -> bool {
        self.any_room(which, |life| life.bring_page(which))
    }

    pub fn catch_up(&mut self, which: u16, dispatched: u64) -> bool {
        self.any_room(which, |life| life.catch_up(dispatched))
    }

    pub fn retire_room(&mut self, which: u16) -> bool {
        let room = self.pick_room(which, Life::may_retire);
        room.is_some_and(|room| self.rooms.remove(&room).is_some())
    }

    /// A room ends by a defect; what was on its way to it is lost.
    pub fn fail_room(&mut self, which: u16) -> bool {
        let room = self.pick_room(which, |_| true);
        room.is_some_and(|room| self.fail(room))
    }

    pub fn step_hub_mailbox(&mut self, which: u16) -> bool {
        let hub = pick(which, HUBS).unwrap_or_default();
        let Hub { table, mailbox } = &mut self.hubs[hub];
        let mut notices = Vec::new();
        match mailbox.pop_front() {
            None => return false,
            Some(ToHub::Work { room, ops }) => table.accept(room, ops),
            Some(ToHub::RoomFailed { room, name }) => {
                table.drop_room(|key| *key == room, &mut notices);
                for (_, wire) in table.sessions() {
                    wire.room_failed(&name);
                }
                // The table keeps no order of its own, and a seed must reproduce.
                notices.sort_by_key(|notice| match notice {
                    Notice::Credit(_, sub) => Some(*sub),
                    _ => None,
                });
            }
        }
        self.pass_on(hub, &mut notices);
        true
    }

    /// The hub writes about `budget` frames.
    pub fn walk_hub(&mut self, which: u16, budget: usize) -> bool {
        let hub = pick(which, HUBS).unwrap_or_default();
        let mut notices = Vec::new();
        let more = self.hubs[hub].table.step(budget, &mut notices);
        let any = more || !notices.is_empty();
        self.pass_on(hub, &mut notices);
        any
    }

    /// One wire sends on what waits in it, and its hub is told when nothing does.
    pub fn flush_wire(&mut self, which: u16) -> bool {
        let Some(id) = self.pick_session(which, |_| true) else {
            return false;
        };
        let Session { wire, hub, .. } = &self.sessions[&id];
        let (hub, moved, drained) = (*hub, wire.flush(), wire.take_drained());
        if drained {
            let mut notices = Vec::new();
            self.hubs[hub].table.drained(id, &mut notices);
            self.pass_on(hub, &mut notices);
        }
        moved || drained
    }

    /// A session hears what its rooms have said, then reads one frame of its client.
    pub fn step_session(&mut self, which: u16) -> bool {
        let something = |session: &Session| session.wire.has_news() || !session.inbox.is_empty();
        let Some(id) = self.pick_session(which, something) else {
            return false;
        };
        let Some(session) = self.sessions.get_mut(&id) else {
            return false;
        };
        for news in session.wire.take_news() {
            match news {
                News::SubscriptionEnded(number) => session.core.subscription_ended(number),
                News::RoomFailed(room) => {
                    if session.core.subscriptions().any(|(name, _)| *name == room) {
                        session.wire.close(Disconnect::INTERNAL);
                    }
                }
            }
        }
        let frame = session.inbox.pop_front();
        if let Some(frame) = frame.filter(|_| !session.wire.is_closing()) {
            let (mut replies, mut effects) = (FrameBuilder::default(), Vec::new());
            let policy = Policy {
                namespaces: &namespaces(),
                access: &access(),
                now: 0,
            };
            session
                .core
                .receive(frame.as_bytes(), policy, &mut replies, &mut effects);
            if let Some(frame) = replies.finish() {
                session.wire.push(&frame);
            }
            for effect in effects {
                self.perform(id, effect);
            }
        }
        true
    }

    /// A session goes that its client has left, or that is closed and has sent its close; out of patience, or has not.
    /// It leaves its rooms.
    pub fn end_session(&mut self, which: u16, impatient: bool) -> bool {
        let over = |Session { wire, .. }: &Session| {
            wire.is_hung_up() || wire.is_closed() || (impatient && wire.is_closing())
        };
        let Some(id) = self.pick_session(which, over) else {
            return false;
        };
        let Some(session) = self.sessions.remove(&id) else {
            return false;
        };
        session.wire.end();
        self.hubs[session.hub].table.close(id);
        for (room, number) in session.core.subscriptions() {
            let leave = leave(id, number, session.hub, None);
            if let Some(life) = self.rooms.get_mut(&index_of(room)) {
                life.send(leave);
            }
        }
        true
    }

    /// Nobody is here, and nothing is kept for anybody.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
            && self.rooms.is_empty()
            && self.hubs.iter().all(|hub| hub.table.rooms() == 0)
    }

    fn perform(&mut self, id: u64, effect: Effect) {
        let Session {
            wire, hub, core, ..
        } = &self.sessions[&id];
        let (wire, hub) = (wire.clone(), *hub);
        match effect {
            Effect::Connected | Effect::Pong => {}
            Effect::Subscribe {
                command,
                room,
                number,
                start,
                must_recover,
                join_leave,
                presence,
                lasting,
            } => {
                let join = Join {
                    sub: SubId {
                        session: id,
                        number,
                    },
                    hub: hub_id(hub),
                    command,
                    start,
                    lasting,
                    must_recover,
                    join_leave,
                    is_named: false,
                    info: presence.then(|| core.info().clone()),
                };
                let last_room = &mut self.last_room;
                let life = self.rooms.entry(index_of(&room)).or_insert_with(|| {
                    *last_room += 1;
                    Life::new(*last_room, room)
                });
                life.send(Message::Subscribe(join));
            }
            Effect::Unsubscribe {
                command,
                room,
                number,
            } => match self.rooms.get_mut(&index_of(&room)) {
                Some(life) => life.send(leave(id, number, hub, Some(command))),
                None => wire.close(Disconnect::INTERNAL),
            },
            Effect::PublishEphemeral {
                command,
                room,
                data,
                ..
            } => {
                let info = core.info().clone();
                if let Some(life) = self.rooms.get_mut(&index_of(&room)) {
                    life.send(Message::Ephemeral(data, info));
                }
                wire.push(&reply::reply_frame(
                    Codec::Json,
                    command,
                    &Outcome::Publish {},
                ));
            }
            Effect::Close(why) => wire.close(why),
            Effect::Refused | Effect::Unwelcome(_) => panic!("every client may come"),
            Effect::End { .. } => panic!("nothing is by a token"),
            Effect::Presence { .. } | Effect::History { .. } | Effect::PublishStored { .. } => {
                unreachable!("no client of the model asks for it")
            }
        }
    }

    fn fail(&mut self, room: usize) -> bool {
        let Some(Life { key, name, .. }) = self.rooms.remove(&room) else {
            return false;
        };
        for hub in &mut self.hubs {
            let name = name.clone();
            hub.mailbox.push_back(ToHub::RoomFailed { room: key, name });
        }
        true
    }

    /// Notices for a life that is over reach nobody.
    fn pass_on(&mut self, hub: usize, notices: &mut Vec<Notice<u64>>) {
        for notice in notices.drain(..) {
            let (Notice::Done(key) | Notice::Credit(key, _) | Notice::Skipped(key, _)) = notice
            else {
                continue;
            };
            let Some(life) = self.rooms.values_mut().find(|life| life.key == key) else {
                continue;
            };
            match notice {
                Notice::Credit(_, sub) => life.send(Message::Credit(sub)),
                Notice::Skipped(_, sub) => life.send(Message::Skipped(sub)),
                _ => life.hub_done(hub_id(hub)),
            }
        }
    }

    fn any_room(&mut self, which: u16, mut act: impl FnMut(&mut Life) -> bool) -> bool {
        let Some(first) = pick(which, self.rooms.len()) else {
            return false;
        };
        let count = self.rooms.len();
        let mut lives: Vec<_> = self.rooms.values_mut().collect();
        (0..count).any(|n| act(lives[(first + n) % count]))
    }

    fn pick_room(&self, which: u16, fits: impl Fn(&Life) -> bool) -> Option<usize> {
        let rooms = self.rooms.iter().filter(|(_, life)| fits(life));
        let rooms: Vec<_> = rooms.map(|(&room, _)| room).collect();
        pick(which, rooms.len()).map(|at| rooms[at])
    }

    fn pick_session(&self, which: u16, fits: impl Fn(&Session) -> bool) -> Option<u64> {
        let sessions = self.sessions.iter().filter(|(_, session)| fits(session));
        let ids: Vec<_> = sessions.map(|(&id, _)| id).collect();
        pick(which, ids.len()).map(|at| ids[at])
    }
}

/// The model's clients speak JSON.
fn hub_id(number: usize) -> HubId {
    HubId {
        number,
        format: Format::JSON,
    }
}

fn leave(session: u64, number: u32, hub: usize, command: Option<u32>) -> Message {
    Message::Leave {
        sub: SubId { session, number },
        hub: hub_id(hub),
        command,
    }
}
