//! One room's sequence: who is joining, who is replaying, who is live, and what each is owed. Pure.
//!
//! Everything that a subscriber gets from a room (the reply to its subscribe, pages of missed deltas, live deltas, the
//! reply to its unsubscribe) travels in one FIFO, the [`Op`]s of its hub. Two mailboxes would let a later message be
//! handled first, and an SDK drops a push that precedes its reply.
//!
//! A replay holds nothing for its subscriber but a cursor. The hub grants the wire's next page when the last one is
//! written (so the pace is the client's); the room reads it from history up to its own position. When the cursor has
//! come to the room's position, the subscriber is attached in that same step, behind all that was live before it: so
//! between the last replayed and the first live delta nothing is lost, doubled or swapped. In a busy room reads would
//! chase the position for ever; so while anybody replays, the room remembers its latest deltas (bounded) and takes the
//! last stretch from there.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    delta::{Delta, Epoch, RoomName},
    protocol::{
        codes::{ErrorCode, Unsubscribe},
        frame::{FRAME_TARGET_BYTES, FrameBuilder},
        reply::{self, ClientInfo, Outcome, Presence, Publication, Subscribed},
        session::Recover,
    },
};

/// The hub of one worker thread.
pub type HubId = usize;

/// One subscription of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubId {
    pub session: u64,
    pub number: u32,
}

/// Deltas remembered while somebody replays.
const TAIL_DELTAS: usize = 1024;
const TAIL_BYTES: usize = 256 * 1024;

/// Bytes of ops that may wait for busy hubs before the room stops taking deltas.
const CONGESTED_BYTES: usize = 1024 * 1024;

/// A client asks to follow the room.
#[derive(Debug, Clone)]
pub struct Join {
    pub sub: SubId,
    pub hub: HubId,
    /// Id of the command to reply to.
    pub command: u32,
    pub recover: Option<Recover>,
    /// An impossible recovery is answered with error 112.
    pub must_recover: bool,
    /// Wants pushes about who joins and leaves.
    pub join_leave: bool,
    /// Who it is, where the room keeps presence.
    pub info: Option<ClientInfo>,
}

/// A step of a hub. Those of one room are done in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A frame for one session, whatever it is subscribed to.
    Reply { session: u64, frame: Bytes },
    /// From here on `sub` gets what is live; `frame` comes before all of it.
    Attach {
        sub: SubId,
        frame: Bytes,
        join_leave: bool,
    },
    /// Tell the room when the wire can take a page for `sub`.
    Credit { sub: SubId },
    /// The page that was granted.
    Page { sub: SubId, frame: Bytes },
    /// `sub` gets nothing more. `frame` is the reply to its unsubscribe.
    Detach { sub: SubId, frame: Option<Bytes> },
    /// The room ends `sub`, or refuses it; its session is told.
    End { sub: SubId, frame: Bytes },
    /// For everybody who is attached.
    Live {
        frame: Bytes,
        deltas: u32,
        /// When the first of them was stamped, in ms since the Unix epoch; 0 if none is a delta.
        stamped: u64,
    },
    /// For those who are attached and asked for it.
    Membership { frame: Bytes },
}

/// What a room waits for, on behalf of one subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// [`Sequence::page_read`] with the deltas in `after`..=`upto`.
    Page { sub: SubId, after: u64, upto: u64 },
    /// [`Sequence::caught_up`] when everything up to `offset` has been handed to the room, or [`Sequence::ahead`] if
    /// the log does not reach there.
    Position { sub: SubId, offset: u64 },
}

/// One page of history; see `rooms/history.rs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRead {
    /// Highest offset that was trimmed.
    pub floor: u64,
    pub deltas: Vec<Arc<Delta>>,
    /// There is more up to the end that was asked for.
    pub more: bool,
}

#[derive(Debug)]
enum Phase {
    /// Between two others, within one step.
    Joining,
    /// Behind a position that the room has not come to yet.
    Waiting(Box<Replay>),
    Replaying(Box<Replay>),
    Live,
}

#[derive(Debug)]
struct Replay {
    /// Everything up to here was sent, or is known to the client.
    cursor: u64,
    /// The reply to the subscribe is still owed; it carries the first page.
    unanswered: Option<u32>,
    must_recover: bool,
    join_leave: bool,
}

#[derive(Debug)]
struct Subscriber {
    hub: HubId,
    phase: Phase,
    info: Option<Box<ClientInfo>>,
}

