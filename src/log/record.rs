//! The form in which a record travels through a shared log.
//!
//! The first byte is the version, the second the kind, and then come sections: a tag, a length and
//! as many bytes. A reader skips tags that it does not know, so that a later build may say more
//! without those who run an earlier one having to stop; what must not be skipped takes a new kind
//! or a new version, and those are an error.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::Record;
use crate::delta::{BadRoomName, RoomName};

/// The version that this build writes, and the latest that it reads.
pub const VERSION: u8 = 1;

/// One place in a shared log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    Delta {
        record: Record,
        /// The tenure that took the delta in from another producer; it counts only while no later
        /// tenure has put its fence into the log.
        tenure: Option<u128>,
    },
    Heartbeat(Heartbeat),
    Fence(Fence),
    Seal(Seal),
}

/// Says that its producer was there, and what its clock read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// Which life of which instance; these are never the producers of deltas.
    pub producer: u128,
    /// Grows with every heartbeat of the producer. A number may come twice.
    pub beat: u64,
    /// The producer's clock, in ms since the Unix epoch.
    pub stamped: u64,
}

/// The beginning of a tenure: from here on, deltas of earlier tenures don't count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    pub tenure: u128,
    /// The producer's clock, in ms since the Unix epoch.
    pub stamped: u64,
}

/// The end of a log: whatever stands behind the first seal never counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// Who put it there.
    pub producer: u128,
    /// The producer's clock, in ms since the Unix epoch.
    pub stamped: u64,
}

/// Tells an entry from all others but its own repetitions: at one place of a log, it tells one log
/// from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    kind: u8,
    producer: u128,
    number: u64,
}

/// Why bytes are no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("a record has {bytes} bytes; it begins with its version and its kind")]
    TooShort { bytes: usize },
    #[error("a record has version {version}; this build reads up to {VERSION}")]
    NewerVersion { version: u8 },
    #[error("a record has kind {kind}; this build knows kinds 1 and 3 to 5")]
    UnknownKind { kind: u8 },
    #[error("a record ends within the section at byte {at}")]
    Cut { at: usize },
    #[error("a record has no {section}")]
    Missing { section: &'static str },
    #[error("a record's {section} has {bytes} bytes; it takes {expected}")]
    Width {
        section: &'static str,
        bytes: usize,
        expected: usize,
    },
    #[error("a record's {section} is not UTF-8")]
    Text { section: &'static str },
    #[error(transparent)]
    Room(#[from] BadRoomName),
}

impl DecodeError {
    /// Whether a later build wrote the record, which this one must not pass over.
    pub fn is_newer(&self) -> bool {
        matches!(self, Self::NewerVersion { .. } | Self::UnknownKind { .. })
    }
}

/// Kind 2 is set aside for erasures.
mod kind {
    pub const DELTA: u8 = 1;
    pub const HEARTBEAT: u8 = 3;
    pub const FENCE: u8 = 4;
    pub const SEAL: u8 = 5;
}

mod tag {
    pub const PRODUCER: u8 = 1;
    pub const NUMBER: u8 = 2;
    pub const STAMPED: u8 = 3;
    pub const ROOM: u8 = 4;
    pub const ID: u8 = 5;
    /// There or not; it has no bytes.
    pub const KEYED: u8 = 6;
    pub const BODY: u8 = 7;
    pub const INFO: u8 = 8;
    pub const TENURE: u8 = 9;
    pub const EXCLUDE: u8 = 10;
}

impl Entry {
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Delta { record, tenure } => encode_delta(record, *tenure),
            Self::Heartbeat(heartbeat) => Writer::new(kind::HEARTBEAT, 64)
                .section(tag::PRODUCER, &heartbeat.producer.to_be_bytes())
                .section(tag::NUMBER, &heartbeat.beat.to_be_bytes())
                .section(tag::STAMPED, &heartbeat.stamped.to_be_bytes())
                .done(),
            Self::Fence(fence) => Writer::new(kind::FENCE, 32)
                .section(tag::TENURE, &fence.tenure.to_be_bytes())
                .section(tag::STAMPED, &fence.stamped.to_be_bytes())
                .done(),
            Self::Seal(seal) => Writer::new(kind::SEAL, 32)
                .section(tag::PRODUCER, &seal.producer.to_be_bytes())
                .section(tag::STAMPED, &seal.stamped.to_be_bytes())
                .done(),
        }
    }

    /// Body and info share `bytes`.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let [version, kind, ..] = **bytes else {
            return Err(DecodeError::TooShort { bytes: bytes.len() });
        };
        if version == 0 {
            return Err(DecodeError::Missing { section: "version" });
        }
        if version > VERSION {
            return Err(DecodeError::NewerVersion { version });
        }
        if !matches!(
            kind,
            kind::DELTA | kind::HEARTBEAT | kind::FENCE | kind::SEAL
        ) {
            return Err(DecodeError::UnknownKind { kind });
        }
        let sections = Sections::read(bytes)?;
        Ok(match kind {
            kind::DELTA => Self::Delta {
                tenure: match &sections.tenure {
                    Some(_) => Some(sections.tenure()?),
                    None => None,
                },
                record: sections.into_record()?,
            },
            kind::HEARTBEAT => Self::Heartbeat(Heartbeat {
                producer: sections.producer()?,
                beat: sections.number()?,
                stamped: sections.stamped()?,
            }),
            kind::FENCE => Self::Fence(Fence {
                tenure: sections.tenure()?,
                stamped: sections.stamped()?,
            }),
            _ => Self::Seal(Seal {
                producer: sections.producer()?,
                stamped: sections.stamped()?,
            }),
        })
    }

    pub fn identity(&self) -> Identity {
        let (kind, producer, number) = match self {
            Self::Delta { record, .. } => (kind::DELTA, record.producer, record.sequence),
            Self::Heartbeat(heartbeat) => (kind::HEARTBEAT, heartbeat.producer, heartbeat.beat),
            Self::Fence(fence) => (kind::FENCE, fence.tenure, 0),
            Self::Seal(seal) => (kind::SEAL, seal.producer, 0),
        };
        Identity {
            kind,
            producer,
            number,
        }
    }

    /// The clock of whoever made the entry, in ms since the Unix epoch.
    pub fn stamped(&self) -> u64 {
        match self {
            Self::Delta { record, .. } => record.stamped,
            Self::Heartbeat(heartbeat) => heartbeat.stamped,
            Self::Fence(fence) => fence.stamped,
            Self::Seal(seal) => seal.stamped,
        }
    }
}

