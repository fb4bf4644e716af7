//! What was said in a room: positions, pages and heads, for all who read.

use std::{
    ops::ControlFlow,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    checkpoint::Floor,
    layout::{self, Entry, FirstSeen, HeadRecord},
    retention::Held,
    store::{Order, Store, StoreError},
};
use crate::delta::{Delta, Epoch, RoomName, partition_of};

/// All rooms' histories. Cheap to clone. Every call may read the disk, so async callers take it to
/// a blocking thread.
///
/// Nobody is shown what lies beyond the durable position: a crash could give its offset to another
/// delta.
#[derive(Clone)]
pub struct History {
    pub(super) shared: Arc<Shared>,
}

/// What the readers and the writers have in common.
pub(super) struct Shared {
    pub store: Arc<dyn Store>,
    pub partitions: Vec<Partition>,
    /// How often the store was opened again. Whoever writes holds it, so that nobody writes on top
    /// of what he believes to be there and is not any more.
    pub openings: RwLock<u64>,
}

/// One partition as readers see it.
pub(super) struct Partition {
    pub durable: AtomicU64,
    pub epoch: RwLock<Epoch>,
    pub floor: RwLock<Floor>,
}

impl Partition {
    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    pub fn epoch(&self) -> Epoch {
        let epoch = self.epoch.read().unwrap_or_else(PoisonError::into_inner);
        epoch.clone()
    }

    pub fn floor(&self) -> Floor {
        *self.floor.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far a room came and how far back it reaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Head {
    /// Up to here deltas are trimmed or were never read, 0 for none: whoever stands below it may
    /// have missed something for good.
    pub floor: u64,
    /// Where somebody who has read everything stands; 0 in a room that never had a delta.
    pub newest: u64,
    /// Deltas kept, and the places of erased ones until they are trimmed or taken out.
    pub count: u64,
    /// Bytes kept, of data, info and id.
    pub bytes: u64,
}

/// How much one page may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimit {
    pub deltas: usize,
    /// Of data, info and id; the first delta of a page may exceed it.
    pub bytes: usize,
}

/// Deltas of one room in the order asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// As in [`Head`], when the page had been read: deltas up to here are gone, even if the page
    /// was to begin below.
    pub floor: u64,
    pub deltas: Vec<Delta>,
    /// Whether the limit cut the page off.
    pub more: bool,
}

/// Where the deltas from some time on begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// The deltas of that time and later are exactly those behind this offset.
    pub after: u64,
    /// Whether none of them is trimmed yet.
    pub complete: bool,
}

impl History {
    /// Names the life of the room's positions; another one after history was lost.
    pub fn epoch(&self, room: &RoomName) -> Epoch {
        self.shared.partition(room).epoch()
    }

    /// The offset in the room's partition of the log up to which everything is safe; 0 for nothing
    /// yet.
    pub fn durable(&self, room: &RoomName) -> u64 {
        self.shared.partition(room).durable()
    }

    /// In which partition of the log a room is.
    pub fn partition_of(&self, room: &RoomName) -> u16 {
        partition_of(room, self.shared.count())
    }

    pub fn head(&self, room: &RoomName) -> Result<Head, StoreError> {
        let partition = self.shared.partition(room);
        let durable = partition.durable();
        let record = self.shared.head(room)?;
        let unread = partition.floor().offset.min(durable);
        // What a partition's floor has overtaken is trimmed with the room's next delta.
        let held = match record.newest <= unread {
            true => Held::default(),
            false => record.held,
        };
        Ok(Head {
            floor: record.floor.min(durable).max(unread),
            newest: record.newest.min(durable).max(unread),
            count: held.count,
            bytes: held.bytes,
        })
    }

    /// The deltas behind `after` up to `upto`, oldest first; never beyond the durable position. A
    /// reader whose cursor is `after` has missed something for good if the page's floor is above
    /// it.
    pub fn page(
        &self,
        room: &RoomName,
        after: u64,
        upto: u64,
        limit: PageLimit,
    ) -> Result<Page, StoreError> {
        self.read(room, (after, upto), limit, Order::Ascending)
    }

    /// As [`History::page`], in either order.
    pub fn range(
        &self,
        room: &RoomName,
        after: u64,
        upto: u64,
        limit: PageLimit,
        order: Order,
    ) -> Result<Page, StoreError> {
        self.read(room, (after, upto), limit, order)
    }

    /// The deltas on one side of `since`, which is not among them: ascending those behind it,
    /// descending those before it; without `since` all, from the oldest or the newest one on.
    pub fn list(
        &self,
        room: &RoomName,
        since: Option<u64>,
        limit: PageLimit,
        order: Order,
    ) -> Result<Page, StoreError> {
        let range = match (order, since) {
            (Order::Ascending, since) => (since.unwrap_or(0), u64::MAX),
            (Order::Descending, None) => (0, u64::MAX),
            (Order::Descending, Some(since)) => (0, since.saturating_sub(1)),
        };
        self.read(room, range, limit, order)
    }

    /// Where to read from for everything that happened at `time` (ms since the Unix epoch) or
    /// later.
    pub fn since(&self, room: &RoomName, time: u64) -> Result<Since, StoreError> {
        let durable = self.durable(room);
        let head = self.shared.floored(room)?;
        // Times grow with offsets. Whatever is below `low` is older than `time`, what is at `high`
        // or above is not.
        let mut low = head.hidden() + 1;
        let mut high = head.newest.min(durable) + 1;
        while low < high {
            let middle = low + (high - low) / 2;
            match self.shared.first_at(room, middle, high - 1)? {
                Some((offset, found)) if found < time => low = offset + 1,
                _ => high = middle,
            }
        }
        // Read last, so that it tells of every trim that the search could have met.
        let head = self.shared.floored(room)?;
        Ok(Since {
            after: (low - 1).min(durable),
            complete: head.floor == 0 || head.floor_time < time,
        })
    }

