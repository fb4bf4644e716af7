//! What a run tells in the end, for people and for machines.

use std::{collections::BTreeMap, fmt};

use indicatif::HumanCount;
use serde::Serialize;

/// The figures of one run. Fields that do not belong to its kind are left out.
#[derive(Debug, Serialize)]
pub struct Report {
    pub subscribers: usize,
    pub rooms: usize,
    /// How long was published, or held idle, in seconds.
    pub seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
    /// Connections that ended early, by reason.
    pub ended: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerUse>,
}

#[derive(Debug, Serialize)]
pub struct Traffic {
    pub payload_bytes: usize,
    pub publishers: usize,
    pub publishes: u64,
    pub publishes_per_second: f64,
    pub deliveries: u64,
    /// Until the last delivery.
    pub deliveries_per_second: f64,
    pub latency_ms: Latency,
    pub lost: u64,
    pub doubled: u64,
    /// Deliveries that came behind a later one.
    pub swapped: u64,
}

/// From a publisher's clock to a subscriber's, in ms.
#[derive(Debug, Serialize)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

/// What the server's process used.
#[derive(Debug, Serialize)]
pub struct ServerUse {
    pub pid: u32,
    /// Of the run, without connecting.
    pub cpu_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds_per_million_deliveries: Option<f64>,
    pub resident_bytes_before: u64,
    pub resident_bytes_connected: u64,
    pub resident_bytes_per_connection: f64,
}

impl Report {
    /// Whether every subscriber got every delta exactly once, in order, over a connection that
    /// held.
    pub fn is_clean(&self) -> bool {
        let whole =
            |traffic: &Traffic| (traffic.lost, traffic.doubled, traffic.swapped) == (0, 0, 0);
        self.ended.is_empty() && self.traffic.as_ref().is_none_or(whole)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |number: u64| HumanCount(number);
        write!(
            f,
            "{} subscribers in {} {}, ",
            count(self.subscribers as u64),
            count(self.rooms as u64),
            if self.rooms == 1 { "room" } else { "rooms" }
        )?;
        match &self.traffic {
            None => writeln!(f, "idle for {:.1} s", self.seconds)?,
            Some(traffic) => writeln!(
                f,
                "{} B deltas from {} publishers for {:.1} s",
                traffic.payload_bytes, traffic.publishers, self.seconds
            )?,
        }
        if let Some(traffic) = &self.traffic {
            let Latency { p50, p90, p99, max } = &traffic.latency_ms;
            let rate = |rate: f64| HumanCount(rate as u64);
            writeln!(
                f,
                "  publishes   {:>13}  {:>11}/s\n  deliveries  {:>13}  {:>11}/s",
                count(traffic.publishes).to_string(),
                rate(traffic.publishes_per_second).to_string(),
                count(traffic.deliveries).to_string(),
                rate(traffic.deliveries_per_second).to_string(),
            )?;
            writeln!(
                f,
                "  latency     p50 {p50:.2} ms   p90 {p90:.2} ms   p99 {p99:.2} ms   \
                 max {max:.2} ms"
            )?;
            writeln!(
                f,
                "  lost {}   doubled {}   swapped {}",
                traffic.lost, traffic.doubled, traffic.swapped
            )?;
        }
        for (reason, connections) in &self.ended {
            writeln!(f, "  {connections} connections ended early: {reason}")?;
        }
        if let Some(server) = &self.server {
            write!(f, "  server      {:.2} CPU s", server.cpu_seconds)?;
            if let Some(cost) = server.cpu_seconds_per_million_deliveries {
                write!(f, ", {cost:.3} per million deliveries")?;
            }
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            writeln!(
                f,
                "\n  memory      {:.2} KB per connection ({:.1} MiB before, \
                 {:.1} MiB with all connected)",
                server.resident_bytes_per_connection / 1e3,
                mib(server.resident_bytes_before),
                mib(server.resident_bytes_connected),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            subscribers: 1000,
            rooms: 1,
            seconds: 10.0,
            traffic: Some(Traffic {
                payload_bytes: 128,
                publishers: 4,
                publishes: 1000,
                publishes_per_second: 100.0,
                deliveries: 1_000_000,
                deliveries_per_second: 100_000.0,
                latency_ms: Latency {
                    p50: 0.2,
                    p90: 0.25,
                    p99: 0.3,
                    max: 1.0,
                },
                lost: 0,
                doubled: 0,
                swapped: 0,
            }),
            ended: BTreeMap::new(),
            server: Some(ServerUse {
                pid: 7,
                cpu_seconds: 7.25,
                cpu_seconds_per_million_deliveries: Some(7.25),
                resident_bytes_before: 10 << 20,
                resident_bytes_connected: 12 << 20,
                resident_bytes_per_connection: 2097.0,
            }),
        }
    }

    #[test]
    fn people_read_a_few_aligned_lines() {
        assert_eq!(
            report().to_string(),
            "\
1,000 subscribers in 1 room, 128 B deltas from 4 publishers for 10.0 s
  publishes           1,000          100/s
  deliveries      1,000,000      100,000/s
  latency     p50 0.20 ms   p90 0.25 ms   p99 0.30 ms   max 1.00 ms
  lost 0   doubled 0   swapped 0
  server      7.25 CPU s, 7.250 per million deliveries
  memory      2.10 KB per connection (10.0 MiB before, 12.0 MiB with all connected)
"
        );
    }

    #[test]
    fn anything_lost_doubled_swapped_or_cut_off_is_not_clean() {
        assert!(report().is_clean());
        for spoil in [
            |traffic: &mut Traffic| traffic.lost = 1,
            |traffic: &mut Traffic| traffic.doubled = 1,
            |traffic: &mut Traffic| traffic.swapped = 1,
        ] {
            let mut report = report();
            spoil(report.traffic.as_mut().unwrap());
            assert!(!report.is_clean());
        }
        let mut report = report();
        report.ended.insert("3008 slow".into(), 1);
        assert!(!report.is_clean());
    }
}
