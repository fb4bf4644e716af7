//! WebSocket frames as a client meets them (RFC 6455): read in place, written masked.

use actix_http::ws::{OpCode, Parser};
use bytes::BytesMut;

/// Longest frame that is taken from a server; above it the stream is nonsense or hostile.
pub const MAX_FRAME_BYTES: usize = 16 * 1024 * 1024;

/// The head of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Whether the message ends with this frame.
    pub last: bool,
    pub opcode: OpCode,
    /// Bytes before the payload.
    pub head_bytes: usize,
    pub payload_bytes: usize,
}

/// Why bytes are no frame from a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    #[error("the server sent a masked frame; only clients mask")]
    Masked,
    #[error("the server used an extension that was not agreed on")]
    Extension,
    #[error("the server sent a frame with the unknown opcode {0}")]
    Opcode(u8),
    #[error("the server sent a frame of {0} bytes; this client takes {MAX_FRAME_BYTES}")]
    TooLong(u64),
    #[error("the server sent a continuation of nothing, or a message within a message")]
    Fragments,
}

/// Reads the head of the frame that `bytes` begin with; `None` if they end before the head does.
pub fn head(bytes: &[u8]) -> Result<Option<Head>, BadFrame> {
    let &[first, second, ref rest @ ..] = bytes else {
        return Ok(None);
    };
    if first & 0x70 != 0 {
        return Err(BadFrame::Extension);
    }
    if second & 0x80 != 0 {
        return Err(BadFrame::Masked);
    }
    let opcode = match OpCode::from(first & 0x0f) {
        OpCode::Bad => return Err(BadFrame::Opcode(first & 0x0f)),
        opcode => opcode,
    };
    let (head_bytes, payload_bytes) = match (second, rest) {
        (126, [a, b, ..]) => (4, u64::from(u16::from_be_bytes([*a, *b]))),
        (127, [a, b, c, d, e, f, g, h, ..]) => {
            (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))
        }
        (126 | 127, _) => return Ok(None),
        (short, _) => (2, u64::from(short)),
    };
    if payload_bytes > MAX_FRAME_BYTES as u64 {
        return Err(BadFrame::TooLong(payload_bytes));
    }
    Ok(Some(Head {
        last: first & 0x80 != 0,
        opcode,
        head_bytes,
        payload_bytes: payload_bytes as usize,
    }))
}

/// One whole frame, masked as a server expects it.
pub fn masked(opcode: OpCode, payload: &[u8]) -> BytesMut {
    let mut frame = BytesMut::with_capacity(payload.len() + 14);
    Parser::write_message(&mut frame, payload, opcode, true, true);
    frame
}

/// Code and reason of a close frame; 1005 stands for a close without a code.
pub fn close_reason(payload: &[u8]) -> (u16, String) {
    match payload {
        [high, low, reason @ ..] => (
            u16::from_be_bytes([*high, *low]),
            String::from_utf8_lossy(reason).into_owned(),
        ),
        _ => (1005, String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unmasked(opcode: OpCode, payload: &[u8]) -> BytesMut {
        let mut frame = BytesMut::new();
        Parser::write_message(&mut frame, payload, opcode, true, false);
        frame
    }

    #[test]
    fn what_only_a_broken_server_sends_is_refused() {
        assert_eq!(head(&masked(OpCode::Text, b"{}")), Err(BadFrame::Masked));
        assert_eq!(head(&[0xc1, 0]), Err(BadFrame::Extension));
        assert_eq!(head(&[0x83, 0]), Err(BadFrame::Opcode(3)));
        let endless = [&[0x81, 127][..], &u64::MAX.to_be_bytes()].concat();
        assert_eq!(head(&endless), Err(BadFrame::TooLong(u64::MAX)));
    }

    #[test]
    fn a_close_without_a_code_is_a_close() {
        assert_eq!(close_reason(b""), (1005, String::new()));
        assert_eq!(close_reason(b"\x0b\xb9shutdown"), (3001, "shutdown".into()));
    }

    proptest! {
        #[test]
        fn a_frame_of_any_length_is_read_once_its_head_is_there(length in 0_usize..70_000) {
            let frame = unmasked(OpCode::Text, &vec![b'x'; length]);
            let read = head(&frame).unwrap().unwrap();
            prop_assert_eq!(read.payload_bytes, length);
            prop_assert_eq!(read.head_bytes + length, frame.len());
            prop_assert!(read.last);
            for cut in 0..read.head_bytes {
                prop_assert_eq!(head(&frame[..cut]), Ok(None));
            }
        }
    }
}
