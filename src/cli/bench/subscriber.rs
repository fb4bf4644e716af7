//! One subscriber: connects, subscribes to one room, and books what comes.

use std::rc::Rc;

use tokio::time::Instant;

use crate::{
    cli::bench::{
        payload::{Scanner, Stamp},
        tally::Tally,
    },
    client::{
        address::ServerUrl,
        follow::{Event, Follower, Stop},
        message::PONG,
        socket::{ReadBuffer, Socket, SocketError},
    },
    delta::RoomName,
};

/// What all subscribers share.
pub struct Shared {
    pub url: ServerUrl,
    pub tally: Rc<Tally>,
    pub buffer: ReadBuffer,
    pub scanner: Scanner,
}

/// A subscriber that the server has answered.
pub struct Subscriber {
    index: usize,
    socket: Socket,
    shared: Rc<Shared>,
}

/// Why there is no subscriber.
#[derive(Debug, thiserror::Error)]
pub enum NotSubscribed {
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error(transparent)]
    Stopped(#[from] Stop),
}

impl Subscriber {
    /// Connects and waits until the subscription is there.
    pub async fn start(
        index: usize,
        room: RoomName,
        shared: Rc<Shared>,
    ) -> Result<Self, NotSubscribed> {
        let mut socket = Socket::open(&shared.url, &shared.buffer).await?;
        let mut follower = Follower::new("roomwire bench", [room]);
        socket.send(&follower.open()).await?;
        while !follower.is_complete() {
            let mut taken = Ok(None);
            socket
                .receive(|message| {
                    if taken.is_ok() {
                        taken = follower.receive(message, |_: Event| {});
                    }
                })
                .await?;
            taken?;
        }
        Ok(Self {
            index,
            socket,
            shared,
        })
    }

    /// Books deliveries and answers pings until the connection ends, which is booked as well.
    pub async fn run(mut self) {
        let Err(error) = self.listen().await;
        self.shared.tally.end(error.to_string());
    }

    async fn listen(&mut self) -> Result<std::convert::Infallible, SocketError> {
        let Shared { tally, scanner, .. } = &*self.shared;
        // Emptied after every read, and kept: a delivery must not cost an allocation.
        let mut stamps: Vec<Stamp> = Vec::new();
        loop {
            let mut pinged = false;
            self.socket
                .receive(|message| match scanner.stamp(message) {
                    Some(stamp) => stamps.push(stamp),
                    None => pinged |= message == PONG.as_bytes(),
                })
                .await?;
            let ns = tally.ns_at(Instant::now());
            tally.deliver(self.index, ns, stamps.drain(..));
            if pinged {
                self.socket.send(PONG).await?;
            }
        }
    }
}
