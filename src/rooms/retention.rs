//! What a room's history may hold, and what must go. Pure.

/// How much of a room is kept; whichever bound is reached first trims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Deltas, at least 1.
    pub size: u64,
    /// Age in milliseconds.
    pub ttl_ms: u64,
    /// Bytes of data, info and id. A delta that alone is larger is kept until the next one comes.
    pub bytes: u64,
}

/// How much a room holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    pub count: u64,
    pub bytes: u64,
}

impl Held {
    pub fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }

    pub fn remove(&mut self, bytes: u64) {
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl Retention {
    /// Whether the oldest delta must go, so that the rest fits.
    pub fn overfilled(&self, held: Held) -> bool {
        held.count > self.size.max(1) || (held.bytes > self.bytes && held.count > 1)
    }

    /// The time from which on a delta of `time` is too old, in ms since the Unix epoch.
    pub fn expiry(&self, time: u64) -> u64 {
        time.saturating_add(self.ttl_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(size: u64, bytes: u64) -> Retention {
        Retention {
            size,
            ttl_ms: 60_000,
            bytes,
        }
    }

    /// Trims the oldest of `weights` until the rest fits.
    fn kept(rules: Retention, weights: &[u64]) -> &[u64] {
        let mut held = Held::default();
        weights.iter().for_each(|&bytes| held.add(bytes));
        let mut rest = weights;
        while rules.overfilled(held) {
            held.remove(rest[0]);
            rest = &rest[1..];
        }
        rest
    }

    #[test]
    fn the_bound_reached_first_trims() {
        assert_eq!(kept(rules(2, 100), &[1, 1, 1]), [1, 1]);
        assert_eq!(kept(rules(9, 100), &[50, 50, 50]), [50, 50]);
    }

    #[test]
    fn a_delta_larger_than_its_room_stays_until_the_next_one_comes() {
        assert_eq!(kept(rules(9, 100), &[1, 500]), [500]);
        assert_eq!(kept(rules(9, 100), &[500, 1]), [1]);
    }

    #[test]
    fn a_ttl_beyond_the_end_of_time_never_expires() {
        let forever = Retention {
            ttl_ms: u64::MAX,
            ..rules(1, 1)
        };
        assert_eq!(forever.expiry(1_000), u64::MAX);
    }

    proptest! {
        #[test]
        fn the_rest_fits_and_one_more_would_not(
            weights in prop::collection::vec(1_u64..200, 1..40),
            size in 1_u64..20,
            bytes in 1_u64..1_000,
        ) {
            let fits = |rest: &[u64]| {
                rest.len() as u64 <= size && (rest.len() == 1 || rest.iter().sum::<u64>() <= bytes)
            };
            let rest = kept(rules(size, bytes), &weights);
            prop_assert!(fits(rest));
            if rest.len() < weights.len() {
                prop_assert!(!fits(&weights[weights.len() - rest.len() - 1..]));
            }
        }
    }
}
