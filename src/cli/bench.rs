//! `roomwire bench`: subscribers and publishers in one process and on one thread, so that it takes
//! one core.

mod ledger;
mod payload;
mod plan;
pub mod process;
mod publisher;
mod report;
mod subscriber;
mod tally;

use std::{
    io::{self, Write},
    rc::Rc,
    str::FromStr,
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::Args;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};
use uuid::Uuid;

use crate::{
    cli::{
        ServerFlags,
        bench::{
            plan::Plan,
            process::Watched,
            publisher::Publisher,
            report::{Latency, Report, ServerUse, Traffic},
            subscriber::{NotSubscribed, Shared, Subscriber},
            tally::Tally,
        },
        how_to_reach,
    },
    client::{address::ServerUrl, socket::SocketError},
};

/// Handshakes under way at once; a listener's queue holds more.
const CONNECTING: usize = 128;
/// After connecting, and before memory is read, the server gets this long to put things away.
const SETTLE: Duration = Duration::from_secs(1);
/// Deliveries that have not come for this long are lost.
const LOST_AFTER: Duration = Duration::from_secs(5);
/// How far saturating publishers may be ahead of each subscriber; far less than what makes a server
/// give up on one.
const AHEAD_BYTES: u64 = 64 * 1024;

#[derive(Args)]
#[command(after_help = "\
Every delta carries its time and a number. The summary tells whether each subscriber got each
number of its room exactly once and in order; if not, or if a connection ended early, the exit code
is 1. Latency is counted from the moment a delta was due.

Examples:
  roomwire bench
      1,000 subscribers in one room, 100 deltas a second
  roomwire bench --rate max --pid $(pidof roomwire)
      as much as the server takes, and what it costs there
  roomwire bench -n 10000 --rooms 1000 --rate 1000 --json
      many small rooms, figures for machines
  roomwire bench -n 10000 --idle --pid $(pidof roomwire)
      bytes per idle connection
  roomwire bench --url http://127.0.0.1:8081 --publish-url http://127.0.0.1:8082
      from one server of a cluster to another")]
pub struct Flags {
    /// Connections, each subscribed to one room
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    subscribers: u32,
    /// Rooms, over which subscribers and deltas are spread evenly
    #[arg(long, value_name = "R", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rooms: u32,
    /// Size of each delta
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    #[arg(value_parser = clap::value_parser!(u32).range(payload::MIN_BYTES as i64..=1_000_000))]
    payload: u32,
    /// Deltas a second, all rooms together; `max` publishes as fast as the server answers
    #[arg(long, value_name = "D/s|max", default_value = "100")]
    rate: Rate,
    /// How long to publish, in seconds
    #[arg(long, value_name = "S", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=86_400))]
    duration: u32,
    /// Connections that publish
    #[arg(long, value_name = "P", default_value_t = 4)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    publishers: u16,
    /// With `--rate max`: deltas in each request
    #[arg(long, value_name = "DELTAS", default_value_t = 16)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    batch: u16,
    /// Publish nothing: connect, subscribe, and hold the connections
    #[arg(long, visible_alias = "connections-only")]
    idle: bool,
    /// The server's process on this machine, to tell what it used
    #[arg(long)]
    pid: Option<u32>,
    /// Print the summary as one JSON object
    #[arg(long)]
    json: bool,
    /// Publish to this server of the cluster, and not to the one that subscribers are at
    #[arg(long, value_name = "URL")]
    publish_url: Option<ServerUrl>,
    #[command(flatten)]
    server: ServerFlags,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Rate {
    PerSecond(f64),
    Saturating,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Saturating);
        }
        match text.parse::<f64>() {
            Ok(rate) if (0.001..=1e7).contains(&rate) => Ok(Self::PerSecond(rate)),
            _ => Err("it takes 0.001 to 10000000 deltas a second, or `max`".into()),
        }
    }
}

pub async fn run(flags: Flags) -> anyhow::Result<()> {
    let (subscribers, rooms) = (flags.subscribers as usize, flags.rooms as usize);
    ensure!(
        rooms <= subscribers,
        "{rooms} rooms can't all have one of {subscribers} subscribers; \
         take fewer --rooms or more --subscribers"
    );
    process::allow_sockets(subscribers + usize::from(flags.publishers))?;
    let server = flags.pid.map(Watched);
    let memory = |server: Option<Watched>| server.map(Watched::resident_bytes).transpose();
    let cpu = |server: Option<Watched>| server.map(Watched::cpu_seconds).transpose();

    let run = Uuid::new_v4().simple().to_string();
    let plan = Plan::new(&run[..8], rooms, subscribers, flags.publishers.into());
    let tally = Rc::new(Tally::new(&plan, subscribers));
    let memory_before = memory(server)?;
    connect(&flags, &plan, &tally).await?;
    sleep(SETTLE).await;
    let memory_connected = memory(server)?;

    let cpu_before = cpu(server)?;
    let traffic = if flags.idle {
        sleep(Duration::from_secs(flags.duration.into())).await;
        None
    } else {
        Some(publish(&flags, &plan, &tally).await?)
    };
    let cpu_after = cpu(server)?;

    let deliveries = tally.delivered();
    let used = (
        flags.pid,
        memory_before,
        memory_connected,
        cpu_before,
        cpu_after,
    );
    let server = match used {
        (Some(pid), Some(before), Some(connected), Some(cpu_before), Some(cpu_after)) => {
            let cpu_seconds = cpu_after - cpu_before;
            Some(ServerUse {
                pid,
                cpu_seconds,
                cpu_seconds_per_million_deliveries: (deliveries > 0)
                    .then(|| cpu_seconds / (deliveries as f64 / 1e6)),
                resident_bytes_before: before,
                resident_bytes_connected: connected,
                resident_bytes_per_connection: (connected as f64 - before as f64)
                    / subscribers as f64,
            })
        }
        _ => None,
    };
    let report = Report {
        subscribers,
        rooms,
        seconds: flags.duration.into(),
        traffic,
        ended: tally.ended(),
        server,
    };
    let mut out = io::stdout();
    if flags.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        write!(out, "{report}")?;
    }
    ensure!(
        report.is_clean(),
        "not every subscriber got every delta exactly once and in order"
    );
    Ok(())
}

