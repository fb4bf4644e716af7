//! What there is in the broker: the exchange and the streams of the log, and the exchanges and queues
//! beside it. Declared by whoever comes first, in any race.
//!
//! Whatever exists is taken as it is, so an instance needs no permission to configure anything if
//! somebody has set up the topology before, until a stream has to be replaced.

mod exchanges;
mod ingress;
mod objects;
mod records;
mod streams;
mod survey;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lapin::{
    Channel, Connection,
    options::{ConfirmSelectOptions, QueueDeleteOptions},
};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use self::streams::queue_exists;
pub use self::{
    objects::{Found, Kind, Object},
    survey::{Extent, PartitionSurvey, Survey},
};
use super::{
    Generation, Settings,
    connection::{ConnectError, Connector, reply},
    generations::{Generations, MetaRecord, Proposal, new_generation},
    publisher::CONTENT_TYPE,
};
use crate::log::{
    publisher::wall_clock_ms,
    record::{Entry, Seal},
};

/// How long one look at the topology may take, declarations included.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a connection may take to close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// Between two looks whether a connection is blocked, and how many of them count.
const BLOCKED_LOOK: Duration = Duration::from_millis(500);
const BLOCKED_LOOKS: u32 = 4;

/// Whole segments are trimmed, and the last never: so a stream is about a tenth larger than asked.
const SEGMENTS: u64 = 10;
const MAX_SEGMENT_BYTES: u64 = 50_000_000;

#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(
        "this broker has no streams, which takes RabbitMQ 3.9 or later with the feature flag \
         stream_queue enabled; it says {reply:?}"
    )]
    NoStreams { reply: String },
    #[error(
        "the user may not declare {what}; an administrator can set it up, or permit to configure \
         and write what begins with {prefix:?} and a dot; the broker says {reply:?}"
    )]
    Forbidden {
        what: String,
        prefix: String,
        reply: String,
    },
    #[error(
        "the log {prefix:?} has {found} partitions, which never change; configured are {configured}"
    )]
    Partitions {
        prefix: String,
        found: u16,
        configured: u16,
    },
    #[error("can't {doing}: {source}")]
    Broker {
        doing: &'static str,
        source: lapin::Error,
    },
    #[error("can't {doing}: the broker took the message and no queue did")]
    Unroutable { doing: &'static str },
    #[error("can't {doing}: the broker refused the message")]
    Refused { doing: &'static str },
    #[error("can't read the stream of generations: the broker ended it")]
    Ended,
    #[error(
        "the broker is out of memory or disk and takes nothing; `rabbitmq-diagnostics alarms` says which"
    )]
    Blocked,
    #[error("the broker did not answer within {PATIENCE:?}")]
    NoAnswer,
}

impl TopologyError {
    /// Whether the broker says that there is no such stream.
    pub fn is_missing_stream(&self) -> bool {
        match self {
            Self::Broker { source, .. } => is_missing(source),
            _ => false,
        }
    }

    /// Whether trying again won't help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::NoStreams { .. } | Self::Forbidden { .. } | Self::Partitions { .. } => true,
            Self::Connect(error) => error.is_permanent(),
            _ => false,
        }
    }
}

/// Whether there still is a stream that is to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Old {
    /// Others may be reading it: it gets a seal.
    Exists,
    Gone,
}

/// Knows the names, and makes what is missing.
pub struct Topology {
    connector: Arc<Connector>,
    prefix: String,
    partitions: u16,
    max_age: Duration,
    max_bytes: u64,
    /// Which address to begin with: the one behind where it failed.
    turn: AtomicUsize,
}

impl Topology {
    pub fn new(connector: Arc<Connector>, settings: &Settings) -> Self {
        Self {
            connector,
            prefix: settings.prefix.clone(),
            partitions: settings.partitions,
            max_age: settings.max_age,
            max_bytes: settings.max_bytes,
            turn: AtomicUsize::new(0),
        }
    }

