//! `roomwire export`: histories as JSON lines, from a server or from a database that no server has open.

mod source;

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use self::source::Source;
use crate::{
    access::pattern::Pattern,
    cli::{ServerFlags, dump::Line, exit::DeltasLost},
    delta::RoomName,
};

#[derive(Args)]
#[command(after_help = "\
Writes a line for each delta that is kept, room by room, each room in its order:
  {\"room\":\"lobby\",\"offset\":12,\"time\":1764025200000,\"id\":\"k1\",\"data\":{\"text\":\"hello\"}}
with \"info\" too if a client published it through its socket. `roomwire import` reads them.

Ends with 3 if deltas were trimmed while they were to be read.

Examples:
  roomwire export lobby                              one room, to the standard output
  roomwire export 'chat:*' news -o rooms.jsonl       several; the file appears when it is whole
  roomwire export '*' --data /var/lib/roomwire | gzip > all.jsonl.gz
                                                     all, while no server runs
  roomwire export '*' | roomwire import - --url http://10.0.0.2:8080")]
pub struct Flags {
    /// Rooms, or patterns in which * stands for anything
    #[arg(value_name = "ROOM|PATTERN", required = true)]
    rooms: Vec<String>,
    /// The file to write; - is the standard output
    #[arg(
        long,
        short,
        value_name = "FILE",
        default_value = "-",
        hide_default_value = true
    )]
    output: PathBuf,
    /// Read the data directory of a server that is stopped, instead of asking one that runs
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    server: ServerFlags,
}

pub async fn run(flags: Flags) -> anyhow::Result<()> {
    let mut source = match &flags.data {
        Some(data) => Source::open(&data.join("log"))?,
        None => Source::server(flags.server.server()),
    };
    let patterns: Vec<_> = flags.rooms.iter().map(|text| Pattern::new(text)).collect();
    let rooms = source.rooms(&patterns).await?;
    for (text, pattern) in flags.rooms.iter().zip(&patterns) {
        if !rooms.iter().any(|room| pattern.matches(room)) {
            anyhow::bail!("no room that is {text:?} has a history");
        }
    }
    let mut export = Export::new(source, rooms.len());
    if flags.output == Path::new("-") {
        let mut out = BufWriter::new(io::stdout().lock());
        export.all(&rooms, &mut out).await?;
        out.flush()?;
    } else {
        let mut part = flags.output.clone().into_os_string();
        part.push(".part");
        let place = || format!("can't write {}", flags.output.display());
        let mut out = BufWriter::new(File::create(&part).with_context(place)?);
        export.all(&rooms, &mut out).await?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error);
        file.and_then(|file| file.sync_all()).with_context(place)?;
        fs::rename(&part, &flags.output).with_context(place)?;
    }
    export.finish()
}

struct Export {
    source: Source,
    progress: ProgressBar,
    deltas: u64,
    lost: Vec<RoomName>,
}

impl Export {
    fn new(source: Source, rooms: usize) -> Self {
        let style = ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} rooms, {msg}")
            .expect("the template is valid");
        Self {
            source,
            progress: ProgressBar::new(rooms as u64).with_style(style),
            deltas: 0,
            lost: Vec::new(),
        }
    }

    async fn all(&mut self, rooms: &[RoomName], out: &mut impl Write) -> anyhow::Result<()> {
        for room in rooms {
            self.one(room, out).await?;
            self.progress.inc(1);
        }
        self.progress.finish_and_clear();
        Ok(())
    }

    async fn one(&mut self, room: &RoomName, out: &mut impl Write) -> anyhow::Result<()> {
        let (mut after, mut epoch, mut read) = (0, None, 0);
        loop {
            let page = self.source.page(room, after).await?;
            if *epoch.get_or_insert(page.epoch.clone()) != page.epoch {
                anyhow::bail!("the log was lost while room \"{room}\" was read; export it again");
            }
            if !page.complete {
                self.progress.suspend(|| {
                    eprintln!("deltas of room \"{room}\" behind offset {read} were trimmed before they were read");
                });
                if self.lost.last() != Some(room) {
                    self.lost.push(room.clone());
                }
            }
            for line in &page.lines {
                serde_json::to_writer(&mut *out, line)?;
                out.write_all(b"\n")?;
            }
            self.deltas += page.lines.len() as u64;
            self.progress.set_message(format!("{} deltas", self.deltas));
            if let Some(Line { offset, .. }) = page.lines.last() {
                (after, read) = (*offset, *offset);
            } else if page.complete {
                return Ok(());
            } else {
                // What is kept is all behind what was trimmed.
                after = 0;
            }
            if !page.more && page.complete {
                return Ok(());
            }
        }
    }

    fn finish(self) -> anyhow::Result<()> {
        let rooms = self.progress.position();
        eprintln!("exported {} deltas of {rooms} rooms", self.deltas);
        if self.lost.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = self.lost.iter().map(RoomName::as_str).collect();
        let names = names.join(", ");
        Err(DeltasLost(format!(
            "deltas were trimmed before they were read, of: {names}"
        ))
        .into())
    }
}
