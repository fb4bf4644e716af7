//! The latest deltas of a room, remembered while somebody replays.
//!
//! In a busy room reads of history would chase the position for ever; the last stretch comes from here.

use std::{collections::VecDeque, sync::Arc};

use crate::{delta::Delta, protocol::frame::FRAME_TARGET_BYTES};

pub const MAX_DELTAS: usize = 1024;
const MAX_BYTES: usize = 256 * 1024;

#[derive(Debug, Default)]
pub struct Tail {
    /// All deltas of the room behind `start`.
    deltas: VecDeque<Arc<Delta>>,
    bytes: usize,
    start: u64,
    replays: usize,
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
