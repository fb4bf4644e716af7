//! Several partitions in one store, what of a log can't be read any more, and lives that end.

use crate::*;

const PARTITIONS: u16 = 4;

fn shared(epochs: [&str; 4]) -> LogIdentity {
    LogIdentity::Shared {
        name: "amqp/test/4".into(),
        epochs: epochs.map(Into::into).to_vec(),
    }
}

fn open(store: &Arc<MemoryStore>, epochs: [&str; 4]) -> Vec<HistoryWriter> {
    HistoryWriter::open_partitions(store.clone(), SETTINGS, &shared(epochs)).unwrap()
}

/// A room of each partition.
fn names() -> [String; 4] {
    let name = |partition| {
        let mut names = (0..).map(|n| format!("room{n}"));
        names.find(|name| partition_of(&room(name), PARTITIONS) == partition)
    };
    [0, 1, 2, 3].map(|partition| name(partition).unwrap())
}

fn put(writer: &mut HistoryWriter, name: &str, offset: u64, key: Option<&str>) -> Applied {
    let event = ordered(offset, name, key, 100 + offset);
    let applied = writer.apply(&[event], |_| FOREVER).unwrap().remove(0);
    writer.show();
    applied
}

fn read(writer: &HistoryWriter, name: &str, after: u64) -> Page {
    let history = writer.history();
    history.page(&room(name), after, u64::MAX, ALL).unwrap()
}

fn heartbeat(position: u64, stamped: u64) -> Event {
    let heartbeat = Heartbeat {
        producer: 99,
        beat: position,
        stamped,
    };
    let entry = Entry::Heartbeat(heartbeat);
    Event::Entry { position, entry }
}

#[test]
fn each_partition_has_positions_and_a_life_of_its_own() {
    let store = Arc::new(MemoryStore::new());
    let mut writers = open(&store, ["a", "b", "c", "d"]);
    let names = names();
    for (n, (writer, name)) in (1..).zip(writers.iter_mut().zip(&names)) {
        put(writer, name, n, None);
    }
    let history = writers[0].history();
    for (n, (name, epoch)) in (1..).zip(names.iter().zip(["a", "b", "c", "d"])) {
        let room = room(name);
        assert_eq!((history.durable(&room), &*history.epoch(&room)), (n, epoch));
        assert_eq!(offsets(&read(&writers[0], name, 0)), [n]);
    }
    drop(writers);
    let writers = open(&store, ["a", "b", "c", "d"]);
    let checkpoints: Vec<_> = writers.iter().map(HistoryWriter::checkpoint).collect();
    assert_eq!(checkpoints, [1, 2, 3, 4]);
    assert_eq!(writers[2].place().unwrap().position, 3);
}

#[test]
fn a_store_of_another_log_is_refused_with_both_names() {
    let store = Arc::new(MemoryStore::new());
    HistoryWriter::open(store.clone(), SETTINGS).unwrap();
    let log = shared(["a", "b", "c", "d"]);
    let error = HistoryWriter::open_partitions(store, SETTINGS, &log).err();
    assert_eq!(
        error.unwrap().to_string(),
        "the database belongs to the log embedded and this server is configured for amqp/test/4; \
         give it a data directory of its own, or configure the log that the database belongs to"
    );
}

#[test]
fn another_life_of_a_partition_begins_with_nothing_and_leaves_the_others_alone() {
    let store = Arc::new(MemoryStore::new());
    let mut writers = open(&store, ["a", "b", "c", "d"]);
    let names = names();
    for (writer, name) in writers.iter_mut().zip(&names) {
        for n in 1..=1_500 {
            put(writer, name, n, Some(&n.to_string()));
        }
    }
    let of = |name: &str| -> Vec<_> {
        let about = |key: &[u8]| key.windows(name.len()).any(|part| part == name.as_bytes());
        let contents = store.contents().into_iter();
        contents.filter(|(key, _)| about(key)).collect()
    };
    let others = of(&names[2]);
    writers[1].renew("e".into()).unwrap();

    let room = room(&names[1]);
    let history = writers[0].history();
    assert_eq!((history.durable(&room), &*history.epoch(&room)), (0, "e"));
    assert_eq!(history.head(&room).unwrap(), Head::default());
    assert!(of(&names[1]).is_empty());
    assert_eq!(of(&names[2]), others);
    let again = put(&mut writers[1], &names[1], 1, Some("1"));
    assert!(is_new(&again), "keys belong to a life");
    assert_eq!(offsets(&read(&writers[1], &names[1], 0)), [1]);
    drop(writers);
    let writers = open(&store, ["a", "e", "c", "d"]);
    assert_eq!(writers[1].checkpoint(), 1, "the new life is on disk");
}

#[test]
fn a_life_that_ended_while_the_server_was_down_is_gone_when_it_starts() {
    let store = Arc::new(MemoryStore::new());
    let names = names();
    put(
        &mut open(&store, ["a", "b", "c", "d"])[3],
        &names[3],
        7,
        None,
    );
    let writers = open(&store, ["a", "b", "c", "new"]);
    assert_eq!((writers[3].checkpoint(), writers[3].place()), (0, None));
    assert!(read(&writers[3], &names[3], 0).deltas.is_empty());
}

