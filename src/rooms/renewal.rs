//! Another life of a partition: its rooms begin anew.

use std::sync::PoisonError;

use super::{
    checkpoint::{Checkpoint, Floor},
    expiry::MAX_EXPIRED,
    layout,
    store::{StoreError, Write},
    writer::{HistoryWriter, put},
};
use crate::delta::{Epoch, RoomName, partition_of};

impl HistoryWriter {
    /// Forgets everything of the partition and begins the life `epoch` with nothing. Readers are
    /// shown nothing meanwhile. If it fails or the process dies, it has to be done again: the old
    /// life goes last.
    pub fn renew(&mut self, epoch: Epoch) -> Result<(), StoreError> {
        let hide = Checkpoint {
            // Hidden from readers that have just seen the old position.
            floor: Floor {
                offset: self.checkpoint.offset,
                time: u64::MAX,
            },
            ..Checkpoint::default()
        };
        self.checkpoint = hide;
        self.show();
        self.forget_rooms()?;
        self.forget_seen()?;
        self.checkpoint = Checkpoint::default();
        self.commit(vec![
            Write::Delete {
                key: layout::checkpoint_key(self.partition),
            },
            put(layout::epoch_key(self.partition), epoch.as_bytes().to_vec()),
        ])?;
        self.sync()?;
        let own = self.own();
        *own.epoch.write().unwrap_or_else(PoisonError::into_inner) = epoch;
        self.show();
        Ok(())
    }

    fn forget_rooms(&self) -> Result<(), StoreError> {
        let (mut first, last) = layout::head_range();
        loop {
            let heads = self.shared.keys(&first, &last)?;
            for key in &heads {
                let room = layout::room_of_head(key)?;
                if partition_of(&room, self.shared.count()) == self.partition {
                    self.forget_room(&room)?;
                }
            }
            match heads.last() {
                Some(seen) if heads.len() == MAX_EXPIRED => first = [seen, &[0][..]].concat(),
                _ => return Ok(()),
            }
        }
    }

    /// The room's head goes last, as it leads to everything else.
    fn forget_room(&self, room: &RoomName) -> Result<(), StoreError> {
        self.forget(layout::entry_range(room))?;
        self.forget(layout::first_seen_range(room))?;
        let head = self.shared.head(room)?;
        let keys = [
            layout::expiry_key(self.partition, head.expiry, room),
            layout::head_key(room),
        ];
        let delete = |key| Write::Delete { key };
        self.commit(keys.into_iter().map(delete).collect())
    }

    fn forget_seen(&self) -> Result<(), StoreError> {
        self.forget(layout::seen_before_range(self.partition, u64::MAX))
    }

    /// Deletes a range of keys, some at a time.
    fn forget(&self, (first, last): (Vec<u8>, Vec<u8>)) -> Result<(), StoreError> {
        loop {
            let keys = self.shared.keys(&first, &last)?;
            let is_last = keys.len() < MAX_EXPIRED;
            if !keys.is_empty() {
                let delete = |key| Write::Delete { key };
                self.commit(keys.into_iter().map(delete).collect())?;
            }
            if is_last {
                return Ok(());
            }
        }
    }
}
