//! WebSocket frames, built once and shared by every wire they are written to.
//!
//! A frame holds one or more messages: of JSON, joined by line feeds, or of Protobuf, each behind its length. The header (RFC 6455 §5.2; a server does not mask) is put
//! into room that was left for it, so that nothing is copied.

use bytes::{BufMut, Bytes, BytesMut};

use prost::Message;

use super::{codes::Disconnect, format::Codec, protobuf};

/// A frame takes no further message beyond this payload, so that clients with small read limits are served.
pub const FRAME_TARGET_BYTES: usize = 64 * 1024;

const HEADER_ROOM: usize = 10;
const FIN: u8 = 0x80;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PONG: u8 = 0xA;

/// Collects messages of one codec into one frame.
#[derive(Debug, Default)]
pub struct FrameBuilder {
    codec: Codec,
    buffer: BytesMut,
}

impl FrameBuilder {
    pub fn new(codec: Codec) -> Self {
        Self {
            codec,
            buffer: BytesMut::new(),
        }
    }

    pub fn codec(&self) -> Codec {
        self.codec
    }

    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Bytes of payload so far.
    pub fn len(&self) -> usize {
        self.buffer.len().saturating_sub(HEADER_ROOM)
    }

    /// Starts the next message of JSON; the caller writes it, without line feeds, to what it gets.
    pub fn message(&mut self) -> &mut BytesMut {
        if self.buffer.is_empty() {
            self.buffer.put_bytes(0, HEADER_ROOM);
        } else {
            self.buffer.put_u8(b'\n');
        }
        &mut self.buffer
    }

    /// Writes the next message of Protobuf.
    pub fn put(&mut self, message: &impl Message) {
        if self.buffer.is_empty() {
            self.buffer.put_bytes(0, HEADER_ROOM);
        }
        message
            .encode_length_delimited(&mut self.buffer)
            .expect("the buffer grows as it is written to");
    }

    /// The frame with everything that was written; the builder is empty again. `None` if nothing was.
    pub fn finish(&mut self) -> Option<Bytes> {
        if self.is_empty() {
            return None;
        }
        let mut frame = self.buffer.split();
        let start = write_header(&mut frame, opcode(self.codec));
        Some(frame.freeze().slice(start..))
    }
}

/// The messages of a frame that was built here, without its header.
pub fn payload(frame: &Bytes) -> Bytes {
    let header = match frame.get(1) {
        Some(126) => 4,
        Some(127) => HEADER_ROOM,
        _ => 2,
    };
    frame.slice(header.min(frame.len())..)
}

/// The protocol's ping: a message without anything in it.
pub fn ping(codec: Codec) -> Bytes {
    match codec {
        Codec::Json => text(b"{}"),
        Codec::Protobuf => frame(BINARY, protobuf::PING),
    }
}

fn opcode(codec: Codec) -> u8 {
    match codec {
        Codec::Json => TEXT,
        Codec::Protobuf => BINARY,
    }
}

/// One message of JSON as a frame of its own.
pub fn text(message: &[u8]) -> Bytes {
    frame(TEXT, message)
}

/// The answer to a WebSocket ping frame: its payload comes back.
pub fn pong(payload: &[u8]) -> Bytes {
    frame(PONG, payload)
}

/// A close frame: code and reason.
pub fn close(disconnect: Disconnect) -> Bytes {
    let mut payload = Vec::with_capacity(2 + disconnect.reason.len());
    payload.put_u16(disconnect.code);
    payload.put_slice(disconnect.reason.as_bytes());
    frame(CLOSE, &payload)
}

fn frame(opcode: u8, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEADER_ROOM + payload.len());
    frame.put_bytes(0, HEADER_ROOM);
    frame.put_slice(payload);
    let start = write_header(&mut frame, opcode);
    frame.freeze().slice(start..)
}

/// Writes the header right before the payload, which starts at `HEADER_ROOM`; returns where the header starts.
fn write_header(frame: &mut BytesMut, opcode: u8) -> usize {
    let length = frame.len() - HEADER_ROOM;
    let start = match length {
        0..=125 => {
            frame[HEADER_ROOM - 1] = length as u8;
            HEADER_ROOM - 2
        }
        126..=0xFFFF => {
            frame[HEADER_ROOM - 2..HEADER_ROOM].copy_from_slice(&(length as u16).to_be_bytes());
            frame[HEADER_ROOM - 3] = 126;
            HEADER_ROOM - 4
        }
        _ => {
            frame[HEADER_ROOM - 8..HEADER_ROOM].copy_from_slice(&(length as u64).to_be_bytes());
            frame[HEADER_ROOM - 9] = 127;
            0
        }
    };
    frame[start] = FIN | opcode;
    start
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_codec::Decoder;
    use actix_http::ws::{Codec, Frame};

    fn decode(frame: &Bytes) -> Frame {
        let mut bytes = BytesMut::from(&frame[..]);
        let mut codec = Codec::new().client_mode().max_size(1 << 20);
        let decoded = codec.decode(&mut bytes).unwrap().unwrap();
        assert!(bytes.is_empty(), "one frame, and nothing behind it");
        decoded
    }

    #[test]
    fn frames_of_every_length_form_are_read_back() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 200_000] {
            let payload = vec![b'x'; length];
            assert_eq!(
                decode(&text(&payload)),
                Frame::Text(payload.into()),
                "{length} bytes"
            );
            assert_eq!(super::payload(&text(&vec![b'x'; length])).len(), length);
        }
    }

    #[test]
    fn messages_of_one_frame_are_joined_by_line_feeds() {
        let mut builder = FrameBuilder::default();
        assert_eq!(builder.finish(), None);
        builder.message().put_slice(b"{}");
        builder.message().put_slice(b"{\"id\":1}");
        assert_eq!(builder.len(), 11);
        assert_eq!(
            decode(&builder.finish().unwrap()),
            Frame::Text("{}\n{\"id\":1}".into())
        );
        assert!(builder.is_empty());
    }

    #[test]
    fn a_close_frame_carries_code_and_reason() {
        let Frame::Close(Some(reason)) = decode(&close(Disconnect::SLOW)) else {
            panic!("no close frame")
        };
        assert_eq!(u16::from(reason.code), 3008);
        assert_eq!(reason.description.as_deref(), Some("slow"));
    }
}
