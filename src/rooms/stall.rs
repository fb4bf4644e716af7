//! Frees sled from a deadlock of its own (0.34).
//!
//! A write that needs a new segment right behind where the file was just made shorter waits for that to be done, and
//! holds a lock meanwhile. The shortening is a job in the queue of sled's threads; if all of them are busy with jobs that
//! need the same lock, nobody comes to it. sled adds a thread when its queue gets long, so jobs that do no harm are put
//! into it: the new thread takes the oldest job first, which is the one that is waited for.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tracing::warn;

/// Between two looks. A write that takes so long is either stuck or waits for a slow disk, to which a few more jobs
/// are nothing.
pub const LOOK: Duration = Duration::from_millis(500);

/// More than may wait before sled adds a thread.
const JOBS: usize = 9;

/// Which writes were begun and which have ended.
#[derive(Debug, Default)]
pub struct Writes {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Writes {
    pub fn run<T>(&self, write: impl FnOnce() -> T) -> T {
        self.begun.fetch_add(1, Ordering::AcqRel);
        let result = write();
        self.ended.fetch_add(1, Ordering::AcqRel);
        result
    }
}

/// Looks at the writes of one database now and then.
#[derive(Debug, Default)]
pub struct Watch {
    seen: (u64, u64),
}

impl Watch {
    /// Whether writes are under way, and none has begun or ended since the last look.
    pub fn is_stalled(&mut self, writes: &Writes) -> bool {
        let begun = writes.begun.load(Ordering::Acquire);
        let now = (begun, writes.ended.load(Ordering::Acquire));
        let before = std::mem::replace(&mut self.seen, now);
        now == before && now.0 != now.1
    }
}

/// Has sled add a thread.
pub fn add_thread(tree: &sled::Tree) {
    warn!("a write takes long; sled is given one more thread");
    for _ in 0..JOBS {
        // What becomes of it is of no interest, and it is done at the latest behind the write.
        drop(tree.flush_async());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_write_that_is_under_way_at_two_looks_and_alone_is_stalled() {
        let (writes, mut watch) = (Writes::default(), Watch::default());
        assert!(!watch.is_stalled(&writes), "nothing was written yet");
        writes.run(|| {
            assert!(!watch.is_stalled(&writes), "it has just begun");
            assert!(watch.is_stalled(&writes));
            writes.run(|| assert!(!watch.is_stalled(&writes), "another has begun"));
            assert!(!watch.is_stalled(&writes), "the other has ended");
            assert!(watch.is_stalled(&writes));
        });
        assert!(!watch.is_stalled(&writes));
        assert!(!watch.is_stalled(&writes));
    }
}
