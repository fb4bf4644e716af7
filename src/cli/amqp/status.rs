//! `roomwire amqp status`.

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use super::{
    Target,
    management::{Management, Replicas},
};
use crate::{
    amqp::topology::{PartitionSurvey, Survey},
    client::{
        address::ServerUrl,
        http::{HttpClient, HttpError, Reading},
    },
    config::AmqpFlags,
    log::publisher::wall_clock_ms,
};

#[derive(Args)]
#[command(after_help = "\
Examples:
  roomwire amqp status --amqp-url amqp://viewer:secret@localhost
  roomwire amqp status --config /etc/roomwire.toml --server http://127.0.0.1:8080
  roomwire amqp status --config /etc/roomwire.toml --management-url http://viewer:secret@localhost:15672 --json

Positions are those of deltas. Nothing is changed; the user needs the right to read all that begins with the prefix
and a dot.

It also fails if something is missing, or if the server that was named is not ready or not connected.")]
pub struct Flags {
    #[command(flatten)]
    amqp: AmqpFlags,
    /// A server whose progress is shown
    #[arg(long, value_name = "URL")]
    server: Option<ServerUrl>,
    /// RabbitMQ's management API, which knows who leads a stream: http://user:password@host:15672
    #[arg(long, value_name = "URL")]
    management_url: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is shown.
#[derive(Serialize)]
struct Report {
    prefix: String,
    addresses: Vec<String>,
    objects: Vec<Object>,
    partitions: Vec<Partition>,
    /// What was not found, or could not be asked.
    problems: Vec<String>,
}

#[derive(Serialize)]
struct Object {
    name: String,
    kind: &'static str,
    exists: bool,
}

#[derive(Serialize)]
struct Partition {
    partition: usize,
    generation: Option<String>,
    stream: Option<String>,
    exists: bool,
    /// None where nobody knows.
    leader: Option<String>,
    replicas: Option<usize>,
    replicas_online: Option<usize>,
    /// 0 for none.
    first: u64,
    last: u64,
    records: u64,
    /// How old the last record is.
    last_age_seconds: Option<f64>,
    server: Option<Reading>,
}

pub async fn run(flags: Flags) -> anyhow::Result<()> {
    let target = Target::of(&flags.amqp)?;
    let management = flags.management_url.as_deref().map(Management::new);
    let management = management.transpose()?;
    let survey = target.topology.survey().await?;
    let mut report = report(&target, survey);
    if let Some(management) = management {
        ask_management(&mut report, &target, &management).await;
    }
    if let Some(server) = flags.server {
        ask_server(&mut report, server).await;
    }
    match flags.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print!("{}", as_text(&report)),
    }
    match report.problems.is_empty() {
        true => Ok(()),
        false => bail!("{}", report.problems.join("\n       ")),
    }
}

fn report(target: &Target, survey: Survey) -> Report {
    let prefix = &target.settings.prefix;
    let mut problems = Vec::new();
    let objects = survey.objects.into_iter().map(|found| Object {
        name: found.object.name,
        kind: found.object.kind.name(),
        exists: found.was_there,
    });
    let objects: Vec<_> = objects.collect();
    let missing = objects.iter().filter(|object| !object.exists).count();
    if missing == objects.len() {
        problems.push(format!(
            "there is no log {prefix:?}; `roomwire amqp setup` makes it, and so does a server that may"
        ));
    } else {
        for object in objects.iter().filter(|object| !object.exists) {
            let Object { kind, name, .. } = object;
            problems.push(format!(
                "the {kind} {name} is missing; `roomwire amqp setup` makes it"
            ));
        }
    }
    let configured = usize::from(target.settings.partitions);
    let found = survey.partitions.len();
    if found > 0 && found != configured {
        // Whoever only looks need not know how many there are.
        eprintln!(
            "note: the log has {found} partitions; a server that is configured as this command is, \
             with {configured}, would not start"
        );
    }
    let now = wall_clock_ms();
    let partitions = survey.partitions.into_iter().enumerate();
    let partitions = partitions.map(|(number, of)| partition(target, number, of, now));
    let partitions: Vec<_> = partitions.collect();
    for of in partitions.iter().filter(|of| !of.exists) {
        let number = of.partition;
        problems.push(match &of.stream {
            Some(stream) => format!(
                "the stream {stream} is missing; the servers that read it begin another generation"
            ),
            None => format!("partition {number} has not begun; `roomwire amqp setup` begins it"),
        });
    }
    Report {
        prefix: prefix.clone(),
        addresses: target
            .settings
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect(),
        objects,
        partitions,
        problems,
    }
}

