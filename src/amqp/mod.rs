//! The log on RabbitMQ streams, shared by all instances.
//!
//! A partition is a stream, and its life is a generation: [`topology`] knows which one is current
//! and begins the next when a stream was replaced. [`reader`] reads a generation in order,
//! [`publisher`] appends to it, and [`partition`] is both as an
//! [`OrderedLog`](crate::log::OrderedLog). [`ingress`] takes in what others publish to an exchange.
//! Everything runs on the one thread of a
//! [`Cluster`](cluster::Cluster), besides one of lapin's for each connection.
//!
//! Every partition has a connection for reading and one for publishing: lapin writes nothing, acks
//! included, on a connection that the broker blocks, and a partition that can't reach a majority
//! makes the broker stop reading the connection that publishes to it.

pub mod address;
pub mod attach;
pub mod bus;
pub mod cluster;
pub mod connection;
pub mod events;
pub mod generations;
pub mod ingress;
pub mod partition;
pub mod publisher;
pub mod reader;
pub mod shared;
pub mod status;
pub mod topology;
pub mod watch;
pub mod window;

use std::{path::PathBuf, sync::Arc, time::Duration};

use address::Address;

use crate::log::embedded::QueueBounds;

/// The identity of one life of a partition's stream: a random id, and the epoch of its positions.
pub type Generation = Arc<str>;

/// What the log on RabbitMQ needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Tried in turn; at least one.
    pub addresses: Vec<Address>,
    /// PEM certificates that a broker's certificate may be signed by, besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Begins the names of everything in the broker.
    pub prefix: String,
    /// Fixed by whoever comes first to a prefix.
    pub partitions: u16,
    /// For how long the broker keeps a record, at least; takes effect when a partition's
    /// generation is made.
    pub max_age: Duration,
    /// About how much of each partition the broker keeps; takes effect when a partition's
    /// generation is made.
    pub max_bytes: u64,
    /// Between two heartbeats of this instance in each partition.
    pub heartbeat_interval: Duration,
    /// What may wait to be confirmed, in each partition.
    pub queue: QueueBounds,
}
