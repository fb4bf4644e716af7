//! One publisher: a keep-alive connection with one request under way, which keeps the order of its
//! lane.

use std::{rc::Rc, time::Duration};

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::{
    cli::bench::{
        payload::{self, Stamp},
        plan::Plan,
        tally::Tally,
    },
    client::{
        address::ServerUrl,
        http::{HttpClient, HttpError, Outcome, Problem},
    },
};

/// Entries that a request takes when deltas are overdue.
const MOST_OVERDUE: u64 = 500;
/// How long to wait before sending again what a busy server did not take.
const BUSY_WAIT: Duration = Duration::from_millis(20);

/// Publishes to its rooms in turn.
pub struct Publisher {
    client: HttpClient,
    tally: Rc<Tally>,
    /// The index and the name of each room.
    rooms: Vec<(usize, String)>,
    lane: u16,
    payload_bytes: usize,
    /// Counts all its deltas.
    count: u64,
}

impl Publisher {
    pub fn new(
        index: usize,
        plan: &Plan,
        payload_bytes: usize,
        url: &ServerUrl,
        tally: Rc<Tally>,
    ) -> Self {
        let (beat, lane) = plan.beat_of(index);
        let name = |room: usize| plan.rooms[room].name.to_string();
        Self {
            client: HttpClient::new(url.clone()),
            tally,
            rooms: beat.into_iter().map(|room| (room, name(room))).collect(),
            lane,
            payload_bytes,
            count: 0,
        }
    }

    /// Publishes a delta every `interval` from `start` to `end`. A delta that is overdue because
    /// the answer before it took long carries the time at which it was due, so that a slow server
    /// can't hide behind a slow publisher; one that is still overdue at the end is left out.
    pub async fn at_rate(
        mut self,
        start: Instant,
        interval: Duration,
        end: Instant,
    ) -> anyhow::Result<()> {
        let due_at = |count: u64| start + Duration::from_nanos(interval.as_nanos() as u64 * count);
        loop {
            let due = due_at(self.count);
            if due >= end || Instant::now() >= end {
                return Ok(());
            }
            let waited = Instant::now() < due;
            if waited {
                sleep_until(due).await;
            }
            let now = Instant::now();
            let mut batch = Vec::new();
            for _ in 0..MOST_OVERDUE {
                let due = due_at(self.count);
                if due > now || due >= end {
                    break;
                }
                self.add(if waited { now } else { due }, &mut batch);
            }
            self.send(batch).await?;
        }
    }

    /// Publishes `batch` deltas at a time until `end`, as fast as they are answered and at most
    /// `ahead` deliveries ahead of the subscribers: the generator must not be what drowns them.
    pub async fn saturating(mut self, batch: u64, ahead: u64, end: Instant) -> anyhow::Result<()> {
        loop {
            let caught_up = timeout_at(end, self.tally.caught_up(ahead)).await;
            if caught_up.is_err() || Instant::now() >= end {
                return Ok(());
            }
            let mut body = Vec::new();
            for _ in 0..batch {
                self.add(Instant::now(), &mut body);
            }
            self.send(body).await?;
        }
    }

    fn add(&mut self, at: Instant, batch: &mut Vec<u8>) {
        let turn = (self.count % self.rooms.len() as u64) as usize;
        let (room, name) = &self.rooms[turn];
        self.count += 1;
        batch.push(if batch.is_empty() { b'[' } else { b',' });
        batch.extend_from_slice(b"{\"room\":\"");
        batch.extend_from_slice(name.as_bytes());
        batch.extend_from_slice(b"\",\"data\":");
        let stamp = Stamp {
            at: self.tally.ns_at(at),
            lane: self.lane,
            sequence: self.tally.send(*room, self.lane),
        };
        payload::write(stamp, self.payload_bytes, batch);
        batch.push(b'}');
    }

