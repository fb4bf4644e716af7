//! A WebSocket's outbox: frames that wait to be written, bounded in bytes, on one thread.
//!
//! Most of the time nothing waits and a frame goes straight to the socket, with one `write(2)`. What the socket does not
//! take waits as shared bytes and goes out, many frames in one `writev(2)`, when it is writable again.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io::{self, IoSlice},
    net::Shutdown,
    task::{Context, Poll, Waker, ready},
};

use actix_rt::net::TcpStream;
use bytes::Bytes;

use crate::{
    actors::hub::{News, SessionWire},
    delta::RoomName,
    protocol::{codes::Disconnect, frame},
};

/// Frames in one `writev(2)`.
const VECTOR: usize = 64;

#[derive(Default)]
struct Outbox {
    /// Whole frames, but for what was written of the first one.
    frames: VecDeque<Bytes>,
    written: usize,
    bytes: usize,
}

pub struct SocketWire {
    io: TcpStream,
    max_bytes: usize,
    outbox: RefCell<Outbox>,
    news: RefCell<Vec<News>>,
    waker: RefCell<Option<Waker>>,
    wants_drained: Cell<bool>,
    lacks_pong: Cell<bool>,
    closing: Cell<Option<Disconnect>>,
    broken: Cell<bool>,
    finished: Cell<bool>,
}

impl SocketWire {
    /// A wire whose outbox holds at most `max_bytes`.
    pub fn new(io: TcpStream, max_bytes: usize) -> Self {
        Self {
            io,
            max_bytes,
            outbox: RefCell::default(),
            news: RefCell::default(),
            waker: RefCell::default(),
            wants_drained: Cell::new(false),
            lacks_pong: Cell::new(false),
            closing: Cell::new(None),
            broken: Cell::new(false),
            finished: Cell::new(false),
        }
    }

    pub fn io(&self) -> &TcpStream {
        &self.io
    }

    pub fn closing(&self) -> Option<Disconnect> {
        self.closing.get()
    }

    pub fn take_news(&self) -> Vec<News> {
        self.news.take()
    }

    /// Remembers whom to wake when there is something to flush or news.
    pub fn register(&self, waker: &Waker) {
        let mut slot = self.waker.borrow_mut();
        if !slot.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
    }

    /// Writes what waits. Ready when nothing does: `true` if somebody wants to know.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.broken.get() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut outbox = self.outbox.borrow_mut();
        while !outbox.frames.is_empty() {
            match outbox.write_to(&self.io) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.io.poll_write_ready(cx))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        // An idle session keeps no buffer.
        outbox.frames = VecDeque::new();
        if self.closing.get().is_some() && !self.finished.replace(true) {
            // The close frame is out. A client that reads it closes too, and until then may still be sending: to close
            // the socket now would answer that with a reset, which can overtake the close frame.
            socket2::SockRef::from(&self.io).shutdown(Shutdown::Write)?;
        }
        Poll::Ready(Ok(self.wants_drained.take()))
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    fn tell(&self, news: News) {
        self.news.borrow_mut().push(news);
        self.wake();
    }

    /// Queues the close frame. `discard`: instead of all that waits but a frame that is half written.
    fn close_with(&self, why: Disconnect, discard: bool) {
        if self.closing.replace(Some(why)).is_some() {
            return;
        }
        let mut outbox = self.outbox.borrow_mut();
        if discard {
            outbox.discard_unbegun();
        }
        outbox.append(frame::close(why));
        self.wake();
    }
}

impl SessionWire for SocketWire {
    fn push(&self, frame: &Bytes) {
        if self.closing.get().is_some() {
            return;
        }
        let mut outbox = self.outbox.borrow_mut();
        if !outbox.frames.is_empty() {
            if outbox.bytes + frame.len() > self.max_bytes {
                drop(outbox);
                self.close_with(Disconnect::SLOW, true);
            } else {
                outbox.append(frame.clone());
            }
            return;
        }
        match self.io.try_write(frame) {
            Ok(n) if n == frame.len() => return,
            Ok(n) => {
                outbox.append(frame.clone());
                outbox.advance(n);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => outbox.append(frame.clone()),
            Err(_) => self.broken.set(true),
        }
        self.wake();
    }

    fn is_behind(&self, bytes: usize) -> bool {
        let outbox = self.outbox.borrow();
        // What comes besides, such as the word that something is skipped, must have a place.
        !outbox.frames.is_empty() && outbox.bytes + bytes > self.max_bytes / 2
    }

    fn can_take_page(&self) -> bool {
        if self.closing.get().is_some() {
            // Nothing more is written: a replay would run through the whole history for nobody.
            return false;
        }
        let free = self.outbox.borrow().frames.is_empty();
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
        self.lacks_pong.set(true);
        self.push(frame);
    }

    fn pong(&self) {
        self.lacks_pong.set(false);
    }

    fn lacks_pong(&self) -> bool {
        self.lacks_pong.get()
    }

    fn close(&self, why: Disconnect) {
        // Behind a client that reads nothing its answers would wait for ever.
        self.close_with(why, why == Disconnect::SLOW || why == Disconnect::NO_PONG);
    }
}

impl Outbox {
    fn append(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    fn discard_unbegun(&mut self) {
        self.frames.truncate(usize::from(self.written > 0));
        self.bytes = self.frames.front().map_or(0, Bytes::len) - self.written;
    }

    fn write_to(&mut self, io: &TcpStream) -> io::Result<()> {
        let mut slices = [IoSlice::new(&[]); VECTOR];
        let mut count = 0;
        for (slice, frame) in slices.iter_mut().zip(&self.frames) {
            *slice = IoSlice::new(&frame[if count == 0 { self.written } else { 0 }..]);
            count += 1;
        }
        let written = io.try_write_vectored(&slices[..count])?;
        self.advance(written);
        Ok(())
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(frame) = self.frames.front() {
            let left = frame.len() - self.written;
            if written < left {
                self.written += written;
                return;
            }
            written -= left;
            self.written = 0;
            self.frames.pop_front();
        }
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
