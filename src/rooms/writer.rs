//! The one writer of a partition's histories: applies ordered batches, trims, forgets old idempotency
//! keys.

use std::{
    collections::{HashMap, hash_map},
    ops::ControlFlow,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    checkpoint::{Checkpoint, Floor},
    dedup::Window,
    erasing::{AT_ONCE, Change},
    history::{History, Partition, Shared},
    identity::{self, LogIdentity},
    layout::{self, FirstSeen, HeadRecord, corrupt},
    retention::Retention,
    store::{Order, Store, StoreError, Write},
};
use crate::{
    delta::{Delta, Epoch, Erasure, RoomName},
    log::{Event, Place, Record},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistorySettings {
    /// For how long an idempotency key is remembered, in ms.
    pub idempotency_window_ms: u64,
}

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    Delta(Arc<Delta>),
    /// Its idempotency key had come with an earlier delta, which is at `offset`.
    Repeated {
        offset: u64,
        time: u64,
    },
    Erased {
        room: RoomName,
        erasure: Erasure,
        /// Of the erasure itself.
        offset: u64,
        time: u64,
        /// Whether the room had what was to be erased.
        found: bool,
    },
    /// It is no delta, or one that does not count.
    Passed,
}

/// What an opened-again database holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reopened {
    /// The offset up to which it has everything.
    pub checkpoint: u64,
    /// Whether something durable was lost, so that a new epoch has begun.
    pub lost: bool,
}

/// Writes the histories of one partition's rooms. There is one for a partition; it lives where the
/// log is read.
pub struct HistoryWriter {
    pub(super) shared: Arc<Shared>,
    pub(super) window: Window,
    pub(super) partition: u16,
    pub(super) checkpoint: Checkpoint,
    /// Of [`Shared::openings`]: what is known here is of that one.
    opening: u64,
    embedded: bool,
}

impl HistoryWriter {
    /// Opens the histories of an embedded log in `store`, making them if it is empty. What it finds
    /// counts as durable.
    pub fn open(store: Arc<dyn Store>, settings: HistorySettings) -> Result<Self, StoreError> {
        let mut writers = Self::open_partitions(store, settings, &LogIdentity::Embedded)?;
        Ok(writers.remove(0))
    }

    /// Opens the histories of a log in `store`, making them if it is empty; gives one writer for each
    /// partition. What they find counts as durable. Partitions whose life is not the one that `log`
    /// names begin anew.
    pub fn open_partitions(
        store: Arc<dyn Store>,
        settings: HistorySettings,
        log: &LogIdentity,
    ) -> Result<Vec<Self>, StoreError> {
        identity::establish(&*store, log)?;
        let mut checkpoints = Vec::new();
        let mut partitions = Vec::new();
        for n in 0..log.partitions() {
            let stored = identity::load(&*store, n)?;
            let (epoch, checkpoint) = match (stored, log) {
                (Some(stored), _) => (stored.epoch, stored.checkpoint),
                (None, LogIdentity::Embedded) => return Err(corrupt(&layout::epoch_key(n))),
                // No life has this name, so that one begins below.
                (None, LogIdentity::Shared { .. }) => Default::default(),
            };
            partitions.push(Partition {
                durable: AtomicU64::new(checkpoint.offset),
                epoch: RwLock::new(epoch),
                floor: RwLock::new(checkpoint.floor),
            });
            checkpoints.push(checkpoint);
        }
        let shared = Arc::new(Shared {
            store,
            partitions,
            openings: RwLock::new(0),
        });
        let window = Window {
            length_ms: settings.idempotency_window_ms,
        };
        let writer = |(partition, checkpoint)| Self {
            shared: shared.clone(),
            window,
            partition,
            checkpoint,
            opening: 0,
            embedded: *log == LogIdentity::Embedded,
        };
        let mut writers: Vec<_> = (0..).zip(checkpoints).map(writer).collect();
        if let LogIdentity::Shared { epochs, .. } = log {
            for (writer, epoch) in writers.iter_mut().zip(epochs) {
                if writer.own().epoch() != *epoch {
                    writer.renew(epoch.clone())?;
                }
            }
        }
        Ok(writers)
    }

    /// A reader of what this and the writers of the other partitions write.
    pub fn history(&self) -> History {
        History {
            shared: self.shared.clone(),
        }
    }

