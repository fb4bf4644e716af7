//! How rooms lie in the store: every key and every record.
//!
//! | key | record |
//! | --- | --- |
//! | `h` room `0xFF` offset | [`Entry`], one delta |
//! | `r` room | [`HeadRecord`], what the room holds and has trimmed |
//! | `x` partition expiry room | nothing: from then on the room's oldest delta may be too old |
//! | `k` room `0xFF` idempotency key | [`FirstSeen`] |
//! | `e` partition time offset | the `k` key that was first seen then |
//! | `c` partition | [`Checkpoint`](super::checkpoint::Checkpoint) |
//! | `m` `epoch` partition | the identity of what its positions mean |
//! | `m` `log`, `m` `place`, `m` `format` | which log it is; which store it is in; [`FORMAT`] |
//!
//! Numbers are big-endian, so that keys sort by them; `0xFF` is in no UTF-8 text, so that no room's
//! keys lie among another's. Every record begins with the version of its own shape.

use std::sync::Arc;

use bytes::Bytes;

use super::{retention::Held, store::StoreError};
use crate::delta::{Delta, RoomName};

/// The version of this whole layout.
pub const FORMAT: u32 = 3;

pub const LOG_KEY: &[u8] = b"mlog";
pub const PLACE_KEY: &[u8] = b"mplace";
pub const FORMAT_KEY: &[u8] = b"mformat";

const END_OF_NAME: u8 = 0xFF;
/// The version of every record's own shape.
pub const VERSION: u8 = 1;
const KEYED: u8 = 1;

pub fn entry_key(room: &RoomName, offset: u64) -> Vec<u8> {
    let name = room.as_str().as_bytes();
    [b"h", name, &[END_OF_NAME], &offset.to_be_bytes()].concat()
}

/// The offset at the end of an [`entry_key`].
pub fn entry_offset(key: &[u8]) -> Result<u64, StoreError> {
    let bytes = key.last_chunk().ok_or_else(|| corrupt(key))?;
    Ok(u64::from_be_bytes(*bytes))
}

/// The first and the last key of a room's deltas.
pub fn entry_range(room: &RoomName) -> (Vec<u8>, Vec<u8>) {
    (entry_key(room, 0), entry_key(room, u64::MAX))
}

pub fn checkpoint_key(partition: u16) -> Vec<u8> {
    [&b"c"[..], &partition.to_be_bytes()].concat()
}

pub fn epoch_key(partition: u16) -> Vec<u8> {
    [&b"mepoch"[..], &partition.to_be_bytes()].concat()
}

pub fn head_key(room: &RoomName) -> Vec<u8> {
    [b"r", room.as_str().as_bytes()].concat()
}

/// The first and the last key of all rooms.
pub fn head_range() -> (Vec<u8>, Vec<u8>) {
    head_range_of("")
}

/// The first and the last key of the rooms whose names begin with `prefix`.
pub fn head_range_of(prefix: &str) -> (Vec<u8>, Vec<u8>) {
    let first = [b"r", prefix.as_bytes()].concat();
    // Behind every name, as names are text.
    let last = [&first[..], &[u8::MAX]].concat();
    (first, last)
}

/// The room of a [`head_key`].
pub fn room_of_head(key: &[u8]) -> Result<RoomName, StoreError> {
    let name = key.get(1..).and_then(|name| std::str::from_utf8(name).ok());
    name.and_then(|name| RoomName::new(name).ok())
        .ok_or_else(|| corrupt(key))
}

pub fn expiry_key(partition: u16, expiry: u64, room: &RoomName) -> Vec<u8> {
    let name = room.as_str().as_bytes();
    [&expiries(partition)[..], &expiry.to_be_bytes(), name].concat()
}

/// The first and the last key of the partition's rooms whose expiry is at most `now`.
pub fn expiry_range(partition: u16, now: u64) -> (Vec<u8>, Vec<u8>) {
    let end = now.saturating_add(1).to_be_bytes();
    let first = expiries(partition);
    let last = [&first[..], &end].concat();
    (first, last)
}

