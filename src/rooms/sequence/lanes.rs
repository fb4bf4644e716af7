//! What a room has for its hubs: one FIFO each, and the burst that all of them get.

use std::collections::HashMap;

use bytes::Bytes;

use super::{HubId, SubId};
use crate::{
    delta::{Delta, RoomName},
    protocol::{
        client_id,
        frame::{FRAME_TARGET_BYTES, FrameBuilder},
        reply::{self, ClientInfo},
    },
};

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
        /// The session that is passed over.
        except: Option<u64>,
    },
    /// For those who are attached and asked for it.
    Membership { frame: Bytes },
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

#[derive(Debug, Default)]
pub struct Lanes {
    lanes: HashMap<HubId, Lane>,
    /// Live messages that are in no lane yet.
    burst: FrameBuilder,
    deltas: u32,
    stamped: u64,
    /// The session that does not get the burst.
    except: Option<u64>,
}

impl Lanes {
    /// Nothing waits and no hub is busy.
    pub fn are_idle(&self) -> bool {
        let idle = |lane: &Lane| !lane.busy && lane.ops.is_empty();
        self.lanes.values().all(idle)
    }

    /// Bytes of live messages that wait for hubs.
    pub fn waiting_bytes(&self) -> usize {
        self.burst.len() + self.lanes.values().map(|lane| lane.bytes).sum::<usize>()
    }

    /// Whether somebody gets what is live.
    pub fn have_audience(&self) -> bool {
        self.lanes.values().any(|lane| lane.attached > 0)
    }

    pub fn write_delta(&mut self, delta: &Delta) {
        self.begin_burst(delta.exclude.map(client_id::session_of));
        if self.deltas == 0 {
            self.stamped = delta.time;
        }
        reply::write_delta(&mut self.burst, delta);
        self.deltas += 1;
        self.seal_if_full();
    }

    pub fn write_ephemeral(&mut self, room: &RoomName, data: &Bytes, info: &ClientInfo) {
        self.begin_burst(None);
        reply::write_ephemeral(&mut self.burst, room, data, info);
        self.seal_if_full();
    }

    /// Closes the burst: what comes next in any lane comes behind it.
    pub fn seal(&mut self) {
        if let Some(frame) = self.burst.finish() {
            let op = Op::Live {
                frame,
                deltas: std::mem::take(&mut self.deltas),
                stamped: std::mem::take(&mut self.stamped),
                except: self.except.take(),
            };
            self.push_to_audience(&op);
        }
    }

    pub fn push(&mut self, hub: HubId, op: Op) {
        self.lanes.entry(hub).or_default().push(op);
    }

    /// From here on a subscriber at `hub` gets what is live.
    pub fn attach(&mut self, hub: HubId, op: Op) {
        self.seal();
        let lane = self.lanes.entry(hub).or_default();
        lane.attached += 1;
        lane.push(op);
    }

    /// A subscriber at `hub` gets nothing more; its last op is in the lane.
    pub fn detach(&mut self, hub: HubId) {
        if let Some(lane) = self.lanes.get_mut(&hub) {
            lane.attached -= 1;
        }
    }

    /// Tells those who asked for it that somebody joined or left.
    pub fn membership(&mut self, frame: Bytes) {
        self.seal();
        self.push_to_audience(&Op::Membership { frame });
    }

    /// What hubs that are not busy have to do. They are busy until [`Lanes::done`].
    pub fn next(&mut self) -> Vec<(HubId, Vec<Op>)> {
        // While all who get it are busy, the burst grows on.
        let mut lanes = self.lanes.values();
        if lanes.any(|lane| !lane.busy && lane.attached > 0) {
            self.seal();
        }
        let lanes = self.lanes.iter_mut();
        lanes
            .filter(|(_, lane)| !lane.busy && !lane.ops.is_empty())
            .map(|(&hub, lane)| {
                lane.busy = true;
                lane.bytes = 0;
                (hub, std::mem::take(&mut lane.ops))
            })
            .collect()
    }

    pub fn done(&mut self, hub: HubId) {
        if let Some(lane) = self.lanes.get_mut(&hub) {
            lane.busy = false;
        }
    }

    /// What is written next is for all but `except`, as the whole burst is.
    fn begin_burst(&mut self, except: Option<u64>) {
        if self.except != except {
            self.seal();
            self.except = except;
        }
    }

    fn seal_if_full(&mut self) {
        if self.burst.len() >= FRAME_TARGET_BYTES {
            self.seal();
        }
    }

    fn push_to_audience(&mut self, op: &Op) {
        for lane in self.lanes.values_mut().filter(|lane| lane.attached > 0) {
            lane.push(op.clone());
        }
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
