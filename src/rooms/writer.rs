//! The one writer of all histories: applies ordered batches, trims, forgets old idempotency keys.

use std::{
    collections::{HashMap, hash_map},
    ops::ControlFlow,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use uuid::Uuid;

use super::{
    dedup::Window,
    history::{History, Shared},
    layout::{self, Checkpoint, Entry, FirstSeen, HeadRecord},
    retention::Retention,
    store::{Order, Store, StoreError, Write},
};
use crate::{
    delta::{Delta, Epoch, RoomName},
    log::{Ordered, Record},
};

/// Rooms, deltas and keys that one [`HistoryWriter::expire`] looks at: more than a batch can add,
/// so that expiry keeps up, and few enough not to be felt as a pause.
const MAX_EXPIRED: usize = 1_024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistorySettings {
    /// For how long an idempotency key is remembered, in ms.
    pub idempotency_window_ms: u64,
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    Delta(Arc<Delta>),
    /// Its idempotency key had come with an earlier delta, which is at `offset`.
    Repeated {
        offset: u64,
        time: u64,
    },
}

/// What an opened-again database holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reopened {
    /// The offset up to which it has everything.
    pub checkpoint: u64,
    /// Whether something durable was lost, so that a new epoch has begun.
    pub lost: bool,
}

/// Writes all histories. There is one for a store; it lives where the log is read.
pub struct HistoryWriter {
    shared: Arc<Shared>,
    window: Window,
    checkpoint: Checkpoint,
}

impl HistoryWriter {
    /// Opens the histories in `store`, making them if it is empty. What it finds counts as durable.
    pub fn open(store: Arc<dyn Store>, settings: HistorySettings) -> Result<Self, StoreError> {
        let (epoch, checkpoint) = load(&*store)?;
        Ok(Self {
            shared: Arc::new(Shared {
                store,
                durable: AtomicU64::new(checkpoint.offset),
                epoch: RwLock::new(epoch),
            }),
            window: Window {
                length_ms: settings.idempotency_window_ms,
            },
            checkpoint,
        })
    }

    /// A reader of what this writes.
    pub fn history(&self) -> History {
        History {
            shared: self.shared.clone(),
        }
    }

    /// The offset of the last applied record; 0 for none.
    pub fn checkpoint(&self) -> u64 {
        self.checkpoint.offset
    }

    /// Applies `batch`, whose offsets lie above the checkpoint, in one commit; gives one result a
    /// record, in order. `rules` tells how much of a room is kept. Nothing is shown to readers
    /// before [`Self::flush`].
    pub fn apply(
        &mut self,
        batch: &[Ordered],
        rules: impl Fn(&RoomName) -> Retention,
    ) -> Result<Vec<Applied>, StoreError> {
        let mut checkpoint = self.checkpoint;
        let mut seen = HashMap::new();
        let mut rooms: HashMap<RoomName, Vec<Arc<Delta>>> = HashMap::new();
        let mut applied = Vec::with_capacity(batch.len());
        for Ordered { offset, record } in batch {
            debug_assert!(*offset > checkpoint.offset, "offsets grow strictly");
            checkpoint.offset = *offset;
            checkpoint.clock = checkpoint.clock.max(record.stamped);
            let here = FirstSeen {
                offset: *offset,
                time: checkpoint.clock,
            };
            if record.keyed
                && let Some(first) = self.repeats(record, here, &mut seen)?
            {
                applied.push(Applied::Repeated {
                    offset: first.offset,
                    time: first.time,
                });
                continue;
            }
            let delta = Arc::new(place(record, here));
            rooms
                .entry(record.room.clone())
                .or_default()
                .push(delta.clone());
            applied.push(Applied::Delta(delta));
        }

        let mut writes = Vec::with_capacity(applied.len() * 2 + rooms.len() + 1);
        for (key, first) in seen {
            writes.push(put(layout::seen_at_key(first), key.clone()));
            writes.push(put(key, first.encode()));
        }
        for (room, deltas) in rooms {
            self.extend(&room, &deltas, rules(&room), &mut writes)?;
        }
        writes.push(put(layout::CHECKPOINT_KEY.to_vec(), checkpoint.encode()));
        self.shared.store.commit(writes)?;
        self.checkpoint = checkpoint;
        Ok(applied)
    }

    /// Brings everything applied to disk and shows it to readers; gives the new durable position.
    pub fn flush(&mut self) -> Result<u64, StoreError> {
        self.shared.store.flush()?;
        self.shared
            .durable
            .store(self.checkpoint.offset, Ordering::Release);
        Ok(self.checkpoint.offset)
    }

