//! Pages, lists, heads and times.

use crate::*;

#[test]
fn a_delta_is_read_as_it_was_published() {
    let mut world = World::new();
    let mut record = record(7, "chat:é", Some("key"), 1_234);
    record.body = Bytes::from_static(b"12345678901234567890");
    record.info = Bytes::from_static(b"{\"client\":\"c\"}");
    let applied = world.publish(&[at(7, record)], FOREVER);
    let page = world.history.page(&room("chat:é"), 0, 7, ALL).unwrap();
    assert_eq!(applied, [Applied::Delta(Arc::new(page.deltas[0].clone()))]);
    assert_eq!(page.deltas[0].data, "12345678901234567890");
    assert_eq!(page.deltas[0].info, "{\"client\":\"c\"}");
    assert!(page.deltas[0].keyed);
    assert_eq!(page.deltas[0].time, 1_234);
}

#[test]
fn nobody_sees_a_delta_that_is_not_on_disk() {
    let mut world = World::new();
    world.publish_to_a(2, FOREVER);
    world
        .writer
        .apply(&[ordered(3, "a", None, 200)], |_| size(1))
        .unwrap();
    assert_eq!(world.history.durable(&room("a")), 2);
    assert!(world.page(0).deltas.iter().all(|delta| delta.offset <= 2));
    assert_eq!(world.head().newest, 2);
    assert_eq!(world.history.since(&room("a"), 150).unwrap().after, 2);
    world.writer.flush().unwrap();
    assert_eq!(offsets(&world.page(0)), [3]);
}

#[test]
fn pages_follow_each_other_without_gap_or_double() {
    let mut world = World::new();
    world.publish(
        &[ordered(1, "a", None, 0), ordered(2, "aa", None, 0)],
        FOREVER,
    );
    world.publish(
        &(3..20)
            .map(|n| ordered(n, "a", None, 0))
            .collect::<Vec<_>>(),
        FOREVER,
    );
    let limit = PageLimit { deltas: 5, ..ALL };
    let (mut after, mut seen) = (0, Vec::new());
    loop {
        let page = world.history.page(&room("a"), after, 18, limit).unwrap();
        assert!(page.deltas.len() <= 5);
        seen.extend(offsets(&page));
        if !page.more {
            break;
        }
        after = *seen.last().unwrap();
    }
    assert!(
        seen.iter().copied().eq([1].into_iter().chain(3..=18)),
        "{seen:?}"
    );
}

#[test]
fn a_page_is_bounded_in_bytes_but_never_empty_while_there_is_more() {
    let mut world = World::new();
    // A delta weighs its 1 byte of data and the 4 bytes of its id.
    world.publish_to_a(4, FOREVER);
    let page = |bytes| {
        let limit = PageLimit { bytes, ..ALL };
        world.history.page(&room("a"), 1, u64::MAX, limit).unwrap()
    };
    assert_eq!(offsets(&page(10)), [2, 3]);
    assert_eq!((offsets(&page(1)), page(1).more), (vec![2], true));
    assert!(!page(15).more);
}

#[test]
fn history_is_listed_from_either_end_and_from_a_position() {
    let mut world = World::new();
    world.publish_to_a(5, FOREVER);
    let list = |since, deltas, order| {
        let limit = PageLimit { deltas, ..ALL };
        world.history.list(&room("a"), since, limit, order).unwrap()
    };
    assert_eq!(offsets(&list(None, 2, Order::Ascending)), [1, 2]);
    assert_eq!(offsets(&list(None, 2, Order::Descending)), [5, 4]);
    assert_eq!(offsets(&list(Some(3), 9, Order::Ascending)), [4, 5]);
    assert_eq!(offsets(&list(Some(3), 9, Order::Descending)), [2, 1]);
    assert!(list(Some(1), 9, Order::Descending).deltas.is_empty());
    let none = list(None, 0, Order::Ascending);
    assert!(none.deltas.is_empty() && none.more);
}

#[test]
fn time_never_goes_back() {
    let mut world = World::new();
    world.publish(
        &[ordered(1, "a", None, 500), ordered(2, "a", None, 400)],
        FOREVER,
    );
    let mut world = world.restart();
    world.publish(
        &[ordered(3, "a", None, 300), ordered(4, "a", None, 600)],
        FOREVER,
    );
    let times: Vec<_> = world
        .page(0)
        .deltas
        .iter()
        .map(|delta| delta.time)
        .collect();
    assert_eq!(times, [500, 500, 500, 600]);
}

#[test]
fn since_a_time_includes_all_that_share_its_millisecond() {
    let mut world = World::new();
    for (offset, time) in [(1, 100), (3, 200), (4, 200), (9, 300)] {
        world.publish(&[ordered(offset, "a", None, time)], FOREVER);
    }
    let after = |time| world.history.since(&room("a"), time).unwrap();
    for (time, expected) in [
        (0, 0),
        (100, 0),
        (101, 1),
        (200, 1),
        (201, 4),
        (300, 4),
        (301, 9),
    ] {
        let Since { after, complete } = after(time);
        let page = world.page(after);
        assert!(page.deltas.iter().all(|delta| delta.time >= time) && complete);
        assert_eq!(
            offsets(&page),
            offsets(&world.page(expected)),
            "since {time}"
        );
    }
}

#[test]
fn a_reader_beside_a_trimming_writer_finds_no_hole() {
    let directory = tempfile::tempdir().unwrap();
    let store = SledStore::open(directory.path(), 1 << 20).unwrap();
    let mut writer = HistoryWriter::open(Arc::new(store), SETTINGS).unwrap();
    let history = writer.history();
    let writing = thread::spawn(move || {
        for n in 0..2_000 {
            let batch: Vec<_> = (1..=3)
                .map(|more| ordered(n * 3 + more, "a", None, n))
                .collect();
            writer.apply(&batch, |_| size(100)).unwrap();
            writer.flush().unwrap();
        }
    });
    let mut pages = 0;
    while !writing.is_finished() {
        let upto = history.durable(&room("a"));
        let after = upto.saturating_sub(150);
        let page = history.page(&room("a"), after, upto, ALL).unwrap();
        let expected = page.floor.max(after) + 1..=upto;
        assert!(
            offsets(&page).into_iter().eq(expected),
            "{after} {upto} {page:?}"
        );
        pages += 1;
    }
    writing.join().unwrap();
    assert!(pages > 1, "they must have met");
}

#[test]
fn the_newest_of_a_room_begin_behind_the_place_that_is_found_for_them() {
    let mut world = World::new();
    let before = |world: &World, count| world.history.before_newest(&room("a"), count).unwrap();
    assert_eq!(before(&world, 3), 0, "an empty log");
    world.publish_to_a(6, size(4));
    world.publish(&[ordered(7, "b", None, 0)], FOREVER);
    let newest = |world: &World, count| offsets(&world.page(before(world, count)));
    assert_eq!(newest(&world, 1), [6]);
    assert_eq!(newest(&world, 4), [3, 4, 5, 6]);
    assert_eq!(newest(&world, 100), [3, 4, 5, 6]);
    assert_eq!(before(&world, 100), 2, "the trimmed are not missed");
    assert_eq!(before(&world, 0), 7);
}
