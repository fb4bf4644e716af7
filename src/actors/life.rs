//! Where a server is in its life, and how many sessions it has.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use crate::protocol::client_id;

/// What the server is doing, for those who must know.
pub struct Life {
    /// Set until everything is read that is due before clients are taken.
    catching_up: AtomicBool,
    draining: AtomicBool,
    failed: AtomicBool,
    sessions: AtomicUsize,
    next_session: AtomicU64,
}

impl Default for Life {
    fn default() -> Self {
        Self {
            catching_up: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            sessions: AtomicUsize::new(0),
            next_session: AtomicU64::new(client_id::first_session()),
        }
    }
}

impl Life {
    /// A server that takes nobody before [`Life::caught_up`].
    pub fn catching_up() -> Self {
        Self {
            catching_up: AtomicBool::new(true),
            ..Self::default()
        }
    }

    pub fn is_catching_up(&self) -> bool {
        self.catching_up.load(Ordering::Acquire)
    }

    /// From here on clients are taken.
    pub fn caught_up(&self) {
        self.catching_up.store(false, Ordering::Release);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// From here on no new session and no publish is taken.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the pipeline has ended though nobody stopped it.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Acquire)
    }

    /// Counts a session in, unless there are `limit`; it is counted out when the guard is dropped.
    pub fn admit(self: &Arc<Self>, limit: usize) -> Option<Admission> {
        let admitted = self
            .sessions
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
                (n < limit).then_some(n + 1)
            });
        admitted.ok().map(|_| Admission {
            life: self.clone(),
            session: self.next_session.fetch_add(1, Ordering::Relaxed),
        })
    }
}

/// One session's place.
pub struct Admission {
    life: Arc<Life>,
    session: u64,
}

impl Admission {
    /// The session's number, which tells it from all others.
    pub fn session(&self) -> u64 {
        self.session
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.life.sessions.fetch_sub(1, Ordering::AcqRel);
    }
}