/// What goes to one hub.
#[derive(Debug, Default)]
struct Lane {
    ops: Vec<Op>,
    bytes: usize,
    /// The hub has not finished what it was last given.
    busy: bool,
    attached: usize,
}

/// Counts since the last look.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub replay_hits: u64,
    pub replay_misses: u64,
    pub replayed_deltas: u64,
}

#[derive(Debug)]
pub struct Sequence {
    room: RoomName,
    epoch: Epoch,
    /// Everything of this room up to here was handled.
    position: u64,
    subscribers: HashMap<SubId, Subscriber>,
    lanes: HashMap<HubId, Lane>,
    burst: FrameBuilder,
    burst_deltas: u32,
    burst_stamped: u64,
    /// The deltas in `tail_start`..=`position`, while somebody replays.
    tail: VecDeque<Arc<Delta>>,
    tail_bytes: usize,
    tail_start: u64,
    replaying: usize,
    tally: Tally,
}

impl Sequence {
    /// A room that begins at `position`: deltas at or below it are in history only.
    pub fn new(room: RoomName, epoch: Epoch, position: u64) -> Self {
        Self {
            room,
            epoch,
            position,
            subscribers: HashMap::new(),
            lanes: HashMap::new(),
            burst: FrameBuilder::default(),
            burst_deltas: 0,
            burst_stamped: 0,
            tail: VecDeque::new(),
            tail_bytes: 0,
            tail_start: 0,
            replaying: 0,
            tally: Tally::default(),
        }
    }

    pub fn position(&self) -> u64 {
        self.position
    }

