//! A history that is too simple to be wrong, beside the real one.

use std::collections::HashMap;

use proptest::test_runner::TestCaseResult;

use crate::*;

const ROOMS: [(&str, Retention); 3] = [
    ("a", Retention { size: 3, ..FOREVER }),
    (
        "aa",
        Retention {
            ttl_ms: 500,
            ..FOREVER
        },
    ),
    (
        "b:c",
        Retention {
            size: 5,
            ttl_ms: 1_500,
            bytes: 30,
        },
    ),
];

#[derive(Debug, Clone)]
enum Step {
    Publish(Vec<Act>),
    Flush,
    Expire,
    /// The process dies; of the unflushed commits this share survives.
    Crash {
        survive: prop::sample::Index,
    },
    /// A flush fails and the database is opened again.
    FailedFlush {
        survive: prop::sample::Index,
    },
}

/// One record of a batch.
#[derive(Debug, Clone)]
enum Act {
    Delta(NewDelta),
    /// Takes back one delta of a room, or all up to it; which one is a share of all offsets.
    Erase {
        room: usize,
        one: bool,
        share: prop::sample::Index,
    },
}

#[derive(Debug, Clone)]
struct NewDelta {
    room: usize,
    key: Option<u8>,
    /// How far the clock moved before.
    later: u64,
    /// How far the producer's clock is behind.
    behind: u64,
    data_bytes: usize,
}

fn step() -> impl Strategy<Value = Step> {
    let delta = (
        0..ROOMS.len(),
        prop::option::of(0_u8..4),
        0_u64..400,
        prop_oneof![3 => Just(0_u64), 1 => 0_u64..1_000],
        1_usize..20,
    )
        .prop_map(|(room, key, later, behind, data_bytes)| NewDelta {
            room,
            key,
            later,
            behind,
            data_bytes,
        });
    let erase = (0..ROOMS.len(), any::<bool>(), any::<prop::sample::Index>())
        .prop_map(|(room, one, share)| Act::Erase { room, one, share });
    let act = prop_oneof![9 => delta.prop_map(Act::Delta), 1 => erase];
    prop_oneof![
        6 => prop::collection::vec(act, 1..6).prop_map(Step::Publish),
        4 => Just(Step::Flush),
        2 => Just(Step::Expire),
        1 => any::<prop::sample::Index>().prop_map(|survive| Step::Crash { survive }),
        1 => any::<prop::sample::Index>().prop_map(|survive| Step::FailedFlush { survive }),
    ]
}

/// What one commit left behind.
#[derive(Debug, Clone, Default)]
struct State {
    rooms: [Room; 3],
    seen: HashMap<(usize, u8), (u64, u64)>,
    clock: u64,
    checkpoint: u64,
}

#[derive(Debug, Clone, Default)]
struct Room {
    kept: Vec<Kept>,
    floor: u64,
    floor_time: u64,
    newest: u64,
    /// Up to here all is taken back.
    erased: u64,
}

#[derive(Debug, Clone, PartialEq)]
struct Kept {
    offset: u64,
    time: u64,
    /// None once it is taken back.
    data: Option<Bytes>,
}

impl Kept {
    /// An id has 4 bytes here.
    fn weight(&self) -> u64 {
        self.data.as_ref().map_or(0, |data| data.len() as u64 + 4)
    }
}

impl Room {
    fn trim_while(&mut self, too_much: impl Fn(&[Kept]) -> bool) {
        while too_much(&self.kept) {
            let gone = self.kept.remove(0);
            self.floor = gone.offset;
            self.floor_time = gone.time;
        }
    }
}

impl State {
    /// The first position if the delta repeats one.
    fn publish(&mut self, offset: u64, delta: &NewDelta, stamped: u64, data: Bytes) -> Option<u64> {
        self.checkpoint = offset;
        self.clock = self.clock.max(stamped);
        let time = self.clock;
        if let Some(key) = delta.key {
            let first = self.seen.entry((delta.room, key)).or_insert((offset, time));
            if time - first.1 > WINDOW_MS {
                *first = (offset, time);
            }
            if first.0 != offset {
                return Some(first.0);
            }
        }
        let room = &mut self.rooms[delta.room];
        let data = Some(data);
        room.kept.push(Kept { offset, time, data });
        room.newest = offset;
        None
    }

