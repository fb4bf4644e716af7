//! `roomwire serve`.

use clap::Args;

#[derive(Args)]
#[command(after_help = "\
Examples:
  roomwire serve --dev                          try it: open to anybody, on loopback only")]
pub struct Flags {
    /// Let anybody subscribe and publish, on loopback addresses only
    #[arg(long)]
    dev: bool,
}

pub fn run(flags: Flags) -> anyhow::Result<()> {
    anyhow::bail!("this build has no server in it (dev: {})", flags.dev)
}