    /// Trims deltas that are too old at `now` (ms since the Unix epoch), and forgets idempotency
    /// keys whose window has passed in log time; a bounded number of both. True if there may be
    /// more to do.
    pub fn expire(
        &mut self,
        now: u64,
        rules: impl Fn(&RoomName) -> Retention,
    ) -> Result<bool, StoreError> {
        let mut writes = Vec::new();
        let more_deltas = self.expire_deltas(now, rules, &mut writes)?;
        let more_keys = self.forget_keys(&mut writes)?;
        if !writes.is_empty() {
            self.shared.store.commit(writes)?;
        }
        Ok(more_deltas || more_keys)
    }

    /// Opens the store again after a failed write and goes on from what it really holds.
    pub fn reopen(&mut self) -> Result<Reopened, StoreError> {
        let store = &*self.shared.store;
        store.reopen()?;
        let (mut epoch, checkpoint) = load(store)?;
        let mut known = self
            .shared
            .epoch
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let lost =
            epoch != *known || checkpoint.offset < self.shared.durable.load(Ordering::Acquire);
        if lost && epoch == *known {
            epoch = new_epoch();
            store.commit(vec![put_epoch(&epoch)])?;
            store.flush()?;
        }
        *known = epoch;
        self.shared
            .durable
            .store(checkpoint.offset, Ordering::Release);
        self.checkpoint = checkpoint;
        Ok(Reopened {
            checkpoint: checkpoint.offset,
            lost,
        })
    }

    /// Bytes that the store's file system still has.
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        self.shared.store.free_bytes()
    }

    /// The delta that came with the record's key first, if its window still holds; else remembers
    /// `here` as the first.
    fn repeats(
        &self,
        record: &Record,
        here: FirstSeen,
        seen: &mut HashMap<Vec<u8>, FirstSeen>,
    ) -> Result<Option<FirstSeen>, StoreError> {
        let key = layout::first_seen_key(&record.room, &record.id);
        let holds = |first: &FirstSeen| self.window.holds(first.time, here.time);
        match seen.entry(key) {
            hash_map::Entry::Occupied(first) if holds(first.get()) => Ok(Some(*first.get())),
            hash_map::Entry::Occupied(mut outdated) => {
                outdated.insert(here);
                Ok(None)
            }
            hash_map::Entry::Vacant(vacant) => {
                let stored = self.shared.first_seen(vacant.key())?.filter(holds);
                if stored.is_none() {
                    vacant.insert(here);
                }
                Ok(stored)
            }
        }
    }

    /// Appends `deltas` to their room and trims what no longer fits.
    fn extend(
        &self,
        room: &RoomName,
        deltas: &[Arc<Delta>],
        rules: Retention,
        writes: &mut Vec<Write>,
    ) -> Result<(), StoreError> {
        let mut head = self.shared.head(room)?;
        for delta in deltas {
            head.held.add(Entry::of(delta).weight());
            head.newest = delta.offset;
            head.newest_time = delta.time;
        }
        if rules.overfilled(head.held) {
            let stored = (head.floor + 1, u64::MAX);
            self.shared
                .visit(room, stored, Order::Ascending, |offset, entry| {
                    if !rules.overfilled(head.held) {
                        return ControlFlow::Break(());
                    }
                    writes.push(trim(room, &mut head, offset, &entry));
                    ControlFlow::Continue(())
                })?;
        }
        let mut oldest_new = None;
        for delta in deltas {
            let entry = Entry::of(delta);
            if oldest_new.is_none() && rules.overfilled(head.held) {
                // Never written, so there is nothing to delete.
                trim(room, &mut head, delta.offset, &entry);
                continue;
            }
            oldest_new.get_or_insert(delta.time);
            writes.push(put(layout::entry_key(room, delta.offset), entry.encode()));
        }
        if head.expiry == 0 {
            let oldest = oldest_new.unwrap_or(head.newest_time);
            index(room, &mut head, rules.expiry(oldest), writes);
        } else if head.expiry > rules.expiry(head.newest_time) {
            // The room's ttl became shorter. The next expiry finds out what is too old by now.
            let now = head.newest_time;
            index(room, &mut head, now, writes);
        }
        writes.push(put(layout::head_key(room), head.encode()));
        Ok(())
    }

    fn expire_deltas(
        &self,
        now: u64,
        rules: impl Fn(&RoomName) -> Retention,
        writes: &mut Vec<Write>,
    ) -> Result<bool, StoreError> {
        let (first, last) = layout::expiry_range(now);
        let due = self.shared.keys(&first, &last)?;
        let mut budget = MAX_EXPIRED;
        for key in &due {
            let (_, room) = layout::expiring_room(key)?;
            let rules = rules(&room);
            let mut head = self.shared.head(&room)?;
            let mut oldest_kept = None;
            let stored = (head.floor + 1, u64::MAX);
            self.shared
                .visit(&room, stored, Order::Ascending, |offset, entry| {
                    if rules.expiry(entry.time) > now || budget == 0 {
                        oldest_kept = Some(entry.time);
                        return ControlFlow::Break(());
                    }
                    budget -= 1;
                    writes.push(trim(&room, &mut head, offset, &entry));
                    ControlFlow::Continue(())
                })?;
            writes.push(Write::Delete { key: key.clone() });
            head.expiry = 0;
            if let Some(time) = oldest_kept {
                index(&room, &mut head, rules.expiry(time), writes);
            }
            writes.push(put(layout::head_key(&room), head.encode()));
            if budget == 0 {
                return Ok(true);
            }
        }
        Ok(due.len() == MAX_EXPIRED)
    }

    fn forget_keys(&self, writes: &mut Vec<Write>) -> Result<bool, StoreError> {
        let (first, last) = layout::seen_before_range(self.window.start(self.checkpoint.clock));
        let outdated = self.shared.keys(&first, &last)?;
        let more = outdated.len() == MAX_EXPIRED;
        for key in outdated {
            if let Some(seen_key) = self.shared.store.get(&key)? {
                // Seen anew behind its window, the key belongs to a later delta.
                if self.shared.first_seen(&seen_key)? == Some(layout::seen_at(&key)?) {
                    writes.push(Write::Delete { key: seen_key });
                }
            }
            writes.push(Write::Delete { key });
        }
        Ok(more)
    }
}

