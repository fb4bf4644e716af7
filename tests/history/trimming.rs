//! What goes, and what is told of it.

use crate::*;

#[test]
fn what_is_trimmed_raises_the_floor() {
    let mut world = World::new();
    world.publish_to_a(5, size(2));
    assert_eq!(
        (world.page(0).floor, offsets(&world.page(0))),
        (3, vec![4, 5])
    );
    assert_eq!(
        world.head(),
        Head {
            floor: 3,
            newest: 5,
            count: 2,
            bytes: 10
        }
    );
}

#[test]
fn a_batch_larger_than_the_room_keeps_its_newest() {
    let mut world = World::new();
    let batch: Vec<_> = (1..=5).map(|n| ordered(n, "a", None, 100)).collect();
    assert!(
        world.publish(&batch, size(2)).iter().all(is_new),
        "all are dispatched"
    );
    assert_eq!(
        (world.page(0).floor, offsets(&world.page(0))),
        (3, vec![4, 5])
    );
}

#[test]
fn a_room_is_bounded_in_bytes() {
    let mut world = World::new();
    world.publish_to_a(
        5,
        Retention {
            bytes: 11,
            ..FOREVER
        },
    );
    assert_eq!(offsets(&world.page(0)), [4, 5]);
    world.publish_to_a(0, FOREVER);
    world.publish(
        &[ordered(6, "a", None, 200)],
        Retention {
            bytes: 1,
            ..FOREVER
        },
    );
    assert_eq!(
        offsets(&world.page(0)),
        [6],
        "larger than the room, and alone in it"
    );
}

#[test]
fn what_is_too_old_goes_and_its_floor_outlives_it() {
    let mut world = World::new();
    world.publish_to_a(3, ttl(50));
    world.expire(151, ttl(50));
    assert_eq!(
        (world.page(0).floor, offsets(&world.page(0))),
        (1, vec![2, 3])
    );
    world.expire(10_000, ttl(50));
    let head = world.head();
    assert_eq!(
        (head.floor, head.newest, head.count, head.bytes),
        (3, 3, 0, 0)
    );
    world.publish(&[ordered(4, "a", None, 10_000)], ttl(50));
    world.expire(10_049, ttl(50));
    assert_eq!(offsets(&world.page(0)), [4]);
    world.expire(10_050, ttl(50));
    assert!(
        world.page(0).deltas.is_empty(),
        "an emptied room expires again"
    );
}

#[test]
fn a_shortened_ttl_takes_hold_with_the_next_delta() {
    let mut world = World::new();
    world.publish_to_a(2, ttl(1_000_000));
    world.publish(&[ordered(3, "a", None, 500)], ttl(50));
    world.expire(500, ttl(50));
    assert_eq!(offsets(&world.page(0)), [3]);
}

#[test]
fn more_than_one_step_of_expiry_is_finished_step_by_step() {
    let mut world = World::new();
    let batch: Vec<_> = (1..=5_000).map(|n| ordered(n, "a", None, n)).collect();
    world.publish(&batch, ttl(50));
    let mut steps = 0;
    while world.writer.expire(4_000, |_| ttl(50)).unwrap() {
        steps += 1;
        assert_eq!(
            offsets(&world.page(0))[0],
            world.page(0).floor + 1,
            "no hole while it lasts"
        );
    }
    assert!(steps > 2, "a step must be bounded");
    assert_eq!(world.page(0).floor, 3_950);
}

#[test]
fn since_a_time_tells_whether_anything_of_it_is_trimmed() {
    let mut world = World::new();
    for (offset, time) in [(1, 100), (2, 200), (3, 200), (4, 300)] {
        world.publish(&[ordered(offset, "a", None, time)], size(2));
    }
    let since = |time| world.history.since(&room("a"), time).unwrap();
    assert_eq!(
        since(200),
        Since {
            after: 2,
            complete: false
        },
        "delta 2 is of that time"
    );
    assert_eq!(
        since(201),
        Since {
            after: 3,
            complete: true
        }
    );
    assert!(!since(0).complete);
}

/// Trims between the steps of somebody else's read.
struct Interrupting {
    store: Arc<MemoryStore>,
    after_scan: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Store for Interrupting {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(key)
    }

    fn scan(
        &self,
        first: &[u8],
        last: &[u8],
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        self.store.scan(first, last, order, visit)?;
        if let Some(interrupt) = self.after_scan.lock().unwrap().take() {
            interrupt();
        }
        Ok(())
    }

    fn commit(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        self.store.commit(writes)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.store.flush()
    }

    fn reopen(&self) -> Result<(), StoreError> {
        self.store.reopen()
    }

    fn place(&self) -> Result<u64, StoreError> {
        self.store.place()
    }

    fn free_bytes(&self) -> Result<u64, StoreError> {
        self.store.free_bytes()
    }
}

#[test]
fn a_page_overtaken_by_a_trim_says_so_and_still_gives_what_is_kept() {
    let mut world = World::new();
    world.publish_to_a(9, FOREVER);
    let store = Arc::new(Interrupting {
        store: world.store.clone(),
        after_scan: Mutex::default(),
    });
    let reader = HistoryWriter::open(store.clone(), SETTINGS)
        .unwrap()
        .history();
    let overtaken = |limit, keep| {
        let mut writer = HistoryWriter::open(world.store.clone(), SETTINGS).unwrap();
        let offset = writer.checkpoint() + 1;
        *store.after_scan.lock().unwrap() = Some(Box::new(move || {
            writer
                .apply(&[ordered(offset, "a", None, 200)], |_| size(keep))
                .unwrap();
            writer.flush().unwrap();
        }));
        reader.page(&room("a"), 0, u64::MAX, limit).unwrap()
    };
    let page = overtaken(ALL, 6);
    assert_eq!((page.floor, offsets(&page)), (4, vec![5, 6, 7, 8, 9]));
    // Everything that fitted the page is gone: it begins anew behind the floor.
    let page = overtaken(PageLimit { deltas: 2, ..ALL }, 4);
    assert_eq!((page.floor, offsets(&page)), (7, vec![8, 9]));
}
