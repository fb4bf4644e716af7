//! The wire of a session whose client reads the body of an answer: what waits to be taken by it, bounded in bytes, on one
//! thread. And [`Feed`], which tells the session's actor what becomes of it.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    rc::Rc,
    task::{Context as TaskContext, Poll, Waker},
    time::Duration,
};

use actix::{fut::ActorFuture, prelude::*};
use actix_web::body::{BodySize, MessageBody};
use bytes::{Bytes, BytesMut};

use super::connection::Cut;
use crate::{
    actors::{
        follower::Follower,
        hub::{News, SessionWire},
    },
    delta::RoomName,
    protocol::{bookmark::Bookmark, codes::Disconnect, event, frame::FRAME_TARGET_BYTES},
};

/// How long a client has to take the end of what it reads.
const LINGER: Duration = Duration::from_secs(3);

#[derive(Default)]
struct Outbox {
    chunks: VecDeque<Bytes>,
    bytes: usize,
}

pub struct BodyWire {
    max_bytes: usize,
    /// Milliseconds that a client waits before it comes back; told at the end.
    retry_ms: u64,
    outbox: RefCell<Outbox>,
    /// Where a reader of several rooms stands. Readers of one room have it in what they share.
    several: Option<RefCell<Bookmark>>,
    news: RefCell<Vec<News>>,
    session: RefCell<Option<Waker>>,
    body: RefCell<Option<Waker>>,
    wants_drained: Cell<bool>,
    closing: Cell<Option<Disconnect>>,
    /// Nobody reads the body any more.
    abandoned: Cell<bool>,
    connection: Cut,
}

impl BodyWire {
    /// A wire of which at most `max_bytes` wait. `several` is where a reader of more than one room stands.
    pub fn new(
        max_bytes: usize,
        retry_ms: u64,
        several: Option<Bookmark>,
        connection: Cut,
    ) -> Rc<Self> {
        Rc::new(Self {
            max_bytes,
            retry_ms,
            outbox: RefCell::default(),
            several: several.map(RefCell::new),
            news: RefCell::default(),
            session: RefCell::default(),
            body: RefCell::default(),
            wants_drained: Cell::new(false),
            closing: Cell::new(None),
            abandoned: Cell::new(false),
            connection,
        })
    }

    /// Queues something for this reader alone.
    pub fn say(&self, bytes: Bytes) {
        let mut outbox = self.outbox.borrow_mut();
        outbox.bytes += bytes.len();
        outbox.chunks.push_back(bytes);
        wake(&self.body);
    }

    /// Ready when there is something to read, or nothing will be.
    pub fn poll_any(&self, cx: &mut TaskContext<'_>) -> Poll<()> {
        if self.closing.get().is_some() || !self.outbox.borrow().chunks.is_empty() {
            return Poll::Ready(());
        }
        remember(&self.body, cx.waker());
        Poll::Pending
    }

    /// The next bytes for the reader; `None` at the end.
    fn poll_take(&self, cx: &mut TaskContext<'_>) -> Poll<Option<Bytes>> {
        let mut outbox = self.outbox.borrow_mut();
        if let Some(bytes) = outbox.take() {
            if outbox.chunks.is_empty() && self.wants_drained.get() {
                wake(&self.session);
            }
            return Poll::Ready(Some(bytes));
        }
        if self.closing.get().is_some() {
            return Poll::Ready(None);
        }
        // An idle reader keeps no buffer.
        outbox.chunks = VecDeque::new();
        remember(&self.body, cx.waker());
        Poll::Pending
    }

    fn tell(&self, news: News) {
        self.news.borrow_mut().push(news);
        wake(&self.session);
    }
}

impl Outbox {
    /// What waits, as one chunk of at most about a frame's size.
    fn take(&mut self) -> Option<Bytes> {
        let first = self.chunks.pop_front()?;
        self.bytes -= first.len();
        if self.chunks.is_empty() || first.len() >= FRAME_TARGET_BYTES {
            return Some(first);
        }
        let mut joined = BytesMut::from(&first[..]);
        while let Some(next) = self.chunks.front()
            && joined.len() + next.len() <= FRAME_TARGET_BYTES
        {
            self.bytes -= next.len();
            joined.extend_from_slice(next);
            self.chunks.pop_front();
        }
        Some(joined.freeze())
    }
}

