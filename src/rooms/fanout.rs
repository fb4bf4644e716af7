//! One worker's table of who is live in which room, and what it does with a room's [`Op`]s. Pure: wires are a trait.
//!
//! A walk over the wires of a large room is cut into steps, so that one room does not hold up a whole worker. A room
//! has one message here at a time, so nothing of it can overtake an unfinished walk or change the table under it.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    ops::Range,
};

use bytes::Bytes;
use indexmap::IndexMap;

use super::sequence::{Op, SubId};

/// A session's way out: a bounded queue of frames on this thread.
pub trait Wire: Clone {
    /// Writes or queues one whole frame. A wire that is over its bound closes itself; one that is closed drops it.
    fn push(&self, frame: &Bytes);

    /// So much waits that the wire would soon be closed if it got `bytes` more.
    fn is_behind(&self, bytes: usize) -> bool;

    /// Nothing is queued, so a page of a replay may be written. When that is refused, [`FanOut::drained`] is owed.
    fn can_take_page(&self) -> bool;

    /// The room ended the subscription of that number.
    fn subscription_ended(&self, number: u32);
}

/// What the shell passes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice<R> {
    /// The room's message is done; the next one may come.
    Done(R),
    /// The wire of `sub` takes a page.
    Credit(R, SubId),
    /// `sub` is taken out of the room, as its wire is too far behind.
    Skipped(R, SubId),
    /// Frames with deltas were written to wires.
    Delivered { deliveries: u64, stamped: u64 },
}

struct Member<W> {
    wire: W,
    join_leave: bool,
}

struct Outlet<R, W> {
    wire: W,
    pages: Option<Box<Pages<R>>>,
}

/// At most one page is under way for a wire, however many of its rooms replay.
struct Pages<R> {
    granted: Option<(R, SubId)>,
    waiting: VecDeque<(R, SubId)>,
}

struct Work<R> {
    room: R,
    ops: VecDeque<Op>,
    /// Members that have got the first op already.
    walked: usize,
}

/// `R` names a room, `W` is a wire.
pub struct FanOut<R, W> {
    outlets: HashMap<u64, Outlet<R, W>>,
    rooms: HashMap<R, IndexMap<SubId, Member<W>>>,
    work: VecDeque<Work<R>>,
}

impl<R, W> Default for FanOut<R, W> {
    fn default() -> Self {
        Self {
            outlets: HashMap::new(),
            rooms: HashMap::new(),
            work: VecDeque::new(),
        }
    }
}

impl<R: Clone + Eq + Hash, W: Wire> FanOut<R, W> {
    pub fn open(&mut self, session: u64, wire: W) {
        self.outlets.insert(session, Outlet { wire, pages: None });
    }

    /// The session has ended. Its memberships go as its rooms detach them.
    pub fn close(&mut self, session: u64) {
        self.outlets.remove(&session);
    }

    pub fn sessions(&self) -> impl Iterator<Item = (u64, &W)> {
        self.outlets.iter().map(|(&id, outlet)| (id, &outlet.wire))
    }

    pub fn wire(&self, session: u64) -> Option<&W> {
        self.outlets.get(&session).map(|outlet| &outlet.wire)
    }

    /// Rooms that somebody here is live in.
    pub fn rooms(&self) -> usize {
        self.rooms.len()
    }

    /// A message of a room, to be worked on by [`FanOut::step`].
    pub fn accept(&mut self, room: R, ops: Vec<Op>) {
        self.work.push_back(Work {
            room,
            ops: ops.into(),
            walked: 0,
        });
    }

    /// A room is gone, and what it had under way here with it.
    pub fn drop_room(&mut self, gone: impl Fn(&R) -> bool, notices: &mut Vec<Notice<R>>) {
        self.rooms.retain(|room, _| !gone(room));
        self.work.retain(|work| !gone(&work.room));
        // A page that it was granted never comes; other rooms of the same wire may be waiting behind it.
        for outlet in self.outlets.values_mut() {
            if let Some(pages) = &mut outlet.pages {
                pages.waiting.retain(|(room, _)| !gone(room));
                pages.granted.take_if(|(room, _)| gone(room));
                outlet.grant_next(notices);
            }
        }
    }

    /// Works until about `budget` frames are written or nothing is left; returns whether something is left.
    pub fn step(&mut self, mut budget: usize, notices: &mut Vec<Notice<R>>) -> bool {
        while let Some(mut work) = self.work.pop_front() {
            while let Some(op) = work.ops.pop_front() {
                let whole = self.perform(&work.room, &op, &mut work.walked, &mut budget, notices);
                if !whole {
                    work.ops.push_front(op);
                    // To the back: the other rooms' short messages need not wait for this walk.
                    self.work.push_back(work);
                    return true;
                }
                work.walked = 0;
            }
            notices.push(Notice::Done(work.room));
            if budget == 0 {
                break;
            }
        }
        !self.work.is_empty()
    }

    /// The wire of `session` has nothing queued any more.
    pub fn drained(&mut self, session: u64, notices: &mut Vec<Notice<R>>) {
        if let Some(outlet) = self.outlets.get_mut(&session) {
            outlet.grant_next(notices);
        }
    }

