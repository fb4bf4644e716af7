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

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use uuid::Uuid;

use self::{answers::Answers, lanes::Lanes, tail::Tail};
use crate::{
    delta::{Delta, Epoch, Erasure, RoomName},
    presence::{entry::Count, members::Push},
    protocol::{
        bookmark::SingleRoom,
        codes::{ErrorCode, Unsubscribe},
        format::{Codec, Format},
        reply::{self, ClientInfo, Lasting, Outcome},
    },
};

pub mod answers;
mod lanes;
mod tail;

pub use self::lanes::Op;
pub use crate::protocol::session::Start;

/// The hub of one worker thread for clients of one format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HubId {
    pub number: usize,
    /// What all of its subscribers read.
    pub format: Format,
}

/// One subscription of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubId {
    pub session: u64,
    pub number: u32,
}

/// Bytes of ops that may wait for busy hubs before the room stops taking deltas.
const CONGESTED_BYTES: usize = 1024 * 1024;

/// What is promised of the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Deltas are kept, so that positions mean something.
    pub stored: bool,
    /// Who reads too slowly is taken out of the room instead of being disconnected.
    pub skips: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            stored: true,
            skips: false,
        }
    }
}

/// A delta that is not stored, on its way to who is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passing {
    /// One line of valid JSON.
    pub data: Bytes,
    pub key: Option<Arc<str>>,
    /// The client that is not sent it.
    pub exclude: Option<Uuid>,
    /// When it came, in ms since the Unix epoch.
    pub stamped: u64,
}

/// A client asks to follow the room.
#[derive(Debug, Clone)]
pub struct Join {
    pub sub: SubId,
    pub hub: HubId,
    /// Id of the command to reply to, where there are commands.
    pub command: u32,
    pub start: Start,
    /// How long the subscription lasts, for the reply.
    pub lasting: Lasting,
    /// An impossible recovery is answered with error 112.
    pub must_recover: bool,
    /// Wants pushes about who joins and leaves.
    pub join_leave: bool,
    /// Has a user, and is not anonymous.
    pub is_named: bool,
    /// Who it is, where the room's members are known by name.
    pub info: Option<ClientInfo>,
}

/// Who came to the room or left it, where its members are known by name. In the order of the ops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Membership {
    Came { sub: SubId, info: ClientInfo },
    Went { client: Uuid },
}

/// What a room waits for, on behalf of one subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// [`Sequence::page_read`] with the deltas in `after`..=`upto`.
    Page { sub: SubId, after: u64, upto: u64 },
    /// [`Sequence::caught_up`] when everything up to `offset` has been handed to the room, or [`Sequence::ahead`] if
    /// the log does not reach there.
    Position { sub: SubId, offset: u64 },
    /// [`Sequence::found`] with the offset in front of the newest `count` deltas that are kept.
    Newest { sub: SubId, count: u32 },
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
    /// Behind a position that the room has not come to yet, or that is not known yet.
    Waiting(Box<Replay>),
    Replaying(Box<Replay>),
    Live,
}

#[derive(Debug)]
struct Replay {
    /// Everything up to here was sent, or is known to the client.
    cursor: u64,
    /// The erasures that the page under way is without.
    erased: u64,
    /// The reply to the subscribe is still owed; it carries the first page.
    unanswered: Option<u32>,
    /// It comes back to a position. Else it asks for what is kept, and nothing can be missing.
    recovers: bool,
    must_recover: bool,
}

#[derive(Debug)]
struct Subscriber {
    hub: HubId,
    lasting: Lasting,
    phase: Phase,
    is_named: bool,
    /// Wants pushes about who joins and leaves.
    join_leave: bool,
    info: Option<Box<ClientInfo>>,
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
    terms: Terms,
    epoch: Epoch,
    /// Everything of this room up to here was handled.
    position: u64,
    subscribers: HashMap<SubId, Subscriber>,
    lanes: Lanes,
    tail: Tail,
    tally: Tally,
    count: Count,
    news: Vec<Membership>,
}