    pub fn partition(&self) -> u16 {
        self.partition
    }

    /// The life of the partition's positions.
    pub fn epoch(&self) -> Epoch {
        self.own().epoch()
    }

    /// The offset of the last applied entry; 0 for none.
    pub fn checkpoint(&self) -> u64 {
        self.checkpoint.offset
    }

    /// The last applied entry.
    pub fn place(&self) -> Option<Place> {
        self.checkpoint.place
    }

    /// The running maximum of the applied entries' stamps.
    pub fn clock(&self) -> u64 {
        self.checkpoint.clock
    }

    /// The tenure whose fence was applied last.
    pub fn tenure(&self) -> Option<u128> {
        self.checkpoint.producers.tenure
    }

    /// Applies `batch`, whose positions lie above the checkpoint, in one commit; gives one result an
    /// event, in order. `rules` tells how much of a room is kept. Nothing is shown to readers before
    /// [`Self::flush`] or [`Self::show`].
    pub fn apply(
        &mut self,
        batch: &[Event],
        rules: impl Fn(&RoomName) -> Retention,
    ) -> Result<Vec<Applied>, StoreError> {
        let mut checkpoint = self.checkpoint.clone();
        let mut seen = HashMap::new();
        let mut rooms: HashMap<RoomName, Change> = HashMap::new();
        let mut applied = Vec::with_capacity(batch.len());
        for event in batch {
            let Some((record, here)) = checkpoint.advance(event) else {
                applied.push(Applied::Passed);
                continue;
            };
            if let Some(erasure) = record.erases {
                let erasure = erasure.placed_at(here.offset);
                let change = rooms.entry(record.room.clone()).or_default();
                let found = self.erase(&record.room, erasure, checkpoint.floor, change)?;
                applied.push(Applied::Erased {
                    room: record.room.clone(),
                    erasure,
                    offset: here.offset,
                    time: here.time,
                    found,
                });
                continue;
            }
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
                .deltas
                .push(delta.clone());
            applied.push(Applied::Delta(delta));
        }

        let mut writes = Vec::with_capacity(applied.len() * 2 + rooms.len() + 1);
        for (key, first) in seen {
            writes.push(put(layout::seen_at_key(self.partition, first), key.clone()));
            writes.push(put(key, first.encode()));
        }
        for (room, mut change) in rooms {
            let unread = checkpoint.floor;
            change.deltas.retain(|delta| delta.offset > unread.offset);
            if change.is_nothing() {
                continue;
            }
            self.change(&room, &change, rules(&room), unread, &mut writes)?;
        }
        let key = layout::checkpoint_key(self.partition);
        writes.push(put(key, checkpoint.encode()));
        self.commit(writes)?;
        self.checkpoint = checkpoint;
        Ok(applied)
    }

    /// Some of what the log handed out was not applied, and never will be: producers may go on behind
    /// it.
    pub fn pass_over(&mut self) {
        self.checkpoint.producers.gap();
    }

    /// Brings everything applied to disk and shows it to readers; gives the new durable position.
    pub fn flush(&mut self) -> Result<u64, StoreError> {
        self.sync()?;
        Ok(self.show())
    }

    /// Brings everything applied to disk.
    pub fn sync(&self) -> Result<(), StoreError> {
        let openings = self.shared.openings.read();
        let openings = openings.unwrap_or_else(PoisonError::into_inner);
        match *openings == self.opening {
            true => self.shared.store.flush(),
            false => Err(StoreError::Closed),
        }
    }

    /// Shows everything applied to readers, on disk or not; gives the new durable position. For what
    /// the log can give once more.
    pub fn show(&self) -> u64 {
        let own = self.own();
        // The floor first: whoever reads up to the new position must know what is missing below it.
        let mut floor = own.floor.write().unwrap_or_else(PoisonError::into_inner);
        *floor = self.checkpoint.floor;
        drop(floor);
        own.durable.store(self.checkpoint.offset, Ordering::Release);
        self.checkpoint.offset
    }

