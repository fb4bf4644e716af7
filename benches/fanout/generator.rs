//! Loads the floor as `roomwire bench` loads Roomwire: the same publishers, the same rates, the
//! same distance ahead.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use roomwire::cli::bench::process::{Watched, allow_sockets};
use rustix::event::{
    Timespec,
    epoll::{self, CreateFlags, Event, EventData, EventFlags},
};

use crate::{
    BATCH, Case, FloorKind, Load, PAYLOAD_BYTES, PUBLISHERS,
    floor::{PUBLISHER, ROOM_BYTES},
    servers::Floor,
    table::Figures,
};

const SETTLE: Duration = Duration::from_secs(1);
const LOST_AFTER: Duration = Duration::from_secs(5);
/// Deltas that a saturating publisher may be ahead of each subscriber.
const AHEAD: u64 = 64 * 1024 / PAYLOAD_BYTES as u64 + 1;

struct Subscriber {
    stream: TcpStream,
    /// The beginning of a payload whose end has not come.
    half: Vec<u8>,
}

struct Publisher {
    stream: TcpStream,
    rooms: Vec<u32>,
    count: u64,
    unanswered: usize,
    /// When the next delta is due; used at a steady rate.
    due: Duration,
}

struct Generator<'a> {
    case: &'a Case,
    /// Bytes of a payload.
    bytes: usize,
    started: Instant,
    end: Duration,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    due: u64,
    delivered: u64,
    last_delivery: Duration,
    latency_ns: Histogram<u64>,
    buffer: Vec<u8>,
}

/// Measures one floor under one load.
pub fn run(case: &Case, kind: &FloorKind, seconds: u64) -> anyhow::Result<Figures> {
    allow_sockets(case.subscribers + PUBLISHERS)?;
    let floor = Floor::start(kind)?;
    let process = Watched(floor.pid());
    let memory_before = process.resident_bytes()?;
    let mut generator = Generator::connect(case, kind, floor.port(), seconds)?;
    thread::sleep(SETTLE);
    let memory = process.resident_bytes()? as f64 - memory_before as f64;
    let bytes_per_connection = memory / case.subscribers as f64;
    if matches!(case.load, Load::Idle) {
        return Ok(Figures {
            bytes_per_connection,
            ..Figures::default()
        });
    }
    let cpu_before = process.cpu_seconds()?;
    generator.publish()?;
    let cpu = process.cpu_seconds()? - cpu_before;
    ensure!(
        generator.due == generator.delivered,
        "the floor delivered {} of {}",
        generator.delivered,
        generator.due
    );
    let delivered = generator.delivered as f64;
    let latency = |quantile| generator.latency_ns.value_at_quantile(quantile) as f64 / 1e6;
    Ok(Figures {
        cost: Some(cpu / (delivered / 1e6)),
        deliveries_per_second: Some(delivered / generator.last_delivery.as_secs_f64()),
        p50_ms: Some(latency(0.5)),
        p99_ms: Some(latency(0.99)),
        bytes_per_connection,
    })
}

impl<'a> Generator<'a> {
    fn connect(case: &'a Case, kind: &FloorKind, port: u16, seconds: u64) -> anyhow::Result<Self> {
        let open = |hello: u32| -> anyhow::Result<TcpStream> {
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_nodelay(true)?;
            stream.write_all(&hello.to_be_bytes())?;
            Ok(stream)
        };
        let subscriber = |index: usize| {
            let mut stream = open((index % case.rooms) as u32)?;
            stream.read_exact(&mut [0])?;
            stream.set_nonblocking(true)?;
            let half = Vec::new();
            anyhow::Ok(Subscriber { stream, half })
        };
        let publisher = |index: usize| {
            let first = (index % case.rooms) as u32;
            let rooms = (first..case.rooms as u32).step_by(PUBLISHERS).collect();
            let due = match case.load {
                Load::PerSecond(rate) => Duration::from_secs(1).mul_f64(index as f64) / rate,
                Load::Saturating | Load::Idle => Duration::ZERO,
            };
            let stream = open(PUBLISHER)?;
            anyhow::Ok(Publisher {
                stream,
                rooms,
                count: 0,
                unanswered: 0,
                due,
            })
        };
        let subscribers = (0..case.subscribers)
            .map(subscriber)
            .collect::<Result<_, _>>();
        Ok(Self {
            case,
            bytes: kind.bytes,
            started: Instant::now(),
            end: Duration::from_secs(seconds),
            publishers: (0..PUBLISHERS).map(publisher).collect::<Result<_, _>>()?,
            subscribers: subscribers.context("can't subscribe to the floor")?,
            due: 0,
            delivered: 0,
            last_delivery: Duration::ZERO,
            latency_ns: Histogram::new_with_bounds(1_000, 60_000_000_000, 3)?,
            buffer: vec![0; 256 * 1024],
        })
    }

