//! Some of a room's history, for whoever asks for it by command: clients, and backends that speak as Centrifugo's do.

use tracing::error;

use super::{Reach, Services};
use crate::{
    delta::{Delta, Epoch, RoomName},
    protocol::{
        codes::ErrorCode,
        reply::{Outcome, Publication},
        session::Recover,
    },
    rooms::{
        history::{History, PageLimit},
        store::{Order, StoreError},
    },
};

/// Most that one command is answered with, well within the frame that every SDK takes.
const MOST: PageLimit = PageLimit {
    deltas: 1000,
    bytes: 512 * 1024,
};

/// What is asked for.
#[derive(Debug)]
pub struct Asked {
    pub room: RoomName,
    /// 0: only where the room is; below 0: as many as there are.
    pub limit: i64,
    /// Deltas on one side of it, and not itself.
    pub since: Option<Recover>,
    /// Newest first, and before `since`.
    pub reverse: bool,
}

/// Some deltas, and where the room's history ended when they were read.
#[derive(Debug)]
pub struct Found {
    pub epoch: Epoch,
    pub offset: u64,
    pub deltas: Vec<Delta>,
}

impl Found {
    pub fn outcome(&self) -> Outcome<'_> {
        Outcome::History {
            publications: self.deltas.iter().map(Publication::from).collect(),
            epoch: &self.epoch,
            offset: self.offset,
        }
    }
}

impl Services {
    /// Reads on a blocking thread. A position that nobody was ever given, or of another epoch, is error 112.
    pub async fn read_history(&self, asked: Asked) -> Result<Found, ErrorCode> {
        let Asked {
            room,
            limit,
            since,
            reverse,
        } = asked;
        let history = self.history.clone();
        let epoch = history.epoch(&room);
        let stale_epoch = since
            .as_ref()
            .is_some_and(|since| !since.epoch.is_empty() && *since.epoch != *epoch);
        if stale_epoch {
            return Err(ErrorCode::UNRECOVERABLE_POSITION);
        }
        let limit = PageLimit {
            deltas: usize::try_from(limit).map_or(MOST.deltas, |n| n.min(MOST.deltas)),
            ..MOST
        };
        let order = match reverse {
            true => Order::Descending,
            false => Order::Ascending,
        };
        let since = since.map(|since| since.offset);
        // Those before a position are there whether it is or not.
        let awaited = since.filter(|offset| !reverse && *offset > history.durable(&room));
        if let Some(offset) = awaited {
            match self.reach(&room, offset).await {
                Reach::Reached => {}
                Reach::Beyond => return Err(ErrorCode::UNRECOVERABLE_POSITION),
                Reach::Behind => return Err(ErrorCode::INTERNAL),
            }
        }
        let read = move || read_until_newest(&history, &room, since, limit, order);
        match actix_rt::task::spawn_blocking(read).await {
            Ok(Ok((offset, deltas))) => Ok(Found {
                epoch,
                offset,
                deltas,
            }),
            Ok(Err(error)) => {
                error!(%error, "history can't be read");
                Err(ErrorCode::INTERNAL)
            }
            Err(error) => {
                error!(%error, "reading history failed");
                Err(ErrorCode::INTERNAL)
            }
        }
    }
}

/// Where a room's history ends, and what of it was asked for: nothing that came meanwhile.
fn read_until_newest(
    history: &History,
    room: &RoomName,
    since: Option<u64>,
    limit: PageLimit,
    order: Order,
) -> Result<(u64, Vec<Delta>), StoreError> {
    let newest = history.head(room)?.newest;
    let page = match (limit.deltas, order) {
        (0, _) => return Ok((newest, vec![])),
        (_, Order::Ascending) => history.page(room, since.unwrap_or(0), newest, limit)?,
        (_, Order::Descending) => {
            let before = since.map_or(newest + 1, |since| since.min(newest + 1));
            history.list(room, Some(before), limit, order)?
        }
    };
    Ok((newest, page.deltas))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{format::Codec, reply::reply_frame};

    #[test]
    fn the_largest_reply_fits_into_the_smallest_outbox() {
        let each = MOST.bytes / MOST.deltas;
        let delta = |offset: usize| Delta {
            room: RoomName::new("room").unwrap(),
            offset: crate::delta::MAX_OFFSET - offset as u64,
            time: u64::MAX,
            id: "".into(),
            keyed: false,
            data: format!("\"{}\"", "x".repeat(each)).into(),
            info: "".into(),
            exclude: None,
        };
        let deltas: Vec<_> = (0..MOST.deltas).map(delta).collect();
        let found = Found {
            epoch: "4009e9d5f63545d0bab6774de917bfc9".into(),
            offset: u64::MAX,
            deltas,
        };
        let frame = reply_frame(Codec::Json, u32::MAX, &found.outcome());
        assert!(
            (frame.len() as u64) < crate::config::MIN_OUTBOX_BYTES,
            "{}",
            frame.len()
        );
    }
}