fn wake(waker: &RefCell<Option<Waker>>) {
    if let Some(waker) = &*waker.borrow() {
        waker.wake_by_ref();
    }
}

fn remember(slot: &RefCell<Option<Waker>>, waker: &Waker) {
    let mut slot = slot.borrow_mut();
    if !slot.as_ref().is_some_and(|known| known.will_wake(waker)) {
        *slot = Some(waker.clone());
    }
}

impl SessionWire for BodyWire {
    fn push(&self, frame: &Bytes) {
        if self.closing.get().is_some() {
            return;
        }
        let bytes = match &self.several {
            Some(at) => event::of_several(frame, &mut at.borrow_mut()),
            None => frame.clone(),
        };
        let (waiting, any) = {
            let outbox = self.outbox.borrow();
            (outbox.bytes, !outbox.chunks.is_empty())
        };
        match any && waiting + bytes.len() > self.max_bytes {
            true => self.close(Disconnect::SLOW),
            false => self.say(bytes),
        }
    }

    fn is_behind(&self, bytes: usize) -> bool {
        let outbox = self.outbox.borrow();
        !outbox.chunks.is_empty() && outbox.bytes + bytes > self.max_bytes / 2
    }

    fn can_take_page(&self) -> bool {
        if self.closing.get().is_some() {
            // Nothing more is read: a replay would run through the whole history for nobody.
            return false;
        }
        let free = self.outbox.borrow().chunks.is_empty();
        if !free {
            self.wants_drained.set(true);
        }
        free
    }

    fn subscription_ended(&self, number: u32) {
        self.tell(News::SubscriptionEnded(number));
    }

    fn room_failed(&self, room: &RoomName) {
        self.tell(News::RoomFailed(room.clone()));
    }

    fn revoked(&self, room: &RoomName) {
        self.tell(News::Revoked(room.clone()));
    }

    fn ping(&self, frame: &Bytes) {
        self.push(frame);
    }

    fn pong(&self) {}

    fn lacks_pong(&self) -> bool {
        // Who only reads has no way to answer. That it is gone is seen from its connection.
        false
    }

    fn close(&self, why: Disconnect) {
        if self.closing.replace(Some(why)).is_some() {
            return;
        }
        if why == Disconnect::SLOW {
            // It reads nothing, so it would never come to the end of this.
            *self.outbox.borrow_mut() = Outbox::default();
            self.connection.cut();
        } else {
            self.say(event::retry(self.retry_ms));
        }
        wake(&self.body);
        wake(&self.session);
    }
}

/// Who reads a wire. When it is dropped, the session ends.
pub struct Reader(Rc<BodyWire>);

impl Reader {
    pub fn new(wire: Rc<BodyWire>) -> Self {
        Self(wire)
    }

    /// Waits until there is something to read, or the session ends.
    pub async fn any(&self) {
        std::future::poll_fn(|cx| self.0.poll_any(cx)).await;
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.abandoned.set(true);
        wake(&self.0.session);
    }
}

impl MessageBody for Reader {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        self.0.poll_take(cx).map(|bytes| bytes.map(Ok))
    }
}

/// Lives as long as the session's actor.
pub struct Feed {
    wire: Rc<BodyWire>,
    lingering: bool,
}

impl Feed {
    pub fn new(wire: Rc<BodyWire>) -> Self {
        Self {
            wire,
            lingering: false,
        }
    }
}

impl ActorFuture<Follower> for Feed {
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        follower: &mut Follower,
        ctx: &mut Context<Follower>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<()> {
        remember(&self.wire.session, cx.waker());
        for news in self.wire.news.take() {
            match news {
                News::SubscriptionEnded(_) => follower.subscription_ended(),
                News::RoomFailed(room) => follower.room_failed(&room),
                News::Revoked(room) => follower.revoked(&room),
            }
        }
        if let Some(why) = self.wire.closing.get()
            && !self.lingering
        {
            self.lingering = true;
            follower.closing(why);
            let wire = self.wire.clone();
            ctx.run_later(LINGER, move |_, ctx| {
                wire.connection.cut();
                wake(&wire.body);
                ctx.stop();
            });
        }
        if self.wire.outbox.borrow().chunks.is_empty() && self.wire.wants_drained.take() {
            follower.drained();
        }
        if self.wire.abandoned.get() {
            ctx.stop();
        }
        Poll::Pending
    }
}