    /// Whether there is what is to be taken back. `batch` is where the batch began.
    fn erase(&mut self, offset: u64, room: usize, erasure: Erasure, batch: u64) -> bool {
        self.checkpoint = offset;
        let room = &mut self.rooms[room];
        match erasure {
            Erasure::Upto(last) => {
                if room.newest > 0 {
                    room.erased = room.erased.max(last.min(offset));
                }
                let erased = room.erased;
                let kept = room.kept.iter_mut();
                for new in kept.filter(|kept| kept.offset >= batch && kept.offset <= erased) {
                    new.data = None;
                }
                true
            }
            Erasure::One(offset) if offset <= room.floor => false,
            Erasure::One(offset) if offset <= room.erased => true,
            Erasure::One(offset) => {
                let mut kept = room.kept.iter_mut();
                let found = kept.find(|kept| kept.offset == offset);
                found.map(|kept| kept.data = None).is_some()
            }
        }
    }

    fn trim(&mut self) {
        for (room, (_, rules)) in self.rooms.iter_mut().zip(ROOMS) {
            room.trim_while(|kept| {
                let bytes: u64 = kept.iter().map(Kept::weight).sum();
                kept.len() as u64 > rules.size || (bytes > rules.bytes && kept.len() > 1)
            });
        }
    }

    fn expire(&mut self, now: u64) {
        for (room, (_, rules)) in self.rooms.iter_mut().zip(ROOMS) {
            // Taken out, which is no trim.
            let erased = room.erased;
            room.kept.retain(|kept| kept.offset > erased);
            room.trim_while(|kept| {
                kept.first()
                    .is_some_and(|oldest| oldest.time.saturating_add(rules.ttl_ms) <= now)
            });
        }
    }
}

/// What became of a record.
#[derive(Debug, PartialEq)]
enum Became {
    New,
    Repeated(u64),
    Erased,
    Missing,
    Nothing,
}

/// The real history and the model, fed alike.
struct Pair {
    world: World,
    state: State,
    flushed: State,
    /// The state after each commit since the last flush.
    unflushed: Vec<State>,
    now: u64,
    next_offset: u64,
    published: u64,
    /// Everything anybody was ever shown.
    shown: HashMap<u64, Kept>,
}

fn rules(name: &RoomName) -> Retention {
    ROOMS
        .into_iter()
        .find(|(room, _)| *room == name.as_str())
        .unwrap()
        .1
}

impl Pair {
    fn new() -> Self {
        Self {
            world: World::new(),
            state: State::default(),
            flushed: State::default(),
            unflushed: Vec::new(),
            now: 10_000,
            next_offset: 1,
            published: 0,
            shown: HashMap::new(),
        }
    }

    fn walk(&mut self, step: &Step) -> TestCaseResult {
        match step {
            Step::Publish(deltas) => self.publish(deltas)?,
            Step::Flush => {
                let durable = self.world.writer.flush().unwrap();
                prop_assert_eq!(durable, self.state.checkpoint);
                self.flushed = self.state.clone();
                self.unflushed.clear();
            }
            Step::Expire => {
                while self.world.writer.expire(self.now, rules).unwrap() {}
                self.state.expire(self.now);
                self.committed();
            }
            Step::Crash { survive } => {
                let survive = survive.index(self.unflushed.len() + 1);
                self.world.store.crash(survive);
                self.world = World::on(self.world.store.clone());
                self.fall_back(survive);
                self.next_offset = self.state.checkpoint + 1;
            }
            Step::FailedFlush { survive } => {
                let survive = survive.index(self.unflushed.len() + 1);
                self.world.store.inject(Fault::Flush { survive });
                prop_assert!(self.world.writer.flush().is_err());
                self.fall_back(survive);
                let reopened = self.world.writer.reopen().unwrap();
                let checkpoint = self.state.checkpoint;
                prop_assert_eq!(
                    reopened,
                    Reopened {
                        checkpoint,
                        lost: false
                    }
                );
            }
        }
        self.check()
    }

