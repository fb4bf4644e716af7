//! `roomwire history`: prints what a server keeps of a room.

use std::io;

use clap::{Args, ValueEnum};

use crate::{
    cli::{
        ServerFlags,
        exit::DeltasLost,
        moment::Moment,
        patience::Patience,
        print::{Form, Line, Printer},
    },
    client::http::{HistoryPage, HistoryQuery, HttpClient},
    delta::RoomName,
};

#[derive(Args)]
#[command(after_help = "\
Prints a line for each delta: room, offset, JSON; on a terminal with its time. With --json, a line is
  {\"room\":\"lobby\",\"offset\":12,\"time\":1764025200000,\"id\":\"k1\",\"data\":{\"text\":\"hello\"}}
and has \"info\" too if a client published it through its socket.

Ends with 3 if deltas behind --after, or from --since on, are lost for good.

Examples:
  roomwire history lobby                            all that is kept, the oldest first
  roomwire history lobby --order newest --limit 10  the newest ten
  roomwire history lobby --since 2h --json | jq .data
  roomwire history lobby --after 41 --epoch 4009e9d5f63545d0bab6774de917bfc9")]
pub struct Flags {
    /// The room
    #[arg(value_parser = RoomName::new)]
    room: RoomName,
    /// Only deltas of this time and later: 10m (ago), RFC 3339, or ms since 1970
    #[arg(long, value_name = "TIME", conflicts_with = "after")]
    since: Option<Moment>,
    /// Only deltas behind this offset
    #[arg(long, value_name = "OFFSET")]
    after: Option<u64>,
    /// The life of the log that --after belongs to
    #[arg(long, requires = "after")]
    epoch: Option<String>,
    /// Most deltas to print
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Which delta comes first
    #[arg(long, value_enum, default_value_t = Order::Oldest)]
    order: Order,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Order {
    Oldest,
    Newest,
}

pub async fn run(flags: Flags) -> anyhow::Result<()> {
    let client = HttpClient::new(flags.server.server());
    let out = io::stdout();
    let form = Form::fitting(&out, flags.json);
    let mut printer = Printer::new(out, form);
    let mut patience = Patience::default();
    let mut left = flags.limit.unwrap_or(u64::MAX);
    let mut query = HistoryQuery {
        after: flags.after,
        since: flags.since.map(|since| since.0),
        epoch: flags.epoch,
        newest_first: flags.order == Order::Newest,
        ..HistoryQuery::default()
    };
    let mut lost = None;
    while left > 0 {
        query.limit = Some(left.min(HistoryQuery::MOST));
        let page = match client.history(&flags.room, &query).await {
            Ok(page) => page,
            Err(error) => {
                patience.wait_or_fail(error).await?;
                continue;
            }
        };
        patience.answered();
        for delta in &page.deltas {
            printer.delta(Line {
                room: &flags.room,
                offset: delta.offset,
                time: delta.time,
                id: Some(&delta.id),
                info: delta.info.as_deref(),
                data: &delta.data,
            });
        }
        match printer.flush() {
            // Whoever has seen enough hangs up.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
        if !page.recovered {
            lost.get_or_insert(what_is_lost(&flags.room, &page));
        }
        left -= page.deltas.len() as u64;
        let Some(last) = page.deltas.last().filter(|_| page.more) else {
            break;
        };
        query.go_on_behind(last.offset, page.epoch);
    }
    match lost {
        Some(lost) => Err(lost.into()),
        None => Ok(()),
    }
}

fn what_is_lost(room: &RoomName, page: &HistoryPage) -> DeltasLost {
    let HistoryPage { epoch, newest, .. } = page;
    DeltasLost(format!(
        "deltas of room \"{room}\" that were asked for are lost for good; \
         its newest position is {newest}, of epoch {epoch}"
    ))
}
