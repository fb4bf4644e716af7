//! Crashes, restarts, and databases that are not what they should be.

use crate::*;

#[test]
fn a_restart_goes_on_where_the_disk_is() {
    let mut world = World::new();
    let epoch = world.history.epoch(&room("a"));
    world.publish_to_a(3, FOREVER);
    world
        .writer
        .apply(&[ordered(4, "a", None, 0)], |_| FOREVER)
        .unwrap();
    world.store.crash(0);
    let world = world.restart();
    assert_eq!(
        (world.writer.checkpoint(), world.history.durable(&room("a"))),
        (3, 3)
    );
    assert_eq!(world.history.epoch(&room("a")), epoch);
    assert_eq!(offsets(&world.page(0)), [1, 2, 3]);
}

#[test]
fn reopening_after_a_failed_flush_goes_by_what_survived() {
    for survive in [0, 1] {
        let mut world = World::new();
        world.publish_to_a(2, FOREVER);
        world
            .writer
            .apply(&[ordered(3, "a", None, 0)], |_| FOREVER)
            .unwrap();
        world.store.inject(Fault::Flush { survive });
        assert!(world.writer.flush().is_err());
        assert!(
            world.history.head(&room("a")).is_err(),
            "nobody reads what may be torn"
        );
        let checkpoint = 2 + survive as u64;
        let expected = Reopened {
            checkpoint,
            lost: false,
        };
        assert_eq!(world.writer.reopen().unwrap(), expected);
        assert!(offsets(&world.page(0)).into_iter().eq(1..=checkpoint));
        assert_eq!(world.history.durable(&room("a")), checkpoint);
    }
}

#[test]
fn a_database_that_lost_durable_deltas_begins_a_new_epoch() {
    let mut world = World::new();
    world.publish_to_a(2, FOREVER);
    let epoch = world.history.epoch(&room("a"));
    let old = world.store.contents();
    world.publish(&[ordered(3, "a", None, 0)], FOREVER);
    // The disk comes back as it was a while ago.
    let now = world.store.contents();
    let back = now.keys().map(|key| match old.get(key) {
        Some(value) => Write::Put {
            key: key.clone(),
            value: value.clone(),
        },
        None => Write::Delete { key: key.clone() },
    });
    world.store.commit(back.collect()).unwrap();
    let reopened = world.writer.reopen().unwrap();
    assert_eq!((reopened.checkpoint, reopened.lost), (2, true));
    assert_ne!(world.history.epoch(&room("a")), epoch);
    let renewed = world.history.epoch(&room("a"));
    assert_eq!(
        world.restart().history.epoch(&room("a")),
        renewed,
        "and it is on disk"
    );
}

#[test]
fn a_store_of_a_newer_roomwire_or_of_somebody_else_is_refused() {
    let store = Arc::new(MemoryStore::new());
    let put = |key: &[u8], value: &[u8]| {
        let (key, value) = (key.to_vec(), value.to_vec());
        store.commit(vec![Write::Put { key, value }]).unwrap();
    };
    put(b"something", b"else");
    let error = HistoryWriter::open(store.clone(), SETTINGS).err().unwrap();
    assert!(matches!(error, StoreError::Foreign));
    put(b"mformat", &9_u32.to_be_bytes());
    assert_eq!(
        HistoryWriter::open(store.clone(), SETTINGS)
            .err()
            .unwrap()
            .to_string(),
        "the database has format 9 and this roomwire reads up to 3; run the newer \
         roomwire that wrote it"
    );
}

#[test]
fn a_real_database_gives_it_all_back() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let store = SledStore::open(directory.path(), 1 << 20).unwrap();
        HistoryWriter::open(Arc::new(store), SETTINGS).unwrap()
    };
    let mut writer = open();
    for n in 1..=200 {
        writer
            .apply(&[ordered(n, "a", Some(&n.to_string()), n)], |_| size(50))
            .unwrap();
        writer.flush().unwrap();
    }
    let epoch = writer.history().epoch(&room("a"));
    assert!(!writer.reopen().unwrap().lost);
    drop(writer);
    let mut writer = open();
    let page = writer.history().page(&room("a"), 0, u64::MAX, ALL).unwrap();
    assert_eq!(writer.history().epoch(&room("a")), epoch);
    assert_eq!(page.floor, 150);
    assert!(offsets(&page).into_iter().eq(151..=200));
    let again = writer
        .apply(&[ordered(201, "a", Some("7"), 201)], |_| size(50))
        .unwrap();
    assert_eq!(again, [repeated(7, 7)]);
}

#[test]
fn a_copy_of_a_database_begins_a_new_epoch_and_its_original_keeps_the_old_one() {
    let (original, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let open = |directory: &std::path::Path| {
        let store = SledStore::open(directory, 1 << 20).unwrap();
        HistoryWriter::open(Arc::new(store), SETTINGS).unwrap()
    };
    let mut writer = open(original.path());
    let epoch = writer.history().epoch(&room("a"));
    writer
        .apply(&[ordered(1, "a", None, 0)], |_| FOREVER)
        .unwrap();
    writer.flush().unwrap();
    drop(writer);
    for file in ["db", "conf"] {
        std::fs::copy(original.path().join(file), copy.path().join(file)).unwrap();
    }
    std::fs::create_dir(copy.path().join("blobs")).unwrap();
    let restored = open(copy.path());
    let new_epoch = restored.history().epoch(&room("a"));
    assert_eq!(restored.checkpoint(), 1);
    assert_ne!(new_epoch, epoch);
    drop(restored);
    assert_eq!(open(copy.path()).history().epoch(&room("a")), new_epoch);
    assert_eq!(open(original.path()).history().epoch(&room("a")), epoch);
}
