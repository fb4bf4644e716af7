//! Where a tail begins: now, behind an offset, or at a time.

use crate::{
    client::http::{HistoryQuery, HttpClient, HttpError},
    delta::{Position, RoomName},
};

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    Now,
    /// Behind an offset; an empty epoch fits any. Behind 0 is everything that is kept.
    After(Position),
    /// With what was ordered then or later, in ms since the Unix epoch.
    Since(u64),
}

/// A place from which a room can be subscribed to.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    pub position: Position,
    /// Whether nothing that was asked for lies in front of it and is gone.
    pub complete: bool,
}

impl Start {
    /// The position to subscribe from; none for whatever comes next.
    pub async fn find(
        &self,
        client: &HttpClient,
        room: &RoomName,
    ) -> Result<Option<Place>, HttpError> {
        let mut query = HistoryQuery {
            limit: Some(1),
            ..HistoryQuery::default()
        };
        match self {
            Self::Now => return Ok(None),
            Self::After(position) if position.offset > 0 => {
                return Ok(Some(Place {
                    position: position.clone(),
                    complete: true,
                }));
            }
            Self::After(_) => {}
            Self::Since(time) => query.since = Some(*time),
        }
        let page = client.history(room, &query).await?;
        // Nothing of the room lies between its first delta and the offset in front of that.
        let first = page.deltas.first().map(|delta| delta.offset - 1);
        Ok(Some(Place {
            position: Position {
                offset: first.unwrap_or(page.newest),
                epoch: page.epoch.into(),
            },
            complete: page.recovered,
        }))
    }
}
