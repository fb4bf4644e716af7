//! Who publishes, and never gives up: every delta is repeated with its key until its position is
//! known.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json};

use crate::{
    common::{
        http::{Http, Reply},
        server::{JSON, deltas_of},
    },
    plan::Plan,
    random::Random,
    world::{Counts, IMPATIENCE, OUTAGE, World},
};

/// Between two attempts at one delta.
const RETRY: Duration = Duration::from_millis(50);

/// Deltas of one request where several go together.
const BATCH: usize = 5;

/// A delta, and what its publisher was told of its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    pub room: String,
    pub data: String,
    pub epoch: String,
    pub offset: u64,
}

/// Epoch and offset.
type Position = (String, u64);

/// How a publisher goes about it.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// One delta after the other, at any instance.
    Single,
    /// Several deltas in one request.
    Batch,
    /// Each delta to all instances at once, with one key.
    Everywhere,
}

pub struct Publisher<'a> {
    world: &'a World,
    plan: &'a Plan,
    random: Random,
    name: usize,
    made: u64,
}

/// A delta on its way.
struct Pending {
    room: String,
    key: String,
    data: String,
    position: Option<Position>,
}

impl<'a> Publisher<'a> {
    pub fn new(world: &'a World, plan: &'a Plan, name: usize) -> Self {
        let random = Random::new(plan.seed ^ (name as u64) << 32);
        Self {
            world,
            plan,
            random,
            name,
            made: 0,
        }
    }

    /// Publishes until the run is over; gives everything, in the order in which it was published.
    pub fn run(mut self) -> Vec<Published> {
        let way = [Way::Single, Way::Batch, Way::Single, Way::Everywhere][self.name % 4];
        let mut published = Vec::new();
        while !self.world.is_over.load(Ordering::Relaxed) {
            let count = if matches!(way, Way::Batch) { BATCH } else { 1 };
            let pending = (0..count).map(|_| self.make()).collect();
            published.extend(self.publish(pending, way));
            Counts::add(&self.world.counts.published, count as u64);
            thread::sleep(self.plan.pause * count as u32);
        }
        published
    }

    fn make(&mut self) -> Pending {
        self.made += 1;
        let (made, name) = (self.made, self.name);
        Pending {
            room: Plan::room(self.random.below(self.plan.rooms as u64)),
            key: format!("{name}-{made}"),
            data: json!({"by": name, "n": made, "t": now_ms()}).to_string(),
            position: None,
        }
    }

    fn publish(&mut self, mut pending: Vec<Pending>, way: Way) -> Vec<Published> {
        let deadline = Instant::now() + OUTAGE;
        let several = pending.len() > 1;
        loop {
            let told = match way {
                Way::Single => self.single(&pending[0]),
                Way::Batch => self.batch(&pending),
                Way::Everywhere => Ok(self.everywhere(&pending[0])),
            };
            // All that were told of one delta were told of one place.
            for (n, position) in told.iter().flatten().enumerate() {
                pending[if several { n } else { 0 }].placed(position.clone());
            }
            if pending.iter().all(|delta| delta.position.is_some()) {
                return pending.into_iter().map(Pending::published).collect();
            }
            let keys = pending.iter().map(|delta| &delta.key);
            assert!(
                Instant::now() < deadline,
                "no position for {OUTAGE:?} for {:?}: {told:?}",
                keys.collect::<Vec<_>>()
            );
            Counts::add(&self.world.counts.repeats, 1);
            thread::sleep(RETRY);
        }
    }

    fn single(&mut self, delta: &Pending) -> io::Result<Vec<Option<Position>>> {
        let reply = post(self.world.any(&mut self.random), delta)?;
        Ok(vec![answer(&reply)])
    }

    fn everywhere(&mut self, delta: &Pending) -> Vec<Option<Position>> {
        thread::scope(|scope| {
            let posting = |address| scope.spawn(move || post(address, delta));
            let posting: Vec<_> = self.world.addresses().map(posting).collect();
            let told = posting
                .into_iter()
                .map(|post| post.join().expect("it answers"));
            told.map(|reply| reply.ok().and_then(|reply| answer(&reply)))
                .collect()
        })
    }

    fn batch(&mut self, pending: &[Pending]) -> io::Result<Vec<Option<Position>>> {
        let entry = |delta: &Pending| {
            let (room, key, data) = (&delta.room, &delta.key, &delta.data);
            format!(r#"{{"room":"{room}","id":"{key}","data":{data}}}"#)
        };
        let entries: Vec<String> = pending.iter().map(entry).collect();
        let body = format!("[{}]", entries.join(","));
        let mut http = Http::new(self.world.any(&mut self.random)).wait_at_most(IMPATIENCE);
        let reply = http.try_request("POST", "/v1/deltas", &[JSON], body.as_bytes())?;
        let results = match reply.status {
            200 => reply.json()["results"].as_array().cloned(),
            503 => return Ok(vec![None; pending.len()]),
            status => panic!("a batch is answered with {status}: {}", reply.text()),
        };
        let results = results.expect("a result for each");
        Ok(results
            .iter()
            .map(|result| position(result, &result["status"]))
            .collect())
    }
}

impl Pending {
    fn placed(&mut self, told: Option<Position>) {
        if let (Some(before), Some(now)) = (&self.position, &told) {
            assert_eq!(before, now, "{} has two positions", self.key);
        }
        self.position = self.position.take().or(told);
    }

    fn published(self) -> Published {
        let (epoch, offset) = self.position.expect("every delta has its position");
        Published {
            room: self.room,
            data: self.data,
            epoch,
            offset,
        }
    }
}

fn post(address: SocketAddr, delta: &Pending) -> io::Result<Reply> {
    let headers = [("Idempotency-Key", delta.key.as_str())];
    let mut http = Http::new(address).wait_at_most(IMPATIENCE);
    http.try_request(
        "POST",
        &deltas_of(&delta.room),
        &headers,
        delta.data.as_bytes(),
    )
}

fn answer(reply: &Reply) -> Option<Position> {
    position(&reply.json(), &json!(reply.status))
}

/// The position in an answer; none if it is not known.
fn position(answer: &Value, status: &Value) -> Option<Position> {
    match status.as_u64() {
        Some(200 | 201) => {
            let epoch = answer["epoch"].as_str().expect("an epoch");
            let offset = answer["offset"].as_u64().expect("an offset");
            Some((epoch.into(), offset))
        }
        Some(202 | 503) => None,
        _ => panic!("a publish is answered with {answer}"),
    }
}

/// The time in milliseconds, for both ends of a delivery.
pub fn now_ms() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed();
    since.map_or(0, |since| since.as_millis() as u64)
}
