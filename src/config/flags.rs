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
