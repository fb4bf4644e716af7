//! `roomwire completions`.

use std::io;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;

#[derive(Args)]
#[command(after_help = "\
Examples:
  source <(roomwire completions bash)
  roomwire completions zsh > ~/.zfunc/_roomwire
  roomwire completions fish > ~/.config/fish/completions/roomwire.fish")]
pub struct Flags {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(flags: &Flags) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(flags.shell, &mut Cli::command(), "roomwire", &mut script);
    Ok(io::Write::write_all(&mut io::stdout(), &script)?)
}
