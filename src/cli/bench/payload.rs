//! What the load generator publishes, and how it finds it again without parsing: the sender's
//! clock, its lane and a number, padded to the size asked for.

use std::io::Write;

use memchr::memmem::Finder;

/// Room for the longest numbers.
pub const MIN_BYTES: usize = 80;

const MARK: &[u8] = b"\"data\":{\"at\":";

/// What a payload carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// When it was sent, in ns since the start of the run.
    pub at: u64,
    /// Which of its room's publishers sent it.
    pub lane: u16,
    /// Numbers the deltas of one lane in one room, from 0.
    pub sequence: u64,
}

/// Appends `stamp` as a JSON object of exactly `bytes` bytes, which are at least [`MIN_BYTES`].
pub fn write(stamp: Stamp, bytes: usize, into: &mut Vec<u8>) {
    let Stamp { at, lane, sequence } = stamp;
    let start = into.len();
    write!(into, r#"{{"at":{at},"by":{lane},"seq":{sequence},"pad":""#)
        .expect("a vector takes every byte");
    into.resize(start + bytes - 2, b'x');
    into.extend_from_slice(b"\"}");
}

/// Finds stamps in the messages of the client protocol.
pub struct Scanner(Finder<'static>);

impl Default for Scanner {
    fn default() -> Self {
        Self(Finder::new(MARK))
    }
}

impl Scanner {
    /// The stamp of a delta; `None` for every other message.
    pub fn stamp(&self, message: &[u8]) -> Option<Stamp> {
        let mut rest = &message[self.0.find(message)? + MARK.len()..];
        let at = number(&mut rest)?;
        rest = rest.strip_prefix(b",\"by\":")?;
        let lane = u16::try_from(number(&mut rest)?).ok()?;
        rest = rest.strip_prefix(b",\"seq\":")?;
        let sequence = number(&mut rest)?;
        Some(Stamp { at, lane, sequence })
    }
}

fn number(text: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    let mut digits = 0;
    while let [digit @ b'0'..=b'9', rest @ ..] = text {
        let digit = u64::from(digit - b'0');
        number = number.checked_mul(10)?.checked_add(digit)?;
        digits += 1;
        *text = rest;
    }
    (digits > 0).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_stamp_survives_the_way_through_the_server(
            at: u64, lane: u16, sequence in 0..1_u64 << 53, bytes in MIN_BYTES..1000,
        ) {
            let stamp = Stamp { at, lane, sequence };
            let mut payload = Vec::new();
            write(stamp, bytes, &mut payload);
            prop_assert_eq!(payload.len(), bytes);
            prop_assert_eq!(&crate::delta::compact_json(&payload).unwrap()[..], &payload[..]);

            let scanner = Scanner::default();
            for (head, tail) in [
                (r#"{"push":{"channel":"r","pub":{"data":"#, r#","offset":12,"time":5}}}"#),
                (r#"{"push":{"pub":{"offset":12,"data":"#, r#","time":5},"channel":"r"}}"#),
            ] {
                let message = [head.as_bytes(), &payload, tail.as_bytes()].concat();
                prop_assert_eq!(scanner.stamp(&message), Some(stamp));
            }
        }
    }

    #[test]
    fn other_messages_have_no_stamp() {
        let scanner = Scanner::default();
        for message in [
            "{}",
            r#"{"id":2,"subscribe":{"offset":7}}"#,
            r#"{"push":{"channel":"r","pub":{"data":{"at":"noon"}}}}"#,
            r#"{"push":{"channel":"r","pub":{"data":{"at":1,"by":2,"seq":99999999999999999999}}}}"#,
        ] {
            assert_eq!(scanner.stamp(message.as_bytes()), None, "{message}");
        }
    }
}
