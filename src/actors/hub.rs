//! The hub actor of a worker thread and a format: [`FanOut`] with a mailbox, and the [`PingWheel`]. Rooms send [`Work`].
//!
//! Bounds: a room has one message here at a time, so the mailbox holds at most as many as there are rooms. A wire that
//! does not take what is written to it closes itself; the others never wait for it.

use std::{
    cell::RefCell,
    collections::HashMap,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context as TaskContext, Poll},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use actix::{fut::ActorFuture, prelude::*};
use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::{oneshot, watch};
use tracing::error;

use super::{
    registry::RoomRef,
    room::{Credit, Skipped},
};
use crate::{
    config::Limits,
    delta::RoomName,
    metrics::Metrics,
    protocol::{codes::Disconnect, event, format::Format, frame, heartbeat::PingWheel},
    rooms::{
        fanout::{FanOut, Notice, Wire},
        sequence::{HubId, Op},
    },
};

/// Wires written to before other work of the thread gets its turn.
const WALK: usize = 256;

/// What rooms and hubs tell a session, through its wire.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    SubscriptionEnded(u32),
    RoomFailed(RoomName),
    /// The client may not follow the room any more.
    Revoked(RoomName),
}

/// What a user may do no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    /// Anything.
    Sessions,
    /// Follow the room.
    Room(RoomName),
}

/// What a hub asks of a session's wire beyond writing.
pub trait SessionWire {
    fn push(&self, frame: &Bytes);
    /// So much waits that the wire would soon be closed if it got `bytes` more.
    fn is_behind(&self, bytes: usize) -> bool;
    fn can_take_page(&self) -> bool;
    fn subscription_ended(&self, number: u32);
    /// The room has failed: whoever is subscribed to it, or about to be, must come back.
    fn room_failed(&self, room: &RoomName);
    /// The client may not follow the room any more.
    fn revoked(&self, room: &RoomName);
    /// Sends a ping frame, and expects a pong.
    fn ping(&self, frame: &Bytes);
    /// The client answered a ping.
    fn pong(&self);
    /// Whether the last ping is still unanswered.
    fn lacks_pong(&self) -> bool;
    /// Ends the session: what is queued is written, then the close.
    fn close(&self, why: Disconnect);
}

impl Wire for Rc<dyn SessionWire> {
    fn push(&self, frame: &Bytes) {
        (**self).push(frame);
    }

    fn is_behind(&self, bytes: usize) -> bool {
        (**self).is_behind(bytes)
    }

    fn can_take_page(&self) -> bool {
        (**self).can_take_page()
    }

    fn subscription_ended(&self, number: u32) {
        (**self).subscription_ended(number);
    }
}

/// A message of a room: to be done in order, then `done`.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Work {
    pub room: RoomRef,
    pub ops: Vec<Op>,
    pub done: oneshot::Sender<()>,
}

/// A room has failed.
#[derive(Message, Clone)]
#[rtype(result = "()")]
pub struct RoomFailed {
    pub name: RoomName,
    pub key: u64,
}

/// A user may do something no more. Answers how many of its sessions are here.
#[derive(Message, Clone)]
#[rtype(result = "usize")]
struct Revoke {
    user: Arc<str>,
    what: Revoked,
}

/// End all sessions.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub struct CloseAll(pub Disconnect);

/// All hubs of a server.
#[derive(Default)]
pub struct Hubs {
    hubs: Mutex<Vec<Addr<Hub>>>,
    next: AtomicUsize,
    failed: watch::Sender<bool>,
}

impl Hubs {
    /// Completes when a hub has failed: its thread serves nobody any more.
    pub async fn failed(&self) {
        let mut failed = self.failed.subscribe();
        // The sender is here.
        let _ = failed.wait_for(|failed| *failed).await;
    }

    /// Ends all sessions on all workers.
    pub fn close_all(&self, why: Disconnect) {
        self.each(|hub| hub.do_send(CloseAll(why)));
    }

    /// Tells all workers that a room has failed.
    pub fn room_failed(&self, failed: &RoomFailed) {
        self.each(|hub| hub.do_send(failed.clone()));
    }