impl Identity {
    pub const BYTES: usize = 25;

    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0] = self.kind;
        bytes[1..17].copy_from_slice(&self.producer.to_be_bytes());
        bytes[17..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }

    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let [kind, rest @ ..] = bytes;
        let (mut producer, mut number) = ([0; 16], [0; 8]);
        producer.copy_from_slice(&rest[..16]);
        number.copy_from_slice(&rest[16..]);
        Self {
            kind,
            producer: u128::from_be_bytes(producer),
            number: u64::from_be_bytes(number),
        }
    }
}

fn encode_delta(record: &Record, tenure: Option<u128>) -> Vec<u8> {
    let content =
        record.room.as_str().len() + record.id.len() + record.body.len() + record.info.len();
    let mut writer = Writer::new(kind::DELTA, content + 96)
        .section(tag::PRODUCER, &record.producer.to_be_bytes())
        .section(tag::NUMBER, &record.sequence.to_be_bytes())
        .section(tag::STAMPED, &record.stamped.to_be_bytes())
        .section(tag::ROOM, record.room.as_str().as_bytes())
        .section(tag::ID, record.id.as_bytes());
    if record.keyed {
        writer = writer.section(tag::KEYED, &[]);
    }
    if !record.info.is_empty() {
        writer = writer.section(tag::INFO, &record.info);
    }
    if let Some(client) = record.exclude {
        writer = writer.section(tag::EXCLUDE, client.as_bytes());
    }
    if let Some(tenure) = tenure {
        writer = writer.section(tag::TENURE, &tenure.to_be_bytes());
    }
    writer.section(tag::BODY, &record.body).done()
}

struct Writer(Vec<u8>);

