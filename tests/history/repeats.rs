//! Idempotency keys.

use crate::*;

#[test]
fn a_repeated_key_gets_the_first_position_even_in_one_batch() {
    let mut world = World::new();
    let batch = [
        ordered(1, "a", Some("k"), 100),
        ordered(2, "a", Some("k"), 101),
        ordered(3, "b", Some("k"), 102),
        ordered(4, "a", None, 103),
    ];
    let applied = world.publish(&batch, FOREVER);
    assert_eq!(applied[1], repeated(1, 100));
    assert!(
        is_new(&applied[2]),
        "keys of two rooms have nothing to do with each other"
    );
    assert_eq!(offsets(&world.page(0)), [1, 4]);
    assert_eq!(
        world.publish(&[ordered(5, "a", Some("k"), 200)], FOREVER),
        [repeated(1, 100)]
    );
}

#[test]
fn a_key_is_remembered_over_a_restart_and_after_its_delta_is_trimmed() {
    let mut world = World::new();
    world.publish(&[ordered(1, "a", Some("k"), 100)], FOREVER);
    world.publish(&[ordered(2, "a", None, 101)], size(1));
    let mut world = world.restart();
    assert_eq!(
        world.publish(&[ordered(3, "a", Some("k"), 102)], size(1)),
        [repeated(1, 100)]
    );
}

#[test]
fn a_key_seen_behind_its_window_is_new_and_remembered_anew() {
    let mut world = World::new();
    let late = 100 + WINDOW_MS;
    world.publish(&[ordered(1, "a", Some("k"), 100)], FOREVER);
    assert_eq!(
        world.publish(&[ordered(2, "a", Some("k"), late)], FOREVER),
        [repeated(1, 100)]
    );
    assert!(is_new(
        &world.publish(&[ordered(3, "a", Some("k"), late + 1)], FOREVER)[0]
    ));
    // Forgetting the first one must not take the second with it.
    world.expire(0, FOREVER);
    let again = world.publish(&[ordered(4, "a", Some("k"), late + 2)], FOREVER);
    assert_eq!(again, [repeated(3, late + 1)]);
}

#[test]
fn old_keys_leave_nothing_behind() {
    let mut world = World::new();
    world.publish(&[ordered(1, "a", None, 100)], FOREVER);
    let without_keys = world.store.contents().len();
    let batch: Vec<_> = (2..3_000)
        .map(|n| ordered(n, "a", Some(&n.to_string()), 100))
        .collect();
    world.publish(&batch, size(1));
    world.publish(&[ordered(3_000, "a", None, 101 + WINDOW_MS)], size(1));
    world.expire(0, FOREVER);
    assert_eq!(world.store.contents().len(), without_keys);
}
