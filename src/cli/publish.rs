//! `roomwire publish`.

use std::io::{self, BufReader, IsTerminal, Write};

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use uuid::Uuid;

use crate::{
    cli::{
        ServerFlags,
        lines::{Bounds, Delta, LinePublisher},
        patience::Patience,
    },
    client::http::{Accepted, HttpClient},
    delta::{RoomName, compact_json},
};

#[derive(Args)]
#[command(after_help = "\
Prints where the delta stands: room, offset, epoch. With lines from a pipe, where the last one
stands.

Every delta has an idempotency key, made up unless --key gives one: when a server is busy or its
answer is lost, the same deltas are sent again and still count once.

Examples:
  roomwire publish lobby '{\"text\":\"hello\"}'      one delta
  roomwire publish lobby - < history.jsonl         one delta a line, in order
  my-app | roomwire publish lobby                  the same, as the lines come
  roomwire publish lobby - --key import-7 < a.jsonl
                                                   may be repeated: line 3 has the key import-7-3")]
pub struct Flags {
    /// The room
    #[arg(value_parser = RoomName::new)]
    room: RoomName,
    /// One JSON value; `-` reads one from every line of the standard input
    #[arg(value_name = "JSON|-", default_value = "-", hide_default_value = true)]
    json: String,
    /// The idempotency key; with lines from a pipe, line N has the key KEY-N
    #[arg(long)]
    key: Option<String>,
    /// Report bad lines and go on with the others (the exit code is 1 all the same)
    #[arg(long)]
    keep_going: bool,
    /// Most lines in one request; the server's limit is `publish.max_batch`
    #[arg(long, value_name = "LINES", default_value_t = 500)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch: u16,
    /// Print the server's answer as it is: {"room","offset","epoch","id","time"}
    #[arg(long = "json")]
    as_json: bool,
    #[command(flatten)]
    server: ServerFlags,
}

pub async fn run(flags: Flags) -> anyhow::Result<()> {
    let client = HttpClient::new(flags.server.server());
    let key = flags.key.unwrap_or_else(|| Uuid::new_v4().to_string());
    let (last, bad_lines) = if flags.json == "-" {
        if io::stdin().is_terminal() {
            eprintln!("type one JSON value a line; Ctrl-D ends");
        }
        let bounds = Bounds {
            lines: flags.batch.into(),
            keep_going: flags.keep_going,
        };
        let input = BufReader::with_capacity(256 * 1024, io::stdin());
        let parse = parser(flags.room, key);
        let all = async |batch| Ok(batch);
        let publisher = LinePublisher::new(client);
        let summary = publisher.run(input, &bounds, parse, all).await?;
        (summary.last, summary.bad_lines)
    } else {
        let delta = compact_json(flags.json.as_bytes()).context("nothing was published")?;
        (Some(publish(&client, &flags.room, delta, &key).await?), 0)
    };
    if let Some(last) = last {
        print(&last, flags.as_json)?;
    }
    match bad_lines {
        0 => Ok(()),
        1 => anyhow::bail!("1 line was not published"),
        _ => anyhow::bail!("{bad_lines} lines were not published"),
    }
}

/// Makes a delta of a line: line N gets the idempotency key `key-N`.
pub fn parser(room: RoomName, key: String) -> impl Fn(u64, &[u8]) -> Result<Delta, String> {
    move |number, line| {
        Ok(Delta {
            room: room.clone(),
            id: format!("{key}-{number}"),
            info: None,
            data: compact_json(line).map_err(|error| error.to_string())?,
        })
    }
}

async fn publish(
    client: &HttpClient,
    room: &RoomName,
    json: Bytes,
    key: &str,
) -> anyhow::Result<Accepted> {
    let mut patience = Patience::default();
    loop {
        match client.publish(room, json.clone(), key).await {
            Ok(accepted) => return Ok(accepted),
            Err(error) => patience.wait_or_fail(error).await?,
        }
    }
}

fn print(accepted: &Accepted, json: bool) -> anyhow::Result<()> {
    let mut out = io::stdout();
    if json {
        writeln!(out, "{}", serde_json::to_string(accepted)?)?;
    } else {
        let Accepted {
            room,
            offset,
            epoch,
            ..
        } = accepted;
        writeln!(out, "{room} {offset} {epoch}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use tokio::time::Instant;

    use crate::client::fake::FakeServer;

    const ACCEPTED: &str = r#"{"room":"a","offset":7,"epoch":"e","id":"k","time":1}"#;

    fn room() -> RoomName {
        RoomName::new("a").unwrap()
    }

    #[actix_rt::test]
    async fn a_busy_server_is_asked_again_with_the_same_key_when_it_says() {
        tokio::time::pause();
        let busy = r#"{"status":503,"title":"not taken","detail":"full"}"#;
        let server = FakeServer::start([(503, busy), (201, ACCEPTED)]).await;
        let client = HttpClient::new(server.url());
        let started = Instant::now();
        let accepted = publish(&client, &room(), "1".into(), "k").await.unwrap();
        assert_eq!(accepted.offset, 7);
        assert!(started.elapsed() >= Duration::from_secs(1));
        let requests = server.requests();
        assert_eq!(requests.len(), 2);
        assert!(
            requests
                .iter()
                .all(|request| request.head.contains("idempotency-key: k\r\n"))
        );
    }

    #[actix_rt::test]
    async fn what_was_published_but_not_read_back_yet_is_asked_for_with_the_same_key() {
        tokio::time::pause();
        let server = FakeServer::start([(202, r#"{"id":"k"}"#), (200, ACCEPTED)]).await;
        let client = HttpClient::new(server.url());
        let accepted = publish(&client, &room(), "1".into(), "k").await.unwrap();
        assert_eq!(accepted.offset, 7);
    }

    #[actix_rt::test]
    async fn patience_ends() {
        tokio::time::pause();
        let full = (
            507,
            r#"{"status":507,"title":"no space","detail":"the disk is full"}"#,
        );
        let server = FakeServer::start([full; 100]).await;
        let client = HttpClient::new(server.url());
        let error = publish(&client, &room(), "1".into(), "k")
            .await
            .unwrap_err();
        let text = format!("{error:#}");
        assert!(text.ends_with("507 no space: the disk is full"), "{text}");
        assert!(text.starts_with("gave up after "), "{text}");
    }

    #[actix_rt::test]
    async fn a_refusal_is_final() {
        let bad = r#"{"status":400,"title":"bad room name","detail":"why"}"#;
        let server = FakeServer::start([(400, bad), (201, ACCEPTED)]).await;
        let client = HttpClient::new(server.url());
        let error = publish(&client, &room(), "1".into(), "k")
            .await
            .unwrap_err();
        assert_eq!(format!("{error:#}"), "400 bad room name: why");
    }

    #[actix_rt::test]
    async fn a_server_that_is_away_is_named_with_what_to_do() {
        let client = HttpClient::new("http://127.0.0.1:1".parse().unwrap());
        let error = publish(&client, &room(), "1".into(), "k")
            .await
            .unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.contains("http://127.0.0.1:1; start one with `roomwire serve --dev`"),
            "{text}"
        );
    }
}