    /// Begins all names.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The exchange that leads to every stream, by its name.
    pub fn exchange(&self) -> String {
        format!("{}.log", self.prefix)
    }

    pub fn stream(&self, partition: u16, generation: &str) -> String {
        format!("{}.log.{partition}.{generation}", self.prefix)
    }

    fn meta(&self) -> String {
        format!("{}.meta", self.prefix)
    }

    /// Makes what is missing; gives the current generation of each partition.
    pub async fn establish(&self) -> Result<Vec<Generation>, TopologyError> {
        self.connected(async |connection| {
            self.declare_common(connection).await?;
            self.declare_ingress(connection).await?;
            self.declare_bus(connection).await?;
            self.declare_events(connection).await?;
            let generations = self.read(connection).await?;
            self.check_partitions(&generations)?;
            let missing: Vec<u16> = (0..self.partitions)
                .filter(|partition| generations.current(*partition).is_none())
                .collect();
            let generations = match missing.is_empty() {
                true => generations,
                false => self.elect(connection, generations, &missing).await?,
            };
            self.check_partitions(&generations)?;
            let current = (0..self.partitions).filter_map(|n| generations.current(n).cloned());
            Ok(current.collect())
        })
        .await
    }

    /// Ends generation `old` of a partition; gives the one that everybody goes on with.
    pub async fn replace(
        &self,
        partition: u16,
        old: &Generation,
        fate: Old,
    ) -> Result<Generation, TopologyError> {
        self.connected(async |connection| {
            self.declare_common(connection).await?;
            let mut generations = self.read(connection).await?;
            self.check_partitions(&generations)?;
            if generations.current(partition) == Some(old) {
                // The seal comes first: whoever reads it replaces the stream too, so that nobody
                // goes on alone if this instance dies here. It comes again afterwards, for those
                // who began to read between the two.
                self.seal(connection, partition, old, fate).await?;
                generations = self.elect(connection, generations, &[partition]).await?;
                self.seal(connection, partition, old, fate).await?;
            } else if generations.current(partition).is_none() {
                generations = self.elect(connection, generations, &[partition]).await?;
            }
            generations
                .current(partition)
                .cloned()
                .ok_or(TopologyError::Ended)
        })
        .await
    }

    /// Writes the stream of generations anew, from what an instance knows that reads them all.
    pub async fn mend(&self, generations: &BTreeMap<u16, Generation>) -> Result<(), TopologyError> {
        self.connected(async |connection| {
            self.declare_common(connection).await?;
            let known = self.read(connection).await?;
            self.check_partitions(&known)?;
            let publishing = confirming(connection).await?;
            for (&partition, generation) in generations {
                // All who do this know the same, and the first one wins.
                if known.current(partition).is_none() {
                    let proposal = known.propose(partition, self.partitions, generation.clone());
                    let record = MetaRecord::Generation(proposal);
                    self.append_meta(&publishing, &record).await?;
                }
            }
            Ok(())
        })
        .await
    }

    async fn connected<T>(
        &self,
        work: impl AsyncFnOnce(&Connection) -> Result<T, TopologyError>,
    ) -> Result<T, TopologyError> {
        let name = format!("{} topology", self.prefix);
        let all = async {
            let turn = self.turn.load(Ordering::Relaxed);
            let connection = self.connector.connect(turn, &name).await?;
            let done = tokio::select! {
                done = work(&connection) => done,
                () = is_blocked(&connection) => Err(TopologyError::Blocked),
            };
            // Whatever becomes of it: everything is done or has failed. Nothing is written on a
            // connection that is blocked.
            let closing = connection.close(200, "OK".into());
            let _ = timeout(CLOSE_PATIENCE, closing).await;
            done
        };
        let done = timeout(PATIENCE, all)
            .await
            .unwrap_or(Err(TopologyError::NoAnswer));
        if done.is_err() {
            self.turn.fetch_add(1, Ordering::Relaxed);
        }
        done
    }

