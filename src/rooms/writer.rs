//! The one writer of all histories: applies ordered batches, trims, forgets old idempotency keys.

use std::{
    collections::{HashMap, hash_map},
    ops::ControlFlow,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    dedup::Window,
    history::{History, Shared},
    identity,
    layout::{self, Checkpoint, Entry, FirstSeen, HeadRecord},
    retention::Retention,
    store::{Order, Store, StoreError, Write},
};
use crate::{
    delta::{Delta, RoomName},
    log::{Ordered, Record},
};

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
    pub(super) shared: Arc<Shared>,
    pub(super) window: Window,
    pub(super) checkpoint: Checkpoint,
}

impl HistoryWriter {
    /// Opens the histories in `store`, making them if it is empty. What it finds counts as durable.
    pub fn open(store: Arc<dyn Store>, settings: HistorySettings) -> Result<Self, StoreError> {
        let (epoch, checkpoint) = identity::load(&*store)?;
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

    /// Opens the store again after a failed write and goes on from what it really holds.
    pub fn reopen(&mut self) -> Result<Reopened, StoreError> {
        let store = &*self.shared.store;
        store.reopen()?;
        let (mut epoch, checkpoint) = identity::load(store)?;
        let mut known = self
            .shared
            .epoch
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let lost =
            epoch != *known || checkpoint.offset < self.shared.durable.load(Ordering::Acquire);
        if lost && epoch == *known {
            epoch = identity::renew(store)?;
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
}

pub(super) fn put(key: Vec<u8>, value: Vec<u8>) -> Write {
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
pub(super) fn trim(
    room: &RoomName,
    head: &mut HeadRecord,
    offset: u64,
    entry: &Entry<'_>,
) -> Write {
    head.held.remove(entry.weight());
    head.floor = offset;
    head.floor_time = entry.time;
    Write::Delete {
        key: layout::entry_key(room, offset),
    }
}

/// Moves the room to `expiry` in the index.
pub(super) fn index(room: &RoomName, head: &mut HeadRecord, expiry: u64, writes: &mut Vec<Write>) {
    if head.expiry != 0 {
        let key = layout::expiry_key(head.expiry, room);
        writes.push(Write::Delete { key });
    }
    head.expiry = expiry;
    writes.push(put(layout::expiry_key(expiry, room), Vec::new()));
}
