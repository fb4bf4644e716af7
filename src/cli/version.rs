//! `roomwire version`.

use std::{
    env::consts::{ARCH, OS},
    io::{self, Write},
};

pub fn run() -> anyhow::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    Ok(writeln!(io::stdout(), "roomwire {version} ({OS} {ARCH})")?)
}
