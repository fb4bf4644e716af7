//! `roomwire amqp setup`.

use clap::Args;
use serde_json::json;

use super::Target;
use crate::{
    amqp::topology::Found,
    config::{AmqpFlags, SetUp},
};

#[derive(Args)]
#[command(after_help = "\
Examples:
  roomwire amqp setup --amqp-url amqp://admin:secret@localhost
  roomwire amqp setup --amqp-url amqp://admin:secret@localhost --partitions 8 --max-age 3d
  roomwire amqp setup --config /etc/roomwire.toml --json

It can be run again at any time, beside running servers: it makes what is missing and leaves alone what is there. So
partitions and retention only matter to what it makes; give servers the same number of partitions.

The user needs the rights to configure, write and read all that begins with the prefix and a dot.")]
pub struct Flags {
    #[command(flatten)]
    amqp: AmqpFlags,
    #[command(flatten)]
    set_up: SetUp,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(flags: Flags) -> anyhow::Result<()> {
    let target = Target::of(&AmqpFlags {
        set_up: flags.set_up,
        ..flags.amqp
    })?;
    let found = target.topology.set_up().await?;
    match flags.json {
        true => println!("{:#}", as_json(&found)),
        false => print!("log {}\n{}", target.describe(), as_text(&found)),
    }
    Ok(())
}

fn as_text(found: &[Found]) -> String {
    let mut text = String::new();
    for Found { object, was_there } in found {
        let fate = match was_there {
            true => "was there",
            false => "made",
        };
        text += &format!("  {fate:<9}  {:<15}  {}\n", object.kind.name(), object.name);
    }
    text
}

fn as_json(found: &[Found]) -> serde_json::Value {
    let object = |of: &Found| {
        json!({
            "name": of.object.name,
            "kind": of.object.kind.name(),
            "made": !of.was_there,
        })
    };
    json!({ "objects": found.iter().map(object).collect::<Vec<_>>() })
}