async fn connect(flags: &Flags, plan: &Plan, tally: &Rc<Tally>) -> anyhow::Result<()> {
    let subscribers = flags.subscribers as usize;
    let progress = ProgressBar::new(subscribers as u64).with_style(style(
        "connecting {bar:30} {human_pos}/{human_len} ({per_sec})",
    ));
    let shared = Rc::new(Shared {
        url: flags.server.server(),
        tally: tally.clone(),
        buffer: Default::default(),
        scanner: Default::default(),
    });
    let places = Rc::new(Semaphore::new(CONNECTING));
    let mut connecting = Vec::with_capacity(subscribers);
    for index in 0..subscribers {
        let room = plan.rooms[plan.room_of_subscriber(index)].name.clone();
        let (shared, places) = (shared.clone(), places.clone());
        connecting.push(actix_rt::spawn(async move {
            let _place = places.acquire().await;
            Subscriber::start(index, room, shared).await
        }));
    }
    for task in connecting {
        let subscriber = task.await?.map_err(|error| match error {
            NotSubscribed::Socket(SocketError::Unreachable { .. }) => {
                let advice = how_to_reach(&flags.server.url);
                anyhow::Error::new(error).context(advice)
            }
            error => anyhow::Error::new(error).context("can't subscribe"),
        })?;
        actix_rt::spawn(subscriber.run());
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(())
}

async fn publish(flags: &Flags, plan: &Plan, tally: &Rc<Tally>) -> anyhow::Result<Traffic> {
    let progress = ProgressBar::new_spinner().with_style(style("{spinner} {msg}"));
    let shown = actix_rt::spawn(show(progress.clone(), tally.clone()));
    let start = Instant::now();
    let end = start + Duration::from_secs(flags.duration.into());
    let payload = flags.payload as usize;
    let url = flags.publish_url.as_ref().unwrap_or(&flags.server.url);
    let url = &flags.server.at(url);
    let mut publishing = Vec::new();
    for index in 0..usize::from(flags.publishers) {
        let publisher = Publisher::new(index, plan, payload, url, tally.clone());
        publishing.push(match flags.rate {
            Rate::PerSecond(rate) => {
                // Publishers take turns.
                let turn = Duration::from_secs_f64(1.0 / rate);
                let first = start + turn.mul_f64(index as f64);
                let interval = turn * flags.publishers.into();
                actix_rt::spawn(publisher.at_rate(first, interval, end))
            }
            Rate::Saturating => {
                let each = AHEAD_BYTES / u64::from(flags.payload) + 1;
                let ahead = each * u64::from(flags.subscribers);
                actix_rt::spawn(publisher.saturating(flags.batch.into(), ahead, end))
            }
        });
    }
    for publisher in publishing {
        publisher.await?.context("publishing failed")?;
    }
    let published_seconds = start.elapsed().as_secs_f64();
    await_stragglers(tally).await;
    shown.abort();
    progress.finish_and_clear();

    let verdict = tally.verdict();
    let until_last_ns = tally.last_delivery_ns().saturating_sub(tally.ns_at(start));
    let publishes = tally.sent();
    let deliveries = tally.delivered();
    Ok(Traffic {
        payload_bytes: payload,
        publishers: flags.publishers.into(),
        publishes,
        publishes_per_second: publishes as f64 / published_seconds,
        deliveries,
        deliveries_per_second: deliveries as f64 / (until_last_ns.max(1) as f64 / 1e9),
        latency_ms: Latency {
            p50: tally.latency_ms(0.5),
            p90: tally.latency_ms(0.9),
            p99: tally.latency_ms(0.99),
            max: tally.latency_ms(1.0),
        },
        lost: verdict.lost,
        doubled: verdict.doubled,
        swapped: verdict.swapped,
    })
}

/// Waits until everything sent has come, or nothing has come for a while.
async fn await_stragglers(tally: &Tally) {
    let mut seen = tally.delivered();
    while tokio::time::timeout(LOST_AFTER, tally.caught_up(0))
        .await
        .is_err()
        && tally.delivered() > seen
    {
        seen = tally.delivered();
    }
}

async fn show(progress: ProgressBar, tally: Rc<Tally>) {
    const EVERY: Duration = Duration::from_millis(250);
    let mut seen = 0;
    loop {
        sleep(EVERY).await;
        let delivered = tally.delivered();
        let rate = (delivered - seen) as f64 / EVERY.as_secs_f64();
        seen = delivered;
        progress.set_message(format!(
            "{} deliveries, {}/s, p99 {:.2} ms",
            HumanCount(delivered),
            HumanCount(rate as u64),
            tally.latency_ms(0.99)
        ));
        progress.tick();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_or_max() {
        assert_eq!("max".parse(), Ok(Rate::Saturating));
        assert_eq!("0.5".parse(), Ok(Rate::PerSecond(0.5)));
        for text in ["0", "-1", "NaN", "fast", "inf"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
