//! Where a reader of one or several rooms stands, as one short text: the `id:` of events, and what polls go on from.
//!
//! `1`, then for each epoch `~` and its key, and behind it for each room of that epoch `.`, the room's key and the offset.
//! A key is a hash of 48 bits in 8 characters, so the text is as short for long names, and a mark of a room that is not
//! asked for any more is simply not looked at. The text has characters that need no escaping in a URL or a header.

use std::fmt;

use bytes::{BufMut, BytesMut};

use crate::delta::{MAX_OFFSET, RoomName};

/// The longest text, in bytes.
pub const MAX_BYTES: usize = 4096;

/// Rooms that a bookmark holds. However they are spread over epochs, the text stays below [`MAX_BYTES`].
pub const MAX_ROOMS: usize = 128;

const VERSION: u8 = b'1';
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Stands for a room's name or an epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key([u8; 8]);

impl Key {
    /// The same on every server and in every version: positions are kept by clients.
    pub fn of(text: &str) -> Self {
        // FNV-1a of 64 bits, folded to 48.
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let folded = (hash >> 48) ^ hash;
        Self(std::array::from_fn(|at| {
            DIGITS[(folded >> (42 - 6 * at)) as usize % 64]
        }))
    }

    fn parse(text: &[u8]) -> Option<(Self, &[u8])> {
        let (key, rest) = text.split_first_chunk()?;
        let is_key = key.iter().all(|&byte| digit(byte).is_some());
        is_key.then_some((Self(*key), rest))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

/// Where a reader stands in one room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub room: Key,
    pub epoch: Key,
    pub offset: u64,
}

/// Marks of several rooms, each room once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bookmark(Vec<Mark>);

impl Bookmark {
    /// Of rooms that are told apart by their keys.
    pub fn new(mut marks: Vec<Mark>) -> Self {
        // So that each epoch is written once.
        marks.sort_by_key(|mark| (mark.epoch, mark.room));
        Self(marks)
    }

    /// `None` if it is no bookmark, or one of a version that is not known.
    pub fn parse(text: &str) -> Option<Self> {
        let (&VERSION, mut rest) = text.as_bytes().split_first()? else {
            return None;
        };
        let mut marks: Vec<Mark> = Vec::new();
        let mut epoch = None;
        if text.len() > MAX_BYTES {
            return None;
        }
        while let Some((&mark, text)) = rest.split_first() {
            match mark {
                b'~' => {
                    let (key, text) = Key::parse(text)?;
                    epoch = Some(key);
                    rest = text;
                }
                b'.' => {
                    let (room, text) = Key::parse(text)?;
                    let end = text.iter().position(|byte| b".~".contains(byte));
                    let (offset, text) = text.split_at(end.unwrap_or(text.len()));
                    marks.push(Mark {
                        room,
                        epoch: epoch?,
                        offset: number(offset)?,
                    });
                    rest = text;
                }
                _ => return None,
            }
        }
        let known = |marks: &[Mark], mark: &Mark| marks.iter().any(|m| m.room == mark.room);
        let once = (0..marks.len()).all(|at| !known(&marks[..at], &marks[at]));
        (once && !marks.is_empty()).then_some(Self(marks))
    }

    pub fn mark(&self, room: &RoomName) -> Option<Mark> {
        let key = Key::of(room.as_str());
        self.0.iter().find(|mark| mark.room == key).copied()
    }

    /// A reader of these rooms has come further in one of them.
    pub fn advance(&mut self, to: Mark) {
        if let Some(mark) = self.0.iter_mut().find(|mark| mark.room == to.room) {
            let same_life = mark.epoch == to.epoch;
            *mark = to;
            if !same_life {
                self.0.sort_by_key(|mark| (mark.epoch, mark.room));
            }
        }
    }

    pub fn write(&self, out: &mut BytesMut) {
        out.put_u8(VERSION);
        let mut epoch = None;
        for mark in &self.0 {
            if epoch != Some(mark.epoch) {
                out.put_u8(b'~');
                out.put_slice(&mark.epoch.0);
                epoch = Some(mark.epoch);
            }
            out.put_u8(b'.');
            out.put_slice(&mark.room.0);
            write_number(out, mark.offset);
        }
    }

