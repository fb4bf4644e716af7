//! Whether every client saw exactly the log, and what the run was like.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    time::Duration,
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
    publishers::Published,
    world::{Counts, World},
};

/// Complaints that are written out; the others are counted.
const SHOWN: usize = 20;

/// Each room's deltas in their order.
type Log = BTreeMap<String, Vec<Entry>>;

pub struct Verdict {
    figures: Vec<(&'static str, String)>,
    wrong: Vec<String>,
}

impl Verdict {
    pub fn find(
        world: &World,
        plan: &Plan,
        published: &[Published],
        clients: &[Client],
        faults: &[Account],
    ) -> Self {
        let mut wrong = Vec::new();
        let log = written(published, &mut wrong);
        compare_histories(world, plan, &log, &mut wrong);
        let tally = judge(clients, &log, &mut wrong);
        Self {
            figures: figures(world, plan, clients, faults, &tally),
            wrong,
        }
    }

    pub fn is_good(&self) -> bool {
        self.wrong.is_empty()
    }
}

/// What publishers were told: each position belongs to one delta.
fn written(published: &[Published], wrong: &mut Vec<String>) -> Log {
    let mut rooms: HashMap<&str, BTreeMap<u64, &Published>> = HashMap::new();
    for delta in published {
        let room = rooms.entry(&delta.room).or_default();
        if let Some(other) = room.insert(delta.offset, delta) {
            let (offset, room) = (delta.offset, &delta.room);
            wrong.push(format!(
                "{room}: offset {offset} was given twice, to {} and {}",
                other.data, delta.data
            ));
        }
        if let Some((_, other)) = room.first_key_value()
            && other.epoch != delta.epoch
        {
            wrong.push(format!(
                "{}: two epochs, {} and {}",
                delta.room, other.epoch, delta.epoch
            ));
        }
    }
    let entries = |room: BTreeMap<u64, &Published>| {
        let entry = |(offset, delta): (u64, &Published)| Entry::new(offset, delta.data.clone());
        room.into_iter().map(entry).collect()
    };
    rooms
        .into_iter()
        .map(|(name, room)| (name.to_owned(), entries(room)))
        .collect()
}

/// Every instance must keep exactly what publishers were told.
fn compare_histories(world: &World, plan: &Plan, log: &Log, wrong: &mut Vec<String>) {
    for instance in 0..INSTANCES {
        let server = world.server(instance);
        for room in (0..plan.rooms as u64).map(Plan::room) {
            let expected = log.get(&room).map_or(&[][..], Vec::as_slice);
            let last = expected.last().map_or(0, |entry| entry.offset);
            let kept = eventually("an instance to have read everything", || {
                let kept = server.history(&room);
                (kept.last().map_or(0, |entry| entry.offset) >= last).then_some(kept)
            });
            if kept == expected {
                continue;
            }
            let differs = kept.iter().zip(expected).find(|(kept, told)| kept != told);
            wrong.push(format!(
                "{room}: instance {instance} keeps {} deltas, publishers were told of {}; the first that differ: {differs:?}",
                kept.len(),
                expected.len()
            ));
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
