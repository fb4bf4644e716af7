//! `roomwire config`: what a server would be configured to.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::config::{Config, ServeFlags, Shown};

#[derive(Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "\
Both read what `serve` reads: its flags, the environment, and the configuration file.

Examples:
  roomwire config check --config new.toml
  roomwire config print > roomwire.toml")]
pub struct Flags {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Say whether a server could start with the configuration
    #[command(after_help = "\
Tells all mistakes at once, each with the file, variable or flag that it stands in, and ends with 1 if
there is one. Opens no database and reaches no broker.

Examples:
  roomwire config check
  roomwire config check --config new.toml && mv new.toml roomwire.toml")]
    Check(CheckFlags),
    /// Print every setting, and where its value comes from
    #[command(after_help = "\
Prints a configuration file with all settings. Secrets are left out.

Examples:
  roomwire config print
  ROOMWIRE_WORKERS=2 roomwire config print --json | jq '.[] | select(.from != \"default\")'")]
    Print(PrintFlags),
}

#[derive(Args)]
struct CheckFlags {
    #[command(flatten)]
    settings: ServeFlags,
}

#[derive(Args)]
struct PrintFlags {
    /// Print an array of {"key","value","from"}; values are as in the file
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: ServeFlags,
}

pub fn run(flags: &Flags) -> anyhow::Result<()> {
    let mut out = io::stdout();
    match &flags.action {
        Action::Check(check) => {
            let settings = Config::explain(&check.settings)?;
            writeln!(out, "{}", verdict(&settings))?;
        }
        Action::Print(print) => {
            let settings = Config::explain(&print.settings)?;
            let text = match print.json {
                true => json(&settings)?,
                false => toml(&settings),
            };
            out.write_all(text.as_bytes())?;
        }
    }
    Ok(())
}

fn verdict(settings: &[Shown]) -> String {
    let set: Vec<_> = settings
        .iter()
        .filter_map(|setting| setting.origin.as_deref())
        .collect();
    if set.is_empty() {
        return "the configuration is right: nothing is set, all is as by default".to_owned();
    }
    let origins: BTreeSet<_> = set.iter().copied().collect();
    let origins: Vec<_> = origins.into_iter().collect();
    format!(
        "the configuration is right: {} of {} settings are set, by {}",
        set.len(),
        settings.len(),
        origins.join(", ")
    )
}

fn json(settings: &[Shown]) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Line<'a> {
        key: &'a str,
        /// Missing for a secret.
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<&'a str>,
        from: &'a str,
    }
    let lines = settings.iter().map(|setting| Line {
        key: &setting.key,
        value: setting.value.as_deref(),
        from: setting.origin.as_deref().unwrap_or("default"),
    });
    let lines: Vec<_> = lines.collect();
    Ok(serde_json::to_string_pretty(&lines)? + "\n")
}

/// A configuration file that sets what is set.
fn toml(settings: &[Shown]) -> String {
    let mut text = String::new();
    let mut open = "";
    for Shown { key, value, origin } in settings {
        let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
        if section != open {
            text += &format!("\n[{section}]\n");
            open = section;
        }
        let line = match value {
            Some(value) => format!("{name} = {value}"),
            None => format!("# {name} is a secret"),
        };
        let origin = origin.as_deref().unwrap_or("default");
        text += &format!("{line:<40} # {origin}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(key: &str, value: Option<&str>, origin: Option<&str>) -> Shown {
        Shown {
            key: key.to_owned(),
            value: value.map(str::to_owned),
            origin: origin.map(str::to_owned),
        }
    }

    #[test]
    fn a_printed_configuration_has_sections_and_origins_and_no_secret() {
        let settings = [
            setting("workers", Some("2"), Some("--workers")),
            setting("amqp.url", None, Some("ROOMWIRE_AMQP__URL")),
            setting("amqp.partitions", Some("4"), None),
        ];
        assert_eq!(
            toml(&settings),
            "workers = 2                              # --workers\n\
             \n\
             [amqp]\n\
             # url is a secret                        # ROOMWIRE_AMQP__URL\n\
             partitions = 4                           # default\n"
        );
        assert_eq!(
            verdict(&settings),
            "the configuration is right: 2 of 3 settings are set, by --workers, ROOMWIRE_AMQP__URL"
        );
    }
}