    async fn send(&self, mut batch: Vec<u8>) -> anyhow::Result<()> {
        batch.push(b']');
        let batch = bytes::Bytes::from(batch);
        loop {
            let refused = match self.client.publish_batch(batch.clone()).await {
                Ok(outcomes) => first_refusal(outcomes),
                Err(HttpError::Problem(problem)) => Some(problem),
                Err(error) => return Err(error).context("can't publish"),
            };
            let refused = match refused {
                None => return Ok(()),
                // A batch is taken as a whole or not at all, unless one of its entries is bad.
                Some(problem) if problem.is_not_taken() => problem,
                Some(problem) => bail!("the server refused a delta: {problem}"),
            };
            let told = Duration::from_secs(refused.retry_after.unwrap_or(0));
            sleep(told.max(BUSY_WAIT)).await;
        }
    }
}

fn first_refusal(outcomes: Vec<Outcome>) -> Option<Problem> {
    outcomes.into_iter().find_map(|outcome| match outcome {
        Outcome::Accepted(_) => None,
        // It will be delivered, and that is what counts here.
        Outcome::Refused(problem) if problem.is_published() => None,
        Outcome::Refused(problem) => Some(problem),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake::FakeServer;

    fn publisher(server: &FakeServer, tally: &Rc<Tally>) -> Publisher {
        let plan = Plan::new("x", 2, 2, 1);
        Publisher::new(0, &plan, payload::MIN_BYTES, &server.url(), tally.clone())
    }

    fn tally() -> Rc<Tally> {
        Rc::new(Tally::new(&Plan::new("x", 2, 2, 1), 2))
    }

    const TAKEN: (u16, &str) = (200, r#"{"results":[]}"#);

    #[actix_rt::test]
    async fn a_steady_rate_visits_the_rooms_in_turn_and_ends_in_time() {
        tokio::time::pause();
        let (server, tally) = (FakeServer::start([TAKEN; 5]).await, tally());
        let start = Instant::now();
        let every = Duration::from_millis(100);
        publisher(&server, &tally)
            .at_rate(start, every, start + 4 * every)
            .await
            .unwrap();
        let rooms: Vec<String> = server
            .requests()
            .iter()
            .map(|request| request.body.split('"').nth(3).unwrap().to_owned())
            .collect();
        assert_eq!(rooms, ["bench-x-0", "bench-x-1", "bench-x-0", "bench-x-1"]);
        assert_eq!(tally.sent(), 4);
    }

    #[actix_rt::test]
    async fn what_was_not_taken_is_sent_again_unchanged() {
        tokio::time::pause();
        let refusal =
            r#"{"status":503,"type":"urn:roomwire:problem:not-taken","title":"","detail":""}"#;
        let whole = (503, refusal.to_owned());
        let entries = (200, format!(r#"{{"results":[{refusal}]}}"#));
        let taken = (200, TAKEN.1.to_owned());
        let server = FakeServer::start([whole, entries, taken]).await;
        let tally = tally();
        let start = Instant::now();
        publisher(&server, &tally)
            .at_rate(
                start,
                Duration::from_secs(9),
                start + Duration::from_secs(1),
            )
            .await
            .unwrap();
        let requests = server.requests();
        assert_eq!(requests.len(), 3);
        assert!(
            requests
                .iter()
                .all(|request| request.body == requests[0].body)
        );
    }

    #[actix_rt::test]
    async fn what_was_published_but_not_read_back_yet_is_not_sent_again() {
        tokio::time::pause();
        let unplaced = (200, r#"{"results":[{"status":202,"id":"k"}]}"#);
        let (server, tally) = (FakeServer::start([unplaced]).await, tally());
        let start = Instant::now();
        publisher(&server, &tally)
            .at_rate(
                start,
                Duration::from_secs(9),
                start + Duration::from_secs(1),
            )
            .await
            .unwrap();
        assert_eq!(server.requests().len(), 1);
    }

    #[actix_rt::test]
    async fn a_refusal_ends_the_run() {
        let bad = (
            413,
            r#"{"status":413,"type":"urn:x","title":"Too large","detail":"x"}"#,
        );
        let server = FakeServer::start([bad]).await;
        let start = Instant::now();
        let error = publisher(&server, &tally())
            .saturating(1, u64::MAX, start + Duration::from_secs(5))
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "the server refused a delta: 413 Too large: x"
        );
    }
}
