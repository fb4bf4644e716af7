//! The settings that have a flag.

use std::path::PathBuf;

use figment::value::Value;

/// Flags of `roomwire serve`. Their values are checked with all other settings, and so reported in the same words.
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
            ("dev", "--dev", self.dev.then(|| Value::from(true))),
            ("log.format", "--log-format", text(&self.log_format)),
        ]
        .into_iter()
        .filter_map(|(key, flag, value)| Some((key, flag, value?)))
    }
}
