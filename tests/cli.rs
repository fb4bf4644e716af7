//! Commands as processes against a real server: what they print, and how they end.

#[path = "cli/access.rs"]
mod access;
#[path = "cli/command.rs"]
mod command;
mod common;
#[path = "cli/config.rs"]
mod config;
#[path = "cli/dump.rs"]
mod dump;
#[path = "cli/history.rs"]
mod history;
#[path = "cli/manual.rs"]
mod manual;
#[path = "cli/tail.rs"]
mod tail;
