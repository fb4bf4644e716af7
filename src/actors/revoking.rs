//! Taking back what a user may do, here and at the other servers.
//!
//! They hear of it over what may lose messages, so it is said several times, and each server acts on it once: who has
//! come back in the meantime, with a token that still counts, stays.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::sleep;
use tracing::warn;
use uuid::Uuid;

use super::{Services, Topic, hub::Revoked};
use crate::presence::form::Revocation;

/// How long after the one before it is said again: a server that has lost its connection may have it again.
const AGAIN: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
];

/// Revocations that are said again at a time. One that finds no place is said once.
pub const MAX_REPEATED: usize = 1_024;

/// Revocations that a server knows to have acted on; about older ones it would act again.
const MAX_REMEMBERED: usize = 4_096;

/// What came of a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Sessions that the user has here.
    pub sessions: usize,
    pub others: Others,
}

/// What the other servers know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// So many are known, and it was sent to all.
    Told(usize),
    /// There is no way to them.
    Unreachable,
}

impl Services {
    /// Takes something back from a user: at this server at once, at the others as soon as they hear of it.
    pub async fn revoke(self: &Arc<Self>, user: Arc<str>, what: Revoked) -> Ended {
        let sessions = self.hubs.revoke(&user, &what).await;
        let others = self.tell_others_to_revoke(user, what);
        Ended { sessions, others }
    }

    fn tell_others_to_revoke(self: &Arc<Self>, user: Arc<str>, what: Revoked) -> Others {
        let Some(others) = &self.others else {
            return Others::Told(0);
        };
        let room = match what {
            Revoked::Sessions => None,
            Revoked::Room(room) => Some(room),
        };
        let message = Revocation {
            from: self.presence.id(),
            id: Uuid::new_v4().to_string(),
            user,
            room,
        };
        let message = message.encode();
        if !others.tell(Topic::Revoked, message.clone()) {
            return Others::Unreachable;
        }
        let services = self.clone();
        actix_rt::spawn(async move {
            let Ok(_place) = services.repeats.try_acquire() else {
                warn!("too much is revoked to say it to the other servers more than once");
                return;
            };
            for pause in AGAIN {
                sleep(pause).await;
                if let Some(others) = &services.others {
                    // One that is not taken was not the last.
                    others.tell(Topic::Revoked, message.clone());
                }
            }
        });
        Others::Told(self.presence.with(|core, _| core.peers()))
    }
}

/// The revocations that were acted on.
#[derive(Debug, Default)]
pub struct Known(VecDeque<String>);

impl Known {
    /// Whether the revocation of that id is new.
    pub fn is_new(&mut self, id: &str) -> bool {
        if self.0.iter().any(|known| known == id) {
            return false;
        }
        if self.0.len() == MAX_REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(id.to_owned());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_is_acted_on_once_and_only_so_many_are_remembered() {
        let mut known = Known::default();
        assert!(known.is_new("a"));
        assert!(!known.is_new("a"));
        for other in 0..MAX_REMEMBERED {
            assert!(known.is_new(&other.to_string()));
        }
        assert_eq!(known.0.len(), MAX_REMEMBERED);
        assert!(known.is_new("a"), "it was to be forgotten");
    }
}
