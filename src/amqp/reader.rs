//! Reads the stream of one generation in order, from where it was read before.
//!
//! All that can go wrong with a stream's consumer goes wrong in silence, so a heartbeat that does
//! not come is as good as a lost connection: reading begins anew, at the next broker. Every such
//! beginning makes sure that the stream still is the same, by [`attach`]'s rules.

mod delivery;

use std::{mem, sync::Arc, time::Duration};

use futures_util::StreamExt;
use lapin::{
    Channel, Connection, Consumer,
    message::Delivery,
    options::{BasicConsumeOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::{
    sync::mpsc,
    time::{Instant, interval, sleep, timeout},
};

pub(super) use self::delivery::position;
use self::delivery::{Acks, ack, next_of, offset};
use super::{
    Generation,
    attach::{self, Checkpoint, Verdict},
    connection::Link,
    generations::made_at,
    publisher::{CONTENT_TYPE, Publisher},
    status::{Publishing, Status},
    topology::{Old, Topology, is_missing},
};
use crate::log::record::{DecodeError, Entry};

/// Records that the broker sends ahead. Older brokers send more: the rest of a chunk.
pub const PREFETCH: u16 = 1_000;

/// Between two looks at what is due.
const WATCH: Duration = Duration::from_millis(250);

/// So many heartbeats that did not come are a fault.
const BEATS_MISSED: u32 = 4;
const SHORTEST_SILENCE: Duration = Duration::from_secs(3);

/// How long a broker has to let a consumer in.
const CONSUME_PATIENCE: Duration = Duration::from_secs(10);

/// Between two attempts to replace a stream.
const REPLACE_INTERVAL: Duration = Duration::from_secs(1);

/// What a reader finds, in the order of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Nothing at or below this position can be read any more. What was known of producers does
    /// not hold behind a floor.
    Floor(u64),
    Entry {
        /// From 1: one more than the offset in the stream. Grows strictly.
        position: u64,
        entry: Entry,
    },
    /// The generation has ended, and the partition goes on with another one, which begins at its
    /// first position. It is the last event.
    Replaced(Generation),
    /// The log holds what only a later build understands. It is the last event.
    TooNew(DecodeError),
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Behind what was applied.
    Behind(Checkpoint),
    /// So long ago; about, and rather earlier.
    LookBack(Duration),
}

/// Why a session on one connection ended.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Broker(#[from] lapin::Error),
    #[error("the broker did not let the consumer in within {CONSUME_PATIENCE:?}")]
    NoAnswer,
    #[error("an ack can't be written")]
    Ack,
    #[error("the broker ended the consumer")]
    Cancelled,
    #[error("nothing came for {0:?}, not even a heartbeat")]
    Silence(Duration),
    #[error("a publish found no stream")]
    Unroutable,
    #[error("the broker says that there is no stream")]
    Missing,
}

/// What ends reading for good.
enum End {
    /// Nobody takes events any more.
    Unheard,
    Replaced(Old),
    TooNew(DecodeError),
}

enum Stop {
    Fault(Fault),
    End(End),
}

impl<E: Into<Fault>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Fault(error.into())
    }
}

/// Reads one generation of one partition.
pub struct Reader {
    pub topology: Arc<Topology>,
    pub partition: u16,
    pub generation: Generation,
    pub start: Start,
    pub publisher: Publisher,
    pub events: mpsc::Sender<Event>,
    pub status: Arc<Status>,
    /// The time between two heartbeats of any instance.
    pub beats: Duration,
}

impl Reader {
    /// Reads until the generation ends or nobody takes the events.
    pub async fn run(mut self, mut link: Link) {
        // One broker that is wrong about it should end nobody's epoch.
        let mut missing = 0;
        let end = loop {
            let connection = link.connect().await;
            let fault = match self.session(&connection, &mut link).await {
                Stop::End(end) => break end,
                Stop::Fault(fault) => fault,
            };
            self.status.update(|figures| {
                figures.reading = false;
                figures.stalled = matches!(fault, Fault::Silence(_));
                figures.lost += 1;
            });
            let stream = self.stream();
            tracing::warn!(stream, %fault, "reading starts again on a new connection");
            missing = match fault {
                Fault::Missing => missing + 1,
                _ => 0,
            };
            if missing == 2 {
                break End::Replaced(Old::Gone);
            }
            link.move_on();
        };
        self.status.update(|figures| figures.reading = false);
        let last = match end {
            End::Unheard => return,
            End::TooNew(error) => Event::TooNew(error),
            End::Replaced(fate) => Event::Replaced(self.replace(fate).await),
        };
        // Whoever does not take it any more does not need it.
        let _ = self.events.send(last).await;
    }