    /// Nobody is here and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.subscribers.is_empty() && self.lanes.values().all(|l| !l.busy && l.ops.is_empty())
    }

    /// So much waits for hubs that the room should take no deltas before one is done.
    pub fn is_congested(&self) -> bool {
        self.burst.len() + self.lanes.values().map(|l| l.bytes).sum::<usize>() > CONGESTED_BYTES
    }

    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// The next deltas of the log. Those at or below the position are in history already.
    pub fn deltas(&mut self, deltas: &[Arc<Delta>]) {
        let live = self.lanes.values().any(|lane| lane.attached > 0);
        for delta in deltas {
            if delta.offset <= self.position {
                continue;
            }
            self.position = delta.offset;
            if live {
                if self.burst_deltas == 0 {
                    self.burst_stamped = delta.time;
                }
                reply::write_delta(&mut self.burst, delta);
                self.burst_deltas += 1;
                if self.burst.len() >= FRAME_TARGET_BYTES {
                    self.seal();
                }
            }
            if self.replaying > 0 {
                self.remember(delta);
            }
        }
    }

    /// Data of a client that is delivered to who is here, in order with the deltas, and not stored.
    pub fn ephemeral(&mut self, data: &Bytes, info: &ClientInfo) {
        if self.lanes.values().any(|lane| lane.attached > 0) {
            reply::write_ephemeral(&mut self.burst, &self.room, data, info);
            if self.burst.len() >= FRAME_TARGET_BYTES {
                self.seal();
            }
        }
    }

    /// A client subscribes. A number that is already here changes nothing.
    pub fn join(&mut self, join: Join) -> Option<Wait> {
        let Join { sub, hub, .. } = join;
        if self.subscribers.contains_key(&sub) {
            return None;
        }
        self.lanes.entry(hub).or_default();
        self.subscribers.insert(
            sub,
            Subscriber {
                hub,
                phase: Phase::Joining,
                info: join.info.map(Box::new),
            },
        );
        let Some(recover) = join.recover else {
            let frame = self.subscribed(join.command, None, &[]);
            self.attach(sub, frame, join.join_leave);
            return None;
        };
        let replay = Box::new(Replay {
            cursor: recover.offset,
            unanswered: Some(join.command),
            must_recover: join.must_recover,
            join_leave: join.join_leave,
        });
        let epoch_fits = recover.epoch.is_empty() || *recover.epoch == *self.epoch;
        if !epoch_fits {
            self.lost(sub, *replay);
        } else if recover.offset == self.position {
            self.tally.replay_hits += 1;
            let frame = self.subscribed(join.command, Some(recover.offset), &[]);
            self.attach(sub, frame, join.join_leave);
        } else if recover.offset > self.position {
            self.set_phase(sub, Phase::Waiting(replay));
            let offset = recover.offset;
            return Some(Wait::Position { sub, offset });
        } else {
            self.start_replay(sub, replay);
        }
        None
    }

    /// Everything up to `offset` has been handed to the room.
    pub fn caught_up(&mut self, sub: SubId, offset: u64) {
        let Some(Phase::Waiting(_)) = self.phase(sub) else {
            return;
        };
        // Deltas of other rooms may stand between this room's last one and `offset`.
        self.position = self.position.max(offset);
        if let Some(Phase::Waiting(replay)) = self.set_phase(sub, Phase::Joining) {
            self.start_replay(sub, replay);
        }
    }

    /// The log does not reach the position that the client names: it belongs to another life of the log.
    pub fn ahead(&mut self, sub: SubId) {
        if let Some(Phase::Waiting(_)) = self.phase(sub)
            && let Some(Phase::Waiting(replay)) = self.set_phase(sub, Phase::Joining)
        {
            self.lost(sub, *replay);
        }
    }

    /// The wire of `sub` can take a page.
    pub fn credit(&mut self, sub: SubId) -> Option<Wait> {
        let Some(Phase::Replaying(replay)) = self.phase(sub) else {
            return None;
        };
        let after = replay.cursor;
        if self.tail_reaches(after) {
            let page = PageRead {
                floor: 0,
                deltas: vec![],
                more: false,
            };
            return self.page_read(sub, after, page);
        }
        Some(Wait::Page {
            sub,
            after,
            upto: self.position,
        })
    }

    /// A page came from history: the deltas from the cursor to `upto`. Returns what is needed next.
    pub fn page_read(&mut self, sub: SubId, upto: u64, page: PageRead) -> Option<Wait> {
        let Some(Phase::Replaying(replay)) = self.phase(sub) else {
            return None;
        };
        if page.floor > replay.cursor {
            self.overtaken(sub);
            return None;
        }
        let mut deltas = page.deltas;
        let mut cursor = match deltas.last() {
            Some(last) if page.more => last.offset,
            _ => upto,
        };
        if !page.more && self.tail_reaches(cursor) {
            cursor = self.splice(cursor, &mut deltas);
        }
        self.tally.replayed_deltas += deltas.len() as u64;
        let complete = cursor >= self.position;
        let (unanswered, from, join_leave) = {
            let replay = self.replay_mut(sub)?;
            let from = std::mem::replace(&mut replay.cursor, cursor);
            (replay.unanswered.take(), from, replay.join_leave)
        };
        let frame = match unanswered {
            Some(command) => {
                self.tally.replay_hits += 1;
                Some(self.subscribed(command, Some(from), &deltas))
            }
            None => pushes(&deltas),
        };
        if complete {
            self.end_replay();
            self.attach(sub, frame.unwrap_or_default(), join_leave);
        } else {
            let frame = frame.unwrap_or_default();
            self.push_op(sub, Op::Page { sub, frame });
            self.push_op(sub, Op::Credit { sub });
        }
        None
    }

    /// What was waited for can't be had now. A client that has no answer yet gets a temporary error and tries again;
    /// one in the middle of its replay is told to come back.
    pub fn failed(&mut self, sub: SubId) {
        let Some(Phase::Waiting(replay) | Phase::Replaying(replay)) = self.phase(sub) else {
            return;
        };
        match replay.unanswered {
            Some(command) => {
                let error = Outcome::Error(ErrorCode::INTERNAL);
                self.end(sub, reply::reply_frame(command, &error));
            }
            None => self.overtaken(sub),
        }
    }

    /// A client unsubscribes (`command` is its id), or its session has ended (`None`).
    pub fn leave(&mut self, sub: SubId, hub: HubId, command: Option<u32>) {
        let frame = command.map(|id| reply::reply_frame(id, &Outcome::Unsubscribe {}));
        let Some(subscriber) = self.subscribers.get(&sub) else {
            // The room ended it first; the reply is owed all the same.
            if let Some(frame) = frame {
                let session = sub.session;
                self.lanes
                    .entry(hub)
                    .or_default()
                    .push(Op::Reply { session, frame });
            }
            return;
        };
        match &subscriber.phase {
            Phase::Live => self.seal(),
            Phase::Waiting(replay) | Phase::Replaying(replay) if frame.is_some() => {
                // An SDK that waits for the answer in vain sends no other subscribe meanwhile, and then reconnects.
                if let Some(id) = replay.unanswered {
                    let error = ErrorCode::INTERNAL.because("unsubscribed before it was answered");
                    let frame = reply::reply_frame(id, &Outcome::Error(error));
                    let session = sub.session;
                    self.push_op(sub, Op::Reply { session, frame });
                }
            }
            _ => {}
        }
        self.push_op(sub, Op::Detach { sub, frame });
        self.forget(sub);
    }

    /// Answers who is here, or how many.
    pub fn presence(&mut self, session: u64, hub: HubId, command: u32, stats: bool) {
        let present: Vec<&ClientInfo> = self
            .subscribers
            .values()
            .filter_map(|s| s.info.as_deref())
            .collect();
        let frame = presence_frame(command, present, stats);
        let lane = self.lanes.entry(hub).or_default();
        lane.push(Op::Reply { session, frame });
    }

    /// What a hub that is not busy has to do; it is busy until [`Sequence::hub_done`].
    pub fn next_for_hubs(&mut self) -> Vec<(HubId, Vec<Op>)> {
        // While all who get it are busy, the burst grows on.
        if self
            .lanes
            .values()
            .any(|lane| !lane.busy && lane.attached > 0)
        {
            self.seal();
        }
        let ready = self
            .lanes
            .iter_mut()
            .filter(|(_, lane)| !lane.busy && !lane.ops.is_empty());
        ready
            .map(|(&hub, lane)| {
                lane.busy = true;
                lane.bytes = 0;
                (hub, std::mem::take(&mut lane.ops))
            })
            .collect()
    }

    pub fn hub_done(&mut self, hub: HubId) {
        if let Some(lane) = self.lanes.get_mut(&hub) {
            lane.busy = false;
        }
    }

    fn start_replay(&mut self, sub: SubId, replay: Box<Replay>) {
        if self.replaying == 0 {
            self.tail_start = self.position;
        }
        self.replaying += 1;
        self.set_phase(sub, Phase::Replaying(replay));
        self.push_op(sub, Op::Credit { sub });
    }

    fn end_replay(&mut self) {
        self.replaying -= 1;
        if self.replaying == 0 {
            self.tail = VecDeque::new();
            self.tail_bytes = 0;
        }
    }

    fn remember(&mut self, delta: &Arc<Delta>) {
        self.tail_bytes += delta.data.len();
        self.tail.push_back(delta.clone());
        while self.tail.len() > TAIL_DELTAS || self.tail_bytes > TAIL_BYTES {
            let Some(oldest) = self.tail.pop_front() else {
                break;
            };
            self.tail_bytes -= oldest.data.len();
            self.tail_start = oldest.offset;
        }
    }

    /// Whether all that a subscriber at `cursor` still lacks is remembered, and no more than a page.
    fn tail_reaches(&self, cursor: u64) -> bool {
        self.replaying > 0 && cursor >= self.tail_start && {
            let lacking = self.tail.iter().rev().take_while(|d| d.offset > cursor);
            lacking.map(|d| d.data.len()).sum::<usize>() <= FRAME_TARGET_BYTES
        }
    }

    /// Appends what is remembered behind `cursor`; returns the room's position.
    fn splice(&self, cursor: u64, deltas: &mut Vec<Arc<Delta>>) -> u64 {
        deltas.extend(self.tail.iter().filter(|d| d.offset > cursor).cloned());
        self.position
    }

    /// The replay can't go on: what comes next was trimmed, or is unreadable.
    fn overtaken(&mut self, sub: SubId) {
        let Some(Phase::Replaying(replay)) = self.set_phase(sub, Phase::Joining) else {
            return;
        };
        self.end_replay();
        if replay.unanswered.is_some() {
            self.lost(sub, *replay);
        } else {
            let frame = reply::unsubscribe_frame(&self.room, Unsubscribe::INSUFFICIENT_STATE);
            self.end(sub, frame);
        }
    }

    /// The position can't be recovered. The client goes on from the room's position and is told to reload, or asked
    /// for an error in this case.
    fn lost(&mut self, sub: SubId, replay: Replay) {
        self.tally.replay_misses += 1;
        let Some(command) = replay.unanswered else {
            return;
        };
        if replay.must_recover {
            let error = Outcome::Error(ErrorCode::UNRECOVERABLE_POSITION);
            self.end(sub, reply::reply_frame(command, &error));
            return;
        }
        let outcome = Outcome::Subscribe(Subscribed {
            recoverable: true,
            positioned: true,
            epoch: &self.epoch,
            offset: self.position,
            recovered: false,
            was_recovering: true,
            publications: vec![],
        });
        let frame = reply::reply_frame(command, &outcome);
        self.attach(sub, frame, replay.join_leave);
    }

    /// The reply to a subscribe that is fresh, or recovers from an offset.
    fn subscribed(&self, command: u32, recovered: Option<u64>, deltas: &[Arc<Delta>]) -> Bytes {
        let outcome = Outcome::Subscribe(Subscribed {
            recoverable: true,
            positioned: true,
            epoch: &self.epoch,
            offset: recovered.unwrap_or(self.position),
            recovered: recovered.is_some(),
            was_recovering: recovered.is_some(),
            publications: deltas.iter().map(|d| Publication::from(&**d)).collect(),
        });
        reply::reply_frame(command, &outcome)
    }

    fn attach(&mut self, sub: SubId, frame: Bytes, join_leave: bool) {
        self.seal();
        let Some(subscriber) = self.subscribers.get_mut(&sub) else {
            return;
        };
        subscriber.phase = Phase::Live;
        let joined = subscriber
            .info
            .as_ref()
            .map(|info| reply::join_frame(&self.room, info));
        if let Some(lane) = self.lanes.get_mut(&subscriber.hub) {
            lane.attached += 1;
            lane.push(Op::Attach {
                sub,
                frame,
                join_leave,
            });
        }
        if let Some(frame) = joined {
            self.membership(frame);
        }
    }

    fn end(&mut self, sub: SubId, frame: Bytes) {
        self.push_op(sub, Op::End { sub, frame });
        self.forget(sub);
    }

    /// Takes a subscriber out, whose last op stands in its lane.
    fn forget(&mut self, sub: SubId) {
        let Some(subscriber) = self.subscribers.remove(&sub) else {
            return;
        };
        match subscriber.phase {
            Phase::Live => {
                if let Some(lane) = self.lanes.get_mut(&subscriber.hub) {
                    lane.attached -= 1;
                }
                // Only who was announced is said to leave.
                if let Some(info) = subscriber.info {
                    let frame = reply::leave_frame(&self.room, &info);
                    self.membership(frame);
                }
            }
            Phase::Replaying(_) => self.end_replay(),
            Phase::Waiting(_) | Phase::Joining => {}
        }
    }

    fn membership(&mut self, frame: Bytes) {
        self.seal();
        for lane in self.lanes.values_mut().filter(|lane| lane.attached > 0) {
            lane.push(Op::Membership {
                frame: frame.clone(),
            });
        }
    }

    /// Closes the burst: what comes next in any lane comes behind it.
    fn seal(&mut self) {
        let Some(frame) = self.burst.finish() else {
            return;
        };
        let op = Op::Live {
            frame,
            deltas: std::mem::take(&mut self.burst_deltas),
            stamped: std::mem::take(&mut self.burst_stamped),
        };
        for lane in self.lanes.values_mut().filter(|lane| lane.attached > 0) {
            lane.push(op.clone());
        }
    }

    fn push_op(&mut self, sub: SubId, op: Op) {
        if let Some(subscriber) = self.subscribers.get(&sub)
            && let Some(lane) = self.lanes.get_mut(&subscriber.hub)
        {
            lane.push(op);
        }
    }

    fn phase(&self, sub: SubId) -> Option<&Phase> {
        self.subscribers.get(&sub).map(|s| &s.phase)
    }

    fn replay_mut(&mut self, sub: SubId) -> Option<&mut Replay> {
        match &mut self.subscribers.get_mut(&sub)?.phase {
            Phase::Replaying(replay) => Some(replay),
            _ => None,
        }
    }

    fn set_phase(&mut self, sub: SubId, phase: Phase) -> Option<Phase> {
        let subscriber = self.subscribers.get_mut(&sub)?;
        Some(std::mem::replace(&mut subscriber.phase, phase))
    }
}

impl Lane {
    fn push(&mut self, op: Op) {
        if let Op::Live { frame, .. } | Op::Membership { frame } = &op {
            self.bytes += frame.len();
        }
        self.ops.push(op);
    }
}

/// The reply to `presence` or `presence_stats` in a room where these clients are.
pub fn presence_frame(command: u32, present: Vec<&ClientInfo>, stats: bool) -> Bytes {
    let outcome = if stats {
        let mut users: Vec<&str> = present.iter().map(|info| &*info.user).collect();
        users.sort_unstable();
        users.dedup();
        Outcome::PresenceStats {
            num_clients: present.len(),
            num_users: users.len(),
        }
    } else {
        Outcome::Presence {
            presence: Presence(present),
        }
    };
    reply::reply_frame(command, &outcome)
}

fn pushes(deltas: &[Arc<Delta>]) -> Option<Bytes> {
    let mut frame = FrameBuilder::default();
    for delta in deltas {
        reply::write_delta(&mut frame, delta);
    }
    frame.finish()
}

#[cfg(test)]
mod tests;
