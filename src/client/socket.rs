//! One WebSocket to the server. Reading allocates nothing per message: all sockets of a thread
//! share one read buffer, and a socket keeps bytes of its own only while a frame is half there.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_http::ws::{OpCode, hash_key};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::timeout,
};

use crate::client::{
    address::ServerUrl,
    frame::{self, BadFrame, MAX_FRAME_BYTES},
};

const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 256 * 1024;
const MAX_ANSWER_BYTES: usize = 16 * 1024;

/// Why there is no socket, or no longer one.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("cannot reach {url}: {reason}")]
    Unreachable { url: ServerUrl, reason: io::Error },
    #[error("{url} did not open a WebSocket: {answer}")]
    Refused { url: ServerUrl, answer: String },
    #[error("the connection was lost: {0}")]
    Lost(io::Error),
    #[error("the server closed the connection: {code} {reason}")]
    Closed { code: u16, reason: String },
    #[error(transparent)]
    BadFrame(#[from] BadFrame),
}

impl SocketError {
    /// The HTTP status with which the server refused to open the socket.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { answer, .. } => answer.get(..3)?.parse().ok(),
            _ => None,
        }
    }
}

impl From<io::Error> for SocketError {
    fn from(reason: io::Error) -> Self {
        Self::Lost(reason)
    }
}

/// Where sockets of one thread read into; cheap to clone.
#[derive(Clone)]
pub struct ReadBuffer(Rc<RefCell<Vec<u8>>>);

impl Default for ReadBuffer {
    fn default() -> Self {
        Self(Rc::new(RefCell::new(vec![0; READ_BYTES])))
    }
}

/// An open WebSocket.
pub struct Socket {
    stream: TcpStream,
    buffer: ReadBuffer,
    inbox: Inbox,
}

/// What a socket remembers between two reads.
#[derive(Default)]
struct Inbox {
    /// The beginning of a frame whose end has not come.
    half_frame: Vec<u8>,
    /// The frames so far of a message that the server sends in pieces.
    pieces: Option<Vec<u8>>,
    /// The payload of a ping frame that waits for its answer.
    ping: Option<Vec<u8>>,
}

impl Socket {
    /// Connects and shakes hands; gives up after 10 s.
    pub async fn open(url: &ServerUrl, buffer: &ReadBuffer) -> Result<Self, SocketError> {
        let unreachable = |reason| SocketError::Unreachable {
            url: url.clone(),
            reason,
        };
        timeout(OPEN_TIMEOUT, async {
            let mut stream = TcpStream::connect((url.host(), url.port()))
                .await
                .map_err(unreachable)?;
            stream.set_nodelay(true).map_err(unreachable)?;
            let rest = shake_hands(&mut stream, url).await?;
            Ok(Self {
                stream,
                buffer: buffer.clone(),
                inbox: Inbox {
                    half_frame: rest,
                    ..Inbox::default()
                },
            })
        })
        .await
        .unwrap_or_else(|_| {
            let late = format!("no answer within {} s", OPEN_TIMEOUT.as_secs());
            Err(unreachable(io::Error::new(io::ErrorKind::TimedOut, late)))
        })
    }

    /// Sends one text message.
    pub async fn send(&mut self, text: &str) -> Result<(), SocketError> {
        let frame = frame::masked(OpCode::Text, text.as_bytes());
        Ok(self.stream.write_all(&frame).await?)
    }

    /// Waits for bytes and hands every message that they complete to `each`; that may be none.
    ///
    /// Dropping the future loses no message.
    pub async fn receive(&mut self, mut each: impl FnMut(&[u8])) -> Result<(), SocketError> {
        poll_fn(|cx| self.poll_receive(cx, &mut each)).await?;
        if let Some(ping) = self.inbox.ping.take() {
            let pong = frame::masked(OpCode::Pong, &ping);
            self.stream.write_all(&pong).await?;
        }
        Ok(())
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        each: &mut impl FnMut(&[u8]),
    ) -> Poll<Result<(), SocketError>> {
        let mut buffer = self.buffer.0.borrow_mut();
        let kept = self.inbox.half_frame.len();
        if buffer.len() < kept * 2 {
            buffer.resize(kept * 2, 0);
        }
        // `poll_read` knows that a short read has emptied the socket, which saves a system call for
        // every read.
        let mut free = ReadBuf::new(&mut buffer[kept..]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut free))?;
        let read = free.filled().len();
        if read == 0 {
            let end = io::Error::new(io::ErrorKind::UnexpectedEof, "it ended without a close");
            return Poll::Ready(Err(end.into()));
        }
        buffer[..kept].copy_from_slice(&self.inbox.half_frame);
        self.inbox.half_frame.clear();
        Poll::Ready(self.inbox.take(&buffer[..kept + read], each))
    }
}

