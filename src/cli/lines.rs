//! Publishes JSON lines in their order: a thread reads and checks them, one request at a time
//! carries what is there.

use std::{
    io::{BufRead, Read},
    thread,
};

use anyhow::bail;
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use crate::{
    cli::patience::Patience,
    client::http::{Accepted, HttpClient, HttpError, Outcome},
    delta::RoomName,
};

const MAX_LINE_BYTES: u64 = 16 * 1024 * 1024;
/// A request is closed once it holds this much.
const REQUEST_BYTES: usize = 1024 * 1024;
/// Lines that may wait between the reading thread and the requests.
const QUEUE_LINES: usize = 4096;

/// What bounds the work.
pub struct Bounds {
    /// Most lines in one request.
    pub lines: usize,
    /// Whether a bad line is left out instead of ending the work.
    pub keep_going: bool,
}

/// What became of the lines.
#[derive(Debug, Default)]
pub struct Summary {
    pub published: u64,
    /// Where the last delta stands.
    pub last: Option<Accepted>,
    pub bad_lines: u64,
}

/// What a line asks for.
#[derive(Debug, Clone)]
pub struct Delta {
    pub room: RoomName,
    /// The idempotency key.
    pub id: String,
    /// The client that published it, as JSON.
    pub info: Option<Bytes>,
    /// JSON.
    pub data: Bytes,
}

/// Something about a line, and the line's number from 1.
pub type Numbered<T> = (u64, T);

/// One line that is not blank, by its number from 1.
struct Line {
    number: u64,
    delta: Result<Delta, String>,
}

pub struct LinePublisher {
    client: HttpClient,
    patience: Patience,
    progress: ProgressBar,
    summary: Summary,
}

impl LinePublisher {
    pub fn new(client: HttpClient) -> Self {
        let style = ProgressStyle::with_template("{spinner} {human_pos} deltas, {per_sec}")
            .expect("the template is valid");
        Self {
            client,
            patience: Patience::default(),
            progress: ProgressBar::new_spinner().with_style(style),
            summary: Summary::default(),
        }
    }

    /// Publishes what `parse` makes of the lines of `input`, to its end or to the first bad one. `choose` may leave out
    /// some of what is about to be published.
    pub async fn run(
        mut self,
        input: impl BufRead + Send + 'static,
        bounds: &Bounds,
        parse: impl Fn(u64, &[u8]) -> Result<Delta, String> + Send + 'static,
        mut choose: impl AsyncFnMut(Vec<Numbered<Delta>>) -> anyhow::Result<Vec<Numbered<Delta>>>,
    ) -> anyhow::Result<Summary> {
        let (sender, mut lines) = mpsc::channel(QUEUE_LINES);
        // Ends with its input, with the process, or once nobody takes its lines.
        thread::spawn(move || read_lines(input, parse, &sender));

        while let Some(first) = lines.recv().await {
            let (batch, bad) = gather(first, &mut lines, bounds.lines);
            let batch = choose(batch).await?;
            // What stands before a bad line is published before the line is reported.
            self.send(&batch, bounds).await?;
            if let Some((number, reason)) = bad {
                self.bad_line(number, &reason, bounds)?;
            }
        }
        self.progress.finish_and_clear();
        Ok(self.summary)
    }

    async fn send(&mut self, batch: &[Numbered<Delta>], bounds: &Bounds) -> anyhow::Result<()> {
        let mut rest = batch;
        while !rest.is_empty() {
            let outcomes = match self.client.publish_batch(body(rest)).await {
                Ok(outcomes) if outcomes.len() == rest.len() => outcomes,
                Ok(outcomes) => bail!(
                    "the server answered {} of {} lines, from line {} on",
                    outcomes.len(),
                    rest.len(),
                    rest[0].0
                ),
                Err(error) => {
                    self.patience.wait_or_fail(error).await?;
                    continue;
                }
            };
            self.patience.answered();
            let mut busy = None;
            for (at, ((number, _), outcome)) in rest.iter().zip(outcomes).enumerate() {
                match outcome {
                    Outcome::Accepted(accepted) => {
                        self.summary.published += 1;
                        self.summary.last = Some(accepted);
                    }
                    Outcome::Refused(problem) if problem.is_temporary() => {
                        busy = Some((at, problem));
                        break;
                    }
                    Outcome::Refused(problem) => {
                        self.bad_line(*number, &problem.to_string(), bounds)?;
                    }
                }
            }
            self.progress.set_position(self.summary.published);
            // All from the first one on that was not taken is sent again: what was taken counts
            // once, by its key.
            rest = match busy {
                Some((at, problem)) => {
                    let error = HttpError::Problem(problem);
                    self.patience.wait_or_fail(error).await?;
                    &rest[at..]
                }
                None => &[],
            };
        }
        Ok(())
    }

