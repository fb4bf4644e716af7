//! What a room has for its hubs: one FIFO each, and the burst that all of them get.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};

use super::{Codec, Format, HubId, Passing, SubId};
use crate::{
    delta::{Delta, RoomName},
    protocol::{
        bookmark::SingleRoom,
        client_id, event,
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
        /// Who is too far behind is taken out instead.
        skips: bool,
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

/// Live messages that are in no lane yet, as clients of one format read them.
#[derive(Debug)]
struct Burst {
    written: Written,
    deltas: u32,
    stamped: u64,
    /// The session that does not get the burst.
    except: Option<u64>,
}

#[derive(Debug)]
enum Written {
    Frame(FrameBuilder),
    Events(BytesMut, SingleRoom),
}

#[derive(Debug)]
pub struct Lanes {
    lanes: HashMap<HubId, Lane>,
    json: Burst,
    protobuf: Burst,
    events: Burst,
    skips: bool,
}

impl Lanes {
    /// Lanes of a room; `ids` are what its events carry.
    pub fn new(ids: SingleRoom) -> Self {
        Self {
            lanes: HashMap::new(),
            json: Burst::of(Written::Frame(FrameBuilder::new(Codec::Json))),
            protobuf: Burst::of(Written::Frame(FrameBuilder::new(Codec::Protobuf))),
            events: Burst::of(Written::Events(BytesMut::new(), ids)),
            skips: false,
        }
    }

    /// Nothing waits and no hub is busy.
    pub fn are_idle(&self) -> bool {
        let idle = |lane: &Lane| !lane.busy && lane.ops.is_empty();
        self.lanes.values().all(idle)
    }

    /// Bytes of live messages that wait for hubs.
    pub fn waiting_bytes(&self) -> usize {
        let lanes = self.lanes.values().map(|lane| lane.bytes).sum::<usize>();
        self.json.len() + self.protobuf.len() + self.events.len() + lanes
    }

    /// Whether somebody of the format gets what is live.
    pub fn have_audience(&self, format: Format) -> bool {
        let mut lanes = self.lanes.iter();
        lanes.any(|(hub, lane)| lane.attached > 0 && hub.format == format)
    }

    pub fn write_delta(&mut self, format: Format, delta: &Delta) {
        if let Format::Frames(codec) = format {
            self.begin_frame(codec, delta.exclude.map(client_id::session_of));
        }
        let burst = self.burst(format);
        if burst.deltas == 0 {
            burst.stamped = delta.time;
        }
        match &mut burst.written {
            Written::Frame(frame) => reply::write_delta(frame, delta),
            Written::Events(events, ids) => event::write_delta(events, ids, delta),
        }
        burst.deltas += 1;
        self.seal_if_full(format);
    }

    /// Whether who is too far behind is taken out instead of being disconnected.
    pub fn skip_slow(&mut self, skips: bool) {
        self.skips = skips;
    }

    pub fn write_passing(&mut self, format: Format, room: &RoomName, passing: &Passing) {
        if let Format::Frames(codec) = format {
            self.begin_frame(codec, passing.exclude.map(client_id::session_of));
        }
        let burst = self.burst(format);
        if burst.deltas == 0 {
            burst.stamped = passing.stamped;
        }
        let (data, key) = (&passing.data, passing.key.as_deref());
        match &mut burst.written {
            Written::Frame(frame) => reply::write_unstored(frame, room, data, key),
            Written::Events(events, _) => event::write_unstored(events, room, data, key),
        }
        burst.deltas += 1;
        self.seal_if_full(format);
    }

    /// Those who read events are told only what they can come back to.
    pub fn write_ephemeral(
        &mut self,
        codec: Codec,
        room: &RoomName,
        data: &Bytes,
        info: &ClientInfo,
    ) {
        let format = Format::Frames(codec);
        self.begin_frame(codec, None);
        if let Written::Frame(frame) = &mut self.burst(format).written {
            reply::write_ephemeral(frame, room, data, info);
        }
        self.seal_if_full(format);
    }

    /// Closes the format's burst: what comes next in any lane comes behind it.
    pub fn seal(&mut self, format: Format) {
        let skips = self.skips;
        let burst = self.burst(format);
        if let Some(frame) = burst.written.finish() {
            let op = Op::Live {
                frame,
                deltas: std::mem::take(&mut burst.deltas),
                stamped: std::mem::take(&mut burst.stamped),
                except: burst.except.take(),
                skips,
            };
            self.push_to_audience(format, &op);
        }
    }

    pub fn push(&mut self, hub: HubId, op: Op) {
        self.lanes.entry(hub).or_default().push(op);
    }

    /// From here on a subscriber at `hub` gets what is live.
    pub fn attach(&mut self, hub: HubId, op: Op) {
        self.seal(hub.format);
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

    /// Tells those of the codec who asked for it that somebody joined or left.
    pub fn membership(&mut self, codec: Codec, frame: Bytes) {
        let format = Format::Frames(codec);
        self.seal(format);
        self.push_to_audience(format, &Op::Membership { frame });
    }

    /// What hubs that are not busy have to do. They are busy until [`Lanes::done`].
    pub fn next(&mut self) -> Vec<(HubId, Vec<Op>)> {
        for format in Format::ALL {
            // While all who get it are busy, the burst grows on.
            let mut lanes = self.lanes.iter();
            if lanes.any(|(hub, lane)| !lane.busy && lane.attached > 0 && hub.format == format) {
                self.seal(format);
            }
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

    fn burst(&mut self, format: Format) -> &mut Burst {
        match format {
            Format::Frames(Codec::Json) => &mut self.json,
            Format::Frames(Codec::Protobuf) => &mut self.protobuf,
            Format::Events => &mut self.events,
        }
    }

    /// What is written next to the frame is for all but `except`, as the whole burst is. Who reads events has no id that
    /// could be excepted.
    fn begin_frame(&mut self, codec: Codec, except: Option<u64>) {
        let format = Format::Frames(codec);
        if self.burst(format).except != except {
            self.seal(format);
            self.burst(format).except = except;
        }
    }

    fn seal_if_full(&mut self, format: Format) {
        if self.burst(format).len() >= FRAME_TARGET_BYTES {
            self.seal(format);
        }
    }

    fn push_to_audience(&mut self, format: Format, op: &Op) {
        for (hub, lane) in &mut self.lanes {
            if lane.attached > 0 && hub.format == format {
                lane.push(op.clone());
            }
        }
    }
}

impl Burst {
    fn of(written: Written) -> Self {
        Self {
            written,
            deltas: 0,
            stamped: 0,
            except: None,
        }
    }

    fn len(&self) -> usize {
        match &self.written {
            Written::Frame(frame) => frame.len(),
            Written::Events(events, _) => events.len(),
        }
    }
}

impl Written {
    /// What was written, if anything was; then nothing is.
    fn finish(&mut self) -> Option<Bytes> {
        match self {
            Self::Frame(frame) => frame.finish(),
            Self::Events(events, _) => (!events.is_empty()).then(|| events.split().freeze()),
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