impl Inbox {
    fn take(&mut self, mut bytes: &[u8], each: &mut impl FnMut(&[u8])) -> Result<(), SocketError> {
        while let Some(head) = frame::head(bytes)? {
            let end = head.head_bytes + head.payload_bytes;
            let Some(payload) = bytes.get(head.head_bytes..end) else {
                break;
            };
            bytes = &bytes[end..];
            match (head.opcode, &mut self.pieces) {
                (OpCode::Text | OpCode::Binary, None) if head.last => lines(payload, each),
                (OpCode::Text | OpCode::Binary, None) => self.pieces = Some(payload.to_vec()),
                (OpCode::Continue, Some(pieces)) => {
                    pieces.extend_from_slice(payload);
                    if pieces.len() > MAX_FRAME_BYTES {
                        return Err(BadFrame::TooLong(pieces.len() as u64).into());
                    }
                    if head.last {
                        lines(pieces, each);
                        self.pieces = None;
                    }
                }
                (OpCode::Ping, _) => self.ping = Some(payload.to_vec()),
                (OpCode::Pong, _) => {}
                (OpCode::Close, _) => {
                    let (code, reason) = frame::close_reason(payload);
                    return Err(SocketError::Closed { code, reason });
                }
                _ => return Err(BadFrame::Fragments.into()),
            }
        }
        self.half_frame.extend_from_slice(bytes);
        Ok(())
    }
}

/// A frame holds one or more messages, a line each.
fn lines(mut payload: &[u8], each: &mut impl FnMut(&[u8])) {
    while !payload.is_empty() {
        let end = memchr::memchr(b'\n', payload).unwrap_or(payload.len());
        if end > 0 {
            each(&payload[..end]);
        }
        payload = payload.get(end + 1..).unwrap_or_default();
    }
}

/// Returns what the server sent behind its answer.
async fn shake_hands(stream: &mut TcpStream, url: &ServerUrl) -> Result<Vec<u8>, SocketError> {
    let key = base64_of_16(uuid::Uuid::new_v4().as_bytes());
    let authorization = url
        .token()
        .map(|token| format!("Authorization: Bearer {token}\r\n"))
        .unwrap_or_default();
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{authorization}\r\n",
        url.socket_path(),
        url.authority(),
    );
    stream.write_all(request.as_bytes()).await?;
    let refused = |answer: String| SocketError::Refused {
        url: url.clone(),
        answer,
    };

    let mut answer = Vec::with_capacity(512);
    let head_end = loop {
        if let Some(end) = memchr::memmem::find(&answer, b"\r\n\r\n") {
            break end + 4;
        }
        if answer.len() > MAX_ANSWER_BYTES {
            return Err(refused("its answer has no end".into()));
        }
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(refused("it hung up instead of answering".into()));
        }
    };
    let rest = answer.split_off(head_end);
    let head = String::from_utf8_lossy(&answer);
    let Some(status) = head.strip_prefix("HTTP/1.1 ") else {
        return Err(refused("it does not speak HTTP/1.1".into()));
    };
    if !status.starts_with("101") {
        let status = status.lines().next().unwrap_or_default();
        let detail = detail(stream, &head, rest).await;
        return Err(refused(format!("{status}{detail}")));
    }
    let proof = hash_key(key.as_bytes());
    if header(&head, "sec-websocket-accept").map(str::as_bytes) != Some(&proof[..]) {
        return Err(refused("its Sec-WebSocket-Accept is wrong".into()));
    }
    Ok(rest)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

