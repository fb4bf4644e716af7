//! The one judge of what a client saw: whether it is exactly the room's sequence, or where it is
//! not.

use serde_json::Value;

/// One delta of a room, as the log holds it or as a client got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub offset: u64,
    pub data: String,
}

impl Entry {
    pub fn new(offset: u64, data: impl Into<String>) -> Self {
        Self {
            offset,
            data: data.into(),
        }
    }
}

/// What a client of one room was told, in the order in which it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The client joined behind this offset.
    Joined {
        at: u64,
    },
    Delta(Entry),
    /// The client was told that it missed what can't be replayed, and that it goes on behind this
    /// offset.
    Reload {
        at: u64,
    },
}

/// The first thing that is wrong with what a client saw.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    #[error("offset {offset} never arrived")]
    Lost { offset: u64 },
    #[error("offset {offset} arrived twice")]
    Doubled { offset: u64 },
    #[error("offset {offset} arrived out of order")]
    OutOfOrder { offset: u64 },
    #[error("offset {offset} is not in the log")]
    Unknown { offset: u64 },
    #[error("offset {offset} arrived as {got:?}; the log has {written:?}")]
    Changed {
        offset: u64,
        written: String,
        got: String,
    },
    #[error("told to go on behind {at}, which is before what it already had")]
    WentBack { at: u64 },
    #[error("got a delta before it joined")]
    NotJoined,
}

/// Checks that `seen` is `log` from the place where the client joined to the log's end, without a
/// loss, a double or a swap; only what an explicit reload steps over may be missing.
pub fn check(log: &[Entry], seen: &[Seen]) -> Result<(), Wrong> {
    let mut next = None;
    for (place, event) in seen.iter().enumerate() {
        match event {
            Seen::Joined { at } | Seen::Reload { at } => {
                let start = log.partition_point(|entry| entry.offset <= *at);
                if next.is_some_and(|next| start < next) {
                    return Err(Wrong::WentBack { at: *at });
                }
                next = Some(start);
            }
            Seen::Delta(got) => {
                let expected = next.ok_or(Wrong::NotJoined)?;
                match log.get(expected) {
                    Some(entry) if entry == got => next = Some(expected + 1),
                    _ => return Err(judge(log, seen, place, got, expected)),
                }
            }
        }
    }
    match next.and_then(|next| log.get(next)) {
        Some(missing) => Err(Wrong::Lost {
            offset: missing.offset,
        }),
        None => Ok(()),
    }
}

/// Names what is wrong with `got`, which stands where the log has the entry `expected`.
fn judge(log: &[Entry], seen: &[Seen], place: usize, got: &Entry, expected: usize) -> Wrong {
    let offset = got.offset;
    let arrives = |events: &[Seen], offset: u64| {
        let is = |event: &Seen| matches!(event, Seen::Delta(entry) if entry.offset == offset);
        events.iter().any(is)
    };
    let Ok(index) = log.binary_search_by_key(&offset, |entry| entry.offset) else {
        return Wrong::Unknown { offset };
    };
    if log[index].data != got.data {
        return Wrong::Changed {
            offset,
            written: log[index].data.clone(),
            got: got.data.clone(),
        };
    }
    if arrives(&seen[..place], offset) {
        return Wrong::Doubled { offset };
    }
    let skipped = log[expected.min(log.len() - 1)].offset;
    if index < expected || arrives(&seen[place..], skipped) {
        return Wrong::OutOfOrder { offset };
    }
    Wrong::Lost { offset: skipped }
}

/// What one client knows of a room: its position, moved as the official SDKs move it, and all that
/// it saw.
#[derive(Debug, Clone)]
pub struct View {
    pub room: String,
    pub epoch: String,
    pub offset: u64,
    pub seen: Vec<Seen>,
}

impl View {
    pub fn new(room: &str) -> Self {
        Self {
            room: room.into(),
            epoch: String::new(),
            offset: 0,
            seen: Vec::new(),
        }
    }

    /// A view of a client that has everything up to a position.
    pub fn at(room: &str, offset: u64, epoch: &str) -> Self {
        Self {
            room: room.into(),
            epoch: epoch.into(),
            offset,
            seen: vec![Seen::Joined { at: offset }],
        }
    }

    /// Whether there is a position to come back to.
    pub fn joined(&self) -> bool {
        !self.seen.is_empty()
    }

    pub fn deltas(&self) -> impl Iterator<Item = &Entry> {
        self.seen.iter().filter_map(|event| match event {
            Seen::Delta(entry) => Some(entry),
            _ => None,
        })
    }

    pub fn reloads(&self) -> usize {
        let reload = |event: &&Seen| matches!(event, Seen::Reload { .. });
        self.seen.iter().filter(reload).count()
    }

    /// Takes the result of a subscribe command. Another epoch's deltas can't be compared: what was
    /// seen before it goes.
    pub fn subscribed(&mut self, result: &Value) {
        let offset = result["offset"].as_u64().unwrap_or(0);
        let epoch = result["epoch"].as_str().unwrap_or_default();
        if self.epoch != epoch {
            self.seen.clear();
        }
        if result["was_recovering"] != true {
            self.seen.push(Seen::Joined { at: offset });
        } else if result["recovered"] != true {
            self.seen.push(Seen::Reload { at: offset });
        }
        self.epoch = epoch.into();
        self.offset = offset;
        for publication in result["publications"].as_array().into_iter().flatten() {
            self.publication(publication);
        }
    }

    /// Takes one publication; one without an offset is ephemeral and no part of the sequence.
    pub fn publication(&mut self, publication: &Value) {
        if let Some(offset) = publication["offset"].as_u64() {
            self.offset = offset;
            let data = publication["data"].to_string();
            self.seen.push(Seen::Delta(Entry { offset, data }));
        }
    }

    /// Panics unless the client saw exactly the sequence of `log`.
    pub fn assert_exactly(&self, log: &[Entry]) {
        if let Err(wrong) = check(log, &self.seen) {
            panic!(
                "room {}: {wrong} ({} deltas in the log, {} seen)",
                self.room,
                log.len(),
                self.deltas().count()
            );
        }
    }
}
