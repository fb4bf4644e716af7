//! A socket without a kernel: an outbox that is bounded in bytes, and a bounded stretch of bytes on its way to the client.

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use bytes::Bytes;
use roomwire::{
    delta::RoomName,
    protocol::{codes::Disconnect, frame},
    rooms::fanout,
};

/// What rooms and hubs tell a session.
#[derive(Debug)]
pub enum News {
    SubscriptionEnded(u32),
    RoomFailed(RoomName),
}

/// Shared by the session, its hub and the client at the other end.
#[derive(Clone)]
pub struct Wire(Rc<RefCell<State>>);

struct State {
    outbox: VecDeque<Bytes>,
    /// Of the outbox's first frame.
    written: usize,
    queued: usize,
    max_queued: usize,
    under_way: VecDeque<u8>,
    /// Of `under_way`.
    capacity: usize,
    wants_drained: bool,
    closing: Option<Disconnect>,
    news: Vec<News>,
    /// The server is gone from its end.
    ended: bool,
    /// The client is gone from its end.
    hung_up: bool,
}

impl Wire {
    pub fn new(max_queued: usize, capacity: usize) -> Self {
        Self(Rc::new(RefCell::new(State {
            outbox: VecDeque::new(),
            written: 0,
            queued: 0,
            max_queued,
            under_way: VecDeque::new(),
            capacity,
            wants_drained: false,
            closing: None,
            news: Vec::new(),
            ended: false,
            hung_up: false,
        })))
    }

    /// Sends on what waits, as far as there is space; whether anything moved.
    pub fn flush(&self) -> bool {
        self.0.borrow_mut().flush()
    }

    /// Whether somebody waits to hear that nothing is queued, and nothing is. Asked once.
    pub fn take_drained(&self) -> bool {
        let state = &mut *self.0.borrow_mut();
        state.outbox.is_empty() && std::mem::take(&mut state.wants_drained)
    }

    pub fn take_news(&self) -> Vec<News> {
        std::mem::take(&mut self.0.borrow_mut().news)
    }

    pub fn has_news(&self) -> bool {
        !self.0.borrow().news.is_empty()
    }

    pub fn room_failed(&self, room: &RoomName) {
        let news = News::RoomFailed(room.clone());
        self.0.borrow_mut().news.push(news);
    }

    pub fn close(&self, why: Disconnect) {
        self.0.borrow_mut().close(why);
    }

    pub fn is_closing(&self) -> bool {
        self.0.borrow().closing.is_some()
    }

    /// The close is sent.
    pub fn is_closed(&self) -> bool {
        let state = self.0.borrow();
        state.closing.is_some() && state.outbox.is_empty()
    }

    /// What the client reads: at most `most` bytes.
    pub fn read(&self, most: usize) -> Vec<u8> {
        let under_way = &mut self.0.borrow_mut().under_way;
        let count = under_way.len().min(most);
        under_way.drain(..count).collect()
    }

    /// The server is gone, and everything that it sent was read.
    pub fn is_at_end(&self) -> bool {
        let state = self.0.borrow();
        state.ended && state.under_way.is_empty()
    }

    pub fn end(&self) {
        self.0.borrow_mut().ended = true;
    }

    pub fn hang_up(&self) {
        self.0.borrow_mut().hung_up = true;
    }

    pub fn is_hung_up(&self) -> bool {
        self.0.borrow().hung_up
    }
}

impl State {
    fn flush(&mut self) -> bool {
        let before = self.under_way.len();
        while let Some(frame) = self.outbox.front() {
            let space = self.capacity.saturating_sub(self.under_way.len());
            let end = frame.len().min(self.written + space);
            self.under_way.extend(&frame[self.written..end]);
            self.queued -= end - self.written;
            self.written = end;
            if end < frame.len() {
                break;
            }
            self.outbox.pop_front();
            self.written = 0;
        }
        self.under_way.len() > before
    }

    fn append(&mut self, frame: Bytes) {
        self.queued += frame.len();
        self.outbox.push_back(frame);
    }

    fn close(&mut self, why: Disconnect) {
        if self.closing.replace(why).is_some() {
            return;
        }
        if why == Disconnect::SLOW {
            self.outbox.truncate(usize::from(self.written > 0));
            self.queued = self.outbox.front().map_or(0, Bytes::len) - self.written;
        }
        self.append(frame::close(why));
    }
}

impl fanout::Wire for Wire {
    fn push(&self, frame: &Bytes) {
        let state = &mut *self.0.borrow_mut();
        if state.closing.is_some() {
            return;
        }
        let waits = !state.outbox.is_empty();
        if waits && state.queued + frame.len() > state.max_queued {
            state.close(Disconnect::SLOW);
            return;
        }
        state.append(frame.clone());
        if !waits {
            state.flush();
        }
    }

    fn is_behind(&self, bytes: usize) -> bool {
        let state = self.0.borrow();
        !state.outbox.is_empty() && state.queued + bytes > state.max_queued / 2
    }

    fn can_take_page(&self) -> bool {
        let state = &mut *self.0.borrow_mut();
        state.wants_drained |= !state.outbox.is_empty();
        state.outbox.is_empty()
    }

    fn subscription_ended(&self, number: u32) {
        let news = News::SubscriptionEnded(number);
        self.0.borrow_mut().news.push(news);
    }
}
