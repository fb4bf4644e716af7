//! `roomwire serve`.

use std::{env, io::IsTerminal, net::SocketAddr, pin::pin};

use anyhow::Context;
use clap::Args;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};
use tracing_subscriber::fmt;

use crate::{
    config::{Config, Log, LogFormat, ServeFlags},
    server::Server,
};

/// Descriptors that the server needs beside its sessions' sockets.
const OWN_DESCRIPTORS: u64 = 100;

#[derive(Args)]
#[command(after_help = "\
Examples:
  roomwire serve --dev                           try it: open to everybody, on loopback only
  roomwire serve --dev --listen 127.0.0.1:0      on any free port
  roomwire serve --config /etc/roomwire.toml     as a file says; docs/configuration.md lists all settings
  ROOMWIRE_LIMITS__MAX_SESSIONS=20000 roomwire serve

Ends on SIGTERM or SIGINT: refuses new sessions, ends what it accepted, sends its clients elsewhere.")]
pub struct Flags {
    #[command(flatten)]
    settings: ServeFlags,
}

pub fn run(flags: Flags) -> anyhow::Result<()> {
    let config = Config::load(&flags.settings)?;
    start_log(&config.log);
    raise_descriptor_limit(config.limits.max_sessions);
    let (dev, data) = (config.server.dev, config.server.data.clone());
    let open = config.is_open();
    actix_rt::System::new().block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("can't listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("can't listen for SIGINT")?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let mut stop = pin!(stop);
        let server = tokio::select! {
            server = Server::start(config) => server?,
            // A shared log may have to be waited for.
            () = &mut stop => return Ok(()),
        };
        let address = server.address();
        if dev {
            println!("{}", what_next(address, &data.display().to_string()));
        }
        info!(address = %format_args!("http://{address}"), dev, "accepting connections");
        if !open {
            warn!(
                "nothing is open: add an API key (roomwire key new), set access.token_secrets or \
                 access.token_key_files for clients, or try it out with --dev"
            );
        }
        server.run(stop).await?;
        Ok(())
    })
}

fn start_log(log: &Log) {
    let lines = fmt()
        .with_env_filter(log.filter())
        .with_writer(std::io::stderr);
    match log.format {
        LogFormat::Human => lines.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().init(),
    }
}

/// A session takes a descriptor, and systems start processes with few.
fn raise_descriptor_limit(max_sessions: usize) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "can't raise the limit of file descriptors");
    }
    let needed = max_sessions as u64 + OWN_DESCRIPTORS;
    if let Some(most) = getrlimit(Resource::Nofile).current
        && most < needed
    {
        warn!(
            most,
            needed, "the limit of file descriptors does not allow limits.max_sessions sessions"
        );
    }
}

/// What a person who has just started a server types next.
fn what_next(address: SocketAddr, data: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let program = env::args().next().unwrap_or_else(|| "roomwire".into());
    let server = format!("http://{address}");
    let url = match address.port() {
        8080 if address.ip().is_loopback() && address.is_ipv4() => String::new(),
        _ => format!(" --url {server}"),
    };
    format!(
        "\
Roomwire {version} serves on {server}, with its data in {data}

  --dev: ANYBODY ON THIS MACHINE MAY SUBSCRIBE AND PUBLISH. It is for trying things out; never forward this port.

  See it at work, in a browser:
    {server}/
  Follow a room, in another terminal:
    {program} tail lobby{url}
  Publish to it:
    curl -d '{{\"text\":\"hello\"}}' {server}/v1/rooms/lobby/deltas
  Read it back:
    curl '{server}/v1/rooms/lobby/deltas?after=0'
  Connect the official centrifuge SDKs to:
    ws://{address}/connection/websocket
"
    )
}
