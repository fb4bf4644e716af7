//! When rooms come to rest.

use std::time::Duration;

use super::{
    reader::Reader,
    units::{HOUR, SECOND},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rooms {
    /// How long a room with nobody in it stays in memory.
    pub linger: Duration,
}

impl Rooms {
    pub(super) fn read(from: &mut Reader) -> Self {
        Self {
            linger: from.duration("rooms.linger", 10 * SECOND, Duration::ZERO..=HOUR),
        }
    }
}
