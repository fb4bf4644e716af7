//! The command line: one command a file.

mod amqp;
pub mod bench;
mod compact;
mod completions;
mod config;
mod dump;
mod exit;
mod export;
mod history;
mod import;
mod lines;
mod man;
mod moment;
mod patience;
mod print;
mod publish;
mod serve;
mod tail;
mod version;

use std::{future::Future, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use self::exit::Exit;
use crate::client::address::ServerUrl;

#[derive(Parser)]
#[command(name = "roomwire", version, about, after_help = exit::HELP)]
#[command(subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a server
    Serve(serve::Flags),
    /// Publish to a room: one delta, or JSON lines from a pipe
    Publish(publish::Flags),
    /// Follow rooms, and come back to where the connection was lost
    Tail(tail::Flags),
    /// Print what a server keeps of a room
    History(history::Flags),
    /// Write histories as JSON lines
    Export(export::Flags),
    /// Publish what was exported
    Import(import::Flags),
    /// Put load on a server, and check that every delta arrives exactly once and in order
    Bench(bench::Flags),
    /// Check the configuration, or print all of it
    Config(config::Flags),
    /// Make the database of a stopped server smaller
    Compact(compact::Flags),
    /// Write what lets a shell complete commands and flags
    Completions(completions::Flags),
    /// Write the manual pages
    Man(man::Flags),
    /// Set up the log in RabbitMQ, and look at it
    Amqp(amqp::Flags),
    /// Print the version
    Version,
}

/// Which server a client command talks to.
#[derive(Args)]
struct ServerFlags {
    /// The server's address
    #[arg(
        long,
        value_name = "URL",
        env = "ROOMWIRE_URL",
        default_value = "http://127.0.0.1:8080"
    )]
    url: ServerUrl,
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(flags) => serve::run(flags),
        Command::Publish(flags) => on_this_thread(publish::run(flags)),
        Command::Tail(flags) => on_this_thread(tail::run(flags)),
        Command::Bench(flags) => on_this_thread(bench::run(flags)),
        Command::Amqp(flags) => on_this_thread(amqp::run(flags)),
        Command::History(flags) => on_this_thread(history::run(flags)),
        Command::Export(flags) => on_this_thread(export::run(flags)),
        Command::Import(flags) => on_this_thread(import::run(flags)),
        Command::Compact(flags) => compact::run(&flags),
        Command::Config(flags) => config::run(&flags),
        Command::Completions(flags) => completions::run(&flags),
        Command::Man(flags) => man::run(&flags),
        Command::Version => version::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", told(&error));
            Exit::of(&error).into()
        }
    }
}

/// The error and its causes, but those that one before them has told.
fn told(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !told.contains(&cause) {
            if !told.is_empty() {
                told += ": ";
            }
            told += &cause;
        }
    }
    told
}

fn on_this_thread<T>(future: impl Future<Output = T>) -> T {
    actix_rt::System::new().block_on(future)
}

/// What to try when nobody answers at a server's address.
fn how_to_reach(url: &ServerUrl) -> String {
    format!(
        "no server answers at {url}; start one with `roomwire serve --dev`, \
         or name another with --url or ROOMWIRE_URL"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn a_cause_that_was_told_is_not_told_again() {
        let cause = std::io::Error::other("refused");
        let error = anyhow::Error::new(cause).context("can't connect: refused");
        assert_eq!(told(&error), "can't connect: refused");
        let error = anyhow::Error::msg("refused").context("can't connect");
        assert_eq!(told(&error), "can't connect: refused");
    }

    #[test]
    fn every_command_that_takes_arguments_shows_examples() {
        let mut cli = Cli::command();
        cli.clone().debug_assert();
        cli.build();
        check(&mut cli);
    }

    fn check(command: &mut clap::Command) {
        for command in command.get_subcommands_mut() {
            let help = command.render_long_help().to_string();
            let bare = ["version", "help"].contains(&command.get_name());
            assert!(bare || help.contains("Examples:"), "{help}");
            if !bare {
                check(command);
            }
        }
    }
}
