//! Taking deltas back: their bodies go, and their places stay, so that no position changes its meaning.
//!
//! A single delta is blanked at once. An erasure of all up to some offset, which may be of very many, only says so in
//! the room's record: from then on none of them is shown, and they are taken out a few at a time, by
//! [`HistoryWriter::expire`]. Neither touches the room's floor, as nobody missed anything: who comes back is told of
//! no loss.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    checkpoint::Floor,
    history::Shared,
    layout::{self, Entry, HeadRecord},
    store::{StoreError, Write},
    writer::{HistoryWriter, put},
};
use crate::delta::{Delta, Erasure, RoomName};

/// An expiry that has always passed.
pub(super) const AT_ONCE: u64 = 1;

/// What a batch does to one room.
#[derive(Default)]
pub(super) struct Change {
    pub deltas: Vec<Arc<Delta>>,
    /// Single deltas, of the batch or stored before.
    erased: BTreeSet<u64>,
    /// All up to here; 0 for none.
    erased_upto: u64,
}

impl Change {
    pub fn is_nothing(&self) -> bool {
        self.deltas.is_empty() && self.erased.is_empty() && self.erased_upto == 0
    }

    /// Whether some of what is stored is to be taken out later.
    pub fn hides_some(&self) -> bool {
        self.erased_upto > 0
    }

    /// How the delta of the batch is stored.
    pub fn entry<'a>(&self, delta: &'a Delta) -> Entry<'a> {
        let erased = delta.offset <= self.erased_upto || self.erased.contains(&delta.offset);
        match erased {
            true => Entry::blank(delta.time),
            false => Entry::of(delta),
        }
    }

    /// What a stored entry is like behind the batch.
    pub fn behind<'a>(&self, offset: u64, entry: Entry<'a>) -> Entry<'a> {
        match self.erased.contains(&offset) {
            true => Entry::blank(entry.time),
            false => entry,
        }
    }
}

impl HistoryWriter {
    /// Notes what an erasure does to its room; whether that had what it names, be it erased already.
    pub(super) fn erase(
        &self,
        room: &RoomName,
        erasure: Erasure,
        unread: Floor,
        change: &mut Change,
    ) -> Result<bool, StoreError> {
        let head = self.shared.head(room)?;
        match erasure {
            Erasure::Upto(offset) => {
                if head.newest > 0 || !change.deltas.is_empty() {
                    change.erased_upto = offset.max(change.erased_upto);
                }
                Ok(true)
            }
            Erasure::One(offset) => {
                if offset <= head.floor.max(unread.offset) {
                    return Ok(false);
                }
                if offset <= head.erased.max(change.erased_upto) {
                    return Ok(true);
                }
                let new = change.deltas.iter().any(|delta| delta.offset == offset);
                let found = new || self.shared.stored(room, offset)?.is_some();
                if found {
                    change.erased.insert(offset);
                }
                Ok(found)
            }
        }
    }

    /// Blanks what was stored before the batch, and hides what is to be taken out.
    pub(super) fn blank(
        &self,
        room: &RoomName,
        change: &Change,
        head: &mut HeadRecord,
        writes: &mut Vec<Write>,
    ) -> Result<(), StoreError> {
        for &offset in &change.erased {
            if offset > head.floor
                && let Some((time, weight)) = self.shared.stored(room, offset)?
            {
                head.held.bytes = head.held.bytes.saturating_sub(weight);
                let blank = Entry::blank(time).encode();
                writes.push(put(layout::entry_key(room, offset), blank));
            }
        }
        head.erased = head.erased.max(change.erased_upto);
        Ok(())
    }
}

/// Takes an erased delta out of `head`, whose floor stays; gives the write that takes it out of the store.
pub(super) fn take_out(
    room: &RoomName,
    head: &mut HeadRecord,
    offset: u64,
    entry: &Entry<'_>,
) -> Write {
    head.held.remove(entry.weight());
    Write::Delete {
        key: layout::entry_key(room, offset),
    }
}

impl Shared {
    /// Time and weight of the entry at an offset.
    fn stored(&self, room: &RoomName, offset: u64) -> Result<Option<(u64, u64)>, StoreError> {
        let key = layout::entry_key(room, offset);
        let Some(record) = self.store.get(&key)? else {
            return Ok(None);
        };
        let entry = Entry::decode(&key, &record)?;
        Ok(Some((entry.time, entry.weight())))
    }
}
