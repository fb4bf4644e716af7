//! The logs that are held to the contract.

use std::sync::Arc;

use roomwire::log::{
    OrderedLog, Place,
    embedded::{EmbeddedLog, QueueBounds},
};

/// How much each log takes ahead.
pub const BOUNDS: QueueBounds = QueueBounds {
    records: 500,
    bytes: 1 << 20,
};

/// One log that can be opened again: as by a server that starts, and applies what it reads.
pub trait Kind {
    /// Goes on behind `place`: what was read, and applied, up to there. None for a log that nobody
    /// has read.
    fn open(&self, place: Option<Place>) -> Arc<dyn OrderedLog>;
}

/// The log of one process, which keeps nothing itself.
pub struct Embedded;

impl Kind for Embedded {
    fn open(&self, place: Option<Place>) -> Arc<dyn OrderedLog> {
        let next = place.map_or(1, |place| place.position + 1);
        Arc::new(EmbeddedLog::new(next, BOUNDS))
    }
}

#[cfg(feature = "brokers")]
pub use amqp::Amqp;

#[cfg(feature = "brokers")]
mod amqp {
    use std::{sync::Arc, time::Duration};

    use roomwire::{
        amqp::{Settings, address::Address, cluster::Cluster, shared::SharedLog},
        log::{KeptLog, OrderedLog, Place},
    };

    use super::{BOUNDS, Kind};
    use crate::common::Broker;

    const LOOK_BACK: Duration = Duration::from_secs(3_600);

    /// One partition of a log on RabbitMQ.
    pub struct Amqp {
        cluster: Arc<Cluster>,
    }

    impl Amqp {
        pub fn new() -> Self {
            let settings = Settings {
                addresses: vec![Address::parse(Broker::shared().url(1)).unwrap()],
                ca_file: None,
                prefix: Broker::unique_prefix(),
                partitions: 1,
                max_age: LOOK_BACK,
                max_bytes: 100_000_000,
                heartbeat_interval: Duration::from_millis(500),
                queue: BOUNDS,
            };
            Self {
                cluster: Arc::new(Cluster::start(settings).unwrap()),
            }
        }
    }

    impl Kind for Amqp {
        fn open(&self, place: Option<Place>) -> Arc<dyn OrderedLog> {
            let log = SharedLog::new(self.cluster.clone(), 0, LOOK_BACK);
            log.resume(&self.cluster.generations()[0], place);
            Arc::new(log)
        }
    }
}
