//! Deltas that are as large as whole resources: counted, and told now and then. They go to every client of a room, so
//! few of them cost more than all others.

use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tracing::warn;

use super::Services;
use crate::delta::RoomName;

/// Between two warnings; the figure counts every one.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// When to warn again.
pub struct Warnings(DefaultDirectRateLimiter);

impl Default for Warnings {
    fn default() -> Self {
        let quota = Quota::with_period(WARNING_INTERVAL).expect("a minute is no empty time");
        Self(RateLimiter::direct(quota))
    }
}

impl Services {
    /// Looks at the size of a delta that is about to be published, in bytes.
    pub fn look_at_size(&self, room: &RoomName, bytes: usize) {
        let limit = self.publish.large_delta_bytes;
        if bytes < limit {
            return;
        }
        self.metrics.large_delta(room.namespace());
        if self.large_deltas.0.check().is_ok() {
            warn!(
                room.name = %room,
                bytes,
                limit,
                "a delta is large; publish what has changed, and let clients fetch the rest"
            );
        }
    }
}
