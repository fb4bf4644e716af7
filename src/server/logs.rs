//! Which log a server has: its own, or one on RabbitMQ that it shares with others.

use std::{path::PathBuf, sync::Arc, thread, time::Duration};

use tokio::sync::oneshot;
use tracing::info;

use super::StartError;
use crate::{
    amqp::{self, cluster::Cluster, shared::SharedLog},
    config::Config,
    log::{
        KeptLog, OrderedLog,
        embedded::{EmbeddedLog, QueueBounds},
    },
    rooms::{
        identity::LogIdentity,
        store::StoreError,
        store_sled::SledStore,
        writer::{HistorySettings, HistoryWriter},
    },
};

/// How long a publish to an embedded log waits for the disk before its outcome counts as unknown.
const DISK_PATIENCE: Duration = Duration::from_secs(10);

/// How long a publish to a shared log waits to be read back.
const READ_BACK_PATIENCE: Duration = Duration::from_secs(2);

/// The partitions of a log, each with the writer of its histories.
pub struct Logs {
    pub partitions: Vec<(Arc<dyn OrderedLog>, HistoryWriter)>,
    /// How long a publish waits for its answer.
    pub patience: Duration,
    /// Whom the log is shared with.
    pub cluster: Option<Arc<Cluster>>,
}

/// Opens the database and the log that the configuration asks for. A shared log is waited for.
pub async fn open(config: &Config) -> Result<Logs, StartError> {
    match config.amqp.url.is_empty() {
        true => embedded(config),
        false => shared(config).await,
    }
}

fn embedded(config: &Config) -> Result<Logs, StartError> {
    let writer = open_database(config, &LogIdentity::Embedded)?.remove(0);
    let log = EmbeddedLog::new(writer.checkpoint() + 1, queue(config));
    Ok(Logs {
        partitions: vec![(Arc::new(log), writer)],
        patience: DISK_PATIENCE,
        cluster: None,
    })
}

async fn shared(config: &Config) -> Result<Logs, StartError> {
    let of = &config.amqp;
    let window = config.publish.idempotency_window;
    // One window more, so that what is kept of the oldest delta that counts is known to be no repetition.
    let look_back = config.namespaces.longest_ttl() + window;
    let cluster = start_cluster(amqp_settings(config)).await?;
    info!(
        prefix = of.prefix,
        partitions = of.partitions,
        "the log is on RabbitMQ"
    );
    let identity = LogIdentity::Shared {
        name: format!("amqp/{}/{}", of.prefix, of.partitions),
        epochs: cluster.generations().to_vec(),
    };
    let writers = open_database(config, &identity)?;
    let cluster = Arc::new(cluster);
    let open = |writer: HistoryWriter| {
        let log = SharedLog::new(cluster.clone(), writer.partition(), look_back);
        log.resume(&writer.epoch(), writer.place());
        (Arc::new(log) as Arc<dyn OrderedLog>, writer)
    };
    Ok(Logs {
        partitions: writers.into_iter().map(open).collect(),
        patience: READ_BACK_PATIENCE,
        cluster: Some(cluster),
    })
}

/// What the configuration says of a log on RabbitMQ.
pub fn amqp_settings(config: &Config) -> amqp::Settings {
    let of = &config.amqp;
    amqp::Settings {
        addresses: of.url.clone(),
        ca_file: of.ca_file.clone(),
        prefix: of.prefix.clone(),
        partitions: of.partitions,
        max_age: of.max_age,
        max_bytes: of.max_bytes,
        heartbeat_interval: of.heartbeat,
        queue: queue(config),
    }
}

/// On a thread that nobody waits for if the start is given up.
async fn start_cluster(settings: amqp::Settings) -> Result<Cluster, StartError> {
    let (tell, told) = oneshot::channel();
    thread::Builder::new()
        .name("amqp start".into())
        .spawn(move || {
            // Whoever gave up the start does not listen any more.
            let _ = tell.send(Cluster::start(settings));
        })?;
    match told.await {
        Ok(started) => Ok(started?),
        Err(_) => Err(StartError::Panicked),
    }
}

fn queue(config: &Config) -> QueueBounds {
    QueueBounds {
        records: config.publish.queue_records,
        bytes: config.publish.queue_bytes,
    }
}

fn open_database(config: &Config, log: &LogIdentity) -> Result<Vec<HistoryWriter>, StartError> {
    let data = &config.server.data;
    std::fs::create_dir_all(data).map_err(|source| StartError::DataDirectory {
        path: data.clone(),
        source,
    })?;
    let path: PathBuf = data.join("log");
    let settings = HistorySettings {
        idempotency_window_ms: config.publish.idempotency_window.as_millis() as u64,
    };
    let open = || -> Result<_, StoreError> {
        let store = SledStore::open(&path, config.storage.cache)?;
        HistoryWriter::open_partitions(Arc::new(store), settings, log)
    };
    open().map_err(|source| StartError::Database { path, source })
}
