//! The thread that everything about RabbitMQ runs on.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, sync::oneshot, time::sleep};

use super::{
    Generation, Settings,
    bus::{Bus, Listener},
    connection::{ConnectError, Connector, Link},
    events::Notifier,
    ingress::{self, Ingress},
    partition::AmqpLog,
    reader::Start,
    topology::{Topology, TopologyError},
    watch::{self, Standing},
};

/// How long a start waits for a broker that can't be reached, or is not ready.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// Between two attempts of a start.
const START_INTERVAL: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("can't start the thread for RabbitMQ: {0}")]
    Thread(#[from] io::Error),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Topology(#[from] TopologyError),
}

/// This instance's part in a cluster of instances. When it is dropped, so is all that runs for it.
pub struct Cluster {
    settings: Settings,
    connector: Arc<Connector>,
    topology: Arc<Topology>,
    generations: Vec<Generation>,
    standing: Arc<Standing>,
    runtime: Handle,
    // Ends the thread when it is dropped.
    _stop: oneshot::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Cluster {
    /// Blocks until the topology is there. Brokers that can't be reached are tried for a minute, and
    /// those that have an alarm are waited for.
    pub fn start(settings: Settings) -> Result<Self, StartError> {
        let connector = Arc::new(Connector::new(&settings)?);
        let topology = Arc::new(Topology::new(connector.clone(), &settings));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name("amqp".into()).spawn(move || {
            // Either way the cluster is gone.
            let _ = runtime.block_on(stopped);
        })?;
        let mut cluster = Self {
            settings,
            connector,
            topology,
            generations: Vec::new(),
            standing: Arc::default(),
            runtime: handle,
            _stop: stop,
            thread: Some(thread),
        };
        cluster.generations = cluster.runtime.block_on(establish(&cluster.topology))?;
        let name = format!("{} generations", cluster.settings.prefix);
        let link = Link::new(cluster.connector.clone(), name);
        let watching = watch::run(cluster.topology.clone(), cluster.standing.clone(), link);
        cluster.runtime.spawn(watching);
        Ok(cluster)
    }

    /// The generation of each partition that was current at the start.
    pub fn generations(&self) -> &[Generation] {
        &self.generations
    }

    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Between two heartbeats of this instance in each partition.
    pub fn heartbeat(&self) -> Duration {
        self.settings.heartbeat_interval
    }

    /// Whether an instance that starts might go by another log than this one.
    pub fn is_split(&self) -> bool {
        self.standing.is_split()
    }

    /// Begins to read and to publish a generation of a partition.
    pub fn open(&self, partition: u16, generation: Generation, start: Start) -> AmqpLog {
        self.standing.opened(partition, generation.clone());
        AmqpLog::open(
            &self.runtime,
            &self.connector,
            &self.topology,
            &self.settings,
            partition,
            generation,
            start,
        )
    }

    /// The way to the other instances.
    pub fn bus(&self, listener: Arc<dyn Listener>) -> Bus {
        let prefix = &self.settings.prefix;
        let link = self.link(format!("{prefix} bus"));
        let (bus, task) = Bus::open(link, self.topology.clone(), listener);
        self.runtime.spawn(task);
        bus
    }

    /// The way to the backend.
    pub fn notifier(&self) -> Notifier {
        let prefix = &self.settings.prefix;
        let link = self.link(format!("{prefix} events"));
        let (notifier, task) = Notifier::open(link, self.topology.clone());
        self.runtime.spawn(task);
        notifier
    }

    fn link(&self, name: String) -> Link {
        Link::new(self.connector.clone(), name)
    }

    /// Begins to take in what others publish, once `begin` says so.
    pub fn take_in(&self, parts: ingress::Parts, begin: oneshot::Receiver<()>) -> Ingress {
        let (topology, connector) = (self.topology.clone(), self.connector.clone());
        Ingress::start(&self.runtime, topology, connector, parts, begin)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let (closed, _) = oneshot::channel();
        drop(std::mem::replace(&mut self._stop, closed));
        if let Some(thread) = self.thread.take() {
            // A panic there was a task's, and was reported.
            let _ = thread.join();
        }
    }
}

async fn establish(topology: &Topology) -> Result<Vec<Generation>, TopologyError> {
    let mut deadline = Instant::now() + START_PATIENCE;
    let (mut reported, mut reported_block) = (false, false);
    loop {
        match topology.establish().await {
            // It can be reached, and takes records as soon as somebody makes room.
            Err(error @ TopologyError::Blocked) => {
                if !reported_block {
                    tracing::warn!(%error, "waiting for RabbitMQ, for as long as it takes");
                    reported_block = true;
                }
                deadline = Instant::now() + START_PATIENCE;
            }
            Err(error) if !error.is_permanent() && Instant::now() < deadline => {
                if !reported {
                    tracing::warn!(%error, "waiting for RabbitMQ");
                    reported = true;
                }
                sleep(START_INTERVAL).await;
            }
            established => return established,
        }
    }
}