impl Sequence {
    /// A room that begins at `position`: deltas at or below it are in history only.
    pub fn new(room: RoomName, epoch: Epoch, position: u64) -> Self {
        let ids = SingleRoom::new(&room, &epoch);
        Self {
            room,
            terms: Terms::default(),
            epoch,
            position,
            subscribers: HashMap::new(),
            lanes: Lanes::new(ids),
            tail: Tail::default(),
            tally: Tally::default(),
            count: Count::default(),
            news: Vec::new(),
        }
    }

    /// The same room with other promises.
    pub fn on(mut self, terms: Terms) -> Self {
        self.terms = terms;
        self.lanes.skip_slow(terms.skips);
        self
    }

    pub fn position(&self) -> u64 {
        self.position
    }

    /// Nobody is here and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.subscribers.is_empty() && self.lanes.are_idle()
    }

    /// So much waits for hubs that the room should take no deltas before one is done.
    pub fn is_congested(&self) -> bool {
        self.lanes.waiting_bytes() > CONGESTED_BYTES
    }

    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// The next deltas of the log. Those at or below the position are in history already.
    pub fn deltas(&mut self, deltas: &[Arc<Delta>]) {
        let live = Format::ALL.map(|format| (format, self.lanes.have_audience(format)));
        for delta in deltas {
            if delta.offset <= self.position {
                continue;
            }
            self.position = delta.offset;
            for (format, _) in live.iter().filter(|(_, live)| *live) {
                self.lanes.write_delta(*format, delta);
            }
            self.tail.remember(delta);
        }
    }

    /// Something was taken back, and is not in history any more. Who has not been sent it yet never is.
    pub fn erase(&mut self, erasure: Erasure) {
        self.tail.erase(erasure);
    }

    /// A delta that is delivered to who is here, and not stored.
    pub fn pass(&mut self, passing: &Passing) {
        for format in Format::ALL {
            if self.lanes.have_audience(format) {
                self.lanes.write_passing(format, &self.room, passing);
            }
        }
    }

    /// A hub has taken `sub` out, as its wire is too far behind. It is told, so that it comes back: at the newest, or
    /// where it stands, if that means something.
    pub fn skipped(&mut self, sub: SubId) {
        if let Some(Phase::Live) = self.phase(sub) {
            let format = self.format(sub);
            self.lanes.seal(format);
            let frame = match format {
                Format::Frames(codec) => self.insufficient_state(codec),
                // It comes back by itself.
                Format::Events => Bytes::new(),
            };
            self.end(sub, frame);
        }
    }

    /// Data of a client that is delivered to who is here, in order with the deltas, and not stored.
    pub fn ephemeral(&mut self, data: &Bytes, info: &ClientInfo) {
        for codec in Codec::ALL {
            if self.lanes.have_audience(Format::Frames(codec)) {
                self.lanes.write_ephemeral(codec, &self.room, data, info);
            }
        }
    }

    /// A client subscribes. A number that is already here changes nothing.
    pub fn join(&mut self, join: Join) -> Option<Wait> {
        let Join { sub, hub, .. } = join;
        if self.subscribers.contains_key(&sub) {
            return None;
        }
        self.subscribers.insert(
            sub,
            Subscriber {
                hub,
                lasting: join.lasting,
                phase: Phase::Joining,
                is_named: join.is_named,
                join_leave: join.join_leave,
                info: join.info.map(Box::new),
            },
        );
        if !self.terms.stored {
            let recovers = matches!(join.start, Start::Behind(_));
            self.join_unstored(sub, join.command, recovers, join.must_recover);
            return None;
        }
        let replay = |cursor, recovers| {
            Box::new(Replay {
                cursor,
                erased: 0,
                unanswered: Some(join.command),
                recovers,
                must_recover: join.must_recover,
            })
        };
        match join.start {
            Start::Now => {
                let frame = self.answers(sub).fresh(join.command, self.position);
                self.attach(sub, frame);
                None
            }
            Start::Behind(recover) => {
                let replay = replay(recover.offset, true);
                match recover.epoch.is_empty() || *recover.epoch == *self.epoch {
                    true => self.begin(sub, replay),
                    false => {
                        self.lost(sub, *replay);
                        None
                    }
                }
            }
            Start::Kept(offset) => self.begin(sub, replay(offset, false)),
            Start::Newest(count) => {
                self.set_phase(sub, Phase::Waiting(replay(0, false)));
                Some(Wait::Newest { sub, count })
            }
        }
    }

    /// The newest that were asked for begin behind `offset`.
    pub fn found(&mut self, sub: SubId, offset: u64) -> Option<Wait> {
        let mut replay = self.take_waiting(sub)?;
        replay.cursor = offset;
        self.begin(sub, replay)
    }

    /// Without positions nothing is recovered, and nobody is told that it was.
    fn join_unstored(&mut self, sub: SubId, command: u32, recovers: bool, must_recover: bool) {
        if recovers && must_recover {
            let error = Outcome::Error(ErrorCode::UNRECOVERABLE_POSITION);
            let frame = reply::reply_frame(self.format(sub).codec(), command, &error);
            return self.end(sub, frame);
        }
        let answers = self.answers(sub);
        let frame = answers.unstored(command, recovers, self.position);
        self.attach(sub, frame);
    }

    /// Everything up to `offset` has been handed to the room.
    pub fn caught_up(&mut self, sub: SubId, offset: u64) {
        if let Some(replay) = self.take_waiting(sub) {
            // Deltas of other rooms may stand between this room's last one and `offset`.
            self.position = self.position.max(offset);
            self.begin(sub, replay);
        }
    }

    /// The log does not reach the position that the client names: it belongs to another life of the log.
    pub fn ahead(&mut self, sub: SubId) {
        if let Some(replay) = self.take_waiting(sub) {
            self.lost(sub, *replay);
        }
    }

    /// The wire of `sub` can take a page.
    pub fn credit(&mut self, sub: SubId) -> Option<Wait> {
        let erased = self.tail.erased();
        let replay = self.replay_mut(sub)?;
        replay.erased = erased;
        let after = replay.cursor;
        if self.tail.reaches(after) {
            let page = PageRead {
                floor: 0,
                deltas: vec![],
                more: false,
            };
            return self.page_read(sub, after, page);
        }
        let upto = self.position;
        Some(Wait::Page { sub, after, upto })
    }

    /// A page came from history: the deltas from the cursor to `upto`. Returns what is needed next.
    pub fn page_read(&mut self, sub: SubId, upto: u64, page: PageRead) -> Option<Wait> {
        let Some(Phase::Replaying(replay)) = self.phase(sub) else {
            return None;
        };
        let erased = replay.erased;
        let asks_for_kept = !replay.recovers && replay.unanswered.is_some();
        if page.floor > replay.cursor && !asks_for_kept {
            self.overtaken(sub);
            return None;
        }
        let mut deltas = page.deltas;
        let mut cursor = match deltas.last() {
            Some(last) if page.more => last.offset,
            _ => upto,
        };
        // Read before they were erased, perhaps.
        let Some(erasures) = self.tail.erasures_since(erased) else {
            return self.credit(sub);
        };
        erasures.for_each(|erasure| deltas.retain(|delta| !erasure.covers(delta.offset)));
        if !page.more && self.tail.reaches(cursor) {
            deltas.extend(self.tail.behind(cursor).cloned());
            cursor = self.position;
        }
        self.tally.replayed_deltas += deltas.len() as u64;
        let complete = cursor >= self.position;
        let replay = self.replay_mut(sub)?;
        let from = std::mem::replace(&mut replay.cursor, cursor);
        let (unanswered, recovers) = (replay.unanswered.take(), replay.recovers);
        let answers = self.answers(sub);
        let frame = match unanswered {
            Some(command) => answers.begun(command, from, recovers, &deltas),
            None => answers.pushes(&deltas),
        };
        self.tally.replay_hits += u64::from(unanswered.is_some() && recovers);
        if complete {
            self.tail.end();
            self.attach(sub, frame);
        } else {
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
        match (replay.unanswered, self.format(sub)) {
            // It comes back by itself, to where it stands.
            (_, Format::Events) => self.end(sub, Bytes::new()),
            (Some(command), Format::Frames(codec)) => {
                let error = Outcome::Error(ErrorCode::INTERNAL);
                self.end(sub, reply::reply_frame(codec, command, &error));
            }
            (None, Format::Frames(_)) => self.overtaken(sub),
        }
    }

    /// A client unsubscribes (`command` is its id), or its session has ended (`None`).
    pub fn leave(&mut self, sub: SubId, hub: HubId, command: Option<u32>) {
        let codec = hub.format.codec();
        let frame = command.map(|id| reply::reply_frame(codec, id, &Outcome::Unsubscribe {}));
        let Some(subscriber) = self.subscribers.get(&sub) else {
            // The room ended it first; the reply is owed all the same.
            if let Some(frame) = frame {
                let session = sub.session;
                self.lanes.push(hub, Op::Reply { session, frame });
            }
            return;
        };
        match &subscriber.phase {
            Phase::Live => self.lanes.seal(hub.format),
            Phase::Waiting(replay) | Phase::Replaying(replay) if frame.is_some() => {
                // An SDK that waits for the answer in vain sends no other subscribe meanwhile, and then reconnects.
                if let Some(id) = replay.unanswered {
                    let error = ErrorCode::INTERNAL.because("unsubscribed before it was answered");
                    let frame = reply::reply_frame(codec, id, &Outcome::Error(error));
                    let session = sub.session;
                    self.push_op(sub, Op::Reply { session, frame });
                }
            }
            _ => {}
        }
        self.push_op(sub, Op::Detach { sub, frame });
        self.forget(sub);
    }

    /// Ends a subscription, and tells its client why.
    pub fn revoke(&mut self, sub: SubId, why: Unsubscribe) {
        let Some(subscriber) = self.subscribers.get(&sub) else {
            return;
        };
        let codec = subscriber.hub.format.codec();
        let mut frame = reply::unsubscribe_frame(codec, &self.room, why);
        match &subscriber.phase {
            Phase::Live => self.lanes.seal(subscriber.hub.format),
            Phase::Waiting(replay) | Phase::Replaying(replay) => {
                // A client that waits for the reply to its subscribe takes nothing else for an end.
                if let Some(command) = replay.unanswered {
                    let error = Outcome::Error(ErrorCode::PERMISSION_DENIED.because(why.reason));
                    frame = reply::reply_frame(codec, command, &error);
                }
            }
            Phase::Joining => {}
        }
        self.end(sub, frame);
    }

    /// Who came and went since the last call, where members are known by name.
    pub fn take_news(&mut self) -> Vec<Membership> {
        std::mem::take(&mut self.news)
    }

    /// How many follow the room who are not known by name.
    pub fn count(&self) -> Count {
        self.count
    }

    /// Tells those who asked for it that somebody joined or left.
    pub fn membership(&mut self, push: &Push) {
        for codec in Codec::ALL {
            if self.lanes.have_audience(Format::Frames(codec)) {
                let frame = match push {
                    Push::Join(info) => reply::join_frame(codec, &self.room, info),
                    Push::Leave(info) => reply::leave_frame(codec, &self.room, info),
                };
                self.lanes.membership(codec, frame);
            }
        }
    }

    /// Tells one of them that it has joined, if it asked to be told.
    pub fn own_join(&mut self, sub: SubId, info: &ClientInfo) {
        if let Some(subscriber) = self.subscribers.get(&sub)
            && matches!(subscriber.phase, Phase::Live)
            && subscriber.join_leave
        {
            let (session, hub) = (sub.session, subscriber.hub);
            let frame = reply::join_frame(hub.format.codec(), &self.room, info);
            self.lanes.push(hub, Op::Reply { session, frame });
        }
    }

    /// A frame for one session, behind what the room has for it already.
    pub fn answer(&mut self, session: u64, hub: HubId, frame: Bytes) {
        self.lanes.push(hub, Op::Reply { session, frame });
    }

    /// What a hub that is not busy has to do; it is busy until [`Sequence::hub_done`].
    pub fn next_for_hubs(&mut self) -> Vec<(HubId, Vec<Op>)> {
        self.lanes.next()
    }

    pub fn hub_done(&mut self, hub: HubId) {
        self.lanes.done(hub);
    }

    /// Begins a replay behind its cursor; in a room that stands there the subscriber is live at once.
    fn begin(&mut self, sub: SubId, replay: Box<Replay>) -> Option<Wait> {
        let offset = replay.cursor;
        if offset > self.position {
            self.set_phase(sub, Phase::Waiting(replay));
            return Some(Wait::Position { sub, offset });
        }
        if offset < self.position {
            self.tail.begin(self.position);
            self.set_phase(sub, Phase::Replaying(replay));
            self.push_op(sub, Op::Credit { sub });
            return None;
        }
        self.tally.replay_hits += u64::from(replay.recovers);
        let answers = self.answers(sub);
        let command = replay.unanswered.unwrap_or_default();
        let frame = answers.begun(command, offset, replay.recovers, &[]);
        self.attach(sub, frame);
        None
    }

    fn answers(&self, sub: SubId) -> Answers<'_> {
        let subscriber = self.subscribers.get(&sub);
        Answers {
            format: self.format(sub),
            lasting: subscriber.map(|of| of.lasting).unwrap_or_default(),
            room: &self.room,
            epoch: &self.epoch,
        }
    }

    /// The replay can't go on: what comes next was trimmed, or is unreadable.
    fn overtaken(&mut self, sub: SubId) {
        let Some(Phase::Replaying(replay)) = self.set_phase(sub, Phase::Joining) else {
            return;
        };
        self.tail.end();
        match (replay.unanswered, self.format(sub)) {
            (None, Format::Frames(codec)) => self.end(sub, self.insufficient_state(codec)),
            _ => self.lost(sub, *replay),
        }
    }

    /// The position can't be recovered. The client goes on from the room's position and is told to reload, or asked
    /// for an error in this case.
    fn lost(&mut self, sub: SubId, replay: Replay) {
        self.tally.replay_misses += 1;
        let command = replay.unanswered.unwrap_or_default();
        if replay.must_recover {
            let error = Outcome::Error(ErrorCode::UNRECOVERABLE_POSITION);
            let frame = reply::reply_frame(self.format(sub).codec(), command, &error);
            return self.end(sub, frame);
        }
        let answers = self.answers(sub);
        let frame = answers.unrecovered(command, self.position);
        self.attach(sub, frame);
    }

    fn attach(&mut self, sub: SubId, frame: Bytes) {
        let Some(subscriber) = self.subscribers.get_mut(&sub) else {
            return;
        };
        subscriber.phase = Phase::Live;
        let op = Op::Attach {
            sub,
            frame,
            join_leave: subscriber.join_leave,
        };
        self.lanes.attach(subscriber.hub, op);
        match subscriber.info.as_deref().cloned() {
            Some(info) => self.news.push(Membership::Came { sub, info }),
            None => {
                self.count.clients += 1;
                self.count.anonymous += u32::from(!subscriber.is_named);
            }
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
                self.lanes.detach(subscriber.hub);
                match subscriber.info {
                    Some(info) => self.news.push(Membership::Went { client: info.id }),
                    None => {
                        self.count.clients -= 1;
                        self.count.anonymous -= u32::from(!subscriber.is_named);
                    }
                }
            }
            Phase::Replaying(_) => self.tail.end(),
            Phase::Waiting(_) | Phase::Joining => {}
        }
    }

    fn push_op(&mut self, sub: SubId, op: Op) {
        if let Some(subscriber) = self.subscribers.get(&sub) {
            self.lanes.push(subscriber.hub, op);
        }
    }

    fn phase(&self, sub: SubId) -> Option<&Phase> {
        self.subscribers.get(&sub).map(|s| &s.phase)
    }

    fn format(&self, sub: SubId) -> Format {
        self.subscribers
            .get(&sub)
            .map_or(Format::JSON, |s| s.hub.format)
    }

    fn insufficient_state(&self, codec: Codec) -> Bytes {
        reply::unsubscribe_frame(codec, &self.room, Unsubscribe::INSUFFICIENT_STATE)
    }

    /// The replay of a subscriber that waits; it is to be set on its way in the same step.
    fn take_waiting(&mut self, sub: SubId) -> Option<Box<Replay>> {
        let Some(Phase::Waiting(_)) = self.phase(sub) else {
            return None;
        };
        match self.set_phase(sub, Phase::Joining) {
            Some(Phase::Waiting(replay)) => Some(replay),
            _ => None,
        }
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

#[cfg(test)]
mod tests;
