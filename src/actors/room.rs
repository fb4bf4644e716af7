//! The room actor: [`Sequence`] with a mailbox. Sessions send [`Subscribe`], [`Leave`] and [`Ask`], the pipeline sends
//! [`Deltas`], hubs send [`Credit`].
//!
//! Bounds: a full mailbox holds up the pipeline, and with it the publishers; sessions wait for their turn. Each hub has
//! one message of the room at a time; when too much has piled up behind it, the room takes nothing more from its mailbox.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use actix::{fut::ActorFuture, prelude::*};
use bytes::Bytes;
use tokio::sync::oneshot;
use tracing::{error, warn};

use super::{
    Reach, Services,
    hub::{Hub, RoomFailed, Work},
    presence::PresenceNews,
    registry::{RoomRef, Ticket},
};
use crate::{
    delta::{Delta, Erasure, RoomName},
    presence::{
        entry::Count,
        members::{Arrival, Push},
    },
    protocol::{codes::Unsubscribe, frame::FRAME_TARGET_BYTES, reply::ClientInfo},
    rooms::{
        history::{Page, PageLimit},
        sequence::{HubId, Join, Membership, Op, PageRead, Passing, Sequence, SubId, Wait},
        store::StoreError,
    },
};

/// Messages that may wait in a room's mailbox.
const MAILBOX: usize = 256;

/// A replay's page: a frame's worth, so that one page is one write.
const PAGE: PageLimit = PageLimit {
    deltas: 1000,
    bytes: FRAME_TARGET_BYTES,
};

/// A client subscribes.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Subscribe {
    pub join: Join,
    pub hub: Addr<Hub>,
    pub ticket: Ticket,
}

/// A client unsubscribes, or its session has ended.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Leave {
    pub sub: SubId,
    pub hub: (HubId, Addr<Hub>),
    /// Id of the command that is to be answered.
    pub command: Option<u32>,
    pub ticket: Ticket,
}

/// A client may not follow the room any more.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Revoke {
    pub sub: SubId,
    pub why: Unsubscribe,
    pub ticket: Ticket,
}

/// A client asks who is here.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Ask {
    pub session: u64,
    pub hub: (HubId, Addr<Hub>),
    pub command: u32,
    pub stats: bool,
    pub ticket: Ticket,
}

/// The log's next deltas of this room.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Deltas(pub Vec<Arc<Delta>>);

/// Something was taken back.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Erase(pub Erasure);

/// A delta of a room that stores nothing.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Pass(pub Passing);

/// Something that is delivered and not stored.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Ephemeral {
    pub data: Bytes,
    pub info: ClientInfo,
}

/// The wire of a replaying client takes a page.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Credit(pub SubId);

/// A subscriber was taken out, as its wire is too far behind.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Skipped(pub SubId);

/// Everything up to `offset` is in this mailbox, in front of this.
#[derive(Message)]
#[rtype(result = "()")]
struct CaughtUp {
    sub: SubId,
    offset: u64,
}

/// The rooms are still behind the position that a client waits for.
#[derive(Message)]
#[rtype(result = "()")]
struct Behind(SubId);

/// The log ends before the position that a client waits for.
#[derive(Message)]
#[rtype(result = "()")]
struct Beyond(SubId);

/// A page was read from history, or could not be.
#[derive(Message)]
#[rtype(result = "()")]
struct PageCame {
    sub: SubId,
    upto: u64,
    page: Result<Result<Page, StoreError>, tokio::task::JoinError>,
}

/// The place in front of the newest deltas was looked up, or could not be.
#[derive(Message)]
#[rtype(result = "()")]
struct NewestFound {
    sub: SubId,
    offset: Result<Result<u64, StoreError>, tokio::task::JoinError>,
}

/// The history is another one than before: everybody is sent to replay.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Reset;

pub struct Room {
    name: RoomName,
    key: u64,
    sequence: Sequence,
    services: Arc<Services>,
    hubs: Vec<(HubId, Addr<Hub>)>,
    /// Hubs that are busy with what the room sent last.
    under_way: Vec<(HubId, oneshot::Receiver<()>)>,
    /// What presence knows of clients who are only counted.
    counted: Count,
    retiring: Option<SpawnHandle>,
    retired: bool,
}

