//! What publishers may send, and how much of it may wait for the log.

use std::time::Duration;

use super::{
    reader::Reader,
    units::{DAY, GIB, KIB, MIB, MINUTE, SECOND},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    pub max_delta_bytes: usize,
    /// From this size on a delta is counted and told as large.
    pub large_delta_bytes: usize,
    /// Deltas in one request.
    pub max_batch: usize,
    /// The body of one request with several deltas.
    pub max_batch_bytes: usize,
    /// Records that may wait for the log; at least `max_batch`.
    pub queue_records: usize,
    /// Bytes of the records that may wait for the log; at least `max_batch_bytes`.
    pub queue_bytes: usize,
    /// How long a repeated idempotency key is recognised, in log time.
    pub idempotency_window: Duration,
}

impl Publish {
    pub(super) fn read(from: &mut Reader) -> Self {
        let publish = Self {
            max_delta_bytes: from.memory("publish.max_delta_bytes", 64 * KIB, 1..=512 * KIB),
            large_delta_bytes: from.memory("publish.large_delta_bytes", 16 * KIB, 1..=512 * KIB),
            max_batch: from.number("publish.max_batch", 1000, 1..=10_000),
            max_batch_bytes: from.memory("publish.max_batch_bytes", 4 * MIB, KIB..=64 * MIB),
            queue_records: from.number("publish.queue_records", 16_384, 1..=1_000_000),
            queue_bytes: from.memory("publish.queue_bytes", 64 * MIB, KIB..=4 * GIB),
            idempotency_window: from.duration(
                "publish.idempotency_window",
                5 * MINUTE,
                SECOND..=DAY,
            ),
        };
        // A batch is taken whole or not at all, so one that never fits the queue would be refused
        // for ever.
        from.require(
            publish.queue_records >= publish.max_batch,
            "publish.queue_records",
            "at least",
            "publish.max_batch",
        );
        from.require(
            publish.queue_bytes >= publish.max_batch_bytes,
            "publish.queue_bytes",
            "at least",
            "publish.max_batch_bytes",
        );
        from.require(
            publish.max_batch_bytes >= publish.max_delta_bytes,
            "publish.max_batch_bytes",
            "at least",
            "publish.max_delta_bytes",
        );
        publish
    }
}
