//! The rooms of the model, and one life of a room: a sequence with a mailbox whose messages are handled one by one.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use roomwire::{
    access::Access,
    config::{ClientPublish, Config, Namespace, Namespaces, RoomAccess},
    delta::{Delta, Erasure, RoomName},
    presence::members::Push,
    protocol::{frame::FRAME_TARGET_BYTES, reply::ClientInfo},
    rooms::{
        history::{History, Page, PageLimit},
        retention::Retention,
        sequence::{HubId, Join, Membership, Op, PageRead, Sequence, SubId, Terms, Wait},
        store::StoreError,
    },
};

use crate::random::pick;

pub const IDEMPOTENCY_WINDOW_MS: u64 = 3_000;

pub const CROWD: &str = "crowd:c";

/// One that is trimmed by size all the time, one by age and bytes, one that keeps all and tells who is there.
pub const ROOMS: [(&str, Retention); 3] = [
    (
        "a",
        Retention {
            size: 10,
            ttl_ms: 60_000,
            bytes: 1 << 30,
        },
    ),
    (
        "b",
        Retention {
            size: 100,
            ttl_ms: 2_500,
            bytes: 400,
        },
    ),
    (
        CROWD,
        Retention {
            size: 1_000,
            ttl_ms: 1 << 40,
            bytes: 1 << 30,
        },
    ),
];

pub fn index_of(name: &RoomName) -> usize {
    ROOMS
        .iter()
        .position(|(room, _)| *room == name.as_str())
        .expect("only rooms of the model are named")
}

pub fn name_of(room: usize) -> RoomName {
    RoomName::new(ROOMS[room].0).expect("the names are right")
}

pub fn rules(name: &RoomName) -> Retention {
    ROOMS[index_of(name)].1
}

/// In the crowd, who reads too slowly is taken out.
fn terms(name: &RoomName) -> Terms {
    Terms {
        skips: name.as_str() == CROWD,
        ..Terms::default()
    }
}

pub fn namespaces() -> Namespaces {
    let open = Namespace {
        access: RoomAccess::Public,
        ..Namespace::default()
    };
    let crowd = Namespace {
        client_publish: ClientPublish::Ephemeral,
        presence: true,
        join_leave: true,
        ..open.clone()
    };
    [("default", open), ("crowd", crowd)].into_iter().collect()
}

/// Every client may come.
pub fn access() -> Access {
    Access::open(&Config::default().access, &[], true).expect("no key file is configured")
}

pub enum Message {
    Subscribe(Join),
    Leave {
        sub: SubId,
        hub: HubId,
        command: Option<u32>,
    },
    Deltas(Vec<Arc<Delta>>),
    Erase(Erasure),
    Ephemeral(Bytes, ClientInfo),
    Credit(SubId),
    Skipped(SubId),
    CaughtUp(SubId, u64),
    PageCame(SubId, u64, Result<Page, StoreError>),
    Reset,
}

/// A page on its way from history.
struct Reading {
    sub: SubId,
    after: u64,
    upto: u64,
}

/// A room from its registration to its end.
pub struct Life {
    pub key: u64,
    pub name: RoomName,
    /// `None` until the room's own thread has begun with it.
    sequence: Option<Sequence>,
    mailbox: VecDeque<Message>,
    /// Hubs that have finished what the room sent last.
    done: Vec<HubId>,
    to_read: Vec<Reading>,
    read: Vec<Message>,
    /// Subscribers that are ahead of the room, and the position that they wait for.
    ahead: Vec<(SubId, u64)>,
}

impl Life {
    pub fn new(key: u64, name: RoomName) -> Self {
        Self {
            key,
            name,
            sequence: None,
            mailbox: VecDeque::new(),
            done: Vec::new(),
            to_read: Vec::new(),
            read: Vec::new(),
            ahead: Vec::new(),
        }
    }

    pub fn send(&mut self, message: Message) {
        self.mailbox.push_back(message);
    }

    pub fn hub_done(&mut self, hub: HubId) {
        self.done.push(hub);
    }

    pub fn can_step(&self) -> bool {
        let congested = |sequence: &Sequence| sequence.is_congested();
        !self.mailbox.is_empty() && !self.sequence.as_ref().is_some_and(congested)
    }

