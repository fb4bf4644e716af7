//! What a room's history may hold, and what must go. Pure.

/// How much of a room is kept; whichever bound is reached first trims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Deltas, at least 1.
    pub size: u64,
    /// Age in milliseconds.
    pub ttl_ms: u64,
    /// Bytes of data, info and id. A delta that alone is larger is kept until the next one comes.
    pub bytes: u64,
}

/// How much a room holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    pub count: u64,
    pub bytes: u64,
}

impl Held {
    pub fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }

    pub fn remove(&mut self, bytes: u64) {
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl Retention {
    /// Whether the oldest delta must go, so that the rest fits.
    pub fn overfilled(&self, held: Held) -> bool {
        held.count > self.size.max(1) || (held.bytes > self.bytes && held.count > 1)
    }

    /// The time from which on a delta of `time` is too old, in ms since the Unix epoch.
    pub fn expiry(&self, time: u64) -> u64 {
        time.saturating_add(self.ttl_ms)
    }
}
