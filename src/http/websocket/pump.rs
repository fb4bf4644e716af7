//! Moves bytes between a WebSocket and its session actor: reads and cuts frames, and flushes the wire.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use actix::{fut::ActorFuture, prelude::*};
use actix_codec::Decoder;
use actix_http::ws::Codec;
use actix_web_actors::ws::{Frame, ProtocolError};
use bytes::{Bytes, BytesMut};

use super::wire::SocketWire;
use crate::{
    actors::{
        hub::{News, SessionWire},
        session::Session,
    },
    metrics::Closing,
    protocol::{codes::Disconnect, frame},
};

/// How long a client has to take the close, and to close itself.
const LINGER: Duration = Duration::from_secs(3);

/// Bytes read at once. One buffer a thread serves all sessions: none keeps one while nothing arrives.
const READ_BYTES: usize = 64 * 1024;

/// Reads of one socket before others get their turn.
const READS: usize = 16;

thread_local! {
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// Lives as long as the session's socket.
pub struct Pump {
    wire: Rc<SocketWire>,
    codec: Codec,
    /// The beginning of a frame whose rest has not come.
    partial: BytesMut,
    /// A message that comes in several frames.
    fragments: BytesMut,
    max_command_bytes: usize,
    lingering: bool,
}

impl Pump {
    /// `read` was read with the handshake.
    pub fn new(wire: Rc<SocketWire>, max_command_bytes: usize, read: BytesMut) -> Self {
        Self {
            wire,
            codec: Codec::new().max_size(max_command_bytes),
            partial: read,
            fragments: BytesMut::new(),
            max_command_bytes,
            lingering: false,
        }
    }

    /// Reads until there is nothing more; `false` when the socket has ended.
    fn read(
        &mut self,
        session: &mut Session,
        ctx: &mut Context<Session>,
        cx: &mut TaskContext<'_>,
    ) -> bool {
        for _ in 0..READS {
            if !self.cut(session, ctx, cx) {
                return true;
            }
            match self.wire.io().poll_read_ready(cx) {
                Poll::Pending => return true,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return false,
            }
            let read = READ.with_borrow_mut(|buffer| {
                let read = self.wire.io().try_read(buffer);
                if let Ok(n) = read
                    && !self.lingering
                {
                    self.partial.extend_from_slice(&buffer[..n]);
                }
                read
            });
            match read {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        cx.waker().wake_by_ref();
        true
    }

    /// Handles the whole frames that have come; `false` when no more may be read now.
    fn cut(
        &mut self,
        session: &mut Session,
        ctx: &mut Context<Session>,
        cx: &mut TaskContext<'_>,
    ) -> bool {
        while !self.partial.is_empty() {
            if self.wire.closing().is_some() {
                // What still comes is read, so that the close is not cut off by a reset, and dropped.
                self.partial = BytesMut::new();
                return true;
            }
            if !session.may_read(cx.waker()) {
                return false;
            }
            match self.codec.decode(&mut self.partial) {
                Ok(None) => {
                    // The codec looks at the limit only when a frame is whole.
                    if declares_more_than(&self.partial, self.max_command_bytes) {
                        session.end(Disconnect::TOO_BIG);
                    }
                    return true;
                }
                Ok(Some(frame)) => self.handle(frame, session, ctx),
                Err(ProtocolError::Overflow) => session.end(Disconnect::TOO_BIG),
                Err(_) => session.end(Disconnect::PROTOCOL_ERROR),
            }
        }
        // An idle session keeps no buffer.
        self.partial = BytesMut::new();
        true
    }

    fn handle(&mut self, frame: Frame, session: &mut Session, ctx: &mut Context<Session>) {
        match frame {
            // Which of the two opcodes a client uses does not matter.
            Frame::Text(command) | Frame::Binary(command) => session.receive(&command, ctx),
            Frame::Continuation(item) => {
                use actix_http::ws::Item;
                let (part, last) = match item {
                    Item::FirstText(part) | Item::FirstBinary(part) | Item::Continue(part) => {
                        (part, false)
                    }
                    Item::Last(part) => (part, true),
                };
                self.fragment(&part, last, session, ctx);
            }
            Frame::Ping(payload) => self.wire.push(&frame::pong(&payload)),
            Frame::Pong(_) => {}
            Frame::Close(_) => {
                session.closing(Closing::Client);
                session.end(Disconnect::NORMAL);
            }
        }
    }

    fn fragment(
        &mut self,
        part: &Bytes,
        last: bool,
        session: &mut Session,
        ctx: &mut Context<Session>,
    ) {
        if self.fragments.len() + part.len() > self.max_command_bytes {
            session.end(Disconnect::TOO_BIG);
            return;
        }
        self.fragments.extend_from_slice(part);
        if last {
            let command = std::mem::take(&mut self.fragments);
            session.receive(&command, ctx);
        }
    }

    /// Starts the time that a closed session's socket has left.
    fn linger(&mut self, why: Disconnect, session: &mut Session, ctx: &mut Context<Session>) {
        if !self.lingering {
            self.lingering = true;
            session.closing(Closing::Server(why.code));
            if why == Disconnect::SLOW {
                session.slow();
            }
            ctx.run_later(LINGER, |_, ctx| ctx.stop());
        }
    }
}

/// Whether the frame that begins here has a payload of more than `limit` bytes (RFC 6455 §5.2).
fn declares_more_than(frame: &[u8], limit: usize) -> bool {
    let length = match *frame {
        [_, short, a, b, ..] if short & 0x7F == 126 => u64::from(u16::from_be_bytes([a, b])),
        [_, long, a, b, c, d, e, f, g, h, ..] if long & 0x7F == 127 => {
            u64::from_be_bytes([a, b, c, d, e, f, g, h])
        }
        _ => 0,
    };
    length > limit as u64
}

impl ActorFuture<Session> for Pump {
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        session: &mut Session,
        ctx: &mut Context<Session>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<()> {
        let pump = &mut *self;
        pump.wire.register(cx.waker());
        // First what rooms have said: a client that was told of its end may subscribe again at once.
        for news in pump.wire.take_news() {
            match news {
                News::SubscriptionEnded(number) => session.subscription_ended(number),
                News::RoomFailed(room) => session.room_failed(&room),
                News::Revoked(room) => session.revoked(&room, ctx),
            }
        }
        let open = pump.read(session, ctx, cx);
        if let Some(why) = pump.wire.closing() {
            pump.linger(why, session, ctx);
        }
        let flushed = pump.wire.poll_flush(cx);
        let ended = match flushed {
            Poll::Ready(Ok(true)) => {
                session.hub().drained(session.id());
                false
            }
            Poll::Ready(Ok(false)) | Poll::Pending => false,
            Poll::Ready(Err(_)) => true,
        };
        if !open || ended {
            ctx.stop();
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::declares_more_than;

    #[test]
    fn a_frame_is_too_long_as_soon_as_its_head_says_so() {
        assert!(!declares_more_than(&[0x81, 0xFE], 10), "not told yet");
        assert!(
            !declares_more_than(&[0x81, 0x8B], 10),
            "short ones are left to the codec"
        );
        assert!(declares_more_than(&[0x81, 0xFE, 1, 0], 255));
        assert!(!declares_more_than(&[0x81, 0xFE, 1, 0], 256));
        let huge = [0x81, 0xFF, 0x7F, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
        assert!(declares_more_than(&huge, 1 << 40));
    }
}
