//! One client as an SDK is one: what it asks, and what it remembers.

mod told;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{Checked, ensure, ledger::Ledger, rooms::ROOMS, wire::Wire};

/// What the checks go by.
pub struct Truth<'a> {
    pub ledger: &'a Ledger,
    pub epoch: &'a str,
    /// Up to here everything is on its way to the rooms.
    pub dispatched: u64,
    /// Something failed, so that errors are no wonder.
    pub troubled: bool,
}

impl Truth<'_> {
    fn durable(&self) -> u64 {
        self.ledger.durable().checkpoint
    }
}

/// A place in a room, as a client remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub offset: u64,
    pub epoch: String,
}

/// From which place a client subscribes.
#[derive(Debug, Clone, Copy)]
pub enum From {
    /// Where it left off, if it ever was there.
    Position,
    Nowhere,
    /// So much before where it left off.
    Before(u64),
    /// The beginning, in whatever epoch.
    Beginning,
    ForeignEpoch,
    Future,
}

struct Request {
    room: usize,
    position: Option<Position>,
    must_recover: bool,
    /// The durable position when it was sent.
    durable: u64,
    /// What was on its way to the rooms before it.
    dispatched: u64,
}

enum Asked {
    Connect,
    Subscribe(Request),
    Unsubscribe { room: usize },
    Publish,
}

/// One room as the client sees it.
#[derive(Default)]
pub struct View {
    pub wanted: bool,
    position: Option<Position>,
    /// The subscribe that counts: a later one, or an unsubscribe, makes it void.
    attempt: Option<u32>,
    /// The attempt has succeeded: what comes moves the position.
    following: bool,
    /// What the server has sent of the subscription that it holds; `None` if it may send nothing.
    live: Option<u64>,
    /// What was erased up to here, before the subscription was asked for, may not come.
    without: u64,
}

impl View {
    /// Whether the client wants to be in the room and has not asked for it.
    pub fn wants_attempt(&self) -> bool {
        self.wanted && self.attempt.is_none()
    }
}

pub struct Link {
    pub session: u64,
    pub wire: Wire,
}

#[derive(Default)]
pub struct Client {
    pub link: Option<Link>,
    unread: Vec<u8>,
    last_command: u32,
    asked: BTreeMap<u32, Asked>,
    pub views: [View; ROOMS.len()],
    /// Lines that are to be sent, as one frame.
    lines: Vec<String>,
}

impl Client {
    pub fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    /// Whether answers are owed.
    pub fn is_waiting(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Whether an answer is owed that even the failure of a room does not excuse. What a client unsubscribes from can be
    /// lost with its room; what it subscribes to brings it back.
    pub fn is_stuck(&self) -> bool {
        let current = |(id, asked): (&u32, &Asked)| match asked {
            Asked::Subscribe(request) => self.views[request.room].attempt == Some(*id),
            Asked::Connect | Asked::Publish => true,
            Asked::Unsubscribe { .. } => false,
        };
        self.asked.iter().any(current)
    }

    /// The frame that the client sends now.
    pub fn take_frame(&mut self) -> Option<String> {
        let lines = std::mem::take(&mut self.lines);
        (!lines.is_empty() && self.is_connected()).then(|| lines.join("\n"))
    }

    /// Connects, and subscribes to all rooms that it was in.
    pub fn connect(&mut self, link: Link, truth: &Truth<'_>) {
        self.link = Some(link);
        self.unread.clear();
        self.ask(Asked::Connect, json!({"connect": {}}));
        for room in 0..ROOMS.len() {
            self.attempt(room, false, truth);
        }
    }

    pub fn disconnect(&mut self) {
        if let Some(link) = self.link.take() {
            link.wire.hang_up();
        }
        self.asked.clear();
        self.lines.clear();
        for view in &mut self.views {
            (view.attempt, view.following, view.live) = (None, false, None);
        }
    }

    /// Subscribes, or tries again, unless it is under way.
    pub fn subscribe(&mut self, room: usize, from: From, must: bool, truth: &Truth<'_>) -> bool {
        let view = &mut self.views[room];
        if view.attempt.is_some() {
            return false;
        }
        let epoch = |epoch: &str, offset| Position {
            offset,
            epoch: epoch.into(),
        };
        let old = view.position.take();
        let offset = old.as_ref().map_or(0, |old| old.offset);
        view.position = match from {
            From::Position => old,
            From::Nowhere => None,
            From::Before(distance) => Some(epoch(truth.epoch, offset.saturating_sub(distance))),
            From::Beginning => Some(epoch("", 0)),
            From::ForeignEpoch => Some(epoch("foreign", offset)),
            From::Future => Some(epoch(truth.epoch, truth.durable() + 1_000)),
        };
        view.wanted = true;
        self.attempt(room, must, truth);
        true
    }

    pub fn unsubscribe(&mut self, room: usize) -> bool {
        let view = &mut self.views[room];
        if !view.wanted || !self.is_connected() {
            return false;
        }
        let view = &mut self.views[room];
        (view.wanted, view.attempt, view.following) = (false, None, false);
        let request = json!({"unsubscribe": {"channel": ROOMS[room].0}});
        self.ask(Asked::Unsubscribe { room }, request);
        true
    }

    /// Publishes something that is not stored.
    pub fn publish(&mut self, room: usize) -> bool {
        let following = self.views[room].following;
        if following {
            let request = json!({"publish": {"channel": ROOMS[room].0, "data": "typing"}});
            self.ask(Asked::Publish, request);
        }
        following
    }

    /// Every room that the client is in is at its end.
    pub fn check_at_rest(&self, ledger: &Ledger) -> Checked {
        for (room, view) in self.views.iter().enumerate() {
            let name = ROOMS[room].0;
            match (view.wanted, view.live) {
                (false, None) => {}
                (true, Some(live)) => {
                    let missing = ledger.next_due(room, live);
                    ensure(missing.is_none(), || {
                        format!("room {name} stays at {live}, before {missing:?}")
                    })?;
                }
                _ => return Err(format!("room {name}: the server thinks otherwise")),
            }
        }
        Ok(())
    }

    /// Sends a subscribe for a room that is wanted and not asked for yet.
    fn attempt(&mut self, room: usize, must_recover: bool, truth: &Truth<'_>) {
        let view = &self.views[room];
        if !view.wanted || view.attempt.is_some() || !self.is_connected() {
            return;
        }
        let position = view.position.clone();
        let mut request = json!({
            "channel": ROOMS[room].0,
            "join_leave": true,
            "flag": if must_recover { 3 } else { 1 },
        });
        if let Some(Position { offset, epoch }) = &position {
            request["recover"] = true.into();
            request["offset"] = (*offset).into();
            request["epoch"] = epoch.as_str().into();
        }
        let asked = Asked::Subscribe(Request {
            room,
            position,
            must_recover,
            durable: truth.durable(),
            dispatched: truth.dispatched,
        });
        self.ask(asked, json!({"subscribe": request}));
        self.views[room].attempt = Some(self.last_command);
    }

    fn ask(&mut self, asked: Asked, mut command: Value) {
        self.last_command += 1;
        command["id"] = self.last_command.into();
        self.lines.push(command.to_string());
        self.asked.insert(self.last_command, asked);
    }
}
