//! What a delivery costs, beside the least that it can cost: `cargo bench --bench fanout`. The
//! README beside says what is counted.

mod floor;
mod generator;
mod servers;
mod table;

use std::{env, process::Command};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use crate::{
    servers::{Roomwire, SERVER_CORE},
    table::{Figures, Row},
};

/// The core of everything that is not a server.
const GENERATOR_CORE: &str = "1";
const PAYLOAD_BYTES: usize = 128;
/// What the client protocol makes of a payload: the names of its fields, the room, the position,
/// the time.
const MESSAGE_BYTES: usize = 220;
const PUBLISHERS: usize = 4;
/// Deltas in one request of a saturating publisher.
const BATCH: usize = 16;

/// One kind of load.
struct Case {
    name: &'static str,
    subscribers: usize,
    rooms: usize,
    load: Load,
}

#[derive(Clone, Copy)]
enum Load {
    PerSecond(u32),
    Saturating,
    Idle,
}

const CASES: [Case; 4] = [
    Case {
        name: "1,000 subscribers in a room, 100 deltas/s",
        subscribers: 1_000,
        rooms: 1,
        load: Load::PerSecond(100),
    },
    Case {
        name: "1,000 subscribers in a room, saturating",
        subscribers: 1_000,
        rooms: 1,
        load: Load::Saturating,
    },
    Case {
        name: "1,000 rooms of 10 subscribers, 1,000 deltas/s",
        subscribers: 10_000,
        rooms: 1_000,
        load: Load::PerSecond(1_000),
    },
    Case {
        name: "10,000 idle connections",
        subscribers: 10_000,
        rooms: 1_000,
        load: Load::Idle,
    },
];

/// One way to be the least.
struct FloorKind {
    name: &'static str,
    /// Whether all of one epoll round goes out in one write.
    batching: bool,
    bytes: usize,
}

const FLOORS: [FloorKind; 3] = [
    FloorKind {
        name: "floor: one write",
        batching: false,
        bytes: PAYLOAD_BYTES,
    },
    FloorKind {
        name: "floor: batching",
        batching: true,
        bytes: PAYLOAD_BYTES,
    },
    FloorKind {
        name: "floor: batching, 220 B",
        batching: true,
        bytes: MESSAGE_BYTES,
    },
];

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let Some((mode, kind)) = arguments.split_first()
        && mode == floor::MODE
    {
        return floor::serve(kind);
    }
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("this measures for minutes; run it with `cargo bench --bench fanout`");
        return Ok(());
    }
    let number = |name: &str, default: u64| match arguments.iter().position(|found| found == name) {
        None => Ok(default),
        Some(at) => arguments
            .get(at + 1)
            .and_then(|value| value.parse().ok())
            .with_context(|| format!("{name} takes a number")),
    };
    let (rounds, seconds) = (number("--rounds", 3)?, number("--seconds", 5)?);
    ensure!(
        rounds > 0 && seconds > 0,
        "--rounds and --seconds start at 1"
    );
    pin_this_process()?;

    println!(
        "servers on core {SERVER_CORE}, generator on core {GENERATOR_CORE}; {PAYLOAD_BYTES} B deltas, \
         {PUBLISHERS} publishers; the median of {rounds} rounds of {seconds} s"
    );
    for case in &CASES {
        let mut floors = FLOORS.map(|kind| (Row::new(kind.name), kind));
        let mut ours = Row::new("roomwire");
        for _ in 0..rounds {
            // In turn, so that whatever else the machine does meets all of them.
            for (row, kind) in &mut floors {
                row.add(generator::run(case, kind, seconds)?);
            }
            ours.add(roomwire(case, seconds)?);
        }
        let rows: Vec<Row> = floors
            .into_iter()
            .map(|(row, _)| row)
            .chain([ours])
            .collect();
        table::print(case, &rows);
    }
    Ok(())
}

fn pin_this_process() -> anyhow::Result<()> {
    let pinned = Command::new("taskset")
        .args(["-cp", GENERATOR_CORE, &std::process::id().to_string()])
        .output()
        .context("can't run taskset (util-linux)")?;
    ensure!(
        pinned.status.success(),
        "can't take core {GENERATOR_CORE}; this takes two cores: {}",
        String::from_utf8_lossy(&pinned.stderr)
    );
    Ok(())
}

/// What `roomwire bench` prints, as far as the table needs it.
#[derive(Deserialize)]
struct Report {
    traffic: Option<Traffic>,
    server: ServerUse,
}

#[derive(Deserialize)]
struct Traffic {
    deliveries_per_second: f64,
    latency_ms: Latency,
}

#[derive(Deserialize)]
struct Latency {
    p50: f64,
    p99: f64,
}

#[derive(Deserialize)]
struct ServerUse {
    cpu_seconds_per_million_deliveries: Option<f64>,
    resident_bytes_per_connection: f64,
}

fn roomwire(case: &Case, seconds: u64) -> anyhow::Result<Figures> {
    let server = Roomwire::start()?;
    let mut bench = Command::new(env!("CARGO_BIN_EXE_roomwire"));
    bench.args(["bench", "--json", "--url", server.url()]);
    for (flag, value) in [
        ("--pid", u64::from(server.pid())),
        ("--subscribers", case.subscribers as u64),
        ("--rooms", case.rooms as u64),
        ("--payload", PAYLOAD_BYTES as u64),
        ("--publishers", PUBLISHERS as u64),
        ("--batch", BATCH as u64),
        ("--duration", seconds),
    ] {
        bench.args([flag, &value.to_string()]);
    }
    match case.load {
        Load::PerSecond(rate) => bench.args(["--rate", &rate.to_string()]),
        Load::Saturating => bench.args(["--rate", "max"]),
        Load::Idle => bench.arg("--idle"),
    };
    let output = bench.output().context("can't run roomwire bench")?;
    if !output.status.success() {
        bail!(
            "roomwire bench: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let Report { traffic, server } = serde_json::from_slice(&output.stdout)?;
    Ok(Figures {
        cost: server.cpu_seconds_per_million_deliveries,
        deliveries_per_second: traffic.as_ref().map(|it| it.deliveries_per_second),
        p50_ms: traffic.as_ref().map(|it| it.latency_ms.p50),
        p99_ms: traffic.as_ref().map(|it| it.latency_ms.p99),
        bytes_per_connection: server.resident_bytes_per_connection,
    })
}