fn partition(target: &Target, number: usize, of: PartitionSurvey, now: u64) -> Partition {
    let index = u16::try_from(number).expect("partitions are numbered by u16");
    let extent = of.extent.unwrap_or_default();
    let age = |stamped: u64| now.saturating_sub(stamped) as f64 / 1_000.0;
    Partition {
        partition: number,
        stream: of
            .generation
            .as_ref()
            .map(|of| target.topology.stream(index, of)),
        generation: of.generation.map(|of| of.to_string()),
        exists: of.extent.is_some(),
        leader: None,
        replicas: None,
        replicas_online: None,
        first: extent.first,
        last: extent.last,
        records: extent.records(),
        last_age_seconds: extent.last_stamped.map(age),
        server: None,
    }
}

/// Who leads is good to know and nothing more: without it, it is unknown.
async fn ask_management(report: &mut Report, target: &Target, management: &Management) {
    let vhost = target.settings.addresses[0].vhost();
    for partition in &mut report.partitions {
        let Some(stream) = partition.stream.as_ref().filter(|_| partition.exists) else {
            continue;
        };
        match management.replicas(vhost, stream).await {
            Ok(Replicas {
                leader,
                online,
                members,
            }) => {
                partition.leader = leader;
                partition.replicas = Some(members.len());
                partition.replicas_online = Some(online.len());
            }
            Err(error) => {
                eprintln!("note: who leads is not known: {error:#}");
                return;
            }
        }
    }
}

async fn ask_server(report: &mut Report, server: ServerUrl) {
    match HttpClient::new(server.clone()).readiness().await {
        Ok(readiness) if readiness.partitions.len() == report.partitions.len() => {
            for (partition, reading) in report.partitions.iter_mut().zip(readiness.partitions) {
                if !reading.connected {
                    let number = partition.partition;
                    report
                        .problems
                        .push(format!("{server} is not connected to partition {number}"));
                }
                partition.server = Some(reading);
            }
        }
        Ok(readiness) => report.problems.push(format!(
            "{server} reads another log: it has {} partitions, this one {}",
            readiness.partitions.len(),
            report.partitions.len()
        )),
        Err(HttpError::Problem(problem)) => {
            report
                .problems
                .push(format!("{server} is not ready: {problem}"));
        }
        Err(error) => report.problems.push(error.to_string()),
    }
}

fn as_text(report: &Report) -> String {
    let addresses = report.addresses.join(", ");
    let mut text = format!("log {} on {addresses}\n\n", report.prefix);
    for object in &report.objects {
        let fate = match object.exists {
            true => "",
            false => "  MISSING",
        };
        let width = report.objects.iter().map(|of| of.name.len()).max();
        let width = width.unwrap_or_default();
        let line = format!("  {:<15}  {:<width$}{fate}", object.kind, object.name);
        text += line.trim_end();
        text.push('\n');
    }
    if report.partitions.is_empty() {
        return text;
    }
    let mut rows = vec![
        [
            "PARTITION",
            "GENERATION",
            "LEADER",
            "REPLICAS",
            "FIRST",
            "LAST",
            "RECORDS",
            "LAST RECORD",
        ]
        .map(String::from)
        .to_vec(),
    ];
    let with_server = report.partitions.iter().any(|of| of.server.is_some());
    if with_server {
        rows[0].extend(["READ", "BEHIND", "LAG"].map(String::from));
    }
    rows.extend(report.partitions.iter().map(|of| row(of, with_server)));
    text + "\n" + &table(&rows)
}

fn row(of: &Partition, with_server: bool) -> Vec<String> {
    let unknown = || "unknown".to_owned();
    let replicas = match (of.replicas_online, of.replicas) {
        (Some(online), Some(all)) => format!("{online} of {all}"),
        _ => unknown(),
    };
    let last_record = match (of.exists, of.last_age_seconds) {
        (false, _) => "NO STREAM".to_owned(),
        (true, Some(age)) => format!("{age:.0} s ago"),
        (true, None) => "-".to_owned(),
    };
    let mut row = vec![
        of.partition.to_string(),
        of.generation.clone().unwrap_or_else(|| "none".into()),
        of.leader.clone().unwrap_or_else(unknown),
        replicas,
        of.first.to_string(),
        of.last.to_string(),
        of.records.to_string(),
        last_record,
    ];
    if let Some(reading) = &of.server {
        row.push(reading.read.to_string());
        row.push(reading.behind.to_string());
        row.push(format!("{:.1} s", reading.lag_seconds));
    } else if with_server {
        row.extend(vec!["-".to_owned(); 3]);
    }
    row
}

/// Columns two spaces apart; numbers stand at the right.
fn table(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max();
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = width(column).unwrap_or_default();
            let right = column > 0 && rows[1..].iter().all(|row| is_number(&row[column]));
            line += "  ";
            line += &match right {
                true => format!("{cell:>width$}"),
                false => format!("{cell:<width$}"),
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}
