//! The frames in which a room answers its subscribers.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    delta::Delta,
    protocol::{
        frame::FrameBuilder,
        reply::{self, ClientInfo, Outcome, Presence, Publication, Subscribed},
    },
};

/// A subscription that begins at `offset` and asked for nothing earlier.
pub fn fresh(command: u32, epoch: &str, offset: u64) -> Bytes {
    subscribed(command, placed(epoch, offset))
}

/// A subscription that goes on from `offset`, with the first deltas behind it.
pub fn recovered(command: u32, epoch: &str, offset: u64, deltas: &[Arc<Delta>]) -> Bytes {
    let publications = deltas.iter().map(|d| Publication::from(&**d)).collect();
    let recovered = Subscribed {
        recovered: true,
        was_recovering: true,
        publications,
        ..placed(epoch, offset)
    };
    subscribed(command, recovered)
}

/// A subscription that goes on from `offset` and has missed something for good.
pub fn unrecovered(command: u32, epoch: &str, offset: u64) -> Bytes {
    let lost = Subscribed {
        was_recovering: true,
        ..placed(epoch, offset)
    };
    subscribed(command, lost)
}

/// A subscription of a room that stores nothing. Whoever comes back to a position may have missed something.
pub fn unstored(command: u32, was_recovering: bool) -> Bytes {
    reply::reply_frame(command, &Outcome::SubscribeUnstored { was_recovering })
}

/// Deltas as pushes; nothing for none.
pub fn pushes(deltas: &[Arc<Delta>]) -> Bytes {
    let mut frame = FrameBuilder::default();
    for delta in deltas {
        reply::write_delta(&mut frame, delta);
    }
    frame.finish().unwrap_or_default()
}

/// The answer to `presence` or `presence_stats` in a room where these clients are.
pub fn presence(command: u32, present: Vec<&ClientInfo>, stats: bool) -> Bytes {
    let outcome = if stats {
        let mut users: Vec<&str> = present.iter().map(|info| &*info.user).collect();
        users.sort_unstable();
        users.dedup();
        Outcome::PresenceStats {
            num_clients: present.len(),
            num_users: users.len(),
        }
    } else {
        Outcome::Presence {
            presence: Presence(present),
        }
    };
    reply::reply_frame(command, &outcome)
}

fn placed(epoch: &str, offset: u64) -> Subscribed<'_> {
    Subscribed {
        recoverable: true,
        positioned: true,
        epoch,
        offset,
        recovered: false,
        was_recovering: false,
        publications: vec![],
    }
}

fn subscribed(command: u32, subscribed: Subscribed<'_>) -> Bytes {
    reply::reply_frame(command, &Outcome::Subscribe(subscribed))
}
