//! Taking in what other producers sent: of two who do, only the one whose fence came last.

use futures_util::FutureExt;
use proptest::prelude::*;
use roomwire::log::{publishers::Publishers, tenure::Tenure};

use crate::{kept::Shared, *};

impl Shared {
    /// A tenure whose fence was read back.
    fn tenure(&mut self) -> Tenure {
        let publishers = Publishers::new(vec![self.publisher.clone()]);
        let tenure = publishers.begin_tenure().unwrap();
        tenure.fence(NOW).unwrap();
        self.wake(NOW);
        assert_eq!(self.in_force(), Some(tenure.id()));
        tenure
    }

    fn in_force(&self) -> Option<u128> {
        *self.pipeline.watch().tenure.borrow()
    }
}

#[test]
fn what_a_tenure_hands_over_behind_the_fence_of_another_is_applied_by_nobody() {
    let mut shared = Shared::on(memory());
    let mut first = shared.tenure();
    let applied = first.submit(delta(None), NOW).unwrap();
    shared.wake(NOW);
    assert_eq!(applied.now_or_never().unwrap().unwrap().offset, 2);
    let late = first.submit(delta(None), NOW).unwrap();
    let mut second = shared.tenure();
    let too_late = first.submit(delta(None), NOW).unwrap();
    shared.wake(NOW);
    assert_eq!(late.now_or_never().unwrap().unwrap().offset, 3);
    assert!(too_late.now_or_never().is_none(), "nobody knows of it");
    let applied = second.submit(delta(None), NOW).unwrap();
    shared.wake(NOW);
    assert_eq!(applied.now_or_never().unwrap().unwrap().offset, 6);
    assert_eq!(shared.stored(), [2, 3, 6]);
}

#[test]
fn a_tenure_that_lost_what_it_had_handed_over_is_told_so_and_hands_over_no_more() {
    let store = memory();
    let mut shared = Shared::on(store.clone());
    let mut tenure = shared.tenure();
    let lost = tenure.submit(delta(None), NOW).unwrap();
    store.inject(Fault::Commit);
    // The second opens the database again, and the log is read from there.
    shared.wake(NOW);
    shared.wake(NOW);
    let unknown = Err(PublishError::OutcomeUnknown);
    assert_eq!(lost.now_or_never().unwrap(), unknown);
    assert!(tenure.submit(delta(None), NOW).is_err());
    let mut next = shared.tenure();
    let applied = next.submit(delta(None), NOW).unwrap();
    shared.wake(NOW);
    assert!(applied.now_or_never().unwrap().is_ok());
}

#[test]
fn a_producer_that_was_silent_for_long_goes_on_in_the_same_tenure() {
    let mut shared = Shared::on(memory());
    let mut tenure = shared.tenure();
    for now in [NOW, NOW + 3_700_000, NOW + 7_400_000] {
        shared.log.heartbeat(9, now);
        let applied = tenure.submit(delta(None), now).unwrap();
        shared.wake(now);
        assert!(applied.now_or_never().unwrap().is_ok());
    }
}

/// What a holder does next.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The holder of that number, which may have been replaced, hands over its next message.
    HandOver(usize),
    /// What is in the log is read, and the holder acks what was applied.
    Read,
    /// Another holder takes over what is not acked.
    Replace,
}

proptest! {
    /// A queue of messages with ids, taken in by one holder after another, of which none knows that it
    /// was replaced.
    #[test]
    fn messages_with_ids_are_applied_once_and_in_order_whoever_takes_them_in(
        steps in prop::collection::vec(
            prop_oneof![
                4 => (0_usize..3).prop_map(Step::HandOver),
                1 => Just(Step::Read),
                1 => Just(Step::Replace),
            ],
            1..80,
        ),
    ) {
        let mut shared = Shared::on(memory());
        let mut acked = 0;
        // Each with its next message, and what it waits for.
        let mut holders = vec![(shared.tenure(), 0, Vec::new())];
        for step in steps.into_iter().chain([Step::Read]) {
            match step {
                Step::HandOver(back) => {
                    let index = holders.len().saturating_sub(back + 1);
                    let (tenure, next, flights) = &mut holders[index];
                    let id = next.to_string();
                    let flight = tenure.submit(delta(Some(&id)), NOW).unwrap();
                    flights.push((*next, flight));
                    *next += 1;
                }
                Step::Read => {
                    shared.wake(NOW);
                    for (_, _, flights) in &mut holders {
                        flights.retain_mut(|(message, flight)| {
                            let applied = flight.now_or_never().is_some();
                            acked = acked.max(if applied { *message + 1 } else { 0 });
                            !applied
                        });
                    }
                }
                Step::Replace => holders.push((shared.tenure(), acked, Vec::new())),
            }
        }
        let page = shared.history.page(&room(), 0, u64::MAX, ALL).unwrap();
        let ids: Vec<usize> = page.deltas.iter().map(|delta| delta.id.parse().unwrap()).collect();
        prop_assert!(ids.iter().copied().eq(0..ids.len()), "{:?}", ids);
        prop_assert!(ids.len() >= acked);
    }
}