fn expiries(partition: u16) -> Vec<u8> {
    [&b"x"[..], &partition.to_be_bytes()].concat()
}

/// The expiry and the room of an [`expiry_key`].
pub fn expiring_room(key: &[u8]) -> Result<(u64, RoomName), StoreError> {
    let parse = || {
        let (expiry, name) = key.get(3..)?.split_first_chunk()?;
        let room = RoomName::new(std::str::from_utf8(name).ok()?).ok()?;
        Some((u64::from_be_bytes(*expiry), room))
    };
    parse().ok_or_else(|| corrupt(key))
}

pub fn first_seen_key(room: &RoomName, id: &str) -> Vec<u8> {
    let name = room.as_str().as_bytes();
    [b"k", name, &[END_OF_NAME], id.as_bytes()].concat()
}

/// The first and the last idempotency key of a room.
pub fn first_seen_range(room: &RoomName) -> (Vec<u8>, Vec<u8>) {
    let name = room.as_str().as_bytes();
    let first = [b"k", name, &[END_OF_NAME]].concat();
    // Behind every key, as keys are text.
    let last = [&first[..], &[u8::MAX]].concat();
    (first, last)
}

pub fn seen_at_key(partition: u16, seen: FirstSeen) -> Vec<u8> {
    [
        &seen_at(partition)[..],
        &seen.time.to_be_bytes(),
        &seen.offset.to_be_bytes(),
    ]
    .concat()
}

/// The first and the last key of what was first seen before `time` in a partition.
pub fn seen_before_range(partition: u16, time: u64) -> (Vec<u8>, Vec<u8>) {
    let first = seen_at(partition);
    let last = [&first[..], &time.to_be_bytes()].concat();
    (first, last)
}

fn seen_at(partition: u16) -> Vec<u8> {
    [&b"e"[..], &partition.to_be_bytes()].concat()
}

/// What a [`seen_at_key`] says.
pub fn when_seen(key: &[u8]) -> Result<FirstSeen, StoreError> {
    let mut fields = Fields { key, rest: key };
    fields.array::<3>()?;
    Ok(FirstSeen {
        time: fields.u64()?,
        offset: fields.u64()?,
    })
}

/// A stored delta without its room and offset, which are its key. One that is erased has no data, and one that is not
/// has some: it is JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    pub time: u64,
    pub keyed: bool,
    pub id: &'a str,
    pub info: &'a [u8],
    pub data: &'a [u8],
}

impl<'a> Entry<'a> {
    pub fn of(delta: &'a Delta) -> Self {
        Self {
            time: delta.time,
            keyed: delta.keyed,
            id: &delta.id,
            info: &delta.info,
            data: &delta.data,
        }
    }

    /// What is left of an erased delta.
    pub fn blank(time: u64) -> Self {
        Self {
            time,
            keyed: false,
            id: "",
            info: &[],
            data: &[],
        }
    }

    pub fn is_blank(&self) -> bool {
        self.data.is_empty()
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(18 + self.id.len() + self.info.len() + self.data.len());
        out.push(VERSION);
        out.push(if self.keyed { KEYED } else { 0 });
        out.extend_from_slice(&self.time.to_be_bytes());
        for part in [self.id.as_bytes(), self.info] {
            let length = u32::try_from(part.len()).expect("a delta is far below 4 GiB");
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(part);
        }
        out.extend_from_slice(self.data);
        out
    }

    pub fn decode(key: &[u8], record: &'a [u8]) -> Result<Self, StoreError> {
        let mut fields = Fields::versioned(key, record)?;
        let flags = fields.u8()?;
        let time = fields.u64()?;
        let id = fields.part()?;
        let info = fields.part()?;
        Ok(Self {
            time,
            keyed: flags & KEYED != 0,
            id: std::str::from_utf8(id).map_err(|_| corrupt(key))?,
            info,
            data: fields.rest,
        })
    }

