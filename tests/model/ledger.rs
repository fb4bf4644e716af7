//! What the log must hold, worked out from the ordered records alone: who checks the server must not ask the server.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use roomwire::{delta::Erasure, log::Event, rooms::retention::Retention};

use crate::{
    Checked,
    rooms::{IDEMPOTENCY_WINDOW_MS, ROOMS, index_of},
};

/// One accepted delta.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub offset: u64,
    pub time: u64,
    pub body: Bytes,
    weight: u64,
}

/// What a publisher must be told of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    pub offset: u64,
    pub time: u64,
    pub repeated: bool,
    /// Of an erasure: whether there was something to erase.
    pub found: bool,
    pub erases: bool,
}

/// What one commit leaves behind.
#[derive(Debug, Clone, Default)]
pub struct State {
    rooms: [Room; ROOMS.len()],
    keys: HashMap<(usize, String), (u64, u64)>,
    clock: u64,
    pub checkpoint: u64,
}

#[derive(Debug, Clone, Default)]
pub struct Room {
    /// All that was ever accepted.
    all: Vec<Entry>,
    /// How many of them are not held any more, trimmed or taken out.
    gone: usize,
    /// The newest that was trimmed.
    floor: u64,
    /// What is erased, and where the erasure is.
    erased: BTreeMap<u64, u64>,
    /// Up to here everything is, and is yet to be taken out.
    erased_upto: u64,
    /// What weighs nothing, as it was erased where it stands.
    blank: BTreeSet<u64>,
}

impl Room {
    fn kept(&self) -> &[Entry] {
        &self.all[self.gone..]
    }

    /// The first delta behind `offset`.
    pub fn next_after(&self, offset: u64) -> Option<&Entry> {
        self.all
            .get(self.all.partition_point(|entry| entry.offset <= offset))
    }

    /// Where the delta at `offset` was erased.
    pub fn erased_at(&self, offset: u64) -> Option<u64> {
        self.erased.get(&offset).copied()
    }

    fn weight(&self, entry: &Entry) -> u64 {
        match self.blank.contains(&entry.offset) {
            true => 0,
            false => entry.weight,
        }
    }

    fn trim(&mut self, count: usize) {
        self.gone += count;
        if count > 0 {
            self.floor = self.all[self.gone - 1].offset;
        }
    }

    /// Whether there is what is to be erased. `batch` is where the batch began, and `at` the erasure.
    fn erase(&mut self, erasure: Erasure, at: u64, batch: u64) -> bool {
        match erasure {
            Erasure::Upto(last) => {
                if !self.all.is_empty() {
                    self.erased_upto = self.erased_upto.max(last.min(at));
                }
                for entry in self.all.iter().filter(|entry| entry.offset <= last) {
                    self.erased.entry(entry.offset).or_insert(at);
                    if entry.offset >= batch {
                        self.blank.insert(entry.offset);
                    }
                }
                true
            }
            Erasure::One(offset) if offset <= self.floor => false,
            Erasure::One(offset) if offset <= self.erased_upto => true,
            Erasure::One(offset) => {
                let found = self.kept().iter().any(|entry| entry.offset == offset);
                if found {
                    self.erased.entry(offset).or_insert(at);
                    self.blank.insert(offset);
                }
                found
            }
        }
    }

    fn trim_to_size(&mut self, rules: Retention) {
        let weight = |room: &Self| room.kept().iter().map(|e| room.weight(e)).sum::<u64>();
        while self.kept().len() as u64 > rules.size
            || (self.kept().len() > 1 && weight(self) > rules.bytes)
        {
            self.trim(1);
        }
    }
}

/// The store as it must be: on disk, and with each of the commits that a crash can still take.
#[derive(Debug, Default)]
pub struct Ledger {
    flushed: State,
    unflushed: Vec<State>,
    /// The highest floor that each room ever had: a client at or above it was never overtaken by a trim.
    highest_floor: [u64; ROOMS.len()],
    /// What was ever erased, be it that a crash undid it.
    ever_erased: [BTreeSet<u64>; ROOMS.len()],
    /// Deltas whose publishers were told that they are safe.
    promised: Vec<(usize, Entry)>,
}

impl Ledger {
    /// What may be shown: everything that a crash can't take.
    pub fn durable(&self) -> &State {
        &self.flushed
    }

    pub fn room(&self, room: usize) -> &Room {
        &self.flushed.rooms[room]
    }

    /// What can be read of a room, with the trims that a crash can still undo.
    pub fn kept(&self, room: usize) -> impl Iterator<Item = &Entry> + Clone {
        let durable = self.flushed.checkpoint;
        let room = &self.latest().rooms[room];
        let kept = room.kept().iter();
        kept.filter(move |entry| entry.offset <= durable && room.erased_at(entry.offset).is_none())
    }

    /// Whether somebody need not be sent the delta.
    pub fn may_be_left_out(&self, room: usize, offset: u64) -> bool {
        self.ever_erased[room].contains(&offset)
    }

