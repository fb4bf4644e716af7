//! The least that a fan-out can cost: an epoll loop that copies bytes from publishers to
//! subscribers, with no protocol, no order to keep on a disk and no history.
//!
//! A connection begins with four bytes: the number of the room that it subscribes to, or
//! [`PUBLISHER`]. A publisher sends frames of a room's number and a payload of fixed size, and gets
//! one byte back for each.

use std::{
    collections::HashMap,
    io::{self, ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
};

use roomwire::cli::bench::process::allow_sockets;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// The argument that makes this program the floor.
pub const MODE: &str = "floor";
pub const PUBLISHER: u32 = u32::MAX;
/// Bytes of a frame in front of its payload.
pub const ROOM_BYTES: usize = 4;

const LISTENER: u64 = u64::MAX;
const MOST_SOCKETS: usize = 15_000;

#[derive(Default)]
struct Room {
    subscribers: Vec<usize>,
    /// Payloads of this round; used when batching.
    burst: Vec<u8>,
}

struct Peer {
    stream: TcpStream,
    role: Role,
}

enum Role {
    /// Has not said yet what it is.
    New,
    Publisher {
        half_frame: Vec<u8>,
    },
    /// What did not fit into the socket.
    Subscriber {
        outbox: Vec<u8>,
    },
}

struct Floor {
    epoll: std::os::fd::OwnedFd,
    batching: bool,
    frame_bytes: usize,
    /// By the number that epoll knows them under; a peer that left leaves its place empty.
    peers: Vec<Option<Peer>>,
    rooms: HashMap<u32, Room>,
    /// Rooms with a burst.
    bursting: Vec<u32>,
    buffer: Vec<u8>,
}

/// Prints its port and serves until it is killed; `kind` is `batching` or `one-write`, and the size
/// of a payload.
pub fn serve(kind: &[String]) -> anyhow::Result<()> {
    let [mode, bytes] = kind else {
        anyhow::bail!("the floor takes a mode and a size");
    };
    allow_sockets(MOST_SOCKETS)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?.port());
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let data = EventData::new_u64(LISTENER);
    epoll::add(&epoll, &listener, data, EventFlags::IN)?;
    let mut floor = Floor {
        epoll,
        batching: mode == "batching",
        frame_bytes: ROOM_BYTES + bytes.parse::<usize>()?,
        peers: Vec::new(),
        rooms: HashMap::new(),
        bursting: Vec::new(),
        buffer: vec![0; 64 * 1024],
    };
    let mut events = Vec::with_capacity(1024);
    loop {
        events.clear();
        epoll::wait(
            &floor.epoll,
            rustix::buffer::spare_capacity(&mut events),
            None,
        )?;
        for &Event { flags, data } in &events {
            match data.u64() {
                LISTENER => floor.accept(&listener)?,
                peer => floor.ready(peer as usize, flags)?,
            }
        }
        floor.flush_bursts()?;
    }
}

impl Floor {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let data = EventData::new_u64(self.peers.len() as u64);
            epoll::add(&self.epoll, &stream, data, EventFlags::IN)?;
            let role = Role::New;
            self.peers.push(Some(Peer { stream, role }));
        }
    }

    fn ready(&mut self, at: usize, flags: EventFlags) -> io::Result<()> {
        if flags.contains(EventFlags::OUT) {
            self.drain(at)?;
        }
        if !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            return Ok(());
        }
        let Some(peer) = &mut self.peers[at] else {
            return Ok(());
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        match peer.stream.read(&mut buffer) {
            Ok(read) if read > 0 => self.take(at, &buffer[..read])?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            _ => self.leave(at),
        }
        self.buffer = buffer;
        Ok(())
    }

    fn take(&mut self, at: usize, mut bytes: &[u8]) -> io::Result<()> {
        let Some(Peer { stream, role }) = &mut self.peers[at] else {
            return Ok(());
        };
        if matches!(role, Role::New) {
            let Some((&room, rest)) = bytes.split_first_chunk() else {
                return Err(io::Error::other(
                    "a connection begins with four bytes at once",
                ));
            };
            bytes = rest;
            match u32::from_be_bytes(room) {
                PUBLISHER => {
                    let half_frame = Vec::new();
                    *role = Role::Publisher { half_frame };
                }
                room => {
                    let outbox = Vec::new();
                    *role = Role::Subscriber { outbox };
                    self.rooms.entry(room).or_default().subscribers.push(at);
                    return stream.write_all(b"!");
                }
            }
        }
        let Role::Publisher { half_frame } = role else {
            return Ok(());
        };
        half_frame.extend_from_slice(bytes);
        let whole = half_frame.len() - half_frame.len() % self.frame_bytes;
        let rest = half_frame.split_off(whole);
        let frames = std::mem::replace(half_frame, rest);
        for frame in frames.chunks_exact(self.frame_bytes) {
            let (room, payload) = frame
                .split_first_chunk()
                .expect("a frame begins with a room");
            self.publish(u32::from_be_bytes(*room), payload)?;
        }
        // The publisher has at most a few requests under way: their answers fit into its socket.
        let answers = vec![b'!'; frames.len() / self.frame_bytes];
        match &mut self.peers[at] {
            Some(peer) => peer.stream.write_all(&answers),
            None => Ok(()),
        }
    }

    fn publish(&mut self, number: u32, payload: &[u8]) -> io::Result<()> {
        let Some(room) = self.rooms.get_mut(&number) else {
            return Ok(());
        };
        if self.batching {
            if room.burst.is_empty() {
                self.bursting.push(number);
            }
            room.burst.extend_from_slice(payload);
            return Ok(());
        }
        for &subscriber in &room.subscribers {
            send(&self.epoll, &mut self.peers, subscriber, payload)?;
        }
        Ok(())
    }

    fn flush_bursts(&mut self) -> io::Result<()> {
        for number in self.bursting.drain(..) {
            let room = self.rooms.entry(number).or_default();
            for &subscriber in &room.subscribers {
                send(&self.epoll, &mut self.peers, subscriber, &room.burst)?;
            }
            room.burst.clear();
        }
        Ok(())
    }

    fn drain(&mut self, at: usize) -> io::Result<()> {
        if let Some(Peer {
            stream,
            role: Role::Subscriber { outbox },
        }) = &mut self.peers[at]
        {
            let written = written(stream.write(outbox))?;
            outbox.drain(..written);
            if outbox.is_empty() {
                let data = EventData::new_u64(at as u64);
                epoll::modify(&self.epoll, stream, data, EventFlags::IN)?;
            }
        }
        Ok(())
    }

    fn leave(&mut self, at: usize) {
        self.peers[at] = None;
        for room in self.rooms.values_mut() {
            room.subscribers.retain(|&subscriber| subscriber != at);
        }
    }
}

fn send(
    epoll: &std::os::fd::OwnedFd,
    peers: &mut [Option<Peer>],
    at: usize,
    bytes: &[u8],
) -> io::Result<()> {
    let Some(Peer {
        stream,
        role: Role::Subscriber { outbox },
    }) = &mut peers[at]
    else {
        return Ok(());
    };
    if !outbox.is_empty() {
        outbox.extend_from_slice(bytes);
        return Ok(());
    }
    let written = written(stream.write(bytes))?;
    if written < bytes.len() {
        outbox.extend_from_slice(&bytes[written..]);
        let data = EventData::new_u64(at as u64);
        epoll::modify(epoll, stream, data, EventFlags::IN | EventFlags::OUT)?;
    }
    Ok(())
}

/// A full socket takes nothing; one that is gone takes everything, and is found by its next read.
fn written(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}