impl Room {
    /// Starts a room on this thread. It must be in the registry before this thread runs it.
    pub fn start(name: RoomName, key: u64, services: Arc<Services>) -> Addr<Self> {
        Self::new(name, key, services).start()
    }

    pub(super) fn new(name: RoomName, key: u64, services: Arc<Services>) -> Self {
        services.metrics.room_started();
        let epoch = services.history.epoch(&name);
        let terms = services.terms(&name);
        Self {
            sequence: Sequence::new(name.clone(), epoch, 0).on(terms),
            name,
            key,
            services,
            hubs: Vec::new(),
            under_way: Vec::new(),
            counted: Count::default(),
            retiring: None,
            retired: false,
        }
    }

    fn knows(&mut self, id: HubId, hub: Addr<Hub>) {
        if !self.hubs.iter().any(|(known, _)| *known == id) {
            self.hubs.push((id, hub));
        }
    }

    fn wait_for(&mut self, wait: Option<Wait>, ctx: &mut Context<Self>) {
        match wait {
            None => {}
            Some(Wait::Page { sub, after, upto }) => self.read_page(sub, after, upto, ctx),
            Some(Wait::Position { sub, offset }) => self.wait_position(sub, offset, ctx),
            Some(Wait::Newest { sub, count }) => self.find_newest(sub, count, ctx),
        }
    }

    fn read_page(&self, sub: SubId, after: u64, upto: u64, ctx: &mut Context<Self>) {
        let (history, name) = (self.services.history.clone(), self.name.clone());
        let read = actix_rt::task::spawn_blocking(move || history.page(&name, after, upto, PAGE));
        let addr = ctx.address();
        // A message, as it makes the room flush what the page brings.
        let read = async move {
            let page = read.await;
            addr.do_send(PageCame { sub, upto, page });
        };
        ctx.spawn(read.into_actor(self));
    }

    fn find_newest(&self, sub: SubId, count: u32, ctx: &mut Context<Self>) {
        let (history, name) = (self.services.history.clone(), self.name.clone());
        let find = actix_rt::task::spawn_blocking(move || history.before_newest(&name, count));
        let addr = ctx.address();
        let found = async move {
            let offset = find.await;
            addr.do_send(NewestFound { sub, offset });
        };
        ctx.spawn(found.into_actor(self));
    }

    fn wait_position(&self, sub: SubId, offset: u64, ctx: &mut Context<Self>) {
        let (services, name, addr) = (self.services.clone(), self.name.clone(), ctx.address());
        let caught_up = async move {
            match services.reach(&name, offset).await {
                Reach::Reached => addr.do_send(CaughtUp { sub, offset }),
                Reach::Beyond => addr.do_send(Beyond(sub)),
                Reach::Behind => addr.do_send(Behind(sub)),
            }
        };
        ctx.spawn(caught_up.into_actor(self));
    }

    /// Says who came and went, and passes on what clients are to be told of it.
    fn tell_presence(&mut self) {
        for news in self.sequence.take_news() {
            match news {
                Membership::Came { sub, info } => {
                    let (arrival, pushes) = self.services.presence.come(&self.name, &info);
                    self.pass_on(pushes);
                    if arrival == Arrival::Known {
                        self.sequence.own_join(sub, &info);
                    }
                }
                Membership::Went { client } => {
                    let pushes = self.services.presence.go(&self.name, client);
                    self.pass_on(pushes);
                }
            }
        }
        let count = self.sequence.count();
        if count != self.counted {
            self.counted = count;
            self.services.presence.count(&self.name, count);
        }
    }

    fn pass_on(&mut self, pushes: Vec<Push>) {
        for push in pushes {
            self.sequence.membership(&push);
        }
    }

    fn unreadable(&mut self, sub: SubId, error: &dyn std::error::Error) -> Option<Wait> {
        error!(room.name = %self.name, %error, "history can't be read");
        self.sequence.failed(sub);
        None
    }

