//! `roomwire amqp`: the log in RabbitMQ, for who runs it.

mod management;
mod setup;
mod status;

use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use crate::{
    amqp::{Settings, connection::Connector, topology::Topology},
    config::{AmqpFlags, Config},
    server::amqp_settings,
};

#[derive(Args)]
#[command(after_help = "\
Examples:
  roomwire amqp setup --amqp-url amqp://admin:secret@localhost --partitions 8
  roomwire amqp status --amqp-url amqp://viewer:secret@localhost")]
pub struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make what is missing in RabbitMQ; what is there stays as it is
    Setup(setup::Flags),
    /// Show the partitions of the log: how far they reach, and how far a server has read them
    Status(status::Flags),
}

pub async fn run(flags: Flags) -> anyhow::Result<()> {
    match flags.command {
        Command::Setup(flags) => setup::run(flags).await,
        Command::Status(flags) => status::run(flags).await,
    }
}

/// The log that the flags, the environment and the configuration name.
struct Target {
    settings: Settings,
    topology: Topology,
}

impl Target {
    fn of(flags: &AmqpFlags) -> anyhow::Result<Self> {
        let config = Config::load_amqp(flags)?;
        if config.amqp.url.is_empty() {
            bail!(
                "no RabbitMQ is named; give --amqp-url, ROOMWIRE_AMQP__URL, \
                 or amqp.url in the configuration file"
            );
        }
        let settings = amqp_settings(&config);
        let connector = Connector::new(&settings).context("can't use RabbitMQ")?;
        let topology = Topology::new(Arc::new(connector), &settings);
        Ok(Self { settings, topology })
    }

    /// The log and where it is, without credentials.
    fn describe(&self) -> String {
        let addresses = self.settings.addresses.iter().map(ToString::to_string);
        let addresses: Vec<_> = addresses.collect();
        format!("{} on {}", self.settings.prefix, addresses.join(", "))
    }
}
