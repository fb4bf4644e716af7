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
