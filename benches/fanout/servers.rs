//! The servers under measurement: processes of their own on a core of their own, ended by their
//! ids.

use std::{
    env,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::Context;
use serde_json::Value;

use crate::{FloorKind, floor};

/// The core that a server has to itself.
pub const SERVER_CORE: &str = "0";

/// A process that ends with this value.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let child = command.stdin(Stdio::null()).spawn();
        Ok(Self(
            child.with_context(|| format!("can't run {command:?}"))?,
        ))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// taskset becomes the program that it starts, so the child's id is the server's.
fn pinned(program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", SERVER_CORE, program]);
    command
}

pub struct Roomwire {
    process: Process,
    url: String,
    /// Kept until the server is gone.
    _data: tempfile::TempDir,
}

impl Roomwire {
    /// Starts a server with one worker and an empty history, and waits until it accepts
    /// connections.
    pub fn start() -> anyhow::Result<Self> {
        let data = tempfile::tempdir()?;
        let mut command = pinned(env!("CARGO_BIN_EXE_roomwire"));
        command
            .args([
                "serve",
                "--dev",
                "--listen",
                "127.0.0.1:0",
                "--workers",
                "1",
            ])
            .arg("--data")
            .arg(data.path())
            .env("ROOMWIRE_LOG__FORMAT", "json")
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let log = process.0.stderr.take().context("stderr is piped")?;
        let mut log = BufReader::new(log);
        let url = address(&mut log)?;
        // A log that nobody reads would stop its writer.
        thread::spawn(move || log.read_to_end(&mut Vec::new()));
        Ok(Self {
            process,
            url,
            _data: data,
        })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }
}

fn address(log: &mut impl BufRead) -> anyhow::Result<String> {
    let mut said = String::new();
    for line in log.lines() {
        let line = line?;
        let entry: Value = serde_json::from_str(&line).unwrap_or_default();
        let fields = &entry["fields"];
        if fields["message"] == "accepting connections" {
            let address = fields["address"].as_str();
            return Ok(address.context("the server logs no address")?.to_owned());
        }
        said += &line;
        said.push('\n');
    }
    anyhow::bail!("the server did not start:\n{said}")
}

pub struct Floor {
    process: Process,
    port: u16,
}

impl Floor {
    /// Starts this program in its other mode.
    pub fn start(kind: &FloorKind) -> anyhow::Result<Self> {
        let program = env::current_exe()?;
        let mut command = pinned(&program.to_string_lossy());
        command
            .args([
                floor::MODE,
                if kind.batching {
                    "batching"
                } else {
                    "one-write"
                },
            ])
            .arg(kind.bytes.to_string())
            .stdout(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let mut line = String::new();
        let output = process.0.stdout.take().context("stdout is piped")?;
        BufReader::new(output).read_line(&mut line)?;
        let port = line.trim().parse().context("the floor tells no port")?;
        Ok(Self { process, port })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }
}