    /// Opens the store again after a failed write, unless another partition's writer has done so
    /// since, and goes on from what it really holds.
    pub fn reopen(&mut self) -> Result<Reopened, StoreError> {
        let shared = self.shared.clone();
        let store = &*shared.store;
        let openings = shared.openings.write();
        let mut openings = openings.unwrap_or_else(PoisonError::into_inner);
        if *openings == self.opening {
            store.reopen()?;
            *openings += 1;
        }
        self.opening = *openings;
        drop(openings);
        let stored = identity::load(store, self.partition)?;
        let stored = stored.ok_or_else(|| corrupt(&layout::epoch_key(self.partition)))?;
        let own = &shared.partitions[usize::from(self.partition)];
        let behind = stored.checkpoint.offset < own.durable();
        self.checkpoint = stored.checkpoint;
        let lost = self.embedded && (behind || stored.epoch != own.epoch());
        if lost {
            let epoch = match stored.epoch == own.epoch() {
                true => identity::renew(store)?,
                false => stored.epoch,
            };
            *own.epoch.write().unwrap_or_else(PoisonError::into_inner) = epoch;
        }
        self.show();
        Ok(Reopened {
            checkpoint: self.checkpoint.offset,
            lost,
        })
    }

    /// Writes what belongs to this partition.
    pub(super) fn commit(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        let openings = self.shared.openings.read();
        let openings = openings.unwrap_or_else(PoisonError::into_inner);
        match *openings == self.opening {
            true => self.shared.store.commit(writes),
            false => Err(StoreError::Closed),
        }
    }

    pub(super) fn own(&self) -> &Partition {
        &self.shared.partitions[usize::from(self.partition)]
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

    /// Does to a room what a batch does to it, and trims what no longer fits.
    fn change(
        &self,
        room: &RoomName,
        change: &Change,
        rules: Retention,
        unread: Floor,
        writes: &mut Vec<Write>,
    ) -> Result<(), StoreError> {
        let mut head = self.shared.head(room)?;
        if head.newest > 0 && head.floor < unread.offset {
            let hidden = (head.floor + 1, unread.offset);
            self.shared
                .visit(room, hidden, Order::Ascending, |offset, entry| {
                    writes.push(trim(room, &mut head, offset, &entry));
                    ControlFlow::Continue(())
                })?;
            head.floor = unread.offset;
            head.floor_time = unread.time;
        }
        self.blank(room, change, &mut head, writes)?;
        for delta in &change.deltas {
            head.held.add(change.entry(delta).weight());
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
                    let entry = change.behind(offset, entry);
                    writes.push(trim(room, &mut head, offset, &entry));
                    ControlFlow::Continue(())
                })?;
        }
        let mut oldest_new = None;
        for delta in &change.deltas {
            let entry = change.entry(delta);
            if oldest_new.is_none() && rules.overfilled(head.held) {
                // Never written, so there is nothing to delete.
                trim(room, &mut head, delta.offset, &entry);
                continue;
            }
            oldest_new.get_or_insert(delta.time);
            writes.push(put(layout::entry_key(room, delta.offset), entry.encode()));
        }
        if change.hides_some() && head.held.count > 0 {
            self.index(room, &mut head, AT_ONCE, writes);
        } else if head.expiry == 0 && head.held.count > 0 {
            let oldest = oldest_new.unwrap_or(head.newest_time);
            self.index(room, &mut head, rules.expiry(oldest), writes);
        } else if head.expiry > rules.expiry(head.newest_time) {
            // The room's ttl became shorter. The next expiry finds out what is too old by now.
            let now = head.newest_time;
            self.index(room, &mut head, now, writes);
        }
        writes.push(put(layout::head_key(room), head.encode()));
        Ok(())
    }

    /// Moves the room to `expiry` in the index.
    pub(super) fn index(
        &self,
        room: &RoomName,
        head: &mut HeadRecord,
        expiry: u64,
        writes: &mut Vec<Write>,
    ) {
        if head.expiry != 0 {
            let key = layout::expiry_key(self.partition, head.expiry, room);
            writes.push(Write::Delete { key });
        }
        head.expiry = expiry;
        let key = layout::expiry_key(self.partition, expiry, room);
        writes.push(put(key, Vec::new()));
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
        exclude: record.exclude,
    }
}

/// Takes the oldest delta out of `head`; gives the write that takes it out of the store.
pub(super) fn trim(
    room: &RoomName,
    head: &mut HeadRecord,
    offset: u64,
    entry: &layout::Entry<'_>,
) -> Write {
    head.held.remove(entry.weight());
    head.floor = offset;
    head.floor_time = entry.time;
    Write::Delete {
        key: layout::entry_key(room, offset),
    }
}
