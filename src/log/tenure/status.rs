//! How taking in is doing, for metrics, readiness and people.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The figures at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Whether this instance consumes the queue, or would if no other did.
    pub connected: bool,
    /// Whether it is the one that takes in. Shown from its first message on.
    pub holds: bool,
    /// Tenures that this instance has begun.
    pub tenures: u64,
    /// Messages whose deltas were applied.
    pub taken: u64,
    /// Messages that were no deltas.
    pub rejected: u64,
    /// Messages that were handed to the log and are not acked.
    pub in_flight: usize,
    /// For how long none of them has got on.
    pub stalled: Duration,
    /// Messages in the queue that no instance has, as of a few seconds ago.
    pub waiting: u32,
}

/// Where the figures are written.
#[derive(Debug, Default)]
pub struct Status(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    figures: Figures,
    /// When a message was acked, or, if none was in flight, handed over.
    progress: Option<Instant>,
}

impl Status {
    pub fn figures(&self) -> Figures {
        let state = self.lock();
        let stalled = state.progress.filter(|_| state.figures.in_flight > 0);
        Figures {
            stalled: stalled.map(|since| since.elapsed()).unwrap_or_default(),
            ..state.figures
        }
    }

    pub fn update(&self, change: impl FnOnce(&mut Figures)) {
        change(&mut self.lock().figures);
    }

    /// So many messages are in flight.
    pub fn in_flight(&self, count: usize) {
        let mut state = self.lock();
        if state.figures.in_flight == 0 {
            state.progress = Some(Instant::now());
        }
        state.figures.in_flight = count;
    }

    /// Something got on, or nothing could.
    pub fn progress(&self) {
        self.lock().progress = Some(Instant::now());
    }

    /// There is no connection any more.
    pub fn ended(&self) {
        self.update(|figures| {
            figures.connected = false;
            figures.holds = false;
            figures.in_flight = 0;
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can panic halfway through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn only_what_is_in_flight_stalls() {
        let status = Status::default();
        let stalled = || status.figures().stalled.as_secs();
        advance(Duration::from_secs(9)).await;
        status.in_flight(1);
        advance(Duration::from_secs(2)).await;
        status.in_flight(2);
        assert_eq!(stalled(), 2);
        status.progress();
        advance(Duration::from_secs(1)).await;
        assert_eq!(stalled(), 1);
        status.in_flight(0);
        assert_eq!(stalled(), 0);
    }
}
