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
mod key;
mod lines;
mod man;
mod moment;
mod patience;
mod print;
mod publish;
mod rejected;
mod serve;
mod tail;
mod token;
mod version;

use std::{future::Future, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use self::exit::Exit;
use crate::client::address::{Credentials, ServerUrl};

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
    /// Look at messages of other producers that were no deltas, put them back or delete them
    Rejected(rejected::Flags),
    /// Make API keys
    Key(key::Flags),
    /// Make a client's token, for trying
    Token(token::Flags),
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
    /// An API key, to publish and to read histories with
    #[arg(long, value_name = "KEY", env = "ROOMWIRE_KEY", hide_env_values = true)]
    #[arg(value_parser = visible)]
    api_key: Option<String>,
    /// A client's token, to follow rooms and, without an API key, to read histories with
    #[arg(
        long,
        value_name = "JWT",
        env = "ROOMWIRE_TOKEN",
        hide_env_values = true
    )]
    #[arg(value_parser = visible)]
    token: Option<String>,
}

impl ServerFlags {
    /// The server, with what it is to be shown.
    fn server(&self) -> ServerUrl {
        self.at(&self.url)
    }

    /// Another server of the same cluster.
    fn at(&self, url: &ServerUrl) -> ServerUrl {
        url.clone().with(Credentials {
            key: self.api_key.clone(),
            token: self.token.clone(),
        })
    }
}

/// What stands in a header as it is. The text is not repeated: it is a secret.
fn visible(text: &str) -> Result<String, &'static str> {
    let visible = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    visible
        .then(|| text.to_owned())
        .ok_or("it takes visible ASCII characters")
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
        Command::Rejected(flags) => on_this_thread(rejected::run(flags)),
        Command::Key(flags) => key::run(&flags),
        Command::Token(flags) => token::run(flags),
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
