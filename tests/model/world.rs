//! A server, its store and its clients: performs one step at a time, and brings all to rest.

use std::sync::Arc;

use bytes::Bytes;
use roomwire::{
    delta::Erasure,
    rooms::store_memory::{Fault, MemoryStore},
};

use crate::{
    Checked,
    client::{Client, From, Link, Truth},
    ensure,
    ledger::Ledger,
    path::Path,
    random::{Random, pick},
    rooms::ROOMS,
    server::Server,
    step::{Kind, Step},
    tell,
    wire::Wire,
};

/// Far more rounds than any world needs that does come to rest.
const ROUNDS: usize = 20_000;

pub struct World {
    now: u64,
    path: Path,
    ledger: Ledger,
    server: Server,
    clients: [Client; 3],
    troubled: bool,
    /// Makes every delta a different one.
    published: u64,
    /// How many deltas it takes until a large one comes, on the average.
    one_in: u16,
    scale: usize,
    /// Deltas in a page of a replay.
    page: usize,
    /// Of every wire, in bytes.
    max_queued: usize,
    capacity: usize,
    /// What was done, for whoever has to understand it.
    pub trace: Vec<Step>,
}

impl World {
    pub fn new(random: &mut Random) -> Self {
        // Where every other delta fills a large part of a frame, wires and readers are as much larger.
        let large = random.below(6) == 0;
        let scale = if large { 100 } else { 1 };
        Self {
            now: 1_000_000,
            path: Path::open(Arc::new(MemoryStore::new())),
            ledger: Ledger::default(),
            server: Server::default(),
            clients: Default::default(),
            troubled: false,
            published: 0,
            one_in: if large { 2 } else { 41 },
            scale,
            page: 1 + random.below(3) as usize,
            // Less could not hold what comes within one step, and everybody would be slow for ever.
            max_queued: scale * (1_000 + random.below(4_000) as usize),
            capacity: scale * (100 + random.below(2_000) as usize),
            trace: Vec::new(),
        }
    }

    /// Does one step, if it can be done now.
    pub fn perform(&mut self, step: Step) -> Checked {
        self.troubled |= step.is_trouble();
        if self.act(step)? {
            tell(|| format!("{step:?}"));
            self.trace.push(step);
        }
        for handed in self.path.take_handed() {
            self.server.dispatch(handed);
        }
        for client in &mut self.clients {
            if let Some(frame) = client.take_frame()
                && let Some(link) = &client.link
            {
                tell(|| format!("session {} asks {frame}", link.session));
                self.server.receive(link.session, frame);
            }
        }
        Ok(())
    }

    fn act(&mut self, Step { kind, a, b }: Step) -> Checked<bool> {
        let epoch = self.path.history.epoch(&crate::rooms::name_of(0));
        let truth = Truth {
            ledger: &self.ledger,
            epoch: &epoch,
            dispatched: self.path.dispatched(),
            troubled: self.troubled,
        };
        let client = &mut self.clients[usize::from(a) % 3];
        let room = usize::from(a / 3) % ROOMS.len();
        Ok(match kind {
            Kind::Publish => return Ok(self.publish(a, b)),
            Kind::Erase => {
                // Near the end of the log, where somebody may be replaying, or all up to there.
                let offset = (self.path.dispatched() + 3).saturating_sub(u64::from(b / 2 % 24));
                let erasure = match b % 2 {
                    0 => Erasure::One(offset),
                    _ => Erasure::Upto(offset.saturating_sub(12)),
                };
                self.path.erase(room, erasure, self.now)
            }
            Kind::Pipeline => return self.path.advance(self.now, &mut self.ledger),
            Kind::Tend => self.path.tend(self.now, &mut self.ledger),
            Kind::Clock => {
                // Clocks are set back, too.
                self.now = match b % 10 {
                    0 => self.now - u64::from(a % 500),
                    _ => self.now + u64::from(a % 800),
                };
                true
            }
            Kind::Room => self.server.step_room(a, &self.path.history),
            Kind::FlushRoom => self.server.flush_room(a),
            Kind::ReadPage => self.server.read_page(a, &self.path.history, self.page),
            Kind::BringPage => self.server.bring_page(a),
            Kind::CatchUp => self.server.catch_up(a, self.path.dispatched()),
            Kind::RetireRoom => self.server.retire_room(a),
            Kind::HubMailbox => self.server.step_hub_mailbox(a),
            Kind::WalkHub => self.server.walk_hub(a, usize::from(b % 5)),
            Kind::FlushWire => self.server.flush_wire(a),
            Kind::Session => self.server.step_session(a),
            Kind::EndSession => self.server.end_session(a, b % 4 == 0),
            Kind::ClientReads => return client.read(usize::from(b) % 3_000 * self.scale, &truth),
            Kind::Connect => {
                let free = !client.is_connected();
                if free {
                    let wire = Wire::new(self.max_queued, self.capacity);
                    let session = self.server.connect(wire.clone());
                    client.connect(Link { session, wire }, &truth);
                }
                free
            }
            Kind::Disconnect => {
                client.disconnect();
                true
            }
            Kind::Subscribe => client.subscribe(room, from(b), b % 4 == 0, &truth),
            Kind::Unsubscribe => client.unsubscribe(room),
            Kind::Resubscribe => {
                client.unsubscribe(room) && client.subscribe(room, from(b), b % 4 == 0, &truth)
            }
            Kind::PublishEphemeral => client.publish(room),
            Kind::Crash => {
                self.server.crash();
                let survive = pick(a, self.ledger.unflushed() + 1).unwrap_or_default();
                self.path.crash(survive, &mut self.ledger)?;
                true
            }
            Kind::Fault => {
                let survive = usize::from(b % 3);
                let faults = [Fault::Commit, Fault::Flush { survive }, Fault::Reopen];
                self.path.inject(faults[usize::from(a) % faults.len()]);
                true
            }
            Kind::FailRoom => self.server.fail_room(a),
        })
    }