    fn bad_line(&mut self, number: u64, reason: &str, bounds: &Bounds) -> anyhow::Result<()> {
        self.summary.bad_lines += 1;
        if !bounds.keep_going {
            bail!(
                "line {number}: {reason} ({} lines were published; \
                 --keep-going leaves out bad ones)",
                self.summary.published
            );
        }
        self.progress
            .suspend(|| eprintln!("line {number}: {reason}"));
        Ok(())
    }
}

fn body(batch: &[Numbered<Delta>]) -> Bytes {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let mut body = Vec::with_capacity(REQUEST_BYTES / 4);
    for (_, delta) in batch {
        let (room, id) = (text(delta.room.as_str()), text(&delta.id));
        let separator = if body.is_empty() { '[' } else { ',' };
        let head = format!("{separator}{{\"room\":{room},\"id\":{id},");
        body.extend_from_slice(head.as_bytes());
        if let Some(info) = &delta.info {
            body.extend_from_slice(b"\"info\":");
            body.extend_from_slice(info);
            body.push(b',');
        }
        body.extend_from_slice(b"\"data\":");
        body.extend_from_slice(&delta.data);
        body.push(b'}');
    }
    body.push(b']');
    body.into()
}

/// Takes what is there without waiting, as far as one request goes and to the first bad line.
fn gather(
    first: Line,
    lines: &mut mpsc::Receiver<Line>,
    most_lines: usize,
) -> (Vec<Numbered<Delta>>, Option<Numbered<String>>) {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let mut next = Some(first);
    while let Some(Line { number, delta }) = next {
        match delta {
            Ok(delta) => {
                bytes += delta.data.len();
                batch.push((number, delta));
            }
            Err(reason) => return (batch, Some((number, reason))),
        }
        let full = batch.len() >= most_lines || bytes >= REQUEST_BYTES;
        next = if full { None } else { lines.try_recv().ok() };
    }
    (batch, None)
}

