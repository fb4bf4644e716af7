//! Trimming what is too old, and forgetting idempotency keys whose window has passed.

use std::ops::ControlFlow;

use super::{
    erasing::{AT_ONCE, take_out},
    history::Shared,
    layout,
    retention::Retention,
    store::{Order, StoreError, Write},
    writer::{HistoryWriter, put, trim},
};
use crate::delta::RoomName;

/// Rooms, deltas and keys that one [`HistoryWriter::expire`] looks at: more than a batch can add,
/// so that expiry keeps up, and few enough not to be felt as a pause.
pub(super) const MAX_EXPIRED: usize = 1_024;

impl HistoryWriter {
    /// Trims deltas that are too old at `now` (ms since the Unix epoch), takes erased ones out, and
    /// forgets idempotency keys whose window has passed in log time; a bounded number of all. True if there may be
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
            self.commit(writes)?;
        }
        Ok(more_deltas || more_keys)
    }

    fn expire_deltas(
        &self,
        now: u64,
        rules: impl Fn(&RoomName) -> Retention,
        writes: &mut Vec<Write>,
    ) -> Result<bool, StoreError> {
        let (first, last) = layout::expiry_range(self.partition, now);
        let due = self.shared.keys(&first, &last)?;
        let mut budget = MAX_EXPIRED;
        for key in &due {
            let (_, room) = layout::expiring_room(key)?;
            let rules = rules(&room);
            let mut head = self.shared.head(&room)?;
            // When the oldest that stays is due.
            let mut next = None;
            let stored = (head.floor + 1, u64::MAX);
            self.shared
                .visit(&room, stored, Order::Ascending, |offset, entry| {
                    let erased = offset <= head.erased;
                    let expiry = match erased {
                        true => AT_ONCE,
                        false => rules.expiry(entry.time),
                    };
                    if expiry > now || budget == 0 {
                        next = Some(expiry);
                        return ControlFlow::Break(());
                    }
                    budget -= 1;
                    writes.push(match erased {
                        true => take_out(&room, &mut head, offset, &entry),
                        false => trim(&room, &mut head, offset, &entry),
                    });
                    ControlFlow::Continue(())
                })?;
            writes.push(Write::Delete { key: key.clone() });
            head.expiry = 0;
            if let Some(expiry) = next {
                self.index(&room, &mut head, expiry, writes);
            }
            writes.push(put(layout::head_key(&room), head.encode()));
            if budget == 0 {
                return Ok(true);
            }
        }
        Ok(due.len() == MAX_EXPIRED)
    }

    fn forget_keys(&self, writes: &mut Vec<Write>) -> Result<bool, StoreError> {
        let (first, last) =
            layout::seen_before_range(self.partition, self.window.start(self.checkpoint.clock));
        let outdated = self.shared.keys(&first, &last)?;
        let more = outdated.len() == MAX_EXPIRED;
        for key in outdated {
            if let Some(seen_key) = self.shared.store.get(&key)? {
                // Seen anew behind its window, the key belongs to a later delta.
                if self.shared.first_seen(&seen_key)? == Some(layout::when_seen(&key)?) {
                    writes.push(Write::Delete { key: seen_key });
                }
            }
            writes.push(Write::Delete { key });
        }
        Ok(more)
    }
}

impl Shared {
    /// The first [`MAX_EXPIRED`] keys of a range.
    pub(super) fn keys(&self, first: &[u8], last: &[u8]) -> Result<Vec<Vec<u8>>, StoreError> {
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
