//! Takes in what other producers publish to the broker: one instance at a time, as a tenure.
//!
//! Every instance consumes the queue, and the broker lets one of them: the single active consumer.
//! That is no lock, as one that was paused may go on later, so whoever gets a first message begins
//! a [`Tenure`](crate::log::tenure::Tenure), and appends nothing before its fence is read back.
//! Messages are acked once their deltas are applied, in order and many at a time. Whatever casts
//! doubt on a delta ends the tenure together with the connection, and the broker gives all that is
//! not acked to the next one, in the same order. Nothing is ever nacked: what is nacked comes back
//! behind what came after it.
//!
//! [`message`] knows what a message may hold, [`session`] is one connection, [`rejects`] puts away
//! what is no delta, and [`put_away`] is for those who look after that.

pub mod delivery;
pub mod message;
pub mod put_away;
pub mod rejects;
pub mod session;

use std::{sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

use self::{message::Rules, session::Session};
use super::{
    connection::{Connector, Link},
    topology::Topology,
};
use crate::{
    log::{KeptLog, OrderedLog, publishers::Publishers, tenure::status::Status},
    metrics::Metrics,
};

/// Between two looks at whether this instance could take anything in.
const LOOK: Duration = Duration::from_millis(250);

/// How long the last messages have to be applied, at a stop.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// How long a connection has to be closed.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// What taking in needs of a server.
pub struct Parts {
    pub publishers: Publishers,
    /// The log's partitions.
    pub logs: Vec<Arc<dyn OrderedLog>>,
    /// For each partition, the tenure whose fence was applied last.
    pub tenures: Vec<watch::Receiver<Option<u128>>>,
    pub rules: Rules,
    pub metrics: Metrics,
    pub status: Arc<Status>,
}

/// This instance's part in taking in.
pub struct Ingress {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// The task behind it.
struct Taker {
    topology: Arc<Topology>,
    connector: Arc<Connector>,
    parts: Parts,
    stop: watch::Receiver<bool>,
}

impl Ingress {
    /// Takes in from when `begin` says so; never if it is dropped.
    pub(super) fn start(
        runtime: &Handle,
        topology: Arc<Topology>,
        connector: Arc<Connector>,
        parts: Parts,
        begin: oneshot::Receiver<()>,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let taker = Taker {
            topology,
            connector,
            parts,
            stop: stopped,
        };
        Self {
            stop,
            task: runtime.spawn(taker.run(begin)),
        }
    }

    /// Takes no more, waits until what was handed over is applied and acked, and leaves the rest to
    /// the next instance.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        let abort = self.task.abort_handle();
        if timeout(STOP_PATIENCE, self.task).await.is_err() {
            tracing::warn!("what was being taken in goes to another instance unfinished");
            abort.abort();
        }
    }
}

impl Taker {
    async fn run(mut self, begin: oneshot::Receiver<()>) {
        let mut stop = self.stop.clone();
        tokio::select! {
            _ = asked(&mut stop) => return,
            begun = begin => if begun.is_err() { return },
        }
        let name = format!("{} ingress", self.topology.prefix());
        let mut link = Link::new(self.connector.clone(), name);
        loop {
            let connecting = async {
                self.await_ability().await;
                link.connect().await
            };
            let connection = tokio::select! {
                _ = asked(&mut stop) => return,
                connection = connecting => connection,
            };
            let ended = Session::run(&mut self, &connection, &mut link).await;
            // The broker gives away what is not acked as soon as the connection is gone.
            let closing = connection.close(200, "OK".into());
            let _ = timeout(CLOSE_PATIENCE, closing).await;
            self.parts.status.ended();
            match ended {
                Ok(()) => return,
                Err(fault) => tracing::warn!(%fault, "taking in starts again on a new connection"),
            }
            link.move_on();
        }
    }

    /// Leaves the queue to other instances while this one could not append, or not read it back.
    async fn await_ability(&self) {
        while !self.is_connected() || self.parts.publishers.refusal().is_some() {
            sleep(LOOK).await;
        }
    }

    /// Whether all partitions are read and take records; a broker out of memory takes none.
    fn is_connected(&self) -> bool {
        let kept = self.parts.logs.iter().filter_map(|log| log.kept());
        kept.map(KeptLog::status).all(|status| status.connected)
    }
}

/// Completes when a stop is asked for.
async fn asked(stop: &mut watch::Receiver<bool>) {
    // Whoever dropped the handle wants no more of it.
    let _ = stop.wait_for(|stop| *stop).await;
}
