//! What is taken back is shown to nobody, and nobody is told of a loss.

use crate::*;

fn found(applied: &[Applied]) -> Vec<bool> {
    let found = |applied: &Applied| matches!(applied, Applied::Erased { found: true, .. });
    applied.iter().map(found).collect()
}

/// Whether the body of delta `offset` is in the store.
fn holds(world: &World, offset: u64) -> bool {
    let body = offset.to_string();
    let place = [b"ha\xff", &offset.to_be_bytes()[..]].concat();
    let entry = world.store.contents().remove(&place);
    entry.is_some_and(|entry| entry.ends_with(body.as_bytes()))
}

#[test]
fn an_erased_delta_is_left_out_and_its_position_holds() {
    let mut world = World::new();
    world.publish_to_a(9, FOREVER);
    let applied = world.publish(&[erasing(10, "a", Erasure::One(7))], FOREVER);
    assert_eq!(found(&applied), [true]);
    let page = world.page(6);
    assert_eq!((page.floor, offsets(&page)), (0, vec![8, 9]));
    assert_eq!(world.head().newest, 9);
    assert!(!holds(&world, 7) && holds(&world, 8));
    let world = world.restart();
    assert_eq!(offsets(&world.page(5)), [6, 8, 9]);
}

#[test]
fn what_is_erased_again_is_found_and_what_never_was_is_not() {
    let mut world = World::new();
    world.publish_to_a(5, size(4));
    world.publish(&[ordered(6, "b", None, 200)], FOREVER);
    let mut position = 6;
    let mut erase = |erasure| {
        position += 1;
        let applied = world.publish(&[erasing(position, "a", erasure)], FOREVER);
        found(&applied)[0]
    };
    assert!(!erase(Erasure::One(1)), "it is trimmed");
    assert!(!erase(Erasure::One(6)), "it is another room's");
    assert!(!erase(Erasure::One(99)), "it is yet to come");
    assert!(erase(Erasure::One(3)) && erase(Erasure::One(3)));
    assert!(erase(Erasure::Upto(4)) && erase(Erasure::One(4)));
    assert_eq!(offsets(&world.page(0)), [5]);
}

#[test]
fn all_up_to_an_offset_are_hidden_at_once_and_taken_out_step_by_step() {
    let mut world = World::new();
    let batch: Vec<_> = (1..=3_000).map(|n| ordered(n, "a", None, n)).collect();
    world.publish(&batch, FOREVER);
    world.publish(&[erasing(3_001, "a", Erasure::Upto(2_900))], FOREVER);
    let page = world.page(0);
    assert_eq!((page.floor, page.deltas.len()), (0, 100));
    assert!(holds(&world, 2_899));
    let mut world = world.restart();
    assert_eq!(world.page(0).deltas.len(), 100);
    let mut steps = 0;
    while world.writer.expire(1, |_| FOREVER).unwrap() {
        steps += 1;
    }
    assert_eq!(steps, 2, "not all at once");
    assert!(!holds(&world, 2_899) && !holds(&world, 1) && holds(&world, 2_901));
    let page = world.page(0);
    assert_eq!((page.floor, page.deltas.len()), (0, 100));
    assert_eq!((world.head().count, world.head().newest), (100, 3_000));
}

#[test]
fn an_erasure_of_everything_spares_what_comes_behind_it() {
    let mut world = World::new();
    let batch = [
        ordered(1, "a", None, 100),
        erasing(2, "a", Erasure::Upto(u64::MAX)),
        ordered(3, "a", None, 100),
    ];
    world.publish(&batch, FOREVER);
    assert_eq!(offsets(&world.page(0)), [3]);
    world.expire(1_000, FOREVER);
    assert_eq!(offsets(&world.page(0)), [3]);
    assert!(!holds(&world, 1));
    world.publish(&[ordered(4, "a", None, 100)], size(1));
    assert_eq!((world.page(0).floor, offsets(&world.page(0))), (3, vec![4]));
}

#[test]
fn an_erased_delta_keeps_its_idempotency_key() {
    let mut world = World::new();
    world.publish(&[ordered(1, "a", Some("k"), 100)], FOREVER);
    world.publish(&[erasing(2, "a", Erasure::Upto(1))], FOREVER);
    world.expire(100, FOREVER);
    let again = world.publish(&[ordered(3, "a", Some("k"), 100)], FOREVER);
    assert_eq!(again, [repeated(1, 100)]);
    assert!(world.page(0).deltas.is_empty());
}

#[test]
fn a_page_that_is_full_of_erased_deltas_goes_on_behind_them() {
    let mut world = World::new();
    world.publish_to_a(9, FOREVER);
    for offset in 2..=8 {
        world.publish(&[erasing(offset + 8, "a", Erasure::One(offset))], FOREVER);
    }
    let limit = PageLimit {
        deltas: 2,
        bytes: 1_000,
    };
    let page = world.history.page(&room("a"), 0, u64::MAX, limit).unwrap();
    assert_eq!((offsets(&page), page.more), (vec![1, 9], false));
    let newest = world
        .history
        .list(&room("a"), None, limit, Order::Descending);
    assert_eq!(offsets(&newest.unwrap()), [9, 1]);
}

#[test]
fn an_erasure_that_was_not_flushed_can_be_lost_and_then_was_not_answered() {
    let mut world = World::new();
    world.publish_to_a(2, FOREVER);
    world
        .writer
        .apply(&[erasing(3, "a", Erasure::One(1))], |_| FOREVER)
        .unwrap();
    assert_eq!(offsets(&world.page(0)), [2]);
    world.store.crash(0);
    let world = world.restart();
    assert_eq!(offsets(&world.page(0)), [1, 2]);
}

#[test]
fn what_is_erased_is_not_among_the_newest() {
    let mut world = World::new();
    world.publish_to_a(9, FOREVER);
    world.publish(&[erasing(10, "a", Erasure::One(8))], FOREVER);
    let newest = |world: &World, count| {
        let before = world.history.before_newest(&room("a"), count).unwrap();
        offsets(&world.page(before))
    };
    assert_eq!(newest(&world, 2), [7, 9]);
    world.publish(&[erasing(11, "a", Erasure::Upto(6))], FOREVER);
    assert_eq!(newest(&world, 9), [7, 9]);
}