    fn stream(&self) -> String {
        self.topology.stream(self.partition, &self.generation)
    }

    async fn replace(&self, fate: Old) -> Generation {
        let mut reported = false;
        loop {
            let replaced = self
                .topology
                .replace(self.partition, &self.generation, fate)
                .await;
            match replaced {
                Ok(generation) => {
                    let stream = self.stream();
                    tracing::warn!(stream, %generation, "the stream was replaced");
                    return generation;
                }
                Err(error) => {
                    if !reported || error.is_permanent() {
                        let stream = self.stream();
                        tracing::error!(stream, %error, "the stream can't be replaced yet");
                    }
                    reported = true;
                }
            }
            sleep(REPLACE_INTERVAL).await;
        }
    }

    async fn session(&mut self, connection: &Connection, link: &mut Link) -> Stop {
        match self.read(connection, link).await {
            Ok(never) => match never {},
            Err(Stop::Fault(Fault::Broker(error))) if is_missing(&error) => {
                Stop::Fault(Fault::Missing)
            }
            Err(stop) => stop,
        }
    }

    async fn read(
        &mut self,
        connection: &Connection,
        link: &mut Link,
    ) -> Result<std::convert::Infallible, Stop> {
        // The end of the stream, as this broker has it: the marker comes back there.
        let mut end = Some(
            self.consume(connection, "next", AMQPValue::LongString("next".into()))
                .await?,
        );
        let marker = self.publisher.beat();
        let from = offset(self.start, made_at(&self.generation));
        let (_channel, mut records) = self.consume(connection, "records", from).await?;
        let mut session = Session {
            checkpoint: match self.start {
                Start::Behind(checkpoint) => Some(checkpoint),
                Start::LookBack(_) => None,
            },
            last: 0,
            acks: Acks::default(),
            heard: Instant::now(),
        };
        let mut watch = interval(WATCH);
        loop {
            tokio::select! {
                delivery = records.next() => {
                    let mut delivery = delivery.ok_or(Fault::Cancelled)??;
                    self.take(&mut session, &mut delivery).await?;
                    link.settle();
                    session.acks.take(delivery).await?;
                }
                delivery = next_of(&mut end) => {
                    let mut delivery = delivery.ok_or(Fault::Cancelled)??;
                    if self.is_marker(&mut delivery, marker) {
                        self.mark(&session, position(&delivery))?;
                        end = None;
                    } else {
                        ack(&delivery).await?;
                    }
                }
                () = self.publisher.suspects() => return Err(Fault::Unroutable.into()),
                _ = watch.tick() => {
                    session.acks.flush_if_due().await?;
                    self.look_for_silence(&mut session)?;
                }
            }
        }
    }

    async fn consume(
        &self,
        connection: &Connection,
        tag: &str,
        offset: AMQPValue,
    ) -> Result<(Channel, Consumer), Fault> {
        let stream = self.stream();
        let opening = async {
            let channel = connection.create_channel().await?;
            channel
                .basic_qos(PREFETCH, BasicQosOptions::default())
                .await?;
            let mut arguments = FieldTable::default();
            arguments.insert("x-stream-offset".into(), offset);
            let options = BasicConsumeOptions::default();
            let consumer = channel
                .basic_consume(stream.into(), tag.into(), options, arguments)
                .await?;
            Ok((channel, consumer))
        };
        timeout(CONSUME_PATIENCE, opening)
            .await
            .unwrap_or(Err(Fault::NoAnswer))
    }

