//! `roomwire import`: publishes what was exported, each delta once however often it is called.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use serde_json::value::RawValue;

use crate::{
    cli::{
        ServerFlags,
        dump::Line,
        lines::{Bounds, Delta, LinePublisher, Numbered},
        patience::Patience,
    },
    client::http::{HistoryQuery, HttpClient},
    delta::RoomName,
};

const LINES_OF_A_REQUEST: usize = 500;

#[derive(Args)]
#[command(after_help = "\
Publishes every line that `roomwire export` wrote, in order, with its id as idempotency key. Offsets
and times are those of the new log. What a room holds already is left out, so that an import that was
interrupted is simply called again.

If a room has trimmed its oldest deltas, lines in front of the first that it still holds count as
imported; if it holds none of them, nothing can be known, and --append is needed to publish them.

Examples:
  roomwire import rooms.jsonl
  zcat all.jsonl.gz | roomwire import -
  roomwire export '*' | roomwire import - --url http://10.0.0.2:8080")]
pub struct Flags {
    /// The file to read; - is the standard input
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    /// Publish what a room does not hold, even if it may have held and trimmed it
    #[arg(long)]
    append: bool,
    /// Report bad lines and go on with the others (the exit code is 1 all the same)
    #[arg(long)]
    keep_going: bool,
    #[command(flatten)]
    server: ServerFlags,
}

pub async fn run(flags: Flags) -> anyhow::Result<()> {
    let input: Box<dyn BufRead + Send> = if flags.file == Path::new("-") {
        Box::new(BufReader::new(io::stdin()))
    } else {
        let file = File::open(&flags.file);
        let file = file.with_context(|| format!("can't read {}", flags.file.display()))?;
        Box::new(BufReader::with_capacity(256 * 1024, file))
    };
    let client = HttpClient::new(flags.server.server());
    let mut target = Target::new(client.clone(), flags.append);
    let bounds = Bounds {
        lines: LINES_OF_A_REQUEST,
        keep_going: flags.keep_going,
    };
    let publisher = LinePublisher::new(client);
    let choose = async |batch| target.choose(batch).await;
    let summary = publisher.run(input, &bounds, parse, choose).await?;
    let (published, there) = (summary.published, target.there);
    writeln!(
        io::stdout(),
        "imported {published} deltas, {there} were there"
    )?;
    target.finish()?;
    match summary.bad_lines {
        0 => Ok(()),
        count => anyhow::bail!("{count} bad lines were not imported"),
    }
}

fn parse(_: u64, line: &[u8]) -> Result<Delta, String> {
    let line: Line = serde_json::from_slice(line).map_err(|error| {
        format!(
            "{error}; a line is an object with room, id and data, as `roomwire export` writes it"
        )
    })?;
    let bytes = |json: &RawValue| Bytes::copy_from_slice(json.get().as_bytes());
    Ok(Delta {
        room: RoomName::new(&line.room).map_err(|error| error.to_string())?,
        id: line.id,
        info: line.info.as_deref().map(bytes),
        data: bytes(&line.data),
    })
}

/// The server that is imported into.
struct Target {
    client: HttpClient,
    patience: Patience,
    append: bool,
    rooms: HashMap<RoomName, Room>,
    /// Lines that the rooms hold already.
    there: u64,
}

/// A room as it was when its first line came.
#[derive(Default)]
struct Room {
    ids: HashSet<Box<str>>,
    /// Whether it has held more than it does.
    trimmed: bool,
    /// Whether a line was there.
    met: bool,
    /// Lines in front of the first that was there.
    doubtful: u64,
}

impl Target {
    fn new(client: HttpClient, append: bool) -> Self {
        Self {
            client,
            patience: Patience::default(),
            append,
            rooms: HashMap::new(),
            there: 0,
        }
    }

    /// What of a batch is to be published.
    async fn choose(
        &mut self,
        batch: Vec<Numbered<Delta>>,
    ) -> anyhow::Result<Vec<Numbered<Delta>>> {
        let mut chosen = Vec::with_capacity(batch.len());
        for (number, delta) in batch {
            if !self.rooms.contains_key(&delta.room) {
                let room = self.look_at(&delta.room).await;
                let room = room.with_context(|| format!("line {number}"))?;
                self.rooms.insert(delta.room.clone(), room);
            }
            let room = self.rooms.entry(delta.room.clone()).or_default();
            if room.ids.contains(&*delta.id) {
                room.met = true;
                self.there += 1;
            } else if room.trimmed && !room.met && !self.append {
                room.doubtful += 1;
            } else {
                chosen.push((number, delta));
            }
        }
        Ok(chosen)
    }

    async fn look_at(&mut self, name: &RoomName) -> anyhow::Result<Room> {
        let mut room = Room::default();
        let mut query = HistoryQuery {
            // From the beginning of time on, it is told if something is gone.
            since: Some(0),
            limit: Some(HistoryQuery::MOST),
            ..HistoryQuery::default()
        };
        loop {
            let page = match self.client.history(name, &query).await {
                Ok(page) => page,
                Err(error) => {
                    self.patience.wait_or_fail(error).await?;
                    continue;
                }
            };
            self.patience.answered();
            room.trimmed |= !page.recovered;
            let last = page.deltas.last().map(|delta| delta.offset);
            let ids = page.deltas.into_iter().map(|delta| delta.id.into());
            room.ids.extend(ids);
            match last.filter(|_| page.more) {
                Some(last) => query.go_on_behind(last, page.epoch),
                None => return Ok(room),
            }
        }
    }

    /// Tells what could not be decided.
    fn finish(self) -> anyhow::Result<()> {
        let open = |(_, room): &(&RoomName, &Room)| room.doubtful > 0 && !room.met;
        let mut names: Vec<_> = self
            .rooms
            .iter()
            .filter(open)
            .map(|(name, _)| name.as_str())
            .collect();
        names.sort_unstable();
        match names.as_slice() {
            [] => Ok(()),
            names => anyhow::bail!(
                "these rooms have trimmed histories that hold none of the lines, so that it can't be known whether they \
                 were imported before; nothing was published to them, and --append would: {}",
                names.join(", ")
            ),
        }
    }
}