    /// Takes something back from a user, at all workers; returns how many sessions it has.
    pub async fn revoke(&self, user: &Arc<str>, what: &Revoked) -> usize {
        let mut told = Vec::new();
        self.each(|hub| told.push(hub.clone()));
        let told = told.into_iter().map(|hub| {
            let (user, what) = (user.clone(), what.clone());
            hub.send(Revoke { user, what })
        });
        // A hub whose thread has ended has no sessions.
        let sessions = join_all(told)
            .await
            .into_iter()
            .map(Result::unwrap_or_default);
        sessions.sum()
    }

    fn each(&self, tell: impl FnMut(&Addr<Hub>)) {
        let hubs = self.hubs.lock().unwrap_or_else(PoisonError::into_inner);
        hubs.iter().for_each(tell);
    }
}

/// Sessions of named users.
type Users = HashMap<Arc<str>, Vec<u64>>;

type Table = FanOut<RoomRef, Rc<dyn SessionWire>>;

/// A worker thread's hub for clients of one format, as its sessions see it.
pub struct LocalHub {
    pub id: HubId,
    pub addr: Addr<Hub>,
    table: Rc<RefCell<Table>>,
    wheel: Rc<RefCell<PingWheel>>,
    users: Rc<RefCell<Users>>,
}

impl LocalHub {
    /// The session is known to be of this user; anonymous ones have none.
    pub fn belongs(&self, session: u64, user: &Arc<str>) {
        if !user.is_empty() {
            let mut users = self.users.borrow_mut();
            users.entry(user.clone()).or_default().push(session);
        }
    }

    /// The session has ended that belonged to the user.
    pub fn belongs_no_more(&self, session: u64, user: &Arc<str>) {
        let mut users = self.users.borrow_mut();
        if let Some(sessions) = users.get_mut(user) {
            sessions.retain(|known| *known != session);
            if sessions.is_empty() {
                users.remove(user);
            }
        }
    }

    pub fn open(&self, session: u64, wire: Rc<dyn SessionWire>) {
        self.table.borrow_mut().open(session, wire);
    }

    pub fn close(&self, session: u64) {
        self.table.borrow_mut().close(session);
    }

    /// The session's wire has nothing queued any more.
    pub fn drained(&self, session: u64) {
        let mut notices = Vec::new();
        self.table.borrow_mut().drained(session, &mut notices);
        grant(&notices);
    }

    /// Pings the session from now on; returns its slot.
    pub fn ping(&self, session: u64, random: u64) -> usize {
        self.wheel.borrow_mut().add(session, random)
    }

    pub fn stop_pinging(&self, session: u64, slot: usize) {
        self.wheel.borrow_mut().remove(session, slot);
    }
}

pub struct Hub {
    table: Rc<RefCell<Table>>,
    wheel: Rc<RefCell<PingWheel>>,
    users: Rc<RefCell<Users>>,
    ping: Bytes,
    under_way: HashMap<u64, oneshot::Sender<()>>,
    metrics: Metrics,
    failed: watch::Sender<bool>,
}

/// A hub ends with its thread, or fails.
impl Drop for Hub {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        error!("a hub failed; its sessions are sent elsewhere, and the server stops");
        // It may be what it was at work on that has failed.
        if let Ok(table) = self.table.try_borrow() {
            for (_, wire) in table.sessions() {
                wire.close(Disconnect::INTERNAL);
            }
        }
        self.failed.send_replace(true);
    }
}

impl Hub {
    /// Starts this thread's hub for clients of the format.
    pub fn start(format: Format, hubs: &Hubs, limits: &Limits, metrics: Metrics) -> Rc<LocalHub> {
        Self::start_in(Context::new(), format, hubs, limits, metrics)
    }

    pub(super) fn start_in(
        context: Context<Self>,
        format: Format,
        hubs: &Hubs,
        limits: &Limits,
        metrics: Metrics,
    ) -> Rc<LocalHub> {
        let table = Rc::new(RefCell::new(Table::default()));
        let wheel = PingWheel::new(limits.ping_interval, limits.pong_timeout);
        let wheel = Rc::new(RefCell::new(wheel));
        let users = Rc::new(RefCell::new(Users::default()));
        let addr = context.run(Self {
            table: table.clone(),
            wheel: wheel.clone(),
            users: users.clone(),
            ping: match format {
                Format::Frames(codec) => frame::ping(codec),
                Format::Events => Bytes::from_static(event::PING),
            },
            under_way: HashMap::new(),
            metrics,
            failed: hubs.failed.clone(),
        });
        let mut all = hubs.hubs.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(addr.clone());
        Rc::new(LocalHub {
            id: HubId {
                number: hubs.next.fetch_add(1, Ordering::Relaxed),
                format,
            },
            addr,
            table,
            wheel,
            users,
        })
    }

