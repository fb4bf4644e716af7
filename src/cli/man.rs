//! `roomwire man`.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
};

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_mangen::Man;

use super::Cli;

#[derive(Args)]
#[command(after_help = "\
Without --output, the page of the command itself is written to the standard output; with it, a page
for each command is written to the directory, roomwire-publish.1 and so on.

Examples:
  roomwire man | man -l -
  roomwire man --output /usr/local/share/man/man1")]
pub struct Flags {
    /// The directory for all pages; made if it is not there
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
}

pub fn run(flags: &Flags) -> anyhow::Result<()> {
    let command = Cli::command();
    let Some(directory) = &flags.output else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page)?;
        return Ok(io::stdout().write_all(&page)?);
    };
    let place = || format!("can't write manual pages to {}", directory.display());
    fs::create_dir_all(directory).with_context(place)?;
    clap_mangen::generate_to(command, directory).with_context(place)
}
