//! What was given to the publisher and is not confirmed yet. Pure.

use std::collections::VecDeque;

/// Items in their order: first those that are on their way, then those that wait.
///
/// A confirm takes the first away. When nobody knows any more what became of those on their way,
/// all of them wait again, so that they go once more and in the same order.
#[derive(Debug)]
pub struct Window<T> {
    items: VecDeque<T>,
    sent: usize,
    max_sent: usize,
}

impl<T: Clone> Window<T> {
    /// `max_sent` bounds how many are on their way.
    pub fn new(max_sent: usize) -> Self {
        Self {
            items: VecDeque::new(),
            sent: 0,
            max_sent,
        }
    }

    pub fn push(&mut self, item: T) {
        self.items.push_back(item);
    }

    /// The next to send, unless enough are on their way.
    pub fn send(&mut self) -> Option<T> {
        if self.sent == self.max_sent {
            return None;
        }
        let item = self.items.get(self.sent)?.clone();
        self.sent += 1;
        Some(item)
    }

    /// The first on its way has arrived.
    pub fn confirm(&mut self) -> Option<T> {
        self.sent = self.sent.checked_sub(1)?;
        self.items.pop_front()
    }

    /// Nobody knows what became of those on their way.
    pub fn rewind(&mut self) {
        self.sent = 0;
    }

    /// Those that are not on their way.
    pub fn waiting(&self) -> impl Iterator<Item = &T> {
        self.items.iter().skip(self.sent)
    }

    pub fn sent(&self) -> usize {
        self.sent
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_more_than_the_bound_are_on_their_way() {
        let mut window = Window::new(2);
        (1..=3).for_each(|n| window.push(n));
        assert_eq!((window.send(), window.send()), (Some(1), Some(2)));
        assert_eq!(window.send(), None);
        assert_eq!(window.confirm(), Some(1));
        assert_eq!(window.send(), Some(3));
    }

    #[test]
    fn after_a_fault_everything_unconfirmed_goes_again_in_order() {
        let mut window = Window::new(9);
        (1..=3).for_each(|n| window.push(n));
        while window.send().is_some() {}
        window.confirm();
        window.rewind();
        assert_eq!(window.confirm(), None, "nothing is on its way");
        let again: Vec<_> = std::iter::from_fn(|| window.send()).collect();
        assert_eq!(again, [2, 3]);
    }

    /// What a broker and its connection do with the next item on its way.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Give,
        Send,
        /// Appended to the log.
        Append,
        /// Lost, while later ones may be appended.
        Lose,
        /// The oldest appended item is confirmed.
        Confirm,
        /// The connection is lost, with everything on its way.
        Reset,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => Just(Step::Give),
            4 => Just(Step::Send),
            4 => Just(Step::Append),
            1 => Just(Step::Lose),
            3 => Just(Step::Confirm),
            1 => Just(Step::Reset),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        /// The window and the rule of all readers, that of one producer only the next number
        /// counts, give every number once and in order, whatever is lost or doubled.
        #[test]
        fn readers_apply_every_item_once_and_in_order(steps in steps()) {
            let mut window = Window::new(4);
            let (mut given, mut confirmed) = (0_u64, 0_u64);
            let mut wire = VecDeque::new();
            let mut appended = VecDeque::new();
            let mut log = Vec::new();
            let mut step = |step: Step| match step {
                Step::Give => {
                    given += 1;
                    window.push(given);
                }
                Step::Send => wire.extend(window.send()),
                Step::Append => {
                    if let Some(item) = wire.pop_front() {
                        log.push(item);
                        appended.push_back(item);
                    }
                }
                Step::Lose => drop(wire.pop_front()),
                // A confirm for another than the first is one that is missing.
                Step::Confirm => match appended.pop_front() {
                    Some(item) if item == confirmed + 1 => {
                        confirmed += 1;
                        assert_eq!(window.confirm(), Some(item));
                    }
                    Some(_) => {
                        window.rewind();
                        wire.clear();
                        appended.clear();
                    }
                    None => {}
                },
                Step::Reset => {
                    window.rewind();
                    wire.clear();
                    appended.clear();
                }
            };
            steps.into_iter().for_each(&mut step);
            // In the end the connection holds.
            step(Step::Reset);
            for _ in 0..1_000 {
                [Step::Send, Step::Append, Step::Confirm].into_iter().for_each(&mut step);
            }
            prop_assert_eq!(confirmed, given);
            let mut applied = 0;
            for item in log {
                if item == applied + 1 {
                    applied = item;
                }
            }
            prop_assert_eq!(applied, given);
        }
    }
}
