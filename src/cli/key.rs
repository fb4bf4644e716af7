//! `roomwire key`: makes API keys.

use std::io::{self, Write};

use anyhow::Context;
use clap::{Args, Subcommand};

use crate::access::api_key::{KeyHash, new_key};

#[derive(Args)]
#[command(after_help = "\
Examples:
  roomwire key new       a key for a backend, and the hash of it for the server")]
pub struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a key and its hash
    #[command(after_help = "\
Prints the key and its hash, a line each. The key is for the backend, and nobody can read it from the
hash; the hash is for the server's configuration:

  [keys.NAME]
  hash = \"sha256:...\"
  scopes = [\"publish\"]      of publish, read and admin
  rooms = [\"*\"]             patterns of the rooms that it is for

Examples:
  roomwire key new
  curl -H \"Authorization: Bearer $ROOMWIRE_KEY\" -d '{}' http://127.0.0.1:8080/v1/rooms/lobby/deltas")]
    New,
}

pub fn run(flags: &Flags) -> anyhow::Result<()> {
    match flags.command {
        Command::New => {
            let key = new_key().context("the system gives no random bytes")?;
            let hash = KeyHash::of(&key);
            Ok(writeln!(io::stdout(), "{key}\n{hash}")?)
        }
    }
}
