//! Where an export reads: a server, or its database.

use std::{collections::BTreeSet, path::Path};

use serde_json::value::RawValue;

use crate::{
    access::pattern::Pattern,
    cli::{dump::Line, patience::Patience},
    client::{
        address::ServerUrl,
        http::{HistoryQuery, HttpClient},
    },
    delta::{Delta, RoomName},
    rooms::{
        history::{History, PageLimit},
        offline::{self, OfflineError},
    },
};

const ROOMS_OF_A_PAGE: usize = 1000;
const LIMIT: PageLimit = PageLimit {
    deltas: 1000,
    bytes: 1 << 20,
};

pub enum Source {
    Server {
        client: HttpClient,
        patience: Patience,
    },
    Database(History),
}

/// Deltas of one room in their order.
pub struct Page {
    pub epoch: String,
    /// Whether nothing lies between the place that was asked for and these.
    pub complete: bool,
    pub lines: Vec<Line>,
    pub more: bool,
}

impl Source {
    pub fn server(url: ServerUrl) -> Self {
        Self::Server {
            client: HttpClient::new(url),
            patience: Patience::default(),
        }
    }

    /// Opens the database in a directory.
    pub fn open(path: &Path) -> Result<Self, OfflineError> {
        offline::open(path).map(Self::Database)
    }

    /// All rooms that one of the patterns names, in the order of their names.
    pub async fn rooms(&mut self, patterns: &[Pattern]) -> anyhow::Result<Vec<RoomName>> {
        let mut all = BTreeSet::new();
        for pattern in patterns {
            let mut after: Option<RoomName> = None;
            loop {
                let (rooms, next) = self.some_rooms(pattern, after.as_ref()).await?;
                all.extend(rooms);
                match next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
        }
        Ok(all.into_iter().collect())
    }

    async fn some_rooms(
        &mut self,
        pattern: &Pattern,
        after: Option<&RoomName>,
    ) -> anyhow::Result<(Vec<RoomName>, Option<RoomName>)> {
        match self {
            Self::Database(history) => {
                let wanted = |room: &RoomName| pattern.matches(room);
                let found = history.rooms(pattern.prefix(), after, ROOMS_OF_A_PAGE, wanted)?;
                let rooms = found.rooms.into_iter().map(|(room, _)| room);
                Ok((rooms.collect(), found.next))
            }
            Self::Server { client, patience } => loop {
                match client.rooms(pattern.as_str(), after).await {
                    Ok(found) => {
                        patience.answered();
                        let rooms = found.rooms.iter().map(|room| RoomName::new(&room.room));
                        let next = found.next.as_deref().map(RoomName::new).transpose()?;
                        return Ok((rooms.collect::<Result<_, _>>()?, next));
                    }
                    Err(error) => patience.wait_or_fail(error).await?,
                }
            },
        }
    }

    /// What comes behind `after`; behind 0 is all that is kept.
    pub async fn page(&mut self, room: &RoomName, after: u64) -> anyhow::Result<Page> {
        match self {
            Self::Database(history) => {
                let page = history.page(room, after, u64::MAX, LIMIT)?;
                let line = |delta| line(room, delta);
                Ok(Page {
                    epoch: history.epoch(room).to_string(),
                    complete: true,
                    lines: page.deltas.iter().map(line).collect::<Result<_, _>>()?,
                    more: page.more,
                })
            }
            Self::Server { client, patience } => {
                let query = HistoryQuery {
                    after: Some(after),
                    limit: Some(HistoryQuery::MOST),
                    ..HistoryQuery::default()
                };
                let page = loop {
                    match client.history(room, &query).await {
                        Ok(page) => break page,
                        Err(error) => patience.wait_or_fail(error).await?,
                    }
                };
                patience.answered();
                let lines = page.deltas.into_iter().map(|delta| Line {
                    room: room.to_string(),
                    offset: delta.offset,
                    time: delta.time,
                    id: delta.id,
                    info: delta.info,
                    data: delta.data,
                });
                Ok(Page {
                    epoch: page.epoch,
                    complete: page.recovered,
                    lines: lines.collect(),
                    more: page.more,
                })
            }
        }
    }
}

fn line(room: &RoomName, delta: &Delta) -> serde_json::Result<Line> {
    let raw = |json: &[u8]| serde_json::from_slice::<Box<RawValue>>(json);
    Ok(Line {
        room: room.to_string(),
        offset: delta.offset,
        time: delta.time,
        id: delta.id.to_string(),
        info: match delta.info.is_empty() {
            true => None,
            false => Some(raw(&delta.info)?),
        },
        data: raw(&delta.data)?,
    })
}