    /// Sends what is due, and counts.
    fn flush(&mut self, cx: &mut TaskContext<'_>, room: &RoomRef) {
        self.tell_presence();
        loop {
            let sequence = &mut self.sequence;
            self.under_way.retain_mut(|(hub, done)| {
                let pending = Pin::new(done).poll(cx).is_pending();
                if !pending {
                    sequence.hub_done(*hub);
                }
                pending
            });
            let due = self.sequence.next_for_hubs();
            if due.is_empty() {
                break;
            }
            for (id, ops) in due {
                self.send(id, ops, room);
            }
        }
        let tally = self.sequence.take_tally();
        if tally != Default::default() {
            self.services.metrics.replays(tally);
        }
    }

    fn send(&mut self, id: HubId, ops: Vec<Op>, room: &RoomRef) {
        let Some((_, hub)) = self.hubs.iter().find(|(known, _)| *known == id) else {
            self.sequence.hub_done(id);
            return;
        };
        let (done, is_done) = oneshot::channel();
        self.under_way.push((id, is_done));
        // A hub takes any number: each room has one message there at a time.
        hub.do_send(Work {
            room: room.clone(),
            ops,
            done,
        });
    }

    fn hold_if_congested(&self, ctx: &mut Context<Self>) {
        if self.sequence.is_congested() {
            ctx.wait(Congested(RoomRef {
                key: self.key,
                addr: ctx.address(),
            }));
        }
    }

    fn consider_retiring(&mut self, ctx: &mut Context<Self>) {
        if self.retiring.is_some() || !self.sequence.is_idle() {
            return;
        }
        let linger = self.services.rooms.linger;
        self.retiring = Some(ctx.run_later(linger, |room, ctx| {
            room.retiring = None;
            if !room.sequence.is_idle() {
                return;
            }
            if room.services.registry.retire(&room.name, room.key) {
                room.retired = true;
                ctx.stop();
            } else {
                room.consider_retiring(ctx);
            }
        }));
    }
}

impl Actor for Room {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        // The room is registered: what is ordered from here on reaches it, what was before is in history.
        let history = &self.services.history;
        let (epoch, position) = (history.epoch(&self.name), history.durable(&self.name));
        let terms = self.services.terms(&self.name);
        self.sequence = Sequence::new(self.name.clone(), epoch, position).on(terms);
        let room = RoomRef {
            key: self.key,
            addr: ctx.address(),
        };
        ctx.spawn(Flush(room));
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.services.metrics.room_stopped();
        if !self.retired {
            // Before another life of the room can begin and say who is there.
            self.services.presence.room_ended(&self.name);
            self.services.registry.forget(&self.name, self.key);
            self.services.hubs.room_failed(&RoomFailed {
                name: self.name.clone(),
                key: self.key,
            });
            if std::thread::panicking() {
                self.services.metrics.room_failed();
                error!(room.name = %self.name, "the room failed; its sessions are sent to replay");
            }
        }
    }
}

/// Runs after the mailbox is drained, so that what came in one burst goes out in one frame.
struct Flush(RoomRef);

impl ActorFuture<Room> for Flush {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        room: &mut Room,
        ctx: &mut Context<Room>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<()> {
        room.flush(cx, &self.0);
        room.consider_retiring(ctx);
        Poll::Pending
    }
}

/// Keeps the mailbox shut until the hubs have taken enough.
struct Congested(RoomRef);

impl ActorFuture<Room> for Congested {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        room: &mut Room,
        _: &mut Context<Room>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<()> {
        room.flush(cx, &self.0);
        match room.sequence.is_congested() {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    }
}

impl Handler<Subscribe> for Room {
    type Result = ();

    fn handle(&mut self, message: Subscribe, ctx: &mut Self::Context) {
        self.knows(message.join.hub, message.hub);
        let wait = self.sequence.join(message.join);
        self.wait_for(wait, ctx);
        drop(message.ticket);
    }
}

impl Handler<Leave> for Room {
    type Result = ();

    fn handle(&mut self, message: Leave, _: &mut Self::Context) {
        // A life of the room that began after its subscriber came does not know the subscriber's hub.
        let (id, hub) = message.hub;
        self.knows(id, hub);
        self.sequence.leave(message.sub, id, message.command);
        drop(message.ticket);
    }
}

impl Handler<Revoke> for Room {
    type Result = ();

    fn handle(&mut self, message: Revoke, _: &mut Self::Context) {
        self.sequence.revoke(message.sub, message.why);
        drop(message.ticket);
    }
}

impl Handler<Ask> for Room {
    type Result = ();

