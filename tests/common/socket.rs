//! WebSocket frames as bytes, so that a test can send what no library would.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use super::http::{self, Reply};

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

pub const PATH: &str = "/connection/websocket";

/// Key and answer of the example in RFC 6455, section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub fin: bool,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            opcode,
            fin: true,
            payload: payload.into(),
        }
    }

    /// A frame that another one continues.
    pub fn unfinished(mut self) -> Self {
        self.fin = false;
        self
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("the server sends UTF-8")
    }

    /// As a client writes it, masked.
    pub fn masked(&self) -> Vec<u8> {
        const MASK: [u8; 4] = [0x11, 0x83, 0x5a, 0xc7];
        let mut bytes = self.head(0x80);
        bytes.extend(MASK);
        bytes.extend(
            self.payload
                .iter()
                .zip(MASK.iter().cycle())
                .map(|(b, m)| b ^ m),
        );
        bytes
    }

    /// As no client may write it.
    pub fn unmasked(&self) -> Vec<u8> {
        [self.head(0), self.payload.clone()].concat()
    }

    fn head(&self, mask_bit: u8) -> Vec<u8> {
        let mut head = vec![if self.fin { 0x80 } else { 0 } | self.opcode];
        match self.payload.len() {
            short @ ..=125 => head.push(mask_bit | short as u8),
            medium @ ..=0xffff => {
                head.push(mask_bit | 126);
                head.extend((medium as u16).to_be_bytes());
            }
            long => {
                head.push(mask_bit | 127);
                head.extend((long as u64).to_be_bytes());
            }
        }
        head
    }
}

pub struct Socket {
    stream: BufReader<TcpStream>,
}

impl Socket {
    pub fn open(address: SocketAddr) -> Self {
        let (socket, reply) = Self::handshake(address, PATH, &[]);
        socket.unwrap_or_else(|| panic!("refused: {} {}", reply.status, reply.text()))
    }

    /// As [`Socket::open`], for a server that may be gone, going or frozen; waits at most so long.
    pub fn try_open(address: SocketAddr, wait: Duration) -> io::Result<Self> {
        let stream = http::open(address)?;
        stream.set_read_timeout(Some(wait))?;
        let mut stream = BufReader::new(stream);
        let request = upgrade_request("GET", PATH, &[]);
        stream.get_ref().write_all(&request)?;
        match http::read_reply(&mut stream, false)?.status {
            101 => Ok(Self { stream }),
            status => Err(io::Error::other(format!("refused with {status}"))),
        }
    }

    /// Asks for an upgrade; the socket is there if the answer is 101.
    pub fn handshake(
        address: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (Option<Self>, Reply) {
        Self::ask(address, &upgrade_request("GET", path, headers))
    }

    /// Sends a handshake and whatever follows it as bytes; it must be accepted.
    pub fn raw(address: SocketAddr, request: &[u8]) -> Self {
        let (socket, reply) = Self::ask(address, request);
        socket.unwrap_or_else(|| panic!("refused: {} {}", reply.status, reply.text()))
    }

    fn ask(address: SocketAddr, request: &[u8]) -> (Option<Self>, Reply) {
        let mut stream = BufReader::new(http::open(address).expect("the server listens"));
        let sent = stream.get_ref().write_all(request);
        sent.expect("the server reads");
        let reply = http::read_reply(&mut stream, false).expect("an answer to the handshake");
        if reply.status != 101 {
            return (None, reply);
        }
        assert_eq!(reply.header("sec-websocket-accept"), Some(ACCEPT));
        (Some(Self { stream }), reply)
    }

    pub fn send(&mut self, frame: &Frame) {
        self.send_bytes(&frame.masked()).expect("the server reads");
    }

    pub fn send_text(&mut self, text: &str) {
        self.send(&Frame::new(TEXT, text));
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_ref().write_all(bytes)
    }

    /// How long a read waits; the harness waits for [`super::PATIENCE`] unless told otherwise.
    pub fn wait_at_most(&self, wait: Duration) {
        let stream = self.stream.get_ref();
        stream.set_read_timeout(Some(wait)).expect("not zero");
    }

    /// Whether a frame has begun to come within that time. A read that times out would lose the half
    /// of a frame that it had.
    pub fn frame_comes(&mut self, within: Duration) -> io::Result<bool> {
        if !self.stream.buffer().is_empty() {
            return Ok(true);
        }
        self.wait_at_most(within);
        let begun = self.stream.fill_buf().map(<[u8]>::len);
        self.wait_at_most(super::PATIENCE);
        match begun {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(true),
            Err(error) if is_timeout(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub fn try_read(&mut self) -> io::Result<Frame> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head)?;
        assert_eq!(head[1] & 0x80, 0, "a server never masks");
        assert_eq!(head[0] & 0x70, 0, "no extension was agreed on");
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.stream.read_exact(&mut length)?;
                u16::from_be_bytes(length).into()
            }
            127 => {
                let mut length = [0; 8];
                self.stream.read_exact(&mut length)?;
                u64::from_be_bytes(length)
            }
            short => short.into(),
        };
        assert!(
            length <= 1024 * 1024,
            "a frame of {length} bytes ends some clients"
        );
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload)?;
        Ok(Frame {
            opcode: head[0] & 0x0f,
            fin: head[0] & 0x80 != 0,
            payload,
        })
    }

    pub fn read(&mut self) -> Frame {
        let frame = self.try_read();
        frame.unwrap_or_else(|error| panic!("waited for a frame in vain: {error}"))
    }

    /// Skips what comes before it and gives code and reason of the server's close frame.
    pub fn read_close(&mut self) -> (u16, String) {
        loop {
            let frame = self.try_read();
            let frame = frame.unwrap_or_else(|error| panic!("no close frame came: {error}"));
            if frame.opcode == CLOSE {
                return close_of(&frame);
            }
        }
    }

    /// The server answers a close and ends the connection.
    pub fn read_end_after_close(&mut self) {
        while self.read().opcode != CLOSE {}
        self.read_end();
    }

    /// The server ends the connection itself, without anything more to read.
    pub fn read_end(&mut self) {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            other => panic!("waited for the end of the connection, got {other:?} {byte:?}"),
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    // Which of the two is the system's choice.
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Code and reason of a close frame. A reason that is empty or JSON would be misread by the
/// JavaScript SDK.
pub fn close_of(frame: &Frame) -> (u16, String) {
    let [high, low, reason @ ..] = &frame.payload[..] else {
        panic!("a close frame without a code");
    };
    let reason = std::str::from_utf8(reason).expect("a reason is UTF-8");
    assert!(!reason.is_empty(), "a close without a reason");
    assert!(reason.len() <= 123, "a reason of {} bytes", reason.len());
    let json = serde_json::from_str::<serde_json::Value>(reason);
    assert!(json.is_err(), "the reason {reason:?} is JSON");
    (u16::from_be_bytes([*high, *low]), reason.into())
}

/// A handshake as bytes; `headers` may replace those that a client must send.
pub fn upgrade_request(method: &str, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let usual = [
        ("Host", "127.0.0.1"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", KEY),
    ];
    let replaced = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    let usual = usual.into_iter().filter(|(name, _)| !replaced(name));
    let mut request = format!("{method} {path} HTTP/1.1\r\n");
    for (name, value) in usual.chain(headers.iter().copied()) {
        request += &format!("{name}: {value}\r\n");
    }
    (request + "\r\n").into_bytes()
}