    fn check_partitions(&self, generations: &Generations) -> Result<(), TopologyError> {
        match generations.partitions() {
            Some(found) if found != self.partitions => Err(TopologyError::Partitions {
                prefix: self.prefix.clone(),
                found,
                configured: self.partitions,
            }),
            _ => Ok(()),
        }
    }

    /// Proposes a new generation for each of `partitions`; gives what everybody agrees on. The
    /// streams are there before anybody can hear of them.
    async fn elect(
        &self,
        connection: &Connection,
        known: Generations,
        partitions: &[u16],
    ) -> Result<Generations, TopologyError> {
        let channel = open(connection).await?;
        let segment = (self.max_bytes / SEGMENTS).clamp(1, MAX_SEGMENT_BYTES) as i64;
        let retention = Some((self.max_age, self.max_bytes));
        let mut proposals: BTreeMap<u16, Proposal> = BTreeMap::new();
        for &partition in partitions {
            let generation = new_generation();
            let stream = self.stream(partition, &generation);
            self.declare_stream(&channel, &stream, segment, retention)
                .await?;
            let proposal = known.propose(partition, self.partitions, generation);
            proposals.insert(partition, proposal);
        }
        let publishing = confirming(connection).await?;
        for proposal in proposals.values() {
            let record = MetaRecord::Generation(proposal.clone());
            self.append_meta(&publishing, &record).await?;
        }
        let agreed = self.read(connection).await?;
        for (partition, proposal) in proposals {
            if agreed.current(partition) != Some(&proposal.generation) {
                let stream = self.stream(partition, &proposal.generation);
                channel
                    .queue_delete(stream.into(), QueueDeleteOptions::default())
                    .await
                    .map_err(|source| TopologyError::Broker {
                        doing: "delete a stream that nobody uses",
                        source,
                    })?;
            } else {
                tracing::info!(
                    partition,
                    generation = %proposal.generation,
                    predecessor = proposal.predecessor.as_deref(),
                    "a generation of the log begins"
                );
            }
        }
        Ok(agreed)
    }

    async fn seal(
        &self,
        connection: &Connection,
        partition: u16,
        generation: &Generation,
        fate: Old,
    ) -> Result<(), TopologyError> {
        let stream = self.stream(partition, generation);
        if fate == Old::Gone || !queue_exists(connection, &stream).await? {
            return Ok(());
        }
        let seal = Entry::Seal(Seal {
            producer: Uuid::new_v4().as_u128(),
            stamped: wall_clock_ms(),
        });
        let channel = confirming(connection).await?;
        let doing = "seal a stream that is replaced";
        self.append(&channel, &stream, &seal.encode(), CONTENT_TYPE, doing)
            .await
    }
}

/// Completes when the broker has an alarm that does not pass at once.
async fn is_blocked(connection: &Connection) {
    let mut looks = 0;
    while looks < BLOCKED_LOOKS {
        sleep(BLOCKED_LOOK).await;
        looks = match connection.status().blocked() {
            true => looks + 1,
            false => 0,
        };
    }
}

async fn open(connection: &Connection) -> Result<Channel, TopologyError> {
    connection
        .create_channel()
        .await
        .map_err(|source| TopologyError::Broker {
            doing: "open a channel",
            source,
        })
}

/// A channel of its own for each stream that is published to, as brokers before 4.0 need it.
async fn confirming(connection: &Connection) -> Result<Channel, TopologyError> {
    let channel = open(connection).await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .map_err(|source| TopologyError::Broker {
            doing: "ask for confirms",
            source,
        })?;
    Ok(channel)
}

/// Whether the broker says that a queue does not exist, and not merely that it can't be reached.
pub fn is_missing(error: &lapin::Error) -> bool {
    matches!(reply(error), Some((404, words)) if words.contains("no queue"))
}
