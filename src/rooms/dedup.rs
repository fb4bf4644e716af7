//! Which publish repeats an earlier one. Pure.

/// For how long an idempotency key is remembered, in log time: the running maximum of the records'
/// stamps, which all readers of a log agree on and a restart does not turn back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub length_ms: u64,
}

impl Window {
    /// Whether a key that was first seen at `first` is still remembered at `clock`; the window's
    /// last millisecond belongs to it.
    pub fn holds(self, first: u64, clock: u64) -> bool {
        clock.saturating_sub(first) <= self.length_ms
    }

    /// Keys first seen before this time are forgotten at `clock`.
    pub fn start(self, clock: u64) -> u64 {
        clock.saturating_sub(self.length_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WINDOW: Window = Window { length_ms: 300_000 };

    #[test]
    fn a_key_is_remembered_to_the_last_millisecond_of_its_window() {
        assert!(WINDOW.holds(1_000, 301_000));
        assert!(!WINDOW.holds(1_000, 301_001));
    }

    #[test]
    fn a_clock_younger_than_the_window_forgets_nothing() {
        assert_eq!(WINDOW.start(1_000), 0);
        assert!(WINDOW.holds(0, 1_000));
    }

    proptest! {
        #[test]
        fn exactly_what_the_window_no_longer_holds_is_forgotten(
            first in 0_u64..1_000_000,
            clock in 0_u64..1_000_000,
        ) {
            prop_assert_eq!(WINDOW.holds(first, clock), first >= WINDOW.start(clock));
        }
    }
}
