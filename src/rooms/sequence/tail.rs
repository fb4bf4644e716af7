//! The latest deltas and erasures of a room, remembered while somebody replays.
//!
//! In a busy room reads of history would chase the position for ever; the last stretch comes from here.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    delta::{Delta, Erasure},
    protocol::frame::FRAME_TARGET_BYTES,
};

pub const MAX_DELTAS: usize = 1024;
const MAX_BYTES: usize = 256 * 1024;
const MAX_ERASURES: usize = 256;

#[derive(Debug, Default)]
pub struct Tail {
    /// All deltas of the room behind `start`.
    deltas: VecDeque<Arc<Delta>>,
    bytes: usize,
    start: u64,
    replays: usize,
    erasures: VecDeque<Erasure>,
    /// Erasures that are not remembered any more.
    forgotten: u64,
}

impl Tail {
    /// A replay starts, in a room at `position`.
    pub fn begin(&mut self, position: u64) {
        if self.replays == 0 {
            self.start = position;
        }
        self.replays += 1;
    }

    /// A replay has ended. With the last one everything is forgotten.
    pub fn end(&mut self) {
        self.replays -= 1;
        if self.replays == 0 {
            *self = Self::default();
        }
    }

    /// The room's next delta; nothing is kept while nobody replays.
    pub fn remember(&mut self, delta: &Arc<Delta>) {
        if self.replays == 0 {
            return;
        }
        self.bytes += delta.data.len();
        self.deltas.push_back(delta.clone());
        while self.deltas.len() > MAX_DELTAS || self.bytes > MAX_BYTES {
            let Some(oldest) = self.deltas.pop_front() else {
                break;
            };
            self.bytes -= oldest.data.len();
            self.start = oldest.offset;
        }
    }

    /// Something was taken back, which nobody is to be sent any more.
    pub fn erase(&mut self, erasure: Erasure) {
        if self.replays == 0 {
            return;
        }
        self.deltas.retain(|delta| !erasure.covers(delta.offset));
        self.bytes = self.deltas.iter().map(|delta| delta.data.len()).sum();
        self.erasures.push_back(erasure);
        if self.erasures.len() > MAX_ERASURES {
            self.erasures.pop_front();
            self.forgotten += 1;
        }
    }

    /// How many erasures there were; what is read from history now is without them.
    pub fn erased(&self) -> u64 {
        self.forgotten + self.erasures.len() as u64
    }

    /// The erasures behind the first `seen`; `None` if some of them are forgotten.
    pub fn erasures_since(&self, seen: u64) -> Option<impl Iterator<Item = Erasure>> {
        let remembered = seen.checked_sub(self.forgotten)?;
        Some(self.erasures.iter().skip(remembered as usize).copied())
    }

    /// Whether all that a subscriber at `cursor` still lacks is here, and no more than a page.
    pub fn reaches(&self, cursor: u64) -> bool {
        self.replays > 0 && cursor >= self.start && {
            let lacking = self.deltas.iter().rev().take_while(|d| d.offset > cursor);
            lacking.map(|d| d.data.len()).sum::<usize>() <= FRAME_TARGET_BYTES
        }
    }

    /// What is remembered behind `cursor`, in order.
    pub fn behind(&self, cursor: u64) -> impl Iterator<Item = &Arc<Delta>> {
        self.deltas.iter().filter(move |d| d.offset > cursor)
    }
}