    /// What the delta counts against its room's `bytes`.
    pub fn weight(&self) -> u64 {
        (self.id.len() + self.info.len() + self.data.len()) as u64
    }

    pub fn to_delta(&self, room: &RoomName, offset: u64) -> Delta {
        Delta {
            room: room.clone(),
            offset,
            time: self.time,
            id: Arc::from(self.id),
            keyed: self.keyed,
            data: Bytes::copy_from_slice(self.data),
            info: Bytes::copy_from_slice(self.info),
            exclude: None,
        }
    }
}

/// What a room holds, what it has trimmed, and how far it came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeadRecord {
    pub held: Held,
    /// Offset of the newest trimmed delta; 0 for none.
    pub floor: u64,
    /// Time of the newest trimmed delta.
    pub floor_time: u64,
    /// Offset of the newest delta, kept or trimmed.
    pub newest: u64,
    pub newest_time: u64,
    /// Under which expiry the room is indexed; 0 for none, as of a room that holds nothing.
    pub expiry: u64,
    /// Up to here everything is erased, though not yet taken out; 0 for nothing.
    pub erased: u64,
}

impl HeadRecord {
    /// Up to here nothing is shown.
    pub fn hidden(&self) -> u64 {
        self.floor.max(self.erased)
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        for number in [
            self.held.count,
            self.held.bytes,
            self.floor,
            self.floor_time,
            self.newest,
            self.newest_time,
            self.expiry,
            self.erased,
        ] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out
    }

    pub fn decode(key: &[u8], record: &[u8]) -> Result<Self, StoreError> {
        let mut fields = Fields::versioned(key, record)?;
        Ok(Self {
            held: Held {
                count: fields.u64()?,
                bytes: fields.u64()?,
            },
            floor: fields.u64()?,
            floor_time: fields.u64()?,
            newest: fields.u64()?,
            newest_time: fields.u64()?,
            expiry: fields.u64()?,
            erased: fields.u64()?,
        })
    }
}

/// The delta that an idempotency key came with first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstSeen {
    pub offset: u64,
    pub time: u64,
}

impl FirstSeen {
    pub fn encode(&self) -> Vec<u8> {
        encode_pair(self.offset, self.time)
    }

    pub fn decode(key: &[u8], record: &[u8]) -> Result<Self, StoreError> {
        let (offset, time) = decode_pair(key, record)?;
        Ok(Self { offset, time })
    }
}

/// As [`super::store::Store::place`] gives it.
pub fn encode_place(place: u64) -> Vec<u8> {
    place.to_be_bytes().to_vec()
}

pub fn encode_format() -> Vec<u8> {
    FORMAT.to_be_bytes().to_vec()
}

pub fn decode_format(record: &[u8]) -> Result<u32, StoreError> {
    let bytes = record.try_into().map_err(|_| corrupt(FORMAT_KEY))?;
    Ok(u32::from_be_bytes(bytes))
}

/// Names `key` as the place of damage.
pub fn corrupt(key: &[u8]) -> StoreError {
    StoreError::Corrupt {
        key: key.escape_ascii().to_string(),
    }
}

fn encode_pair(first: u64, second: u64) -> Vec<u8> {
    [&[VERSION][..], &first.to_be_bytes(), &second.to_be_bytes()].concat()
}

fn decode_pair(key: &[u8], record: &[u8]) -> Result<(u64, u64), StoreError> {
    let mut fields = Fields::versioned(key, record)?;
    Ok((fields.u64()?, fields.u64()?))
}

/// Reads a record field by field; a record that ends too early is damage at `key`.
pub(super) struct Fields<'k, 'r> {
    key: &'k [u8],
    pub(super) rest: &'r [u8],
}