impl Writer {
    fn new(kind: u8, capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity);
        bytes.extend([VERSION, kind]);
        Self(bytes)
    }

    fn section(mut self, tag: u8, content: &[u8]) -> Self {
        self.0.push(tag);
        let mut length = content.len();
        while length >= 0x80 {
            self.0.push(0x80 | (length & 0x7f) as u8);
            length >>= 7;
        }
        self.0.push(length as u8);
        self.0.extend_from_slice(content);
        self
    }

    fn done(self) -> Vec<u8> {
        self.0
    }
}

/// The sections of one record, as far as this build knows them.
#[derive(Default)]
struct Sections {
    producer: Option<Bytes>,
    number: Option<Bytes>,
    stamped: Option<Bytes>,
    room: Option<Bytes>,
    id: Option<Bytes>,
    keyed: bool,
    body: Option<Bytes>,
    info: Option<Bytes>,
    tenure: Option<Bytes>,
    exclude: Option<Bytes>,
}

impl Sections {
    fn read(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut sections = Self::default();
        let mut at = 2;
        while let Some(&tag) = bytes.get(at) {
            let cut = DecodeError::Cut { at };
            let (length, start) = read_length(bytes, at + 1).ok_or(cut.clone())?;
            let end = start.checked_add(length).filter(|end| *end <= bytes.len());
            let content = bytes.slice(start..end.ok_or(cut)?);
            at = start + length;
            match tag {
                tag::PRODUCER => sections.producer = Some(content),
                tag::NUMBER => sections.number = Some(content),
                tag::STAMPED => sections.stamped = Some(content),
                tag::ROOM => sections.room = Some(content),
                tag::ID => sections.id = Some(content),
                tag::KEYED => sections.keyed = true,
                tag::BODY => sections.body = Some(content),
                tag::INFO => sections.info = Some(content),
                tag::TENURE => sections.tenure = Some(content),
                tag::EXCLUDE => sections.exclude = Some(content),
                // Said by a later build to whoever understands it.
                _ => {}
            }
        }
        Ok(sections)
    }

    fn producer(&self) -> Result<u128, DecodeError> {
        fixed(&self.producer, "producer").map(u128::from_be_bytes)
    }

    fn number(&self) -> Result<u64, DecodeError> {
        fixed(&self.number, "number").map(u64::from_be_bytes)
    }

    fn stamped(&self) -> Result<u64, DecodeError> {
        fixed(&self.stamped, "time").map(u64::from_be_bytes)
    }

    fn tenure(&self) -> Result<u128, DecodeError> {
        fixed(&self.tenure, "tenure").map(u128::from_be_bytes)
    }

    fn into_record(self) -> Result<Record, DecodeError> {
        Ok(Record {
            producer: self.producer()?,
            sequence: self.number()?,
            stamped: self.stamped()?,
            room: RoomName::new(text(&self.room, "room")?)?,
            id: Arc::from(text(&self.id, "id")?),
            keyed: self.keyed,
            exclude: match &self.exclude {
                Some(_) => Some(fixed(&self.exclude, "excluded client").map(Uuid::from_bytes)?),
                None => None,
            },
            body: self.body.ok_or(DecodeError::Missing { section: "body" })?,
            info: self.info.unwrap_or_default(),
        })
    }
}

/// The length that stands at `at`, seven bits a byte with the lowest first, and where it ends.
fn read_length(bytes: &[u8], mut at: usize) -> Option<(usize, usize)> {
    let mut length = 0_usize;
    for shift in [0, 7, 14, 21, 28] {
        let byte = *bytes.get(at)?;
        at += 1;
        length |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((length, at));
        }
    }
    None
}

fn fixed<const N: usize>(
    content: &Option<Bytes>,
    section: &'static str,
) -> Result<[u8; N], DecodeError> {
    let content = content.as_deref().ok_or(DecodeError::Missing { section })?;
    content.try_into().map_err(|_| DecodeError::Width {
        section,
        bytes: content.len(),
        expected: N,
    })
}

fn text<'a>(content: &'a Option<Bytes>, section: &'static str) -> Result<&'a str, DecodeError> {
    let content = content.as_deref().ok_or(DecodeError::Missing { section })?;
    std::str::from_utf8(content).map_err(|_| DecodeError::Text { section })
}

#[cfg(test)]
mod tests;