/// The `detail` of a problem document, for the error's text; empty if there is none.
async fn detail(stream: &mut TcpStream, head: &str, mut body: Vec<u8>) -> String {
    #[derive(serde::Deserialize)]
    struct Problem {
        detail: String,
    }
    let length = header(head, "content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or(0)
        .min(MAX_ANSWER_BYTES);
    while body.len() < length && stream.read_buf(&mut body).await.is_ok_and(|read| read > 0) {}
    serde_json::from_slice::<Problem>(&body)
        .map(|problem| format!(" ({})", problem.detail))
        .unwrap_or_default()
}

fn base64_of_16(bytes: &[u8; 16]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // 16 bytes are 21 digits of 6 bits and a last one of 2.
    let number = u128::from_be_bytes(*bytes);
    (0..21)
        .map(|digit| (number >> (122 - 6 * digit)) & 63)
        .chain([(number & 3) << 4])
        .map(|digit| ALPHABET[digit as usize] as char)
        .chain(['=', '='])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_http::ws::Parser;
    use bytes::BytesMut;
    use proptest::prelude::*;
    use tokio::net::TcpListener;

    fn frame(opcode: OpCode, payload: &[u8], last: bool) -> BytesMut {
        let mut frame = BytesMut::new();
        Parser::write_message(&mut frame, payload, opcode, last, false);
        frame
    }

    fn read_in_parts(stream: &[u8], part: usize) -> Vec<String> {
        let (mut inbox, mut seen) = (Inbox::default(), Vec::new());
        for part in stream.chunks(part) {
            let mut bytes = std::mem::take(&mut inbox.half_frame);
            bytes.extend_from_slice(part);
            let each = &mut |line: &[u8]| seen.push(String::from_utf8(line.to_vec()).unwrap());
            inbox.take(&bytes, each).unwrap();
        }
        seen
    }

    proptest! {
        #[test]
        fn messages_come_whole_and_in_order_however_the_bytes_are_cut(
            frames in prop::collection::vec(prop::collection::vec("[a-z]{1,200}", 1..4), 0..10),
            part in 1_usize..500,
        ) {
            let mut stream = BytesMut::new();
            for lines in &frames {
                stream.extend(frame(OpCode::Text, lines.join("\n").as_bytes(), true));
            }
            prop_assert_eq!(read_in_parts(&stream, part), frames.concat());
        }
    }

    #[test]
    fn a_message_in_pieces_is_put_together_around_a_ping() {
        let stream = [
            frame(OpCode::Text, b"{\"a\"", false),
            frame(OpCode::Ping, b"?", true),
            frame(OpCode::Continue, b":1}\n", true),
        ]
        .concat();
        assert_eq!(read_in_parts(&stream, 3), ["{\"a\":1}"]);
    }

    #[test]
    fn a_message_within_a_message_is_refused() {
        let stream = [
            frame(OpCode::Text, b"a", false),
            frame(OpCode::Text, b"b", true),
        ]
        .concat();
        let error = Inbox::default().take(&stream, &mut |_| {}).unwrap_err();
        assert!(matches!(error, SocketError::BadFrame(BadFrame::Fragments)));
    }

    #[test]
    fn keys_are_base64() {
        assert_eq!(
            base64_of_16(b"the sample nonce"),
            "dGhlIHNhbXBsZSBub25jZQ=="
        );
        assert_eq!(base64_of_16(&[0xff; 16]), "/////////////////////w==");
    }

    #[actix_rt::test]
    async fn a_refused_handshake_tells_the_servers_reason() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: ServerUrl = format!("http://{}", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        let server = actix_rt::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream
                .read_buf(&mut Vec::with_capacity(1024))
                .await
                .unwrap();
            let body = r#"{"detail":"1000 sessions are open"}"#;
            let answer = format!(
                "HTTP/1.1 503 Service Unavailable\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let error = Socket::open(&url, &ReadBuffer::default())
            .await
            .err()
            .unwrap();
        server.await.unwrap();
        assert_eq!(
            error.to_string(),
            format!(
                "{url} did not open a WebSocket: 503 Service Unavailable (1000 sessions are open)"
            )
        );
    }
}