impl Shared {
    fn first_seen(&self, key: &[u8]) -> Result<Option<FirstSeen>, StoreError> {
        let record = self.store.get(key)?;
        record
            .map(|record| FirstSeen::decode(key, &record))
            .transpose()
    }

    /// The first [`MAX_EXPIRED`] keys of a range.
    fn keys(&self, first: &[u8], last: &[u8]) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut keys = Vec::new();
        self.store
            .scan(first, last, Order::Ascending, &mut |key, _| {
                keys.push(key.to_vec());
                match keys.len() {
                    MAX_EXPIRED => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            })?;
        Ok(keys)
    }
}

/// Reads the log's identity and how far it is applied; makes both in an empty store.
fn load(store: &dyn Store) -> Result<(Epoch, Checkpoint), StoreError> {
    let Some(format) = store.get(layout::FORMAT_KEY)? else {
        return create(store);
    };
    let found = layout::decode_format(&format)?;
    if found > layout::FORMAT {
        return Err(StoreError::NewerFormat {
            found,
            known: layout::FORMAT,
        });
    }
    let epoch = store
        .get(layout::EPOCH_KEY)?
        .and_then(|epoch| String::from_utf8(epoch).ok());
    let epoch = epoch.ok_or_else(|| layout::corrupt(layout::EPOCH_KEY))?;
    let checkpoint = match store.get(layout::CHECKPOINT_KEY)? {
        Some(record) => Checkpoint::decode(&record)?,
        None => Checkpoint::default(),
    };
    Ok((epoch.into(), checkpoint))
}

fn create(store: &dyn Store) -> Result<(Epoch, Checkpoint), StoreError> {
    let mut empty = true;
    store.scan(&[], &[u8::MAX], Order::Ascending, &mut |_, _| {
        empty = false;
        ControlFlow::Break(())
    })?;
    if !empty {
        return Err(StoreError::Foreign);
    }
    let epoch = new_epoch();
    store.commit(vec![
        put_epoch(&epoch),
        put(layout::FORMAT_KEY.to_vec(), layout::encode_format()),
    ])?;
    store.flush()?;
    Ok((epoch, Checkpoint::default()))
}

fn new_epoch() -> Epoch {
    Uuid::new_v4().simple().to_string().into()
}

fn put_epoch(epoch: &Epoch) -> Write {
    put(layout::EPOCH_KEY.to_vec(), epoch.as_bytes().to_vec())
}

fn put(key: Vec<u8>, value: Vec<u8>) -> Write {
    Write::Put { key, value }
}

fn place(record: &Record, here: FirstSeen) -> Delta {
    Delta {
        room: record.room.clone(),
        offset: here.offset,
        time: here.time,
        id: record.id.clone(),
        keyed: record.keyed,
        data: record.body.clone(),
        info: record.info.clone(),
    }
}

/// Takes the oldest delta out of `head`; gives the write that takes it out of the store.
fn trim(room: &RoomName, head: &mut HeadRecord, offset: u64, entry: &Entry<'_>) -> Write {
    head.held.remove(entry.weight());
    head.floor = offset;
    head.floor_time = entry.time;
    Write::Delete {
        key: layout::entry_key(room, offset),
    }
}

/// Moves the room to `expiry` in the index.
fn index(room: &RoomName, head: &mut HeadRecord, expiry: u64, writes: &mut Vec<Write>) {
    if head.expiry != 0 {
        let key = layout::expiry_key(head.expiry, room);
        writes.push(Write::Delete { key });
    }
    head.expiry = expiry;
    writes.push(put(layout::expiry_key(expiry, room), Vec::new()));
}
