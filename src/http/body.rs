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
use bytes::{BufMut, Bytes, BytesMut};

use super::connection::Cut;
use crate::{
    actors::{
        follower::Follower,
        hub::{News, SessionWire},
        session::Session,
    },
    delta::RoomName,
    metrics::Closing,
    protocol::{
        bookmark::Bookmark,
        codes::Disconnect,
        event,
        frame::{self, FRAME_TARGET_BYTES},
        reply,
    },
};

/// How long a client has to take the end of what it reads.
const LINGER: Duration = Duration::from_secs(3);

#[derive(Default)]
struct Outbox {
    chunks: VecDeque<Bytes>,
    bytes: usize,
}

/// How what rooms say is put into the body.
pub enum Dress {
    /// As the events that they are.
    Events {
        /// Milliseconds that a client waits before it comes back; told at the end.
        retry_ms: u64,
        /// Where a reader of several rooms stands. Readers of one room have it in what they share.
        several: Option<RefCell<Bookmark>>,
    },
    /// The client protocol, a message a line.
    Lines,
    /// The client protocol, a message an event.
    Data,
}

pub struct BodyWire {
    max_bytes: usize,
    dress: Dress,
    outbox: RefCell<Outbox>,
    news: RefCell<Vec<News>>,
    session: RefCell<Option<Waker>>,
    body: RefCell<Option<Waker>>,
    wants_drained: Cell<bool>,
    lacks_pong: Cell<bool>,
    closing: Cell<Option<Disconnect>>,
    /// Nobody reads the body any more.
    abandoned: Cell<bool>,
    connection: Cut,
}

impl BodyWire {
    /// A wire of which at most `max_bytes` wait.
    pub fn new(max_bytes: usize, dress: Dress, connection: Cut) -> Rc<Self> {
        Rc::new(Self {
            max_bytes,
            dress,
            outbox: RefCell::default(),
            news: RefCell::default(),
            session: RefCell::default(),
            body: RefCell::default(),
            wants_drained: Cell::new(false),
            lacks_pong: Cell::new(false),
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

impl Dress {
    fn put_on(&self, frame: &Bytes) -> Bytes {
        let messages = match self {
            Self::Events { several: None, .. } => return frame.clone(),
            Self::Events {
                several: Some(at), ..
            } => return event::of_several(frame, &mut at.borrow_mut()),
            Self::Lines | Self::Data => frame::payload(frame),
        };
        let mut out = BytesMut::with_capacity(messages.len() + 64);
        for message in messages.split(|&byte| byte == b'\n') {
            match self {
                Self::Data => {
                    out.put_slice(b"data: ");
                    out.put_slice(message);
                    out.put_slice(b"\n\n");
                }
                _ => {
                    out.put_slice(message);
                    out.put_u8(b'\n');
                }
            }
        }
        out.freeze()
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
        let bytes = self.dress.put_on(frame);
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
        // Who only reads has no way to answer. That it is gone is seen from its connection.
        let answers = !matches!(self.dress, Dress::Events { .. });
        self.lacks_pong.set(answers);
        self.push(frame);
    }

    fn pong(&self) {
        self.lacks_pong.set(false);
    }

    fn lacks_pong(&self) -> bool {
        self.lacks_pong.get()
    }

    fn close(&self, why: Disconnect) {
        if self.closing.replace(Some(why)).is_some() {
            return;
        }
        if why == Disconnect::SLOW || why == Disconnect::NO_PONG {
            // It reads nothing, so it would never come to the end of this.
            *self.outbox.borrow_mut() = Outbox::default();
            self.connection.cut();
        } else {
            self.say(match self.dress {
                Dress::Events { retry_ms, .. } => event::retry(retry_ms),
                Dress::Lines | Dress::Data => self.dress.put_on(&reply::disconnect_frame(why)),
            });
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

/// A session whose client reads a body.
pub trait Fed: Actor<Context = Context<Self>> {
    fn hear(&mut self, news: News, ctx: &mut Context<Self>);
    /// The wire has nothing queued any more.
    fn drained(&self);
    fn closes(&mut self, why: Disconnect);
}

impl Fed for Follower {
    fn hear(&mut self, news: News, _: &mut Context<Self>) {
        match news {
            News::SubscriptionEnded(_) => self.subscription_ended(),
            News::RoomFailed(room) => self.room_failed(&room),
            News::Revoked(room) => self.revoked(&room),
        }
    }

    fn drained(&self) {
        self.drained();
    }

    fn closes(&mut self, why: Disconnect) {
        self.closing(why);
    }
}

impl Fed for Session {
    fn hear(&mut self, news: News, ctx: &mut Context<Self>) {
        match news {
            News::SubscriptionEnded(number) => self.subscription_ended(number),
            News::RoomFailed(room) => self.room_failed(&room),
            News::Revoked(room) => self.revoked(&room, ctx),
        }
    }

    fn drained(&self) {
        self.hub().drained(self.id());
    }

    fn closes(&mut self, why: Disconnect) {
        self.closing(Closing::Server(why.code));
        if why == Disconnect::SLOW {
            self.slow();
        }
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

impl<S: Fed> ActorFuture<S> for Feed {
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        session: &mut S,
        ctx: &mut Context<S>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<()> {
        remember(&self.wire.session, cx.waker());
        for news in self.wire.news.take() {
            session.hear(news, ctx);
        }
        if let Some(why) = self.wire.closing.get()
            && !self.lingering
        {
            self.lingering = true;
            session.closes(why);
            let wire = self.wire.clone();
            ctx.run_later(LINGER, move |_, ctx| {
                wire.connection.cut();
                wake(&wire.body);
                ctx.stop();
            });
        }
        if self.wire.outbox.borrow().chunks.is_empty() && self.wire.wants_drained.take() {
            session.drained();
        }
        if self.wire.abandoned.get() {
            ctx.stop();
        }
        Poll::Pending
    }
}