#[test]
fn what_the_log_no_longer_has_raises_the_floor_of_every_room() {
    let mut world = World::new();
    world.publish_to_a(3, FOREVER);
    world.publish(&[ordered(4, "b", None, 104)], FOREVER);
    let batch = [
        Event::Floor(20),
        ordered(21, "a", None, 500),
        ordered(22, "a", None, 510),
    ];
    world.publish(&batch, FOREVER);
    for name in ["a", "b", "new"] {
        let page = world.history.page(&room(name), 3, u64::MAX, ALL).unwrap();
        assert_eq!(page.floor, 20, "{name}");
        let since = |time| world.history.since(&room(name), time).unwrap().complete;
        assert!(!since(104) && !since(500) && since(501), "{name}");
    }
    assert_eq!(offsets(&world.page(0)), [21, 22]);
    let expected = Head {
        floor: 20,
        newest: 22,
        count: 2,
        bytes: 12,
    };
    assert_eq!(world.head(), expected);
    let empty = Head {
        floor: 20,
        newest: 20,
        ..Head::default()
    };
    assert_eq!(world.history.head(&room("b")).unwrap(), empty);
    let world = world.restart();
    assert_eq!(world.head(), expected);
}

#[test]
fn what_came_before_a_floor_in_the_same_batch_is_hidden_too() {
    let mut world = World::new();
    let batch = [
        ordered(1, "a", None, 1),
        Event::Floor(9),
        ordered(12, "b", None, 2),
    ];
    world.publish(&batch, FOREVER);
    assert!(offsets(&world.page(0)).is_empty());
    world.publish(&[ordered(13, "a", None, 3)], FOREVER);
    assert_eq!((offsets(&world.page(0)), world.head().count), (vec![13], 1));
}

#[test]
fn a_floor_alone_does_not_move_the_place_to_read_on_from() {
    let mut world = World::new();
    world.publish_to_a(3, FOREVER);
    world.publish(&[Event::Floor(20)], FOREVER);
    assert_eq!(world.writer.place().unwrap().position, 3);
    assert_eq!((world.head().newest, world.head().floor), (20, 20));
}

#[test]
fn a_resent_delta_counts_once_and_one_that_overtook_a_lost_one_not_yet() {
    let mut world = World::new();
    let sent = |position, sequence| {
        let producer = 7;
        let record = record(position, "a", None, 100);
        at(
            position,
            Record {
                producer,
                sequence,
                ..record
            },
        )
    };
    let batch = [(1, 1), (2, 3), (3, 1), (4, 2), (5, 3)];
    let batch = batch.map(|(position, sequence)| sent(position, sequence));
    let applied = world.publish(&batch, FOREVER);
    let counts: Vec<_> = applied.iter().map(is_new).collect();
    assert_eq!(counts, [true, false, false, true, true]);
    assert_eq!(offsets(&world.page(0)), [1, 4, 5]);
    let mut world = world.restart();
    assert_eq!(world.publish(&[sent(6, 3)], FOREVER), [Applied::Passed]);
}

#[test]
fn what_a_tenure_takes_in_behind_a_later_ones_fence_does_not_count() {
    let mut world = World::new();
    let fence = |position, tenure| {
        let stamped = 1;
        let entry = Entry::Fence(Fence { tenure, stamped });
        Event::Entry { position, entry }
    };
    let taken_in = |position, tenure| {
        let record = record(position, "a", None, 100);
        let tenure = Some(tenure);
        let entry = Entry::Delta { record, tenure };
        Event::Entry { position, entry }
    };
    let batch = [
        fence(1, 1),
        taken_in(2, 1),
        fence(3, 2),
        taken_in(4, 1),
        taken_in(5, 2),
    ];
    world.publish(&batch, FOREVER);
    assert_eq!(offsets(&world.page(0)), [2, 5]);
    let mut world = world.restart();
    assert_eq!(world.publish(&[taken_in(6, 1)], FOREVER), [Applied::Passed]);
}

#[test]
fn deltas_move_the_clock_that_forgets_keys_and_heartbeats_do_not() {
    let mut world = World::new();
    world.publish(&[ordered(1, "a", Some("k"), 100)], FOREVER);
    let batch = [
        heartbeat(2, 101 + WINDOW_MS),
        ordered(3, "a", Some("k"), 100),
        ordered(4, "b", None, 101 + WINDOW_MS),
        ordered(5, "a", Some("k"), 100),
    ];
    let applied = world.publish(&batch, FOREVER);
    assert_eq!(applied[0], Applied::Passed);
    assert!(!is_new(&applied[1]));
    assert!(is_new(&applied[2]) && is_new(&applied[3]));
    assert_eq!(world.page(1).deltas[0].time, 101 + WINDOW_MS);
}

#[test]
fn a_writer_does_not_write_on_top_of_what_another_ones_failure_has_taken() {
    let store = Arc::new(MemoryStore::new());
    let names = names();
    let mut writers = open(&store, ["a", "b", "c", "d"]);
    put(&mut writers[0], &names[0], 1, None);
    put(&mut writers[1], &names[1], 1, None);
    writers[0].sync().unwrap();
    put(&mut writers[0], &names[0], 2, None);
    store.inject(Fault::Flush { survive: 0 });
    assert!(writers[1].sync().is_err());
    assert_eq!(writers[1].reopen().unwrap().checkpoint, 1);

    // The first partition's second delta is gone, which its writer has yet to hear of.
    let event = ordered(3, &names[0], None, 103);
    let refused = writers[0].apply(std::slice::from_ref(&event), |_| FOREVER);
    assert!(matches!(refused, Err(StoreError::Closed)));
    let reopened = writers[0].reopen().unwrap();
    assert_eq!((reopened.checkpoint, reopened.lost), (1, false));
    put(&mut writers[0], &names[0], 2, None);
    put(&mut writers[0], &names[0], 3, None);
    assert_eq!(offsets(&read(&writers[0], &names[0], 0)), [1, 2, 3]);
}
