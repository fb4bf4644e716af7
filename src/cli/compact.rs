//! `roomwire compact`: writes a database anew, as small as what it holds.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::Args;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::rooms::compaction;

#[derive(Args)]
#[command(after_help = "\
The database of a server reuses space and never gives it back. This writes what it holds to a new one
beside it, reads that back, and swaps the two in one step: killed at any time, or out of disk space, it
leaves the old one as it was. The server must be stopped, and clients need not reload afterwards.

Examples:
  systemctl stop roomwire && roomwire compact --data /var/lib/roomwire && systemctl start roomwire
  roomwire compact --data ./data --json")]
pub struct Flags {
    /// The data directory of a server that is stopped
    #[arg(
        long,
        value_name = "DIR",
        env = "ROOMWIRE_DATA",
        default_value = "./data"
    )]
    data: PathBuf,
    /// Print {"before_bytes","after_bytes","keys"}
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    before_bytes: u64,
    after_bytes: u64,
    keys: u64,
}

pub fn run(flags: &Flags) -> anyhow::Result<()> {
    let style = ProgressStyle::with_template("{spinner} {human_pos} keys, {per_sec}")
        .expect("the template is valid");
    let progress = ProgressBar::new_spinner().with_style(style);
    let path = flags.data.join("log");
    let compacted = compaction::compact(&path, |keys| progress.set_position(keys));
    progress.finish_and_clear();
    let compaction::Compacted {
        before_bytes,
        after_bytes,
        keys,
    } = compacted?;
    let mut out = io::stdout();
    if flags.json {
        let report = Report {
            before_bytes,
            after_bytes,
            keys,
        };
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        let (before, after) = (HumanBytes(before_bytes), HumanBytes(after_bytes));
        writeln!(out, "{}: {before} before, {after} after", path.display())?;
    }
    Ok(())
}
