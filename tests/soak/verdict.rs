//! Whether every client saw exactly the log, and what the run was like.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use crate::{
    clients::Client,
    common::{
        Entry, eventually,
        sequence::{Wrong, check},
    },
    faults::Account,
    plan::{INSTANCES, Plan},
    producers::Sent,
    publishers::Published,
    world::{Counts, OUTAGE, World},
};

/// Complaints that are written out; the others are counted.
const SHOWN: usize = 20;

/// Each room's deltas in their order.
pub type Log = BTreeMap<String, Vec<Entry>>;

pub struct Verdict {
    figures: Vec<(&'static str, String)>,
    wrong: Vec<String>,
}

impl Verdict {
    pub fn find(
        world: &World,
        plan: &Plan,
        log: &Log,
        (published, sent): (&[Published], &[Vec<Sent>]),
        clients: &[Client],
        faults: &[Account],
    ) -> Self {
        let mut wrong = Vec::new();
        compare(log, published, sent, &mut wrong);
        compare_histories(world, log, &mut wrong);
        let tally = judge(clients, log, &mut wrong);
        Self {
            figures: figures(world, plan, clients, faults, &tally),
            wrong,
        }
    }

    pub fn is_good(&self) -> bool {
        self.wrong.is_empty()
    }
}

/// The log as the first instance has it, once it has everything that was published.
pub fn written(world: &World, plan: &Plan, published: &[Published], sent: &[Vec<Sent>]) -> Log {
    let expected = published.len() + sent.iter().map(Vec::len).sum::<usize>();
    let deadline = Instant::now() + OUTAGE;
    loop {
        let log: Log = (0..plan.rooms as u64)
            .map(Plan::room)
            .map(|room| (room.clone(), world.server(0).history(&room)))
            .collect();
        // Who has less after so long a time has lost something: that is for the verdict.
        if log.values().map(Vec::len).sum::<usize>() >= expected || Instant::now() > deadline {
            return log;
        }
        thread::sleep(Duration::from_millis(500));
    }
}

/// The log must be what publishers were told, and what producers sent: each delta once, nothing
/// else, and those of one producer in their order.
fn compare(log: &Log, published: &[Published], sent: &[Vec<Sent>], wrong: &mut Vec<String>) {
    let mut found: HashMap<(&str, &str), Vec<u64>> = HashMap::new();
    for (room, entries) in log {
        for entry in entries {
            let places = found.entry((room, &entry.data)).or_default();
            places.push(entry.offset);
        }
    }
    let mut epochs: HashMap<&str, &str> = HashMap::new();
    for delta in published {
        let places = found
            .remove(&(&*delta.room, &*delta.data))
            .unwrap_or_default();
        if places != [delta.offset] {
            wrong.push(format!("{delta:?} is in the log at {places:?}"));
        }
        let epoch = epochs.entry(&delta.room).or_insert(&delta.epoch);
        if *epoch != delta.epoch {
            wrong.push(format!("{delta:?} is of another epoch than {epoch}"));
        }
    }
    for of_one in sent {
        let mut last: HashMap<&str, u64> = HashMap::new();
        for delta in of_one {
            let places = found
                .remove(&(&*delta.room, &*delta.data))
                .unwrap_or_default();
            let last = last.entry(&delta.room).or_insert(0);
            match places[..] {
                [place] if place > *last => *last = place,
                _ => wrong.push(format!(
                    "{delta:?} is in the log at {places:?}, behind {last}"
                )),
            }
        }
    }
    let unknown = found
        .keys()
        .map(|(room, data)| format!("{room}: nobody published {data}"));
    wrong.extend(unknown);
}

/// All instances must keep the same.
fn compare_histories(world: &World, log: &Log, wrong: &mut Vec<String>) {
    for instance in 1..INSTANCES {
        let server = world.server(instance);
        for (room, expected) in log {
            let last = expected.last().map_or(0, |entry| entry.offset);
            let kept = eventually("an instance to have read everything", || {
                let kept = server.history(room);
                (kept.last().map_or(0, |entry| entry.offset) >= last).then_some(kept)
            });
            if kept != *expected {
                let differs = kept.iter().zip(expected).find(|(kept, has)| kept != has);
                let (kept, has) = (kept.len(), expected.len());
                wrong.push(format!(
                    "{room}: instance {instance} keeps {kept} deltas, the first one {has}; \
                     the first that differ: {differs:?}"
                ));
            }
        }
    }
}

/// How many clients' rooms went wrong, and how.
#[derive(Default)]
struct Tally {
    lost: usize,
    doubled: usize,
    misordered: usize,
    otherwise: usize,
    reloads: usize,
}

fn judge(clients: &[Client], log: &Log, wrong: &mut Vec<String>) -> Tally {
    let mut tally = Tally::default();
    for (number, client) in clients.iter().enumerate() {
        tally.otherwise += client.wrong.len();
        wrong.extend(
            client
                .wrong
                .iter()
                .map(|what| format!("client {number}: {what}")),
        );
        for view in &client.views {
            // Nothing that happens in a run may cost a client its place.
            let reloads = view.reloads();
            if reloads > 0 {
                tally.reloads += reloads;
                wrong.push(format!("client {number}: told to reload {}", view.room));
            }
            let deltas = log.get(&view.room).map_or(&[][..], Vec::as_slice);
            let Err(found) = check(deltas, &view.seen) else {
                continue;
            };
            wrong.push(format!("client {number}: {}: {found}", view.room));
            match found {
                Wrong::Lost { .. } => tally.lost += 1,
                Wrong::Doubled { .. } => tally.doubled += 1,
                Wrong::OutOfOrder { .. } | Wrong::WentBack { .. } => tally.misordered += 1,
                Wrong::Unknown { .. } | Wrong::Changed { .. } | Wrong::NotJoined => {
                    tally.otherwise += 1;
                }
            }
        }
    }
    tally
}

fn figures(
    world: &World,
    plan: &Plan,
    clients: &[Client],
    faults: &[Account],
    tally: &Tally,
) -> Vec<(&'static str, String)> {
    let counts = &world.counts;
    let count = |counter| Counts::get(counter).to_string();
    let mut latency = Histogram::<u64>::new(3).expect("three digits are allowed");
    for client in clients {
        latency.add(&client.latency).expect("both are of one kind");
    }
    let quantile = |of| latency.value_at_quantile(of);
    let slowest_return = clients.iter().map(|client| client.slowest_return).max();
    let slowest = faults.iter().max_by_key(|account| account.after);
    let failovers = faults.iter().filter_map(|account| account.without_healing);
    let mut rows = vec![
        ("seed", plan.seed.to_string()),
        ("deltas published", count(&counts.published)),
        ("publishes repeated", count(&counts.repeats)),
        ("deltas delivered", count(&counts.delivered)),
        ("clients' moves", count(&counts.moves)),
        (
            "connections lost",
            clients
                .iter()
                .map(|client| client.lost)
                .sum::<u64>()
                .to_string(),
        ),
        ("replays", count(&counts.replays)),
        ("faults", faults.len().to_string()),
        ("lost", tally.lost.to_string()),
        ("doubled", tally.doubled.to_string()),
        ("misordered", tally.misordered.to_string()),
        ("otherwise wrong", tally.otherwise.to_string()),
        ("told to reload", tally.reloads.to_string()),
        (
            "publish to client",
            format!(
                "p50 {} ms, p99 {} ms, most {} ms",
                quantile(0.5),
                quantile(0.99),
                latency.max()
            ),
        ),
        (
            "slowest return",
            seconds(slowest_return.unwrap_or_default()),
        ),
    ];
    if let Some(account) = slowest {
        let (after, fault) = (seconds(account.after), account.fault);
        rows.push(("slowest recovery", format!("{after} after {fault:?}")));
    }
    if let Some(failover) = failovers.max() {
        rows.push(("slowest fail-over", seconds(failover)));
    }
    rows
}

pub fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (name, value) in &self.figures {
            writeln!(f, "{name:>20}  {value}")?;
        }
        for what in self.wrong.iter().take(SHOWN) {
            writeln!(f, "WRONG: {what}")?;
        }
        if self.wrong.len() > SHOWN {
            writeln!(f, "and {} more that are wrong", self.wrong.len() - SHOWN)?;
        }
        let verdict = if self.is_good() {
            "exactly the log, everywhere"
        } else {
            "WRONG"
        };
        write!(f, "{:>20}  {verdict}", "verdict")
    }
}
