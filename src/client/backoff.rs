//! How long to wait before the next try. Pure: the caller brings the randomness.

use std::time::Duration;

/// Doubling waits with full jitter: each is drawn evenly between nothing and a ceiling that
/// doubles, so that clients which lost their server together do not come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    tries: u32,
}

impl Backoff {
    /// `first` bounds the first wait, `longest` every wait.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            tries: 0,
        }
    }

    /// The next wait; `random` is any number, all of them equally likely.
    pub fn next(&mut self, random: u64) -> Duration {
        let ceiling = self
            .first
            .saturating_mul(1_u32.checked_shl(self.tries).unwrap_or(u32::MAX))
            .min(self.longest);
        self.tries = self.tries.saturating_add(1);
        ceiling.mul_f64(random as f64 / u64::MAX as f64)
    }

    /// Starts again from the first wait, after a success.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn backoff() -> Backoff {
        Backoff::new(Duration::from_millis(500), Duration::from_secs(20))
    }

    #[test]
    fn ceilings_double_up_to_the_longest_and_a_success_starts_again() {
        let mut backoff = backoff();
        let waits: Vec<u128> = (0..7).map(|_| backoff.next(u64::MAX).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 20_000]);
        backoff.reset();
        assert_eq!(backoff.next(u64::MAX).as_millis(), 500);
    }

    #[test]
    fn waits_fill_the_whole_range_below_the_ceiling() {
        assert_eq!(backoff().next(0), Duration::ZERO);
        assert_eq!(backoff().next(u64::MAX / 2).as_millis(), 250);
    }

    proptest! {
        #[test]
        fn no_wait_is_ever_longer_than_the_longest(randoms in prop::collection::vec(any::<u64>(), 0..80)) {
            let mut backoff = backoff();
            for random in randoms {
                prop_assert!(backoff.next(random) <= Duration::from_secs(20));
            }
        }
    }
}