    /// Does one op; `false` if the budget ended its walk before its end.
    fn perform(
        &mut self,
        room: &R,
        op: &Op,
        walked: &mut usize,
        budget: &mut usize,
        notices: &mut Vec<Notice<R>>,
    ) -> bool {
        *budget = budget.saturating_sub(1);
        match op {
            Op::Reply { session, frame } => self.write(*session, frame),
            Op::Attach {
                sub,
                frame,
                join_leave,
            } => {
                self.write(sub.session, frame);
                self.page_ended(*sub, notices);
                // A session that has ended meanwhile gets nothing; its detach is on the way.
                if let Some(outlet) = self.outlets.get(&sub.session) {
                    let member = Member {
                        wire: outlet.wire.clone(),
                        join_leave: *join_leave,
                    };
                    let members = self.rooms.entry(room.clone()).or_default();
                    members.insert(*sub, member);
                }
            }
            Op::Credit { sub } => {
                if let Some(outlet) = self.outlets.get_mut(&sub.session) {
                    let pages = outlet.pages.get_or_insert_with(|| {
                        Box::new(Pages {
                            granted: None,
                            waiting: VecDeque::new(),
                        })
                    });
                    pages.waiting.push_back((room.clone(), *sub));
                    outlet.grant_next(notices);
                }
            }
            Op::Page { sub, frame } => {
                self.write(sub.session, frame);
                self.page_ended(*sub, notices);
            }
            Op::Detach { sub, frame } => {
                self.remove(room, *sub, notices);
                if let Some(frame) = frame {
                    self.write(sub.session, frame);
                }
            }
            Op::End { sub, frame } => {
                self.remove(room, *sub, notices);
                self.write(sub.session, frame);
                if let Some(wire) = self.wire(sub.session) {
                    wire.subscription_ended(sub.number);
                }
            }
            Op::Live {
                frame,
                deltas,
                stamped,
                except,
                skips,
            } => {
                let Some(members) = self.rooms.get_mut(room) else {
                    return true;
                };
                if *skips {
                    let stretch = *walked..*walked + (*budget).max(1);
                    take_out_slow(room, members, stretch, frame.len(), notices);
                }
                let end = members.len().min(*walked + (*budget).max(1));
                let mut written = (end - *walked) as u64;
                match except {
                    None => (*walked..end).for_each(|index| members[index].wire.push(frame)),
                    Some(session) => {
                        let walk = members.iter().skip(*walked).take(end - *walked);
                        for (sub, member) in walk {
                            match sub.session == *session {
                                true => written -= 1,
                                false => member.wire.push(frame),
                            }
                        }
                    }
                }
                *budget = budget.saturating_sub(end - *walked);
                if *deltas > 0 {
                    notices.push(Notice::Delivered {
                        deliveries: written * u64::from(*deltas),
                        stamped: *stamped,
                    });
                }
                *walked = end;
                return end == members.len();
            }
            Op::Membership { frame } => {
                let members = self.rooms.get(room).into_iter().flatten();
                for (_, member) in members.filter(|(_, member)| member.join_leave) {
                    member.wire.push(frame);
                    *budget = budget.saturating_sub(1);
                }
            }
        }
        true
    }

    fn write(&self, session: u64, frame: &Bytes) {
        if let Some(outlet) = self.outlets.get(&session)
            && !frame.is_empty()
        {
            outlet.wire.push(frame);
        }
    }

    fn remove(&mut self, room: &R, sub: SubId, notices: &mut Vec<Notice<R>>) {
        if let Some(members) = self.rooms.get_mut(room) {
            members.swap_remove(&sub);
            if members.is_empty() {
                self.rooms.remove(room);
            }
        }
        if let Some(outlet) = self.outlets.get_mut(&sub.session)
            && let Some(pages) = &mut outlet.pages
        {
            pages.waiting.retain(|(_, waiting)| *waiting != sub);
        }
        self.page_ended(sub, notices);
    }

    fn page_ended(&mut self, sub: SubId, notices: &mut Vec<Notice<R>>) {
        if let Some(outlet) = self.outlets.get_mut(&sub.session)
            && let Some(pages) = &mut outlet.pages
            && pages
                .granted
                .take_if(|(_, granted)| *granted == sub)
                .is_some()
        {
            outlet.grant_next(notices);
        }
    }
}

/// Takes those out of the next stretch of a walk whose wires are too far behind for a frame. Others move up into their
/// places, from behind the stretch.
fn take_out_slow<R: Clone, W: Wire>(
    room: &R,
    members: &mut IndexMap<SubId, Member<W>>,
    stretch: Range<usize>,
    frame: usize,
    notices: &mut Vec<Notice<R>>,
) {
    let mut at = stretch.start;
    while at < stretch.end.min(members.len()) {
        if !members[at].wire.is_behind(frame) {
            at += 1;
        } else if let Some((sub, _)) = members.swap_remove_index(at) {
            notices.push(Notice::Skipped(room.clone(), sub));
        }
    }
}

impl<R: Clone, W: Wire> Outlet<R, W> {
    fn grant_next(&mut self, notices: &mut Vec<Notice<R>>) {
        let Some(pages) = &mut self.pages else { return };
        if pages.granted.is_some() {
            return;
        }
        if pages.waiting.is_empty() {
            self.pages = None;
        } else if self.wire.can_take_page()
            && let Some((room, sub)) = pages.waiting.pop_front()
        {
            pages.granted = Some((room.clone(), sub));
            notices.push(Notice::Credit(room, sub));
        }
    }
}

#[cfg(test)]
#[path = "fanout_tests.rs"]
mod tests;
