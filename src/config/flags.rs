//! The settings that have a flag.

use std::path::PathBuf;

use figment::value::Value;

/// Flags of `roomwire serve`. Their values are checked with all other settings, and so reported in
/// the same words.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ServeFlags {
    /// Address to listen on; port 0 picks a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,

    /// Directory that holds all data; made if it is not there [default: ./data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,

    /// Configuration file; it must exist [default: roomwire.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Worker threads; 0 is one for each core [default: 0]
    #[arg(long, value_name = "N")]
    pub workers: Option<String>,

    /// RabbitMQ that the log is on, amqp://user:password@host:port/vhost, or several with commas; without
    /// it, the log is embedded
    #[arg(long, value_name = "URL", hide_env_values = true)]
    pub amqp_url: Option<String>,

    /// Begins the names of everything in RabbitMQ; instances with the same one are a cluster
    /// [default: roomwire]
    #[arg(long, value_name = "NAME")]
    pub amqp_prefix: Option<String>,

    /// Let everybody subscribe and publish; for development, on loopback addresses only
    #[arg(long)]
    pub dev: bool,

    /// How log lines are written: human or json [default: human]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

impl ServeFlags {
    /// Key, flag and value of what was given.
    pub(super) fn given(&self) -> impl Iterator<Item = (&'static str, &'static str, Value)> {
        let text = |flag: &Option<String>| flag.clone().map(Value::from);
        [
            ("listen", "--listen", text(&self.listen)),
            ("data", "--data", text(&self.data)),
            ("workers", "--workers", text(&self.workers)),
            ("amqp.url", "--amqp-url", text(&self.amqp_url)),
            ("amqp.prefix", "--amqp-prefix", text(&self.amqp_prefix)),
            ("dev", "--dev", self.dev.then(|| Value::from(true))),
            ("log.format", "--log-format", text(&self.log_format)),
        ]
        .into_iter()
        .filter_map(|(key, flag, value)| Some((key, flag, value?)))
    }
}

/// Flags of the commands that work on the log in RabbitMQ.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AmqpFlags {
    /// RabbitMQ, amqp://user:password@host:port/vhost, or several addresses of one cluster with commas
    #[arg(long, value_name = "URL", hide_env_values = true)]
    pub amqp_url: Option<String>,

    /// Begins the names of everything in RabbitMQ [default: roomwire]
    #[arg(long, value_name = "NAME")]
    pub amqp_prefix: Option<String>,

    /// Certificates, in PEM, that RabbitMQ's may be signed by, besides the system's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<String>,

    /// Configuration file of a server, for what no flag gives; it must exist [default: roomwire.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Given by the one command that takes it.
    #[arg(skip)]
    pub set_up: SetUp,
}

/// What only matters to whoever sets up a log.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SetUp {
    /// Streams that the rooms are spread over, for ever [default: 4]
    #[arg(long, value_name = "N")]
    pub partitions: Option<String>,

    /// For how long RabbitMQ keeps a delta, at least [default: 7d]
    #[arg(long, value_name = "TIME")]
    pub max_age: Option<String>,

    /// About how much of each partition RabbitMQ keeps [default: 10GiB]
    #[arg(long, value_name = "SIZE")]
    pub max_bytes: Option<String>,
}

impl AmqpFlags {
    /// Key, flag and value of what was given.
    pub(super) fn given(&self) -> impl Iterator<Item = (&'static str, &'static str, Value)> {
        let SetUp {
            partitions,
            max_age,
            max_bytes,
        } = &self.set_up;
        [
            ("amqp.url", "--amqp-url", &self.amqp_url),
            ("amqp.prefix", "--amqp-prefix", &self.amqp_prefix),
            ("amqp.ca_file", "--ca-file", &self.ca_file),
            ("amqp.partitions", "--partitions", partitions),
            ("amqp.max_age", "--max-age", max_age),
            ("amqp.max_bytes", "--max-bytes", max_bytes),
        ]
        .into_iter()
        .filter_map(|(key, flag, value)| Some((key, flag, value.clone()?.into())))
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;

    fn parsed(arguments: &[&str]) -> ServeFlags {
        let command = ServeFlags::augment_args(Command::new("serve").no_binary_name(true));
        ServeFlags::from_arg_matches(&command.get_matches_from(arguments)).unwrap()
    }

    #[test]
    fn flags_that_are_not_given_set_nothing() {
        assert_eq!(parsed(&[]).given().count(), 0);
        assert_eq!(parsed(&["--config", "x.toml"]).given().count(), 0);
    }

    #[test]
    fn every_flag_sets_what_its_name_says() {
        let line = "--listen [::1]:0 --data d --workers 2 --amqp-url a --amqp-prefix p --dev --log-format json";
        let arguments: Vec<_> = line.split(' ').collect();
        let flags = parsed(&arguments);
        for (_, flag, value) in flags.given() {
            let at = arguments
                .iter()
                .position(|argument| *argument == flag)
                .unwrap();
            match value.as_str() {
                Some(text) => assert_eq!(text, arguments[at + 1], "{flag}"),
                None => assert_eq!(value.to_bool(), Some(true), "{flag}"),
            }
        }
        assert_eq!(flags.given().count(), 7);
    }
}
