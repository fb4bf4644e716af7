//! The judge of all other tests, judged: it must find every kind of wrong sequence, and accept the
//! right one.

mod common;

use common::{
    Entry, Seen,
    sequence::{Wrong, check},
};
use proptest::prelude::*;

/// Offsets grow, but not by one.
fn log(count: u64) -> Vec<Entry> {
    let entry = |n| Entry::new(n * 3, format!("{{\"n\":{n}}}"));
    (1..=count).map(entry).collect()
}

fn seen_from(at: u64, deltas: &[Entry]) -> Vec<Seen> {
    let deltas = deltas.iter().cloned().map(Seen::Delta);
    std::iter::once(Seen::Joined { at }).chain(deltas).collect()
}

#[test]
fn the_exact_sequence_is_accepted_from_wherever_the_client_joined() {
    let log = log(5);
    assert_eq!(check(&log, &seen_from(0, &log)), Ok(()));
    assert_eq!(check(&log, &seen_from(7, &log[2..])), Ok(()));
    assert_eq!(check(&log, &seen_from(15, &[])), Ok(()));
}

#[test]
fn only_a_reload_may_step_over_deltas() {
    let log = log(5);
    let mut seen = seen_from(0, &log[..2]);
    seen.push(Seen::Delta(log[4].clone()));
    assert_eq!(check(&log, &seen), Err(Wrong::Lost { offset: 9 }));
    seen.insert(3, Seen::Reload { at: 12 });
    assert_eq!(check(&log, &seen), Ok(()));
    seen.push(Seen::Reload { at: 3 });
    assert_eq!(check(&log, &seen), Err(Wrong::WentBack { at: 3 }));
}

#[test]
fn a_torn_or_invented_delta_is_named() {
    let log = log(2);
    let torn = [log[0].clone(), Entry::new(6, "{\"n\":")];
    let wrong = check(&log, &seen_from(0, &torn)).unwrap_err();
    assert!(matches!(wrong, Wrong::Changed { offset: 6, .. }));
    let invented = [log[0].clone(), Entry::new(5, "{\"n\":2}")];
    let wrong = check(&log, &seen_from(0, &invented));
    assert_eq!(wrong, Err(Wrong::Unknown { offset: 5 }));
}

#[test]
fn a_delta_before_joining_is_named() {
    let log = log(1);
    assert_eq!(check(&log, &seen_from(0, &log)[1..]), Err(Wrong::NotJoined));
}

proptest! {
    #[test]
    fn a_lost_delta_is_found(count in 1_u64..20, lost in any::<prop::sample::Index>()) {
        let log = log(count);
        let mut seen = log.clone();
        let lost = seen.remove(lost.index(seen.len())).offset;
        prop_assert_eq!(check(&log, &seen_from(0, &seen)), Err(Wrong::Lost { offset: lost }));
    }

    #[test]
    fn a_doubled_delta_is_found(
        count in 1_u64..20,
        which in any::<prop::sample::Index>(),
        again in any::<prop::sample::Index>(),
    ) {
        let log = log(count);
        let which = which.index(log.len());
        let again = which + again.index(log.len() - which) + 1;
        let mut seen = log.clone();
        seen.insert(again, log[which].clone());
        let offset = log[which].offset;
        prop_assert_eq!(check(&log, &seen_from(0, &seen)), Err(Wrong::Doubled { offset }));
    }

    #[test]
    fn swapped_deltas_are_found(count in 2_u64..20, at in any::<prop::sample::Index>()) {
        let log = log(count);
        let at = at.index(log.len() - 1);
        let mut seen = log.clone();
        seen.swap(at, at + 1);
        let offset = log[at + 1].offset;
        prop_assert_eq!(check(&log, &seen_from(0, &seen)), Err(Wrong::OutOfOrder { offset }));
    }
}
