//! Who is where, and who is told.

use std::time::Duration;

use super::{
    reader::Reader,
    units::{MINUTE, SECOND},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// How long one who has gone is not missed.
    pub leave_grace: Duration,
    /// The largest room whose members are listed, and announced.
    pub max_members: usize,
    /// Between two signs of life to other instances; one that gives none for three is gone.
    pub beat: Duration,
    /// The backend hears who is online.
    pub user_events: bool,
}

impl Presence {
    pub(super) fn read(from: &mut Reader) -> Self {
        Self {
            leave_grace: from.duration(
                "presence.leave_grace",
                15 * SECOND,
                Duration::ZERO..=10 * MINUTE,
            ),
            max_members: from.number("presence.max_members", 1000, 1..=100_000),
            beat: from.duration("presence.beat", 2 * SECOND, SECOND / 10..=MINUTE),
            user_events: from.switch("presence.user_events", false),
        }
    }
}