    /// The first delta behind `offset` that must be sent.
    pub fn next_due(&self, room: usize, mut offset: u64) -> Option<&Entry> {
        loop {
            let next = self.room(room).next_after(offset)?;
            if !self.may_be_left_out(room, next.offset) {
                return Some(next);
            }
            offset = next.offset;
        }
    }

    pub fn unflushed(&self) -> usize {
        self.unflushed.len()
    }

    pub fn highest_floor(&self, room: usize) -> u64 {
        self.highest_floor[room]
    }

    /// One commit with a batch of records. Gives what their publishers must be told.
    pub fn commit(&mut self, batch: &[Event]) -> Checked<Vec<Placement>> {
        let mut state = self.latest().clone();
        let begin = batch.iter().find_map(Event::delta).map_or(0, |(at, _)| at);
        let placements = batch
            .iter()
            .map(|event| state.place(event, begin))
            .collect();
        for (ever, room) in self.ever_erased.iter_mut().zip(&state.rooms) {
            ever.extend(room.erased.keys());
        }
        for (room, (_, rules)) in state.rooms.iter_mut().zip(ROOMS) {
            room.trim_to_size(rules);
        }
        self.push(state);
        placements
    }

    /// One commit that trims what is too old.
    pub fn expire(&mut self, now: u64) {
        let mut state = self.latest().clone();
        for (room, (_, rules)) in state.rooms.iter_mut().zip(ROOMS) {
            let old = |entry: &&Entry| entry.time + rules.ttl_ms <= now;
            let erased = |entry: &&Entry| entry.offset <= room.erased_upto;
            room.gone += room.kept().iter().take_while(erased).count();
            room.trim(room.kept().iter().take_while(old).count());
        }
        self.push(state);
    }

    pub fn flush(&mut self) {
        self.survive(usize::MAX);
    }

    /// Only the first commits since the last flush are left, and they are on disk.
    pub fn survive(&mut self, commits: usize) {
        self.forget_behind(commits);
        if let Some(last) = self.unflushed.pop() {
            self.flushed = last;
        }
        self.unflushed.clear();
    }

    /// Only the first commits since the last flush are left, on disk or not.
    pub fn forget_behind(&mut self, commits: usize) {
        self.unflushed.truncate(commits);
    }

    /// A publisher was told that its delta is safe.
    pub fn promise(&mut self, room: usize, offset: u64) -> Checked {
        let held = &self.flushed.rooms[room].all;
        let Some(entry) = held.iter().find(|entry| entry.offset == offset) else {
            return Err(format!(
                "offset {offset} was answered before it was durable"
            ));
        };
        self.promised.push((room, entry.clone()));
        Ok(())
    }

    /// Everything promised is there, and offsets and times grow.
    pub fn check(&self) -> Checked {
        for (room, entry) in &self.promised {
            if !self.flushed.rooms[*room].all.contains(entry) {
                return Err(format!("an answered delta is gone: {entry:?}"));
            }
        }
        for room in &self.flushed.rooms {
            let grows =
                |pair: &[Entry]| pair[0].offset < pair[1].offset && pair[0].time <= pair[1].time;
            if !room.all.windows(2).all(grows) {
                return Err(format!("offsets or times do not grow: {:?}", room.all));
            }
        }
        Ok(())
    }

    fn latest(&self) -> &State {
        self.unflushed.last().unwrap_or(&self.flushed)
    }

    fn push(&mut self, state: State) {
        for (highest, room) in self.highest_floor.iter_mut().zip(&state.rooms) {
            *highest = room.floor.max(*highest);
        }
        self.unflushed.push(state);
    }
}

impl State {
    fn place(&mut self, event: &Event, batch: u64) -> Checked<Placement> {
        let Some((offset, record)) = event.delta() else {
            return Err(format!("an embedded log has nothing but deltas: {event:?}"));
        };
        if offset <= self.checkpoint {
            return Err(format!("offset {offset} was given twice"));
        }
        self.checkpoint = offset;
        self.clock = self.clock.max(record.stamped);
        let time = self.clock;
        let room = index_of(&record.room);
        if let Some(erasure) = record.erases {
            return Ok(Placement {
                offset,
                time,
                repeated: false,
                found: self.rooms[room].erase(erasure, offset, batch),
                erases: true,
            });
        }
        if record.keyed {
            let key = (room, record.id.to_string());
            match self.keys.get(&key) {
                Some(&(offset, first)) if time - first <= IDEMPOTENCY_WINDOW_MS => {
                    return Ok(Placement {
                        offset,
                        time: first,
                        repeated: true,
                        found: true,
                        erases: false,
                    });
                }
                _ => self.keys.insert(key, (offset, time)),
            };
        }
        self.rooms[room].all.push(Entry {
            offset,
            time,
            body: record.body.clone(),
            weight: (record.id.len() + record.body.len()) as u64,
        });
        Ok(Placement {
            offset,
            time,
            repeated: false,
            found: true,
            erases: false,
        })
    }
}
