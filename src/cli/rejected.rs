//! `roomwire rejected`: messages of other producers that were no deltas.

use std::{
    io::{self, IsTerminal, Write},
    sync::Arc,
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::json;

use crate::{
    amqp::{
        connection::Connector,
        ingress::put_away::{Desk, Item},
        topology::Topology,
    },
    config::{AmqpFlags, Config},
    server::amqp_settings,
};

/// Bytes of a body that are shown.
const SHOWN: usize = 120;

#[derive(Args)]
#[command(after_help = "\
Examples:
  roomwire rejected list --amqp-url amqp://admin:secret@localhost
  roomwire rejected retry --code unknown-namespace
  roomwire rejected drop 9f03b6c1d2e4 --yes")]
pub struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show what was rejected and why; everything stays where it is
    List(ListFlags),
    /// Put messages back, as they first came, once what was wrong is right
    Retry(RetryFlags),
    /// Delete messages for good
    Drop(DropFlags),
}

#[derive(Args)]
#[command(after_help = "\
Prints, for each message, the oldest first: its id, when it was rejected, the code, the rooms, the message_id, the size;
then the reason and the beginning of the body. With --json, an object a line.

Examples:
  roomwire rejected list --config /etc/roomwire.toml
  roomwire rejected list --json | jq -r 'select(.code == \"bad-json\").id'")]
struct ListFlags {
    /// Most messages to show
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    amqp: AmqpFlags,
}

#[derive(Args)]
#[command(after_help = "\
Each message goes through the exchange again, and leaves the queue once RabbitMQ has confirmed that. What is still wrong
is rejected again. Prints how many were put back.

Examples:
  roomwire rejected retry 9f03b6c1d2e4 41c8aa07b9d3
  roomwire rejected retry --code unknown-namespace     the namespace was added to the configuration
  roomwire rejected retry --all")]
struct RetryFlags {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    amqp: AmqpFlags,
}

#[derive(Args)]
#[command(after_help = "\
Asks before it deletes, unless --yes is given. Prints how many were deleted.

Examples:
  roomwire rejected drop 9f03b6c1d2e4
  roomwire rejected drop --all --yes")]
struct DropFlags {
    #[command(flatten)]
    which: Which,
    /// Don't ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    amqp: AmqpFlags,
}

/// Which messages.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Ids, as `list` shows them
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// All that were rejected with this code
    #[arg(long)]
    code: Option<String>,
    /// All of them
    #[arg(long)]
    all: bool,
}

pub async fn run(flags: Flags) -> anyhow::Result<()> {
    match flags.command {
        Command::List(flags) => list(flags).await,
        Command::Retry(flags) => retry(flags).await,
        Command::Drop(flags) => delete(flags).await,
    }
}

async fn list(flags: ListFlags) -> anyhow::Result<()> {
    let mut desk = open(&flags.amqp).await?;
    let mut out = io::stdout().lock();
    let mut shown = 0;
    while shown < flags.limit
        && let Some(item) = desk.next().await?
    {
        shown += 1;
        match flags.json {
            true => writeln!(out, "{}", as_json(&item))?,
            false => write!(out, "{}", as_text(&item))?,
        }
    }
    if shown == 0 && !flags.json {
        writeln!(out, "nothing was rejected")?;
    }
    desk.close().await?;
    Ok(())
}

async fn retry(flags: RetryFlags) -> anyhow::Result<()> {
    let mut desk = open(&flags.amqp).await?;
    let chosen = flags.which.choose(&mut desk).await?;
    for item in &chosen {
        desk.put_back(item).await?;
    }
    desk.close().await?;
    println!("put back {}", messages(chosen.len()));
    Ok(())
}

async fn delete(flags: DropFlags) -> anyhow::Result<()> {
    let mut desk = open(&flags.amqp).await?;
    let chosen = flags.which.choose(&mut desk).await?;
    if !flags.yes && !chosen.is_empty() && !confirmed(chosen.len())? {
        bail!("nothing was deleted");
    }
    for item in &chosen {
        desk.take_out(item).await?;
    }
    desk.close().await?;
    println!("deleted {}", messages(chosen.len()));
    Ok(())
}

async fn open(flags: &AmqpFlags) -> anyhow::Result<Desk> {
    let config = Config::load_amqp(flags)?;
    if config.amqp.url.is_empty() {
        bail!(
            "no RabbitMQ is named; give --amqp-url, ROOMWIRE_AMQP__URL, \
             or amqp.url in the configuration file"
        );
    }
    let settings = amqp_settings(&config);
    let connector = Arc::new(Connector::new(&settings).context("can't use RabbitMQ")?);
    let topology = Topology::new(connector.clone(), &settings);
    Ok(Desk::open(&connector, &topology).await?)
}

impl Which {
    /// All that are meant; an error if one that was named is not there.
    async fn choose(&self, desk: &mut Desk) -> anyhow::Result<Vec<Item>> {
        let mut chosen = Vec::new();
        while let Some(item) = desk.next().await? {
            let code = self.code.as_ref().is_some_and(|code| *code == item.code);
            if self.all || code || self.ids.contains(&item.id) {
                chosen.push(item);
            }
        }
        let is_there = |id: &&String| chosen.iter().any(|item| item.id == **id);
        if let Some(missing) = self.ids.iter().find(|id| !is_there(id)) {
            bail!("no rejected message has the id {missing:?}; nothing was changed");
        }
        Ok(chosen)
    }
}

/// Asks whoever sits at the terminal.
fn confirmed(count: usize) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        bail!(
            "give --yes to delete {} without a terminal",
            messages(count)
        );
    }
    eprint!("delete {} for good? [y/N] ", messages(count));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn messages(count: usize) -> String {
    match count {
        1 => "1 message".into(),
        count => format!("{count} messages"),
    }
}

fn as_text(item: &Item) -> String {
    let or_dash = |text: &str| match text {
        "" => "-".to_owned(),
        text => printable(text),
    };
    let id = item.message_id.as_deref().unwrap_or_default();
    format!(
        "{}  {}  {}  {}  id {}  {} bytes\n    {}\n    {}\n",
        or_dash(&item.id),
        or_dash(&time(item).unwrap_or_default()),
        or_dash(&item.code),
        or_dash(&item.rooms.join(" ")),
        or_dash(id),
        item.body().len(),
        or_dash(&item.reason),
        or_dash(&head(item)),
    )
}

fn as_json(item: &Item) -> serde_json::Value {
    json!({
        "id": item.id,
        "time": time(item),
        "code": item.code,
        "reason": item.reason,
        "rooms": item.rooms,
        "message_id": item.message_id,
        "bytes": item.body().len(),
        "head": head(item),
    })
}

fn time(item: &Item) -> Option<String> {
    let seconds = i64::try_from(item.time?).ok()?;
    Some(Timestamp::from_second(seconds).ok()?.to_string())
}

/// The beginning of the body.
fn head(item: &Item) -> String {
    let body = item.body();
    let head = String::from_utf8_lossy(&body[..body.len().min(SHOWN)]);
    match body.len() > SHOWN {
        true => format!("{head}…"),
        false => head.into_owned(),
    }
}

/// Whatever a producer sent must not move the reader's cursor.
fn printable(text: &str) -> String {
    let escape = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(escape).collect()
}
