//! The frames in which a room answers its subscribers.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::{
    delta::{Delta, RoomName},
    presence::{core::TooMany, members::Stats},
    protocol::{
        bookmark::SingleRoom,
        codes::ErrorCode,
        event,
        format::{Codec, Format},
        frame::FrameBuilder,
        reply::{self, ClientInfo, Lasting, Outcome, Presence, Publication, Subscribed},
    },
};

/// What a room answers to subscribers of one format. Who reads events has sent no command: it is told nothing but
/// deltas, and to reload.
pub struct Answers<'a> {
    pub format: Format,
    pub room: &'a RoomName,
    pub epoch: &'a str,
    /// What the reply to a subscribe says of its end.
    pub lasting: Lasting,
}

impl Answers<'_> {
    /// A subscription that begins at `offset` and asked for nothing earlier.
    pub fn fresh(&self, command: u32, offset: u64) -> Bytes {
        match self.format {
            Format::Frames(codec) => subscribed(codec, command, self.placed(offset)),
            Format::Events => Bytes::new(),
        }
    }

    /// A subscription that begins behind `offset` with these deltas; one that `recovers` has missed nothing.
    pub fn begun(&self, command: u32, offset: u64, recovers: bool, deltas: &[Arc<Delta>]) -> Bytes {
        let Format::Frames(codec) = self.format else {
            return self.pushes(deltas);
        };
        let begun = Subscribed {
            recovered: recovers,
            was_recovering: recovers,
            publications: deltas.iter().map(|d| Publication::from(&**d)).collect(),
            ..self.placed(offset)
        };
        subscribed(codec, command, begun)
    }

    /// A subscription that goes on from `offset` and has missed something for good.
    pub fn unrecovered(&self, command: u32, offset: u64) -> Bytes {
        match self.format {
            Format::Frames(codec) => {
                let lost = Subscribed {
                    was_recovering: true,
                    ..self.placed(offset)
                };
                subscribed(codec, command, lost)
            }
            Format::Events => event::reload(self.room, &self.ids(), offset),
        }
    }

    /// A subscription of a room that stores nothing. Whoever comes back to a position may have missed something; the room
    /// is at `offset`.
    pub fn unstored(&self, command: u32, was_recovering: bool, offset: u64) -> Bytes {
        match self.format {
            Format::Frames(codec) => {
                let outcome = Outcome::SubscribeUnstored { was_recovering };
                reply::reply_frame(codec, command, &outcome)
            }
            Format::Events if was_recovering => self.unrecovered(command, offset),
            Format::Events => Bytes::new(),
        }
    }

    /// Deltas as pushes; nothing for none.
    pub fn pushes(&self, deltas: &[Arc<Delta>]) -> Bytes {
        match self.format {
            Format::Frames(codec) => {
                let mut frame = FrameBuilder::new(codec);
                for delta in deltas {
                    reply::write_delta(&mut frame, delta);
                }
                frame.finish().unwrap_or_default()
            }
            Format::Events => {
                let (mut events, ids) = (BytesMut::new(), self.ids());
                for delta in deltas {
                    event::write_delta(&mut events, &ids, delta);
                }
                events.freeze()
            }
        }
    }

    fn ids(&self) -> SingleRoom {
        SingleRoom::new(self.room, self.epoch)
    }

    fn placed(&self, offset: u64) -> Subscribed<'_> {
        Subscribed {
            recoverable: true,
            positioned: true,
            epoch: self.epoch,
            offset,
            recovered: false,
            was_recovering: false,
            publications: vec![],
            lasting: self.lasting,
        }
    }
}

/// The answer to `presence_stats`.
pub fn presence_stats(codec: Codec, command: u32, stats: Stats) -> Bytes {
    let outcome = Outcome::PresenceStats {
        num_clients: stats.clients,
        num_users: stats.users,
    };
    reply::reply_frame(codec, command, &outcome)
}

/// The answer to `presence` in a room where these clients are, or too many.
pub fn presence(codec: Codec, command: u32, present: Result<Vec<ClientInfo>, TooMany>) -> Bytes {
    let outcome = match &present {
        Ok(present) => Outcome::Presence {
            presence: Presence(present),
        },
        Err(TooMany) => Outcome::Error(
            ErrorCode::NOT_AVAILABLE.because("too many are in the room; ask for presence_stats"),
        ),
    };
    reply::reply_frame(codec, command, &outcome)
}

fn subscribed(codec: Codec, command: u32, subscribed: Subscribed<'_>) -> Bytes {
    reply::reply_frame(codec, command, &Outcome::Subscribe(subscribed))
}