    fn handle(&mut self, message: Ask, _: &mut Self::Context) {
        let (id, hub) = message.hub;
        self.knows(id, hub);
        self.tell_presence();
        let presence = &self.services.presence;
        let codec = id.format.codec();
        let frame = presence.answer(&self.name, codec, message.command, message.stats);
        self.sequence.answer(message.session, id, frame);
        drop(message.ticket);
    }
}

impl Handler<Deltas> for Room {
    type Result = ();

    fn handle(&mut self, Deltas(deltas): Deltas, ctx: &mut Self::Context) {
        self.sequence.deltas(&deltas);
        self.hold_if_congested(ctx);
    }
}

impl Handler<Erase> for Room {
    type Result = ();

    fn handle(&mut self, Erase(erasure): Erase, _: &mut Self::Context) {
        self.sequence.erase(erasure);
    }
}

impl Handler<Pass> for Room {
    type Result = ();

    fn handle(&mut self, Pass(passing): Pass, ctx: &mut Self::Context) {
        self.sequence.pass(&passing);
        self.hold_if_congested(ctx);
    }
}

impl Handler<Skipped> for Room {
    type Result = ();

    fn handle(&mut self, Skipped(sub): Skipped, _: &mut Self::Context) {
        self.sequence.skipped(sub);
    }
}

impl Handler<Ephemeral> for Room {
    type Result = ();

    fn handle(&mut self, Ephemeral { data, info }: Ephemeral, ctx: &mut Self::Context) {
        self.sequence.ephemeral(&data, &info);
        self.hold_if_congested(ctx);
    }
}

impl Handler<PresenceNews> for Room {
    type Result = ();

    fn handle(&mut self, PresenceNews: PresenceNews, ctx: &mut Self::Context) {
        let pushes = self.services.presence.pushes(&self.name);
        self.pass_on(pushes);
        self.hold_if_congested(ctx);
    }
}

impl Handler<Credit> for Room {
    type Result = ();

    fn handle(&mut self, Credit(sub): Credit, ctx: &mut Self::Context) {
        let wait = self.sequence.credit(sub);
        self.wait_for(wait, ctx);
    }
}

impl Handler<CaughtUp> for Room {
    type Result = ();

    fn handle(&mut self, CaughtUp { sub, offset }: CaughtUp, _: &mut Self::Context) {
        self.sequence.caught_up(sub, offset);
    }
}

impl Handler<Behind> for Room {
    type Result = ();

    fn handle(&mut self, Behind(sub): Behind, _: &mut Self::Context) {
        warn!(room.name = %self.name, "the rooms are far behind the log");
        self.sequence.failed(sub);
    }
}

impl Handler<Beyond> for Room {
    type Result = ();

    fn handle(&mut self, Beyond(sub): Beyond, _: &mut Self::Context) {
        self.sequence.ahead(sub);
    }
}

impl Handler<PageCame> for Room {
    type Result = ();

    fn handle(&mut self, PageCame { sub, upto, page }: PageCame, ctx: &mut Self::Context) {
        let wait = match page {
            Ok(Ok(page)) => {
                let page = PageRead {
                    floor: page.floor,
                    deltas: page.deltas.into_iter().map(Arc::new).collect(),
                    more: page.more,
                };
                self.sequence.page_read(sub, upto, page)
            }
            Ok(Err(error)) => self.unreadable(sub, &error),
            Err(error) => self.unreadable(sub, &error),
        };
        self.wait_for(wait, ctx);
    }
}

impl Handler<NewestFound> for Room {
    type Result = ();

    fn handle(&mut self, NewestFound { sub, offset }: NewestFound, ctx: &mut Self::Context) {
        let wait = match offset {
            Ok(Ok(offset)) => self.sequence.found(sub, offset),
            Ok(Err(error)) => self.unreadable(sub, &error),
            Err(error) => self.unreadable(sub, &error),
        };
        self.wait_for(wait, ctx);
    }
}

impl Handler<Reset> for Room {
    type Result = ();

    fn handle(&mut self, Reset: Reset, ctx: &mut Self::Context) {
        // As after a failure: the sessions come back, to a fresh room.
        ctx.stop();
    }
}

#[cfg(test)]
#[path = "room_tests.rs"]
mod tests;