    /// The offset behind which the newest `count` deltas that are kept begin.
    pub fn before_newest(&self, room: &RoomName, count: u32) -> Result<u64, StoreError> {
        let durable = self.durable(room);
        if durable == 0 {
            return Ok(0);
        }
        let (mut before, mut left) = (durable, count);
        let all = (self.shared.floored(room)?.hidden() + 1, durable);
        self.shared
            .visit(room, all, Order::Descending, |offset, entry| {
                if entry.is_blank() {
                    return ControlFlow::Continue(());
                }
                if left == 0 {
                    return ControlFlow::Break(());
                }
                left -= 1;
                before = offset - 1;
                ControlFlow::Continue(())
            })?;
        // Behind the scan, as for pages: what was trimmed meanwhile is not kept.
        Ok(before.max(self.shared.floored(room)?.floor.min(durable)))
    }

    fn read(
        &self,
        room: &RoomName,
        (after, upto): (u64, u64),
        limit: PageLimit,
        order: Order,
    ) -> Result<Page, StoreError> {
        let durable = self.durable(room);
        let upto = upto.min(durable);
        let mut after = after.max(self.shared.floored(room)?.hidden());
        loop {
            let (mut deltas, more) = self.shared.entries(room, (after, upto), limit, order)?;
            // A trim may have overtaken the scan. Its floor, read behind the scan, hides what the
            // scan saw of the trimmed deltas; nothing above that floor can have been missing.
            let head = self.shared.floored(room)?;
            deltas.retain(|delta| delta.offset > head.hidden());
            if deltas.is_empty() && more && head.hidden() > after {
                after = head.hidden();
                continue;
            }
            return Ok(Page {
                floor: head.floor.min(durable),
                deltas,
                more,
            });
        }
    }
}

impl Shared {
    pub fn count(&self) -> u16 {
        u16::try_from(self.partitions.len()).expect("partitions are numbered by u16")
    }

    pub fn partition(&self, room: &RoomName) -> &Partition {
        &self.partitions[usize::from(partition_of(room, self.count()))]
    }

    /// A room's record with the higher of its own floor and its partition's.
    fn floored(&self, room: &RoomName) -> Result<HeadRecord, StoreError> {
        let mut head = self.head(room)?;
        let floor = self.partition(room).floor();
        if floor.offset > head.floor {
            head.floor = floor.offset;
            head.floor_time = floor.time;
        }
        Ok(head)
    }

    /// A room without a record never had a delta.
    pub fn head(&self, room: &RoomName) -> Result<HeadRecord, StoreError> {
        let key = layout::head_key(room);
        match self.store.get(&key)? {
            Some(record) => HeadRecord::decode(&key, &record),
            None => Ok(HeadRecord::default()),
        }
    }

    /// The delta that came first with the idempotency key of `key`, a `k` key.
    pub fn first_seen(&self, key: &[u8]) -> Result<Option<FirstSeen>, StoreError> {
        let record = self.store.get(key)?;
        record
            .map(|record| FirstSeen::decode(key, &record))
            .transpose()
    }

    /// Visits the offsets and entries from `first` to `last`.
    pub fn visit(
        &self,
        room: &RoomName,
        (first, last): (u64, u64),
        order: Order,
        mut visit: impl FnMut(u64, Entry<'_>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut damage = None;
        self.store.scan(
            &layout::entry_key(room, first),
            &layout::entry_key(room, last),
            order,
            &mut |key, record| {
                let entry = layout::entry_offset(key)
                    .and_then(|offset| Ok((offset, Entry::decode(key, record)?)));
                match entry {
                    Ok((offset, entry)) => visit(offset, entry),
                    Err(error) => {
                        damage = Some(error);
                        ControlFlow::Break(())
                    }
                }
            },
        )?;
        damage.map_or(Ok(()), Err)
    }

    /// Offset and time of the first delta from `first` to `last`.
    fn first_at(
        &self,
        room: &RoomName,
        first: u64,
        last: u64,
    ) -> Result<Option<(u64, u64)>, StoreError> {
        let mut found = None;
        self.visit(room, (first, last), Order::Ascending, |offset, entry| {
            found = Some((offset, entry.time));
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// The deltas behind `after` up to `upto`, and whether the limit left some out.
    fn entries(
        &self,
        room: &RoomName,
        (after, upto): (u64, u64),
        limit: PageLimit,
        order: Order,
    ) -> Result<(Vec<Delta>, bool), StoreError> {
        let mut deltas = Vec::new();
        let (mut bytes, mut more) = (0, false);
        if after >= upto {
            return Ok((deltas, more));
        }
        self.visit(room, (after + 1, upto), order, |offset, entry| {
            if entry.is_blank() {
                return ControlFlow::Continue(());
            }
            bytes += entry.weight();
            let fits = deltas.is_empty() || bytes <= limit.bytes as u64;
            if deltas.len() == limit.deltas || !fits {
                more = true;
                return ControlFlow::Break(());
            }
            deltas.push(entry.to_delta(room, offset));
            ControlFlow::Continue(())
        })?;
        Ok((deltas, more))
    }
}