    /// Begins, or handles one message; `false` if that ended the room.
    pub fn step(&mut self, history: &History) -> bool {
        if self.sequence.is_none() {
            let position = history.durable(&self.name);
            let sequence = Sequence::new(self.name.clone(), history.epoch(&self.name), position);
            self.sequence = Some(sequence.on(terms(&self.name)));
            return true;
        }
        let Some(message) = self.mailbox.pop_front() else {
            return true;
        };
        let sequence = self.sequence.as_mut().expect("the room has begun");
        let wait = match message {
            Message::Subscribe(join) => sequence.join(join),
            Message::Leave { sub, hub, command } => {
                sequence.leave(sub, hub, command);
                None
            }
            Message::Deltas(deltas) => {
                sequence.deltas(&deltas);
                None
            }
            Message::Erase(erasure) => {
                sequence.erase(erasure);
                None
            }
            Message::Ephemeral(data, info) => {
                sequence.ephemeral(&data, &info);
                None
            }
            Message::Credit(sub) => sequence.credit(sub),
            Message::Skipped(sub) => {
                sequence.skipped(sub);
                None
            }
            Message::CaughtUp(sub, offset) => {
                sequence.caught_up(sub, offset);
                None
            }
            Message::PageCame(sub, upto, Ok(page)) => {
                let page = PageRead {
                    floor: page.floor,
                    deltas: page.deltas.into_iter().map(Arc::new).collect(),
                    more: page.more,
                };
                sequence.page_read(sub, upto, page)
            }
            Message::PageCame(sub, _, Err(_)) => {
                sequence.failed(sub);
                None
            }
            Message::Reset => return false,
        };
        match wait {
            None => {}
            Some(Wait::Page { sub, after, upto }) => {
                self.to_read.push(Reading { sub, after, upto })
            }
            Some(Wait::Position { sub, offset }) if offset > history.durable(&self.name) => {
                sequence.ahead(sub);
            }
            Some(Wait::Position { sub, offset }) => self.ahead.push((sub, offset)),
            Some(Wait::Newest { .. }) => unreachable!("no client of the model asks for that"),
        }
        true
    }

    /// What goes to the hubs that are ready for it.
    pub fn flush(&mut self) -> Vec<(HubId, Vec<Op>)> {
        let Some(sequence) = &mut self.sequence else {
            return Vec::new();
        };
        self.done.drain(..).for_each(|hub| sequence.hub_done(hub));
        // Whom presence tells what is tested with presence; here it is told at once.
        for news in sequence.take_news() {
            sequence.membership(&match news {
                Membership::Came { info, .. } => Push::Join(info),
                Membership::Went { client } => {
                    let (user, id, info) = ("".into(), client, None);
                    Push::Leave(ClientInfo { user, id, info })
                }
            });
        }
        sequence.next_for_hubs()
    }

    /// One page of so many deltas is read from history.
    pub fn read_page(&mut self, which: u16, history: &History, deltas: usize) -> bool {
        let Some(at) = pick(which, self.to_read.len()) else {
            return false;
        };
        let Reading { sub, after, upto } = self.to_read.swap_remove(at);
        let bytes = FRAME_TARGET_BYTES;
        let page = history.page(&self.name, after, upto, PageLimit { deltas, bytes });
        self.read.push(Message::PageCame(sub, upto, page));
        true
    }

    /// One page that was read comes to the room.
    pub fn bring_page(&mut self, which: u16) -> bool {
        let Some(at) = pick(which, self.read.len()) else {
            return false;
        };
        let page = self.read.swap_remove(at);
        self.send(page);
        true
    }

    /// Everything up to `dispatched` is in the mailbox.
    pub fn catch_up(&mut self, dispatched: u64) -> bool {
        let reached = self
            .ahead
            .iter()
            .position(|(_, offset)| *offset <= dispatched);
        let Some(at) = reached else {
            return false;
        };
        let (sub, offset) = self.ahead.swap_remove(at);
        self.send(Message::CaughtUp(sub, offset));
        true
    }

    /// Nobody is here, and nobody is on the way.
    pub fn may_retire(&self) -> bool {
        let on_the_way =
            |message: &Message| matches!(message, Message::Subscribe(_) | Message::Leave { .. });
        self.sequence.as_ref().is_some_and(Sequence::is_idle)
            && !self.mailbox.iter().any(on_the_way)
    }
}
