//! What one client may take, and how many there may be.

use std::time::Duration;

use super::{
    reader::Reader,
    units::{HOUR, KIB, MIB, MINUTE, SECOND},
};

/// More than the largest frame that a client may be sent at once, so that no healthy client is closed
/// by one frame.
pub const MIN_OUTBOX_BYTES: u64 = MIB;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub max_sessions: usize,
    pub max_rooms_per_session: usize,
    /// The longest message that a client may send.
    pub max_command_bytes: usize,
    /// What may wait for one client; above it, the client is disconnected as slow.
    pub max_outbox_bytes: usize,
    /// From the open socket to the client's `connect`.
    pub connect_timeout: Duration,
    pub ping_interval: Duration,
    /// From a ping to the client's pong; shorter than `ping_interval`.
    pub pong_timeout: Duration,
}

impl Limits {
    pub(super) fn read(from: &mut Reader) -> Self {
        let tenth = Duration::from_millis(100);
        let limits = Self {
            max_sessions: from.number("limits.max_sessions", 10_000, 1..=1_000_000),
            max_rooms_per_session: from.number("limits.max_rooms_per_session", 128, 1..=100_000),
            max_command_bytes: from.memory("limits.max_command_bytes", 256 * KIB, KIB..=16 * MIB),
            max_outbox_bytes: from.memory(
                "limits.max_outbox_bytes",
                MIB,
                MIN_OUTBOX_BYTES..=64 * MIB,
            ),
            connect_timeout: from.duration(
                "limits.connect_timeout",
                10 * SECOND,
                tenth..=5 * MINUTE,
            ),
            ping_interval: from.duration("limits.ping_interval", 25 * SECOND, SECOND..=HOUR),
            pong_timeout: from.duration("limits.pong_timeout", 8 * SECOND, tenth..=HOUR),
        };
        from.require(
            limits.pong_timeout < limits.ping_interval,
            "limits.pong_timeout",
            "shorter than",
            "limits.ping_interval",
        );
        limits
    }
}