    fn publish(&mut self) -> anyhow::Result<()> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let publishers = self.publishers.iter().map(|publisher| &publisher.stream);
        let subscribers = self.subscribers.iter().map(|subscriber| &subscriber.stream);
        for (index, stream) in publishers.chain(subscribers).enumerate() {
            epoll::add(
                &epoll,
                stream,
                EventData::new_u64(index as u64),
                EventFlags::IN,
            )?;
        }
        let mut events: Vec<Event> = Vec::with_capacity(1024);
        self.started = Instant::now();
        loop {
            let now = self.started.elapsed();
            let over = now >= self.end;
            let wait = if !over {
                self.publish_what_is_due(now)?
            } else if self.due > self.delivered {
                LOST_AFTER
            } else {
                return Ok(());
            };
            events.clear();
            let wait = Timespec::try_from(wait)?;
            epoll::wait(
                &epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&wait),
            )?;
            if events.is_empty() && over {
                return Ok(());
            }
            for event in &events {
                match (event.data.u64() as usize).checked_sub(PUBLISHERS) {
                    None => self.read_answers(event.data.u64() as usize)?,
                    Some(subscriber) => self.read_deliveries(subscriber)?,
                }
            }
        }
    }

    /// Returns how long there is nothing more to publish.
    fn publish_what_is_due(&mut self, now: Duration) -> anyhow::Result<Duration> {
        let mut wait = self.end.saturating_sub(now);
        for index in 0..self.publishers.len() {
            match self.case.load {
                Load::PerSecond(rate) => {
                    let interval = Duration::from_secs(1) * PUBLISHERS as u32 / rate;
                    let publisher = &mut self.publishers[index];
                    let due = publisher.due;
                    if due <= now {
                        publisher.due += interval;
                        self.send(index, 1, now)?;
                    }
                    wait = wait.min(self.publishers[index].due.saturating_sub(now));
                }
                Load::Saturating => {
                    let audience = (self.case.subscribers / self.case.rooms) as u64;
                    let on_their_way = (self.due - self.delivered) / audience;
                    if self.publishers[index].unanswered == 0 && on_their_way <= AHEAD {
                        self.send(index, BATCH, now)?;
                    }
                }
                Load::Idle => {}
            }
        }
        Ok(wait)
    }

    fn send(&mut self, index: usize, deltas: usize, now: Duration) -> anyhow::Result<()> {
        let publisher = &mut self.publishers[index];
        let mut frames = Vec::with_capacity(deltas * (ROOM_BYTES + self.bytes));
        for _ in 0..deltas {
            let turn = (publisher.count % publisher.rooms.len() as u64) as usize;
            publisher.count += 1;
            frames.extend_from_slice(&publisher.rooms[turn].to_be_bytes());
            frames.extend_from_slice(&(now.as_nanos() as u64).to_be_bytes());
            frames.resize(frames.len() + self.bytes - 8, b'x');
        }
        publisher.unanswered += deltas;
        self.due += (deltas * self.case.subscribers / self.case.rooms) as u64;
        Ok(publisher.stream.write_all(&frames)?)
    }

    fn read_answers(&mut self, index: usize) -> anyhow::Result<()> {
        let publisher = &mut self.publishers[index];
        let read = publisher.stream.read(&mut self.buffer)?;
        ensure!(read > 0, "the floor hung up");
        publisher.unanswered -= read;
        Ok(())
    }

    fn read_deliveries(&mut self, index: usize) -> anyhow::Result<()> {
        let subscriber = &mut self.subscribers[index];
        let kept = subscriber.half.len();
        self.buffer[..kept].copy_from_slice(&subscriber.half);
        let read = subscriber.stream.read(&mut self.buffer[kept..])?;
        ensure!(read > 0, "the floor hung up");
        let now = self.started.elapsed();
        let payloads = self.buffer[..kept + read].chunks_exact(self.bytes);
        subscriber.half.clear();
        subscriber.half.extend_from_slice(payloads.remainder());
        for payload in payloads {
            let at = payload
                .first_chunk()
                .expect("a payload begins with its time");
            let latency = (now.as_nanos() as u64).saturating_sub(u64::from_be_bytes(*at));
            self.latency_ns.saturating_record(latency);
            self.delivered += 1;
        }
        self.last_delivery = now;
        Ok(())
    }
}
