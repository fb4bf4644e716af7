//! Which rooms there are.

use std::ops::ControlFlow;

use super::{
    history::{Head, History},
    layout,
    store::{Order, StoreError},
};
use crate::delta::RoomName;

/// Rooms in the order of their names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rooms {
    pub rooms: Vec<(RoomName, Head)>,
    /// The last room that was looked at, if there may be more behind it.
    pub next: Option<RoomName>,
}

impl History {
    /// Rooms that ever had a delta and whose names are `wanted`, begin with `prefix` and come behind `after`. Looks at up
    /// to `limit` rooms, wanted or not.
    pub fn rooms(
        &self,
        prefix: &str,
        after: Option<&RoomName>,
        limit: usize,
        wanted: impl Fn(&RoomName) -> bool,
    ) -> Result<Rooms, StoreError> {
        let (mut first, last) = layout::head_range_of(prefix);
        if let Some(after) = after {
            first = first.max([&layout::head_key(after)[..], &[0]].concat());
        }
        let (mut seen, mut damage) = (Vec::new(), None);
        let store = &self.shared.store;
        store.scan(&first, &last, Order::Ascending, &mut |key, _| {
            match layout::room_of_head(key) {
                Ok(room) => seen.push(room),
                Err(error) => damage = Some(error),
            }
            match damage.is_none() && seen.len() < limit {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        })?;
        if let Some(damage) = damage {
            return Err(damage);
        }
        let next = seen.last().filter(|_| seen.len() == limit).cloned();
        let mut rooms = Vec::new();
        for room in seen.into_iter().filter(wanted) {
            let head = self.head(&room)?;
            if head.newest > 0 {
                rooms.push((room, head));
            }
        }
        Ok(Rooms { rooms, next })
    }
}