impl<'k, 'r> Fields<'k, 'r> {
    pub(super) fn versioned(key: &'k [u8], record: &'r [u8]) -> Result<Self, StoreError> {
        let mut fields = Self { key, rest: record };
        match fields.u8()? {
            VERSION => Ok(fields),
            _ => Err(corrupt(key)),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'r [u8], StoreError> {
        let (field, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or_else(|| corrupt(self.key))?;
        self.rest = rest;
        Ok(field)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let (field, rest) = self
            .rest
            .split_first_chunk()
            .ok_or_else(|| corrupt(self.key))?;
        self.rest = rest;
        Ok(*field)
    }

    pub(super) fn u8(&mut self) -> Result<u8, StoreError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u64(&mut self) -> Result<u64, StoreError> {
        self.array().map(u64::from_be_bytes)
    }

    fn part(&mut self) -> Result<&'r [u8], StoreError> {
        let length = u32::from_be_bytes(self.array()?);
        self.take(length as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn room(name: &str) -> RoomName {
        RoomName::new(name).unwrap()
    }

    #[test]
    fn a_room_whose_name_begins_with_anothers_lies_apart_from_it() {
        let (short, long) = (room("a"), room("aa"));
        let all_of = |room| entry_key(room, 0)..=entry_key(room, u64::MAX);
        assert!(!all_of(&short).contains(&entry_key(&long, 7)));
        assert!(!all_of(&long).contains(&entry_key(&short, 7)));
    }

    #[test]
    fn a_damaged_record_names_its_key() {
        let error = HeadRecord::decode(&head_key(&room("a")), b"\x01short").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the database is damaged at key ra; restore a backup, or start with an empty \
             data directory"
        );
        assert!(HeadRecord::decode(b"r", b"\x02another version").is_err());
        assert!(expiring_room(b"x\0\0\0\0\0\0\0\0\0\x01two words").is_err());
    }

    #[test]
    fn what_one_partition_indexes_lies_apart_from_anothers() {
        let (first, last) = expiry_range(1, u64::MAX);
        let key = |partition| expiry_key(partition, 5, &room("a"));
        assert!((first.clone()..=last.clone()).contains(&key(1)));
        assert!(
            [0, 2, 256]
                .iter()
                .all(|n| !(first.clone()..=last.clone()).contains(&key(*n)))
        );
        let seen = FirstSeen { offset: 7, time: 5 };
        let (first, last) = seen_before_range(1, 6);
        let key = |partition| seen_at_key(partition, seen);
        assert!((first.clone()..=last.clone()).contains(&key(1)));
        assert!(
            [0, 2, 256]
                .iter()
                .all(|n| !(first.clone()..=last.clone()).contains(&key(*n)))
        );
        assert_eq!(when_seen(&key(1)).unwrap(), seen);
    }

    proptest! {
        #[test]
        fn entries_sort_by_offset_and_expiries_by_time(a: u64, b: u64) {
            let room = room("a");
            prop_assert_eq!(a.cmp(&b), entry_key(&room, a).cmp(&entry_key(&room, b)));
            prop_assert_eq!(entry_offset(&entry_key(&room, a)).unwrap(), a);
            prop_assert_eq!(a.cmp(&b), expiry_key(3, a, &room).cmp(&expiry_key(3, b, &room)));
            prop_assert_eq!(expiring_room(&expiry_key(3, a, &room)).unwrap(), (a, room));
        }

        #[test]
        fn an_entry_is_read_as_it_was_written_and_its_torn_start_never(
            time: u64,
            keyed: bool,
            id in ".{0,40}",
            info in prop::collection::vec(any::<u8>(), 0..40),
            data in prop::collection::vec(any::<u8>(), 0..40),
            cut in 0_usize..18,
        ) {
            let entry = Entry { time, keyed, id: &id, info: &info, data: &data };
            let record = entry.encode();
            prop_assert_eq!(Entry::decode(b"h", &record).unwrap(), entry);
            prop_assert!(Entry::decode(b"h", &record[..cut]).is_err());
        }
    }
}
