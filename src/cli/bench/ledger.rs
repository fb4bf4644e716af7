//! What one subscriber has seen of its room, number by number. Pure.

use std::ops::Range;

/// Every lane of a room is numbered from 0; each number is due exactly once, and in order.
#[derive(Debug)]
pub struct Ledger {
    /// The number that each lane has to go on with.
    next: Box<[u64]>,
    /// What was passed over, and did not come later.
    missing: Vec<(usize, Range<u64>)>,
    /// Numbers that came again.
    pub doubled: u64,
    /// Numbers that came after a higher one.
    pub swapped: u64,
}

impl Ledger {
    pub fn new(lanes: usize) -> Self {
        Self {
            next: vec![0; lanes].into(),
            missing: Vec::new(),
            doubled: 0,
            swapped: 0,
        }
    }

    /// Books one delta; one of an unknown lane belongs to somebody else and is left alone.
    pub fn book(&mut self, lane: usize, sequence: u64) {
        let Some(next) = self.next.get_mut(lane) else {
            return;
        };
        if sequence < *next {
            self.book_late(lane, sequence);
            return;
        }
        if sequence > *next {
            self.missing.push((lane, *next..sequence));
        }
        *next = sequence + 1;
    }

    fn book_late(&mut self, lane: usize, sequence: u64) {
        let gap = |(of, gap): &(usize, Range<u64>)| *of == lane && gap.contains(&sequence);
        let Some(at) = self.missing.iter().position(gap) else {
            self.doubled += 1;
            return;
        };
        self.swapped += 1;
        let (_, gap) = self.missing.swap_remove(at);
        let parts = [gap.start..sequence, sequence + 1..gap.end];
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        self.missing.extend(parts.map(|part| (lane, part)));
    }

    /// How many of the numbers below `sent`, lane by lane, never came.
    pub fn lost(&self, sent: &[u64]) -> u64 {
        let gaps = self.missing.iter().map(|(_, gap)| gap.end - gap.start);
        let ends = self.next.iter().zip(sent);
        gaps.sum::<u64>()
            + ends
                .map(|(next, sent)| sent.saturating_sub(*next))
                .sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn booked(numbers: &[u64]) -> Ledger {
        let mut ledger = Ledger::new(1);
        for &number in numbers {
            ledger.book(0, number);
        }
        ledger
    }

    #[test]
    fn gaps_doubles_and_swaps_are_told_apart() {
        let ledger = booked(&[0, 1, 4, 3, 4, 6]);
        assert_eq!(
            (ledger.lost(&[8]), ledger.doubled, ledger.swapped),
            (3, 1, 1)
        );
    }

    #[test]
    fn lanes_do_not_disturb_each_other() {
        let mut ledger = Ledger::new(2);
        for (lane, number) in [(0, 0), (1, 0), (1, 1), (0, 1), (7, 9)] {
            ledger.book(lane, number);
        }
        assert_eq!(
            (ledger.lost(&[2, 2]), ledger.doubled, ledger.swapped),
            (0, 0, 0)
        );
        assert_eq!(ledger.lost(&[3, 2]), 1);
    }

    proptest! {
        #[test]
        fn whatever_comes_in_whatever_order_the_sums_are_right(
            numbers in prop::collection::vec(0_u64..40, 0..120),
        ) {
            let ledger = booked(&numbers);
            let mut distinct = numbers.clone();
            distinct.sort();
            distinct.dedup();
            prop_assert_eq!(ledger.lost(&[40]), 40 - distinct.len() as u64);
            prop_assert_eq!(ledger.doubled, (numbers.len() - distinct.len()) as u64);
        }
    }
}
