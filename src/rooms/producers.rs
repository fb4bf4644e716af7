//! Which deltas of a producer count. Pure, and alike for every reader of a log.
//!
//! Whoever publishes to a shared log can lose an answer, and publishes again from the first delta on
//! that is not confirmed: so a delta may come twice, and one may come though those before it were
//! lost. Of one producer only the next number counts.

use std::collections::BTreeMap;

/// For how long, in log time, a producer is remembered that publishes nothing. Far longer than a
/// producer may go on after a pause: see [`MAX_PAUSE_MS`].
const MEMORY_MS: u64 = 3_600_000;

/// The longest pause of a producer; behind a longer one its numbers may be forgotten, so that it
/// has to be another producer.
pub const MAX_PAUSE_MS: u64 = 600_000;

/// What is known of the producers at one place of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Producers {
    pub(super) known: BTreeMap<u128, Last>,
    /// The tenure that has put the last fence into the log.
    pub(super) tenure: Option<u128>,
    pub(super) gap: Gap,
}

/// The last delta of a producer that counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Last {
    pub sequence: u64,
    /// In log time.
    pub time: u64,
}

/// Whether something is missing of what was in the log before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Gap {
    #[default]
    None,
    /// It ends where we are.
    Open,
    /// Producers from before it, of which nothing is known, may go on until then, in log time.
    Until(u64),
}

impl Producers {
    /// Whether the delta counts, at log time `clock`. `tenure` is the one that took it in, if it came
    /// from elsewhere.
    pub fn counts(
        &mut self,
        producer: u128,
        sequence: u64,
        tenure: Option<u128>,
        clock: u64,
    ) -> bool {
        let fenced = tenure.is_some() && self.tenure.is_some() && tenure != self.tenure;
        if fenced {
            return false;
        }
        let may_go_on = match self.gap {
            Gap::None => false,
            Gap::Open => true,
            Gap::Until(end) => clock <= end,
        };
        let is_next = match self.known.get(&producer) {
            Some(last) => sequence == last.sequence + 1,
            None => sequence == 1 || may_go_on,
        };
        if is_next {
            let time = clock;
            self.known.insert(producer, Last { sequence, time });
        }
        is_next
    }

    /// From here on, deltas that an earlier tenure took in don't count.
    pub fn fence(&mut self, tenure: u128) {
        self.tenure = Some(tenure);
    }

    /// What was known does not hold any more: whatever comes first of a producer may be its next.
    pub fn gap(&mut self) {
        *self = Self {
            gap: Gap::Open,
            ..Self::default()
        };
    }

    /// The log's time is `clock`.
    pub fn tick(&mut self, clock: u64) {
        match self.gap {
            Gap::Open => self.gap = Gap::Until(clock.saturating_add(MEMORY_MS)),
            Gap::Until(end) if clock > end => self.gap = Gap::None,
            Gap::Until(_) | Gap::None => {}
        }
        self.known
            .retain(|_, last| clock.saturating_sub(last.time) <= MEMORY_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn taken(producers: &mut Producers, sequences: &[u64]) -> Vec<u64> {
        let counts = |sequence: &&u64| producers.counts(1, **sequence, None, 0);
        sequences.iter().filter(counts).copied().collect()
    }

    #[test]
    fn a_delta_that_overtook_a_lost_one_counts_only_when_it_comes_again() {
        let mut producers = Producers::default();
        assert_eq!(taken(&mut producers, &[1, 3, 4, 2, 3, 4]), [1, 2, 3, 4]);
        assert_eq!(taken(&mut Producers::default(), &[2, 1, 2]), [1, 2]);
    }

    #[test]
    fn what_an_earlier_tenure_took_in_does_not_count_behind_a_later_fence() {
        let mut producers = Producers::default();
        producers.fence(7);
        assert!(producers.counts(7, 1, Some(7), 0));
        producers.fence(8);
        assert!(!producers.counts(7, 2, Some(7), 0));
        assert!(producers.counts(8, 1, Some(8), 0));
        assert!(
            producers.counts(1, 1, None, 0),
            "who holds no tenure needs no fence"
        );
    }

    #[test]
    fn behind_a_gap_a_producer_goes_on_where_it_is_found() {
        let mut producers = Producers::default();
        assert_eq!(taken(&mut producers, &[1, 2]), [1, 2]);
        producers.gap();
        assert_eq!(taken(&mut producers, &[9, 11, 9, 10]), [9, 10]);
        producers.tick(1_000);
        assert!(producers.counts(2, 5, None, 1_000));
        producers.tick(1_001 + MEMORY_MS);
        assert!(!producers.counts(3, 5, None, 1_001 + MEMORY_MS));
    }

    #[test]
    fn a_producer_is_remembered_over_its_longest_pause_and_forgotten_in_the_end() {
        let mut producers = Producers::default();
        assert!(producers.counts(1, 1, None, 0));
        producers.tick(MAX_PAUSE_MS);
        assert!(producers.counts(1, 2, None, MAX_PAUSE_MS));
        producers.tick(MAX_PAUSE_MS + MEMORY_MS + 1);
        assert_eq!(producers, Producers::default());
    }

    proptest! {
        /// A producer sends 1, 2, … and begins anew from an earlier one now and then; some are lost.
        #[test]
        fn whatever_is_lost_or_comes_again_counts_once_and_in_order(
            sends in prop::collection::vec((1_u64..8, prop::collection::vec(any::<bool>(), 1..8)), 1..40),
        ) {
            let mut producers = Producers::default();
            let mut counted = Vec::new();
            for (back, arrives) in sends {
                // Nobody goes back behind what is confirmed, nor beyond what was never sent.
                let first = (counted.len() as u64 + 1).saturating_sub(back - 1).max(1);
                for (sequence, arrives) in (first..).zip(arrives) {
                    if arrives && producers.counts(1, sequence, None, 0) {
                        counted.push(sequence);
                    }
                }
            }
            prop_assert!(counted.iter().copied().eq(1..=counted.len() as u64));
        }

        /// Two readers, of which one begins behind a gap, agree on everything behind what both know.
        #[test]
        fn readers_agree_behind_a_gap_once_a_producer_is_where_the_other_knows_it(
            before in 1_u64..20,
            behind in prop::collection::vec(1_u64..30, 1..40),
        ) {
            let mut whole = Producers::default();
            (1..=before).for_each(|sequence| assert!(whole.counts(1, sequence, None, 0)));
            let mut late = Producers::default();
            late.gap();
            prop_assert!(whole.counts(1, before + 1, None, 0) && late.counts(1, before + 1, None, 0));
            for sequence in behind {
                prop_assert_eq!(
                    whole.counts(1, sequence, None, 0),
                    late.counts(1, sequence, None, 0)
                );
            }
        }
    }
}