    fn publish(&mut self, acts: &[Act]) -> TestCaseResult {
        let mut batch = Vec::new();
        let mut expected = Vec::new();
        let begin = self.next_offset;
        for act in acts {
            let offset = self.next_offset;
            self.next_offset += 1;
            let delta = match act {
                Act::Delta(delta) => delta,
                Act::Erase { room, one, share } => {
                    // One that is yet to come is among them.
                    let which = share.index(offset as usize + 3) as u64;
                    let erasure = match one {
                        true => Erasure::One(which),
                        false => Erasure::Upto(which),
                    };
                    batch.push(erasing(offset, ROOMS[*room].0, erasure));
                    expected.push(match self.state.erase(offset, *room, erasure, begin) {
                        true => Became::Erased,
                        false => Became::Missing,
                    });
                    continue;
                }
            };
            self.now += delta.later;
            self.published += 1;
            let data: Bytes =
                format!("{:0width$}", self.published, width = delta.data_bytes).into();
            let stamped = self.now - delta.behind;
            let key = delta.key.map(|key| format!("key{key}"));
            let record = record(offset, ROOMS[delta.room].0, key.as_deref(), stamped);
            let body = data.clone();
            batch.push(at(offset, Record { body, ..record }));
            expected.push(match self.state.publish(offset, delta, stamped, data) {
                Some(first) => Became::Repeated(first),
                None => Became::New,
            });
        }
        self.state.trim();
        let applied = self.world.writer.apply(&batch, rules).unwrap();
        let became: Vec<_> = applied
            .iter()
            .map(|applied| match applied {
                Applied::Delta(_) => Became::New,
                Applied::Repeated { offset, .. } => Became::Repeated(*offset),
                Applied::Erased { found: true, .. } => Became::Erased,
                Applied::Erased { found: false, .. } => Became::Missing,
                Applied::Passed => Became::Nothing,
            })
            .collect();
        prop_assert_eq!(became, expected);
        self.committed();
        Ok(())
    }

    /// An expiry that finds nothing commits nothing.
    fn committed(&mut self) {
        if self.world.store.unflushed() > self.unflushed.len() {
            self.unflushed.push(self.state.clone());
        }
    }

    fn fall_back(&mut self, survive: usize) {
        self.state = match survive.checked_sub(1) {
            Some(last) => self.unflushed[last].clone(),
            None => self.flushed.clone(),
        };
        self.flushed = self.state.clone();
        self.unflushed.clear();
    }

    fn check(&mut self) -> TestCaseResult {
        let history = &self.world.history;
        let durable = self.flushed.checkpoint;
        prop_assert_eq!(history.durable(&room("a")), durable);
        for ((name, _), expected) in ROOMS.into_iter().zip(&self.state.rooms) {
            let room = room(name);
            let visible: Vec<_> = expected
                .kept
                .iter()
                .filter(|kept| kept.offset <= durable && kept.offset > expected.erased)
                .filter(|kept| kept.data.is_some())
                .cloned()
                .collect();
            let page = history.page(&room, 0, u64::MAX, ALL).unwrap();
            let read = |page: Page| -> Vec<_> {
                let kept = |delta: roomwire::delta::Delta| Kept {
                    offset: delta.offset,
                    time: delta.time,
                    data: Some(delta.data),
                };
                page.deltas.into_iter().map(kept).collect()
            };
            prop_assert_eq!(page.floor, expected.floor.min(durable));
            prop_assert_eq!(&read(page), &visible);
            let mut backward = read(history.list(&room, None, ALL, Order::Descending).unwrap());
            backward.reverse();
            prop_assert_eq!(&backward, &visible);
            let head = history.head(&room).unwrap();
            prop_assert_eq!(head.newest, expected.newest.min(durable));
            prop_assert_eq!(head.count, expected.kept.len() as u64);
            prop_assert_eq!(
                head.bytes,
                expected.kept.iter().map(Kept::weight).sum::<u64>()
            );
            for time in [
                0,
                self.now - 500,
                expected.floor_time,
                expected.floor_time + 1,
            ] {
                let since = history.since(&room, time).unwrap();
                let from = visible.iter().filter(|kept| kept.time >= time);
                let behind = visible.iter().filter(|kept| kept.offset > since.after);
                prop_assert!(from.eq(behind), "since {}: {:?}", time, since);
                let complete = expected.floor == 0 || expected.floor_time < time;
                prop_assert_eq!(since.complete, complete);
            }
            prop_assert!(visible.is_sorted_by(|a, b| a.offset < b.offset && a.time <= b.time));
            for kept in visible {
                let first = self
                    .shown
                    .entry(kept.offset)
                    .or_insert_with(|| kept.clone());
                prop_assert_eq!(&*first, &kept, "an offset was given twice");
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_history_of_publishes_trims_expiries_and_crashes_is_read_exactly(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.walk(step)?;
        }
    }
}
