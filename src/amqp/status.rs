//! What a partition is doing, for metrics, readiness and people.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Whether the broker takes records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publishing {
    /// There is no connection.
    Down,
    /// The broker is out of memory or disk and takes nothing.
    Blocked,
    Ready,
}

/// One partition's figures, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Whether records come in.
    pub reading: bool,
    pub publishing: Publishing,
    /// Whether reading began anew because nothing came, not even a heartbeat, and nothing has come
    /// since.
    pub stalled: bool,
    /// Connections that were lost, of reader and publisher.
    pub lost: u64,
    /// The first position that was read, 0 for none so far.
    pub first: u64,
    /// The last position that was read, 0 for none so far.
    pub current: u64,
    /// The end of the stream when it was last looked for, 0 for not known yet. An instance that
    /// starts has caught up once `current` is there.
    pub target: u64,
    /// Records that were read and are not taken yet.
    pub waiting: usize,
    /// Messages in the stream that are no records of ours.
    pub foreign: u64,
    /// Records that the broker has confirmed.
    pub confirmed: u64,
    /// The sum of the times that their confirms took.
    pub confirm_time: Duration,
}

impl Figures {
    /// Whether everything was read that was in the stream when its end was last looked for.
    pub fn caught_up(&self) -> bool {
        self.target > 0 && self.current >= self.target
    }

    /// How many positions are known to be ahead.
    pub fn lag(&self) -> u64 {
        self.target.saturating_sub(self.current) + self.waiting as u64
    }
}

/// Where reader and publisher of a partition write their figures.
#[derive(Debug)]
pub struct Status(Mutex<State>);

#[derive(Debug)]
struct State {
    figures: Figures,
    /// When the last record came, or the partition was opened.
    heard: Instant,
}

impl Default for Status {
    fn default() -> Self {
        Self(Mutex::new(State {
            figures: Figures {
                reading: false,
                publishing: Publishing::Down,
                stalled: false,
                lost: 0,
                first: 0,
                current: 0,
                target: 0,
                waiting: 0,
                foreign: 0,
                confirmed: 0,
                confirm_time: Duration::ZERO,
            },
            heard: Instant::now(),
        }))
    }
}

impl Status {
    pub fn figures(&self) -> Figures {
        self.lock().figures
    }

    /// How long ago the last record came.
    pub fn silence(&self) -> Duration {
        self.lock().heard.elapsed()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Figures)) {
        change(&mut self.lock().figures);
    }

    /// The record at `position` came.
    pub(super) fn heard(&self, position: u64) {
        let mut state = self.lock();
        state.heard = Instant::now();
        let figures = &mut state.figures;
        figures.stalled = false;
        figures.current = position;
        if figures.first == 0 {
            figures.first = position;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can panic halfway through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
