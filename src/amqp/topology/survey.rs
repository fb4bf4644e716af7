//! What the log looks like from outside: read, with nothing appended and nothing made.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::{Connection, Consumer, message::Delivery};
use tokio::time::{Instant, timeout};

use super::{
    Found, Generation, Generations, Topology, TopologyError,
    records::{PREFETCH, consume, fold, reading},
    streams::queue_exists,
};
use crate::{amqp::reader::position, log::record::Entry};

/// Messages of a last chunk. Nothing is acknowledged, so no more than these come: more than a chunk
/// usually has.
const CHUNK: u16 = u16::MAX;

/// How long to wait for a message of a stream that may have none.
const FIRST_WAIT: Duration = Duration::from_secs(2);

/// How long nothing comes behind the end of a chunk.
const NEXT_WAIT: Duration = Duration::from_millis(300);

/// The log at one moment.
#[derive(Debug)]
pub struct Survey {
    pub objects: Vec<Found>,
    pub partitions: Vec<PartitionSurvey>,
}

/// A partition at one moment.
#[derive(Debug)]
pub struct PartitionSurvey {
    /// None if nobody has begun one yet.
    pub generation: Option<Generation>,
    /// What is in its stream; none if there is no stream.
    pub extent: Option<Extent>,
}

/// What a stream holds. Positions are those of deltas: one more than the broker's offsets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// The first position that can be read, 0 for none.
    pub first: u64,
    /// The last position, 0 for none.
    pub last: u64,
    /// What the last record was stamped with, in ms since the Unix epoch, if it is one of ours.
    pub last_stamped: Option<u64>,
}

impl Extent {
    /// How many records there are; about, as a segment may begin with a place that none has.
    pub fn records(&self) -> u64 {
        match self.first {
            0 => 0,
            first => self.last - first + 1,
        }
    }
}

impl Topology {
    /// Looks at what there is. Needs no right but to read.
    pub async fn survey(&self) -> Result<Survey, TopologyError> {
        self.connected(async |connection| {
            let objects = self.look(connection).await?;
            let generations = match self.current(connection).await {
                Err(error) if error.is_missing_stream() => Generations::default(),
                generations => generations?,
            };
            let mut partitions = Vec::new();
            for partition in 0..generations.partitions().unwrap_or_default() {
                let generation = generations.current(partition).cloned();
                let extent = match &generation {
                    Some(of) => self.extent(connection, &self.stream(partition, of)).await?,
                    None => None,
                };
                partitions.push(PartitionSurvey { generation, extent });
            }
            Ok(Survey {
                objects,
                partitions,
            })
        })
        .await
    }

    /// The generations, without a marker: up to where their stream ended when it was looked at.
    pub async fn current(&self, connection: &Connection) -> Result<Generations, TopologyError> {
        let Some(end) = last(connection, &self.meta())
            .await?
            .map(|of| position(&of))
        else {
            return Ok(Generations::default());
        };
        let mut records = consume(connection, &self.meta(), "first", PREFETCH).await?;
        fold(&mut records, |delivery, _| position(delivery) >= end).await
    }

    /// Hears of all records of generations from now on.
    pub async fn follow_generations(
        &self,
        connection: &Connection,
    ) -> Result<Consumer, TopologyError> {
        consume(connection, &self.meta(), "next", PREFETCH).await
    }

    async fn extent(
        &self,
        connection: &Connection,
        stream: &str,
    ) -> Result<Option<Extent>, TopologyError> {
        if !queue_exists(connection, stream).await? {
            return Ok(None);
        }
        let Some(last) = last(connection, stream).await? else {
            return Ok(Some(Extent::default()));
        };
        let mut from_first = consume(connection, stream, "first", 1).await?;
        let first = next(&mut from_first, FIRST_WAIT).await?;
        let end = position(&last);
        Ok(Some(Extent {
            // Retention may have taken it just now.
            first: first.map_or(end, |first| position(&first)),
            last: end,
            last_stamped: Entry::decode(&last.data.into())
                .ok()
                .map(|entry| entry.stamped()),
        }))
    }
}

/// The last message of a stream, if there is any: its last chunk is read to the end.
async fn last(connection: &Connection, stream: &str) -> Result<Option<Delivery>, TopologyError> {
    let mut messages = consume(connection, stream, "last", CHUNK).await?;
    let mut last = next(&mut messages, FIRST_WAIT).await?;
    if last.is_none() {
        return Ok(None);
    }
    // A busy stream never ends; what has come by then is near enough.
    let end = Instant::now() + FIRST_WAIT;
    while Instant::now() < end
        && let Some(message) = next(&mut messages, NEXT_WAIT).await?
    {
        last = Some(message);
    }
    Ok(last)
}

async fn next(
    messages: &mut Consumer,
    patience: Duration,
) -> Result<Option<Delivery>, TopologyError> {
    match timeout(patience, messages.next()).await {
        Ok(Some(message)) => Ok(Some(message.map_err(reading)?)),
        Ok(None) => Err(TopologyError::Ended),
        Err(_) => Ok(None),
    }
}
