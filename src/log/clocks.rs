//! Whether this machine's clock is ahead of everybody else's. Pure.
//!
//! Idempotency keys are forgotten by the log's time, the highest that any clock has told. One clock
//! that runs ahead would empty everybody's memory of keys, so whoever has it publishes nothing.

use std::{collections::VecDeque, time::Duration};

/// How far a clock may be ahead.
const MAX_AHEAD_MS: u64 = 10_000;

/// For how long what another clock told is worth comparing with.
const MEMORY_MS: u64 = 30_000;

/// What the clocks of other instances have told lately.
#[derive(Debug, Default)]
pub struct Clocks {
    /// When something was heard, and how far we were ahead of it: in part because it takes a while
    /// to be heard.
    heard: VecDeque<(u64, u64)>,
}

impl Clocks {
    /// Another instance said that it was `stamped`, which was read at `now`; `lag` is how long it
    /// takes us to read what is written. All but the lag in ms since the Unix epoch.
    pub fn heard(&mut self, stamped: u64, now: u64, lag: Duration) {
        let lag = u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
        let ahead = now.saturating_sub(stamped).saturating_sub(lag);
        self.heard.push_back((now, ahead));
        self.forget(now);
    }

    /// By how much our clock is ahead of all others, if it is too much.
    pub fn ahead(&mut self, now: u64) -> Option<Duration> {
        self.forget(now);
        let least = self.heard.iter().map(|(_, ahead)| *ahead).min()?;
        (least > MAX_AHEAD_MS).then(|| Duration::from_millis(least))
    }

    fn forget(&mut self, now: u64) {
        // What was heard in the future was heard before our clock was put back.
        self.heard
            .retain(|(when, _)| *when <= now && now - when <= MEMORY_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_LAG: Duration = Duration::ZERO;

    #[test]
    fn a_clock_ahead_of_all_others_is_told_by_how_much() {
        let mut clocks = Clocks::default();
        clocks.heard(88_000, 100_000, NO_LAG);
        assert_eq!(clocks.ahead(100_001), Some(Duration::from_secs(12)));
        clocks.heard(90_001, 100_001, NO_LAG);
        assert_eq!(clocks.ahead(100_001), None, "one that agrees is enough");
    }

    #[test]
    fn whoever_is_alone_is_right() {
        let mut clocks = Clocks::default();
        assert_eq!(clocks.ahead(100_000), None);
        clocks.heard(50_000, 100_000, NO_LAG);
        assert_eq!(clocks.ahead(130_001), None, "it was too long ago");
    }

    #[test]
    fn reading_late_is_not_being_ahead() {
        let mut clocks = Clocks::default();
        clocks.heard(70_000, 100_000, Duration::from_secs(25));
        assert_eq!(clocks.ahead(100_000), None);
    }

    #[test]
    fn a_clock_that_was_put_right_is_judged_anew() {
        let mut clocks = Clocks::default();
        clocks.heard(40_000, 100_000, NO_LAG);
        assert!(clocks.ahead(100_000).is_some());
        assert_eq!(clocks.ahead(41_000), None);
    }
}
