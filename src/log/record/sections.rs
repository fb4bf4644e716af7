//! The sections of a record: how they are written, and what is read from them.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::{DecodeError, Record, VERSION};
use crate::delta::{Erasure, RoomName};

pub mod tag {
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
    pub const ERASE_ONE: u8 = 11;
    pub const ERASE_UPTO: u8 = 12;
}

pub struct Writer(Vec<u8>);

impl Writer {
    pub fn new(kind: u8, capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity);
        bytes.extend([VERSION, kind]);
        Self(bytes)
    }

    pub fn section(mut self, tag: u8, content: &[u8]) -> Self {
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

    pub fn done(self) -> Vec<u8> {
        self.0
    }
}

/// The sections of one record, as far as this build knows them.
#[derive(Default)]
pub struct Sections {
    producer: Option<Bytes>,
    number: Option<Bytes>,
    stamped: Option<Bytes>,
    room: Option<Bytes>,
    id: Option<Bytes>,
    keyed: bool,
    body: Option<Bytes>,
    info: Option<Bytes>,
    pub tenure: Option<Bytes>,
    exclude: Option<Bytes>,
    erase_one: Option<Bytes>,
    erase_upto: Option<Bytes>,
}

impl Sections {
    pub fn read(bytes: &Bytes) -> Result<Self, DecodeError> {
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
                tag::ERASE_ONE => sections.erase_one = Some(content),
                tag::ERASE_UPTO => sections.erase_upto = Some(content),
                // Said by a later build to whoever understands it.
                _ => {}
            }
        }
        Ok(sections)
    }

    pub fn producer(&self) -> Result<u128, DecodeError> {
        fixed(&self.producer, "producer").map(u128::from_be_bytes)
    }

    pub fn number(&self) -> Result<u64, DecodeError> {
        fixed(&self.number, "number").map(u64::from_be_bytes)
    }

    pub fn stamped(&self) -> Result<u64, DecodeError> {
        fixed(&self.stamped, "time").map(u64::from_be_bytes)
    }

    pub fn tenure(&self) -> Result<u128, DecodeError> {
        fixed(&self.tenure, "tenure").map(u128::from_be_bytes)
    }

    fn erasure(&self) -> Result<Erasure, DecodeError> {
        let section = "offset to erase";
        match &self.erase_one {
            Some(_) => fixed(&self.erase_one, section)
                .map(|offset| Erasure::One(u64::from_be_bytes(offset))),
            None => {
                fixed(&self.erase_upto, section).map(|last| Erasure::Upto(u64::from_be_bytes(last)))
            }
        }
    }

    pub fn into_record(self, erases: bool) -> Result<Record, DecodeError> {
        let mut record = Record {
            producer: self.producer()?,
            sequence: self.number()?,
            stamped: self.stamped()?,
            room: RoomName::new(text(&self.room, "room")?)?,
            erases: None,
            id: Arc::from(""),
            keyed: false,
            exclude: None,
            body: Bytes::new(),
            info: Bytes::new(),
        };
        if erases {
            record.erases = Some(self.erasure()?);
            return Ok(record);
        }
        record.id = Arc::from(text(&self.id, "id")?);
        record.keyed = self.keyed;
        if self.exclude.is_some() {
            record.exclude = Some(fixed(&self.exclude, "excluded client").map(Uuid::from_bytes)?);
        }
        record.body = self.body.ok_or(DecodeError::Missing { section: "body" })?;
        record.info = self.info.unwrap_or_default();
        Ok(record)
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