fn read_lines(
    mut input: impl BufRead,
    parse: impl Fn(u64, &[u8]) -> Result<Delta, String>,
    lines: &mpsc::Sender<Line>,
) {
    let mut text = Vec::new();
    for number in 1.. {
        text.clear();
        let mut bounded = input.by_ref().take(MAX_LINE_BYTES);
        // After an error, and in the middle of a line, there is no next line to go on with.
        let (delta, last) = match bounded.read_until(b'\n', &mut text) {
            Ok(0) => return,
            Err(error) => (Err(format!("it can't be read: {error}")), true),
            Ok(_) if text.len() as u64 == MAX_LINE_BYTES && !text.ends_with(b"\n") => {
                let reason = format!("it is too long; a line takes {MAX_LINE_BYTES} bytes");
                (Err(reason), true)
            }
            Ok(_) if text.trim_ascii().is_empty() => continue,
            Ok(_) => (parse(number, &text), false),
        };
        if lines.blocking_send(Line { number, delta }).is_err() || last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::publish::parser, client::fake::FakeServer};
    use serde_json::{Value, json};

    const GOING_ON: Bounds = Bounds {
        lines: 500,
        keep_going: true,
    };

    fn taken(offsets: &[u64]) -> String {
        let entry = |offset| json!({"room":"a","offset":offset,"epoch":"e","id":"k","time":1});
        json!({"results": offsets.iter().map(entry).collect::<Vec<_>>()}).to_string()
    }

    async fn publish(
        server: &FakeServer,
        input: &'static str,
        bounds: &Bounds,
    ) -> anyhow::Result<Summary> {
        let client = HttpClient::new(server.url());
        let room = RoomName::new("a").unwrap();
        LinePublisher::new(client)
            .run(
                input.as_bytes(),
                bounds,
                parser(room, "k".into()),
                async |all| Ok(all),
            )
            .await
    }

    /// The ids of all entries sent, a list for each request.
    fn sent(server: &FakeServer) -> Vec<Vec<String>> {
        let ids = |body: &str| match serde_json::from_str(body).unwrap() {
            Value::Array(entries) => entries
                .iter()
                .map(|entry| entry["id"].as_str().unwrap().to_owned())
                .collect(),
            other => panic!("{other}"),
        };
        server
            .requests()
            .iter()
            .map(|request| ids(&request.body))
            .collect()
    }

    #[actix_rt::test]
    async fn lines_keep_their_order_over_requests_and_blank_ones_do_not_count() {
        let server = FakeServer::start([1, 2, 3].map(|offset| (200, taken(&[offset])))).await;
        let one_a_request = Bounds {
            lines: 1,
            keep_going: false,
        };
        let input = "1\n\n{ \"a\": 2 }\n  \n12345678901234567890";
        let summary = publish(&server, input, &one_a_request).await.unwrap();
        assert_eq!((summary.published, summary.last.unwrap().offset), (3, 3));
        let requests = server.requests();
        let bodies: Vec<&str> = requests.iter().map(|request| &*request.body).collect();
        assert_eq!(
            bodies,
            [
                r#"[{"room":"a","id":"k-1","data":1}]"#,
                r#"[{"room":"a","id":"k-3","data":{"a":2}}]"#,
                r#"[{"room":"a","id":"k-5","data":12345678901234567890}]"#
            ]
        );
    }

    #[actix_rt::test]
    async fn a_bad_line_is_named_after_all_before_it_are_published() {
        let bounds = Bounds {
            lines: 1,
            keep_going: false,
        };
        let server = FakeServer::start([1, 2].map(|offset| (200, taken(&[offset])))).await;
        let error = publish(&server, "1\n2\nnonsense\n4\n", &bounds)
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("line 3: not one JSON value: "), "{text}");
        assert!(text.contains("(2 lines were published"), "{text}");
        assert_eq!(sent(&server), [["k-1"], ["k-2"]]);
    }

    #[actix_rt::test]
    async fn keeping_going_leaves_out_only_the_bad_lines() {
        let refused = json!({"results": [{"status":413,"title":"too large","detail":"x"}]});
        let answers = [
            (200, taken(&[1])),
            (200, refused.to_string()),
            (200, taken(&[2])),
        ];
        let server = FakeServer::start(answers).await;
        let bounds = Bounds {
            lines: 1,
            keep_going: true,
        };
        let summary = publish(&server, "1\nnonsense\n3\n4\n", &bounds)
            .await
            .unwrap();
        assert_eq!((summary.published, summary.bad_lines), (2, 2));
        assert_eq!(sent(&server), [["k-1"], ["k-3"], ["k-4"]]);
    }

    #[actix_rt::test]
    async fn what_was_published_but_not_read_back_yet_is_asked_for_until_its_position_is_known() {
        tokio::time::pause();
        let unplaced = json!({"results": [{"status":202,"id":"k-1"}]}).to_string();
        let server = FakeServer::start([(200, unplaced), (200, taken(&[7]))]).await;
        let summary = publish(&server, "1\n", &GOING_ON).await.unwrap();
        assert_eq!((summary.published, summary.last.unwrap().offset), (1, 7));
        assert_eq!(sent(&server), [["k-1"], ["k-1"]]);
    }

    #[actix_rt::test]
    async fn what_a_busy_server_did_not_take_is_sent_again_with_the_same_ids() {
        tokio::time::pause();
        let partly = json!({"results": [
            {"room":"a","offset":1,"epoch":"e","id":"k","time":1},
            {"status":503,"title":"not taken","detail":"full"},
        ]});
        let whole = json!({"status":503,"title":"not taken","detail":"full"});
        let answers = [
            (503, whole.to_string()),
            (200, partly.to_string()),
            (200, taken(&[2])),
        ];
        let server = FakeServer::start(answers).await;
        let client = HttpClient::new(server.url());
        let room = RoomName::new("a").unwrap();
        let mut publisher = LinePublisher::new(client);
        let parse = parser(room, "k".into());
        let batch = [1, 2].map(|n| (n, parse(n, b"7").unwrap()));
        publisher.send(&batch, &GOING_ON).await.unwrap();
        assert_eq!(publisher.summary.published, 2);
        assert_eq!(
            sent(&server),
            [vec!["k-1", "k-2"], vec!["k-1", "k-2"], vec!["k-2"]]
        );
    }
}