    fn publish(&mut self, a: u16, b: u16) -> bool {
        let deltas = (0..=a / 3 % 3).map(|n| {
            self.published += 1;
            // Some fill a large part of a frame.
            let bytes = match b % self.one_in {
                0 => 40_000,
                _ => b % 60,
            };
            let padding = "x".repeat(bytes.into());
            let body = format!("{{\"n\":{},\"x\":\"{padding}\"}}", self.published);
            let key = b.is_multiple_of(4).then_some((b / 4 % 3) as u8);
            // All for one room, or one for each.
            let room = if (a / 9).is_multiple_of(2) {
                a % 3
            } else {
                a % 3 + n
            };
            (usize::from(room) % ROOMS.len(), key, Bytes::from(body))
        });
        let deltas = deltas.collect();
        self.path.publish(deltas, self.now)
    }

    /// Lets everything come to its end: everybody reads, and who is away comes back. Then nothing may be missing.
    pub fn settle(&mut self) -> Checked {
        self.rest(true)?;
        ensure(self.path.is_at_rest(), || {
            "a publisher waits for ever".into()
        })?;
        for client in &self.clients {
            client.check_at_rest(&self.ledger)?;
        }
        self.path.check(&self.ledger)?;
        self.clients.iter_mut().for_each(Client::disconnect);
        self.rest(false)?;
        let step = |kind| Step { kind, a: 0, b: 1 };
        for _ in ROOMS {
            self.perform(step(Kind::RetireRoom))?;
        }
        ensure(self.server.is_empty(), || {
            "something is kept for nobody".into()
        })
    }

    fn rest(&mut self, stay: bool) -> Checked {
        for _ in 0..ROUNDS {
            let done = self.trace.len();
            if !self.path.is_open() {
                // A database that failed is opened again after a while.
                self.now += 500;
                let (kind, a, b) = (Kind::Tend, 0, 0);
                self.perform(Step { kind, a, b })?;
            }
            self.round(stay)?;
            if self.trace.len() > done {
                continue;
            }
            let waiting = self.clients.iter_mut().find(|client| client.is_waiting());
            match waiting {
                None => return Ok(()),
                // What was on its way to a failed room is lost. Clients give up after some seconds, and come back.
                Some(client) if self.troubled && !client.is_stuck() => client.disconnect(),
                Some(_) => return Err("a client waits for an answer for ever".into()),
            }
        }
        Err("it does not come to rest".into())
    }

    /// Tries everything that brings matters forward.
    fn round(&mut self, stay: bool) -> Checked {
        const FORWARD: [Kind; 12] = [
            Kind::Pipeline,
            Kind::Room,
            Kind::FlushRoom,
            Kind::ReadPage,
            Kind::BringPage,
            Kind::CatchUp,
            Kind::HubMailbox,
            Kind::WalkHub,
            Kind::Session,
            Kind::EndSession,
            Kind::FlushWire,
            Kind::ClientReads,
        ];
        for which in 0..3 {
            for kind in FORWARD {
                let (a, b) = (which, 2_999);
                self.perform(Step { kind, a, b })?;
            }
            let client = &self.clients[usize::from(which)];
            if stay && !client.is_connected() {
                let (kind, a, b) = (Kind::Connect, which, 0);
                self.perform(Step { kind, a, b })?;
            }
            for room in 0..ROOMS.len() as u16 {
                let view = &self.clients[usize::from(which)].views[usize::from(room)];
                if stay && view.wants_attempt() {
                    // From its position, and with no further wishes.
                    let (kind, a, b) = (Kind::Subscribe, which + 3 * room, 9);
                    self.perform(Step { kind, a, b })?;
                }
            }
        }
        Ok(())
    }
}

fn from(b: u16) -> From {
    match b % 13 {
        0..=1 => From::Beginning,
        2..=5 => From::Before((b / 13 % 32).into()),
        6 => From::Nowhere,
        7 => From::ForeignEpoch,
        8 => From::Future,
        _ => From::Position,
    }
}
