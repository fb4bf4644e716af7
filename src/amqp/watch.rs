//! Looks after the stream of generations. Whoever starts goes by it: if it is gone, the next
//! instance would begin another log beside the one that is running, so meanwhile nothing is
//! published, and it is written anew from what the running instances know.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use lapin::{Connection, options::BasicAckOptions};
use tokio::time::sleep;

use super::{
    Generation,
    connection::Link,
    topology::{Topology, TopologyError},
};

/// Between two looks while something is wrong.
const LOOK: Duration = Duration::from_secs(1);

/// What the watch is told and what it has found.
#[derive(Default)]
pub struct Standing {
    /// The generation of each partition that this instance reads.
    opened: Mutex<BTreeMap<u16, Generation>>,
    split: AtomicBool,
}

impl Standing {
    /// This instance reads a generation from now on.
    pub fn opened(&self, partition: u16, generation: Generation) {
        self.lock().insert(partition, generation);
    }

    /// Whether the stream of generations is gone, or tells of others than this instance reads.
    pub fn is_split(&self) -> bool {
        self.split.load(Ordering::Relaxed)
    }

    fn all(&self) -> BTreeMap<u16, Generation> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u16, Generation>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_split(&self, split: bool) {
        if self.split.swap(split, Ordering::Relaxed) && !split {
            tracing::info!("the stream of generations is whole again");
        }
    }
}

/// Watches for as long as it is polled, on a connection of its own.
pub async fn run(topology: Arc<Topology>, standing: Arc<Standing>, mut link: Link) {
    // One broker that is wrong about it should hold up nobody.
    let mut missing = 0;
    loop {
        let connection = link.connect().await;
        let error = watch(&topology, &standing, &connection, &mut link, &mut missing).await;
        missing = match error.is_missing_stream() {
            true => missing + 1,
            false => 0,
        };
        if missing == 2 {
            tracing::error!(
                "the stream of generations is gone, and nothing is published without it"
            );
        }
        if missing >= 2 {
            standing.set_split(true);
            if let Err(error) = topology.mend(&standing.all()).await {
                tracing::error!(%error, "the stream of generations can't be written anew");
            }
        }
        link.move_on();
        sleep(LOOK).await;
    }
}

async fn watch(
    topology: &Topology,
    standing: &Standing,
    connection: &Connection,
    link: &mut Link,
    missing: &mut u32,
) -> TopologyError {
    let mut records = match topology.follow_generations(connection).await {
        Ok(records) => records,
        Err(error) => return error,
    };
    link.settle();
    loop {
        match topology.current(connection).await {
            Ok(current) => {
                let others = |(partition, generation): (&u16, &Generation)| {
                    current.current(*partition) != Some(generation)
                };
                standing.set_split(standing.all().iter().any(others));
                *missing = 0;
            }
            Err(error) => return error,
        }
        let record = match standing.is_split() {
            // A partition that is being replaced is split for a moment.
            true => tokio::time::timeout(LOOK, records.next()).await,
            false => Ok(records.next().await),
        };
        match record {
            Ok(Some(Ok(record))) => {
                let all = BasicAckOptions { multiple: true };
                if record.ack(all).await.is_err() {
                    return TopologyError::Ended;
                }
            }
            Ok(_) => return TopologyError::Ended,
            Err(_) => {}
        }
    }
}