    /// The only mark, in the text of a bookmark of one room.
    pub fn parse_single(text: &[u8]) -> Option<Mark> {
        let bookmark = Self::parse(std::str::from_utf8(text).ok()?)?;
        match bookmark.0[..] {
            [mark] => Some(mark),
            _ => None,
        }
    }
}

impl fmt::Display for Bookmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = BytesMut::new();
        self.write(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

/// Writes a bookmark of one room again and again, with the offsets that it comes to.
#[derive(Debug, Clone)]
pub struct SingleRoom(Vec<u8>);

impl SingleRoom {
    pub fn new(room: &RoomName, epoch: &str) -> Self {
        let (room, epoch) = (Key::of(room.as_str()), Key::of(epoch));
        Self([&[VERSION, b'~'][..], &epoch.0, b".", &room.0].concat())
    }

    pub fn write(&self, out: &mut BytesMut, offset: u64) {
        out.put_slice(&self.0);
        write_number(out, offset);
    }
}

fn digit(byte: u8) -> Option<u64> {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        _ => return None,
    };
    Some(value.into())
}

fn number(digits: &[u8]) -> Option<u64> {
    // One digit at least, and none that could be left out: each number has one text.
    let right = match digits {
        [] => false,
        [_] => true,
        [first, ..] => *first != b'A' && digits.len() <= 9,
    };
    let number = digits
        .iter()
        .try_fold(0, |number, &byte| Some(number * 64 + digit(byte)?));
    number.filter(|&number| right && number <= MAX_OFFSET)
}

fn write_number(out: &mut BytesMut, number: u64) {
    let digits = (64 - number.leading_zeros()).div_ceil(6).max(1);
    for at in (0..digits).rev() {
        out.put_u8(DIGITS[(number >> (6 * at)) as usize % 64]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mark(room: &str, epoch: &str, offset: u64) -> Mark {
        Mark {
            room: Key::of(room),
            epoch: Key::of(epoch),
            offset,
        }
    }

    #[test]
    fn a_text_that_a_client_keeps_means_the_same_in_every_version() {
        let bookmark = Bookmark::new(vec![mark("lobby", "e", 42), mark("chat:é", "e", 0)]);
        assert_eq!(bookmark.to_string(), "1~2EyGAUqj.47bvcun5q.J0ZhuJtzA");
        assert_eq!(Bookmark::parse(&bookmark.to_string()), Some(bookmark));
    }

    #[test]
    fn rooms_of_one_epoch_share_it_and_the_largest_text_is_within_the_bound() {
        let marks = (0..MAX_ROOMS).map(|n| mark(&format!("r{n}"), &format!("e{n}"), MAX_OFFSET));
        let text = Bookmark::new(marks.collect()).to_string();
        assert!(text.len() <= MAX_BYTES, "{} bytes", text.len());
        let marks = (0..MAX_ROOMS).map(|n| mark(&format!("r{n}"), "e", 1_000_000));
        assert!(Bookmark::new(marks.collect()).to_string().len() < 1_700);
    }

    #[test]
    fn what_is_no_bookmark_is_none() {
        let good = Bookmark::new(vec![mark("a", "e", 70), mark("b", "f", 1)]).to_string();
        assert!(Bookmark::parse(&good).is_some());
        let twice = format!("{good}{}", &good[1..]);
        let foreign_version = format!("2{}", &good[1..]);
        let long = format!("{good}{}", ".AAAAAAAAA".repeat(500));
        let numbers = ["1~AAAAAAAA.AAAAAAAAAB", "1~AAAAAAAA.AAAAAAAA__________"];
        let odd = [
            "",
            "1",
            "0",
            "42",
            "1.AAAAAAAAB",
            "1~AAAAAAAA",
            "1~AAAA",
            "1~AAAAAAAA.AAAAAAAA",
            "1~AAAAAAAA.AAA AAAAB",
        ];
        for text in [&*twice, &foreign_version, &long]
            .into_iter()
            .chain(numbers)
            .chain(odd)
        {
            assert_eq!(Bookmark::parse(text), None, "{text}");
        }
    }

    #[test]
    fn one_room_moves_on_and_others_stay() {
        let mut bookmark = Bookmark::new(vec![mark("a", "e", 1), mark("b", "e", 2)]);
        bookmark.advance(mark("b", "new", 1));
        bookmark.advance(mark("foreign", "e", 9));
        assert_eq!(
            bookmark,
            Bookmark::new(vec![mark("a", "e", 1), mark("b", "new", 1)])
        );
    }

    proptest! {
        #[test]
        fn a_bookmark_is_read_as_it_was_written(
            marks in prop::collection::btree_map("[a-z]{1,8}", ("[a-c]", 0..=MAX_OFFSET), 1..20),
        ) {
            let bookmark = Bookmark::new(
                marks.iter().map(|(room, (epoch, offset))| mark(room, epoch, *offset)).collect(),
            );
            prop_assert_eq!(Bookmark::parse(&bookmark.to_string()), Some(bookmark.clone()));
            for (room, (epoch, offset)) in &marks {
                let name = RoomName::new(room).unwrap();
                prop_assert_eq!(bookmark.mark(&name), Some(mark(room, epoch, *offset)));
                let mut text = BytesMut::new();
                SingleRoom::new(&name, epoch).write(&mut text, *offset);
                prop_assert_eq!(Bookmark::parse_single(&text), Some(mark(room, epoch, *offset)));
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "1?[~.A-Za-z0-9_é-]{0,60}") {
            if let Some(bookmark) = Bookmark::parse(&text) {
                prop_assert_eq!(bookmark.0.len(), text.matches('.').count());
            }
        }
    }
}
