//! Whether this machine's clock is ahead of everybody else's. Pure.
//!
//! Idempotency keys are forgotten by the log's time, the highest that any delta was stamped with.
//! One clock that runs ahead would empty everybody's memory of keys, so whoever has it publishes no
//! deltas. Heartbeats carry clocks too, for comparison only: the log's time does not follow them.
//!
//! Who has just come has heard nobody yet. If its clock is far ahead of all that it finds in the
//! log, either nobody has been here for a while or its clock is wrong, and it listens for a few
//! heartbeats before it takes the former for true.

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
    /// The latest time that anything was stamped with that was written before we came.
    found: Option<u64>,
    /// Since when we would hear others.
    listening: Option<u64>,
}

/// Why a clock may not be followed. By how much it is ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ahead {
    /// Of all others.
    Others(Duration),
    /// Of what was found, and nobody has been listened for long enough.
    Found(Duration),
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

    /// Something was found in the log that is `stamped` so, and was written before we came.
    pub fn found(&mut self, stamped: u64) {
        self.found = self.found.max(Some(stamped));
    }

    /// From `now` on others are heard, if they are there.
    pub fn listens(&mut self, now: u64) {
        self.listening.get_or_insert(now);
    }

    /// By how much our clock is ahead, if it is too much. `beats` is a time in which others, if
    /// they are there, are heard.
    pub fn ahead(&mut self, now: u64, beats: Duration) -> Option<Ahead> {
        self.forget(now);
        let too_much = |ahead: u64| (ahead > MAX_AHEAD_MS).then(|| Duration::from_millis(ahead));
        if let Some(least) = self.heard.iter().map(|(_, ahead)| *ahead).min() {
            return too_much(least).map(Ahead::Others);
        }
        let listened = self.listening.map_or(0, |since| now.saturating_sub(since));
        if self.listening.is_some() && u128::from(listened) >= beats.as_millis() {
            return None;
        }
        too_much(now.saturating_sub(self.found?)).map(Ahead::Found)
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
    const BEATS: Duration = Duration::from_secs(15);

    #[test]
    fn who_has_just_come_with_a_clock_ahead_of_the_log_listens_before_it_publishes() {
        let mut clocks = Clocks::default();
        clocks.found(80_000);
        clocks.found(70_000);
        let unproven = Some(Ahead::Found(Duration::from_secs(20)));
        assert_eq!(clocks.ahead(100_000, BEATS), unproven);
        clocks.listens(100_000);
        assert_eq!(clocks.ahead(100_000, BEATS), unproven);
        assert!(clocks.ahead(114_999, BEATS).is_some());
        assert_eq!(clocks.ahead(115_000, BEATS), None, "nobody else is here");
    }

    #[test]
    fn who_is_heard_while_a_newcomer_listens_decides() {
        let mut clocks = Clocks::default();
        clocks.found(80_000);
        clocks.listens(100_000);
        clocks.heard(99_000, 101_000, NO_LAG);
        assert_eq!(clocks.ahead(101_000, BEATS), None, "it came back late");
        let mut clocks = Clocks::default();
        clocks.found(80_000);
        clocks.listens(100_000);
        clocks.heard(81_000, 101_000, NO_LAG);
        let wrong = Some(Ahead::Others(Duration::from_secs(20)));
        assert_eq!(clocks.ahead(101_000, BEATS), wrong);
        assert_eq!(
            clocks.ahead(120_000, BEATS),
            wrong,
            "listening on is no excuse"
        );
    }

    #[test]
    fn a_clock_that_agrees_with_the_log_and_an_empty_log_need_no_proof() {
        let mut clocks = Clocks::default();
        assert_eq!(clocks.ahead(100_000, BEATS), None);
        clocks.found(95_000);
        assert_eq!(clocks.ahead(100_000, BEATS), None);
    }

    #[test]
    fn a_clock_ahead_of_all_others_is_told_by_how_much() {
        let mut clocks = Clocks::default();
        clocks.heard(88_000, 100_000, NO_LAG);
        assert_eq!(
            clocks.ahead(100_001, BEATS),
            Some(Ahead::Others(Duration::from_secs(12)))
        );
        clocks.heard(90_001, 100_001, NO_LAG);
        assert_eq!(
            clocks.ahead(100_001, BEATS),
            None,
            "one that agrees is enough"
        );
    }

    #[test]
    fn whoever_is_alone_is_right() {
        let mut clocks = Clocks::default();
        assert_eq!(clocks.ahead(100_000, BEATS), None);
        clocks.heard(50_000, 100_000, NO_LAG);
        assert_eq!(clocks.ahead(130_001, BEATS), None, "it was too long ago");
    }

    #[test]
    fn reading_late_is_not_being_ahead() {
        let mut clocks = Clocks::default();
        clocks.heard(70_000, 100_000, Duration::from_secs(25));
        assert_eq!(clocks.ahead(100_000, BEATS), None);
    }

    #[test]
    fn a_clock_that_was_put_right_is_judged_anew() {
        let mut clocks = Clocks::default();
        clocks.heard(40_000, 100_000, NO_LAG);
        assert!(clocks.ahead(100_000, BEATS).is_some());
        assert_eq!(clocks.ahead(41_000, BEATS), None);
    }
}
