//! The form in which a record travels through a shared log.
//!
//! The first byte is the version, the second the kind, and then come sections: a tag, a length and
//! as many bytes. A reader skips tags that it does not know, so that a later build may say more
//! without those who run an earlier one having to stop; what must not be skipped takes a new kind
//! or a new version, and those are an error.

use bytes::Bytes;

use self::sections::{Sections, Writer, tag};
use super::Record;
use crate::delta::{BadRoomName, Erasure};

mod sections;

/// The version that this build writes, and the latest that it reads.
pub const VERSION: u8 = 1;

/// One place in a shared log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A delta, or an erasure.
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
    #[error("a record has kind {kind}; this build knows kinds 1 to 5")]
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

mod kind {
    pub const DELTA: u8 = 1;
    pub const ERASURE: u8 = 2;
    pub const HEARTBEAT: u8 = 3;
    pub const FENCE: u8 = 4;
    pub const SEAL: u8 = 5;
}

impl Entry {
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Delta { record, tenure } => encode_record(record, *tenure),
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
            kind::DELTA | kind::ERASURE | kind::HEARTBEAT | kind::FENCE | kind::SEAL
        ) {
            return Err(DecodeError::UnknownKind { kind });
        }
        let sections = Sections::read(bytes)?;
        Ok(match kind {
            kind::DELTA | kind::ERASURE => Self::Delta {
                tenure: match &sections.tenure {
                    Some(_) => Some(sections.tenure()?),
                    None => None,
                },
                record: sections.into_record(kind == kind::ERASURE)?,
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
            Self::Delta { record, .. } => (kind_of(record), record.producer, record.sequence),
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

fn kind_of(record: &Record) -> u8 {
    match record.erases {
        None => kind::DELTA,
        Some(_) => kind::ERASURE,
    }
}

fn encode_record(record: &Record, tenure: Option<u128>) -> Vec<u8> {
    let content =
        record.room.as_str().len() + record.id.len() + record.body.len() + record.info.len();
    let mut writer = Writer::new(kind_of(record), content + 96)
        .section(tag::PRODUCER, &record.producer.to_be_bytes())
        .section(tag::NUMBER, &record.sequence.to_be_bytes())
        .section(tag::STAMPED, &record.stamped.to_be_bytes())
        .section(tag::ROOM, record.room.as_str().as_bytes());
    if record.erases.is_none() {
        writer = writer.section(tag::ID, record.id.as_bytes());
    }
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
    match record.erases {
        None => writer.section(tag::BODY, &record.body),
        Some(Erasure::One(offset)) => writer.section(tag::ERASE_ONE, &offset.to_be_bytes()),
        Some(Erasure::Upto(last)) => writer.section(tag::ERASE_UPTO, &last.to_be_bytes()),
    }
    .done()
}

#[cfg(test)]
mod tests;