    fn turn_wheel(&mut self) {
        let turn = self.wheel.borrow_mut().turn();
        let table = self.table.borrow();
        for wire in turn.check.iter().filter_map(|&id| table.wire(id)) {
            if wire.lacks_pong() {
                wire.close(Disconnect::NO_PONG);
            }
        }
        for wire in turn.ping.iter().filter_map(|&id| table.wire(id)) {
            wire.ping(&self.ping);
        }
    }

    fn pass_on(&mut self, notices: Vec<Notice<RoomRef>>) {
        grant(&notices);
        for notice in notices {
            match notice {
                Notice::Done(room) => {
                    if let Some(done) = self.under_way.remove(&room.key) {
                        // The room may have ended meanwhile.
                        let _ = done.send(());
                    }
                }
                Notice::Delivered {
                    deliveries,
                    stamped,
                } => {
                    self.metrics.delivered(deliveries as usize);
                    self.metrics.delivery_took(age(stamped));
                }
                Notice::Skipped(room, sub) => {
                    self.metrics.slow_skip();
                    // One a subscription.
                    room.addr.do_send(Skipped(sub));
                }
                Notice::Credit(..) => {}
            }
        }
    }
}

fn grant(notices: &[Notice<RoomRef>]) {
    for notice in notices {
        if let Notice::Credit(room, sub) = notice {
            // At most one a session is under way.
            room.addr.do_send(Credit(*sub));
        }
    }
}

fn age(stamped: u64) -> Duration {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    now.saturating_sub(Duration::from_millis(stamped))
}

impl Actor for Hub {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.spawn(Walk);
        ctx.run_interval(Duration::from_secs(1), |hub, _| hub.turn_wheel());
    }
}

/// Runs after the mailbox is drained, a stretch at a time.
struct Walk;

impl ActorFuture<Hub> for Walk {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        hub: &mut Hub,
        _: &mut Context<Hub>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<()> {
        let mut notices = Vec::new();
        let unfinished = hub.table.borrow_mut().step(WALK, &mut notices);
        hub.pass_on(notices);
        if unfinished {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Handler<Work> for Hub {
    type Result = ();

    fn handle(&mut self, Work { room, ops, done }: Work, _: &mut Self::Context) {
        self.under_way.insert(room.key, done);
        self.table.borrow_mut().accept(room, ops);
    }
}

impl Handler<RoomFailed> for Hub {
    type Result = ();

    fn handle(&mut self, RoomFailed { name, key }: RoomFailed, _: &mut Self::Context) {
        let mut notices = Vec::new();
        let mut table = self.table.borrow_mut();
        table.drop_room(|room| room.key == key, &mut notices);
        for (_, wire) in table.sessions() {
            wire.room_failed(&name);
        }
        drop(table);
        self.under_way.remove(&key);
        self.pass_on(notices);
    }
}

impl Handler<Revoke> for Hub {
    type Result = usize;

    fn handle(&mut self, Revoke { user, what }: Revoke, _: &mut Self::Context) -> usize {
        let users = self.users.borrow();
        let sessions = users.get(&user).map(Vec::as_slice).unwrap_or_default();
        let table = self.table.borrow();
        for wire in sessions.iter().filter_map(|&id| table.wire(id)) {
            match &what {
                Revoked::Sessions => wire.close(Disconnect::FORCED),
                Revoked::Room(room) => wire.revoked(room),
            }
        }
        sessions.len()
    }
}

impl Handler<CloseAll> for Hub {
    type Result = ();

    fn handle(&mut self, CloseAll(why): CloseAll, _: &mut Self::Context) {
        for (_, wire) in self.table.borrow().sessions() {
            wire.close(why);
        }
    }
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
