//! The log on RabbitMQ, if there is one.

use std::{path::PathBuf, time::Duration};

use super::{
    reader::Reader,
    units::{DAY, GIB, MIB, MINUTE, SECOND, TIB},
};
use crate::amqp::address::Address;

#[derive(Debug, Clone, PartialEq)]
pub struct Amqp {
    /// The brokers of one cluster, tried in turn. With none, the log is embedded.
    pub url: Vec<Address>,
    /// Begins the names of everything in the broker; instances with the same one are a cluster.
    pub prefix: String,
    /// Streams that the rooms are spread over. Fixed by whoever comes first to a prefix.
    pub partitions: u16,
    /// For how long the broker keeps a delta, at least.
    pub max_age: Duration,
    /// About how much of each partition the broker keeps.
    pub max_bytes: u64,
    /// Between two heartbeats of this instance.
    pub heartbeat: Duration,
    /// Certificates that a broker's may be signed by, besides the system's.
    pub ca_file: Option<PathBuf>,
}

impl Amqp {
    pub(super) fn read(from: &mut Reader) -> Self {
        let right = |text: &str| Address::parse(text).is_ok();
        let accepted = "addresses of the brokers of one cluster, such as \
             \"amqp://user:password@host:5672/vhost\", or with amqps://";
        let url = from.secrets("amqp.url", accepted, right);
        let mut amqp = Self {
            url: url
                .iter()
                .filter_map(|text| Address::parse(text).ok())
                .collect(),
            prefix: from.text(
                "amqp.prefix",
                "roomwire".to_owned(),
                "1 to 64 ASCII letters, digits, - and _",
                |text| is_prefix(text).then(|| text.to_owned()),
            ),
            partitions: from.number("amqp.partitions", 4, 1..=256),
            max_age: from.duration("amqp.max_age", 7 * DAY, MINUTE..=365 * DAY),
            max_bytes: from.size("amqp.max_bytes", 10 * GIB, MIB..=TIB),
            heartbeat: from.duration("amqp.heartbeat", 5 * SECOND, SECOND / 10..=MINUTE),
            ca_file: None,
        };
        let ca_file = from.text(
            "amqp.ca_file",
            String::new(),
            "a file with certificates in PEM, or nothing",
            |text| Some(text.to_owned()),
        );
        amqp.ca_file = (!ca_file.is_empty()).then(|| ca_file.into());
        amqp
    }
}

fn is_prefix(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    (1..=64).contains(&text.len()) && text.chars().all(allowed)
}