    /// Hands a record on, after the first has shown that it is the right stream.
    async fn take(&mut self, session: &mut Session, delivery: &mut Delivery) -> Result<(), Stop> {
        let position = position(delivery);
        let entry = self.entry(delivery, position)?;
        let verdict = match session.last {
            0 => {
                let identity = entry.as_ref().map(Entry::identity);
                attach::first_record(session.checkpoint, position, identity)
            }
            last => attach::next_record(last, position),
        };
        let is_first = mem::replace(&mut session.last, position) == 0;
        session.heard = Instant::now();
        if verdict == Verdict::Replaced {
            return Err(Stop::End(End::Replaced(Old::Exists)));
        }
        if is_first {
            self.status.update(|figures| figures.reading = true);
        }
        match verdict {
            Verdict::Floor(floor) => self.send(Event::Floor(floor)).await?,
            // The record of the checkpoint, which was applied.
            Verdict::GoOn if is_first => return Ok(()),
            Verdict::GoOn | Verdict::Replaced => {}
        }
        let Some(entry) = entry else {
            return Ok(());
        };
        match &entry {
            Entry::Seal(_) => return Err(Stop::End(End::Replaced(Old::Exists))),
            Entry::Heartbeat(heartbeat) if heartbeat.producer == self.publisher.producer() => {
                self.publisher.returned(heartbeat.beat, position);
            }
            _ => {}
        }
        let identity = entry.identity();
        self.send(Event::Entry { position, entry }).await?;
        self.start = Start::Behind(Checkpoint { position, identity });
        self.status.heard(position);
        // Waiting for room in the queue was not the broker's silence.
        session.heard = Instant::now();
        Ok(())
    }

    /// The record in a message; none if it is not one of ours.
    fn entry(&self, delivery: &mut Delivery, position: u64) -> Result<Option<Entry>, Stop> {
        let content_type = delivery.properties.content_type().as_ref();
        let error = match content_type.is_some_and(|of| of.as_str() == CONTENT_TYPE) {
            true => match Entry::decode(&mem::take(&mut delivery.data).into()) {
                Ok(entry) => return Ok(Some(entry)),
                Err(error) if error.is_newer() => return Err(Stop::End(End::TooNew(error))),
                Err(error) => error.to_string(),
            },
            false => format!("its content type is not {CONTENT_TYPE}"),
        };
        let stream = self.stream();
        tracing::warn!(
            stream,
            position,
            error,
            "a message in the log is no record of ours"
        );
        self.status.update(|figures| figures.foreign += 1);
        Ok(None)
    }

    async fn send(&self, event: Event) -> Result<(), Stop> {
        self.events
            .send(event)
            .await
            .map_err(|_| Stop::End(End::Unheard))
    }

    fn is_marker(&self, delivery: &mut Delivery, marker: u64) -> bool {
        let decoded = Entry::decode(&mem::take(&mut delivery.data).into());
        matches!(decoded, Ok(Entry::Heartbeat(beat))
            if beat.producer == self.publisher.producer() && beat.beat == marker)
    }

    /// The marker came back at `position`.
    fn mark(&self, session: &Session, position: u64) -> Result<(), Stop> {
        self.status.update(|figures| figures.target = position);
        match attach::marker(session.checkpoint, position) {
            Some(Verdict::Replaced) if session.last == 0 => {
                Err(Stop::End(End::Replaced(Old::Exists)))
            }
            _ => Ok(()),
        }
    }

    fn look_for_silence(&self, session: &mut Session) -> Result<(), Fault> {
        let longest = (self.beats * BEATS_MISSED).max(SHORTEST_SILENCE);
        if self.status.figures().publishing != Publishing::Ready {
            // There may be nobody whose heartbeats could come.
            session.heard = Instant::now();
        }
        match session.heard.elapsed() {
            silence if silence > longest => Err(Fault::Silence(silence)),
            _ => Ok(()),
        }
    }
}

/// What is known on one connection.
struct Session {
    /// What reading asked for.
    checkpoint: Option<Checkpoint>,
    /// The position of the last message; 0 before the first has come.
    last: u64,
    acks: Acks,
    /// When a record came.
    heard: Instant,
}
