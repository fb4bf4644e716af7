//! A reader of server-sent events that parses them as HTML says, and can stop at any byte.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use serde_json::Value;

use super::{
    Entry, Seen, Server,
    http::{self, Reply},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `message` if it has no name.
    pub name: String,
    pub data: String,
}

impl Event {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.data))
    }
}

/// What of a stream was understood, byte by byte.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    id: Option<String>,
    name: String,
    data: Option<String>,
    /// What a client that comes back sends as `Last-Event-ID`.
    pub last_id: String,
    pub retry_ms: Option<u64>,
}

impl Parser {
    pub fn take(&mut self, byte: u8) -> Option<Event> {
        if byte != b'\n' {
            self.line.push(byte);
            return None;
        }
        let line = String::from_utf8(std::mem::take(&mut self.line)).expect("UTF-8");
        let line = line.strip_suffix('\r').unwrap_or(&line);
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match field {
            "id" => self.id = Some(value),
            "event" => self.name = value,
            "data" => match &mut self.data {
                Some(data) => *data += &format!("\n{value}"),
                None => self.data = Some(value),
            },
            "retry" => self.retry_ms = Some(value.parse().expect("a whole number")),
            "" => {}
            other => panic!("a field {other:?}"),
        }
        None
    }

    fn dispatch(&mut self) -> Option<Event> {
        if let Some(id) = self.id.take() {
            self.last_id = id;
        }
        let name = std::mem::take(&mut self.name);
        let data = self.data.take()?;
        let name = if name.is_empty() {
            "message".into()
        } else {
            name
        };
        Some(Event { name, data })
    }
}

pub struct Stream {
    connection: BufReader<TcpStream>,
    pub head: Reply,
    /// Bytes of the current chunk that are still to come.
    left: usize,
    pub parser: Parser,
    pub pings: usize,
}

impl Stream {
    pub fn open(server: &Server, path: &str) -> Self {
        Self::come_back(server, path, "")
    }

    /// As a browser does that has seen an id.
    pub fn come_back(server: &Server, path: &str, last_id: &str) -> Self {
        let headers = [("Last-Event-ID", last_id)];
        let headers: &[_] = if last_id.is_empty() { &[] } else { &headers };
        let mut stream = Self::ask(server, "GET", path, headers, "");
        let reply = &stream.head;
        assert_eq!(reply.status, 200, "{path}");
        assert_eq!(reply.header("content-type"), Some("text/event-stream"));
        last_id.clone_into(&mut stream.parser.last_id);
        stream
    }

    /// A request whose answer is read as it comes, with a body if there is one.
    pub fn ask(
        server: &Server,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Self {
        let mut connection = BufReader::new(http::open(server.address()).expect("it listens"));
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n");
        if !body.is_empty() {
            request += &format!("Content-Length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        let sent = connection
            .get_ref()
            .write_all((request + "\r\n" + body).as_bytes());
        sent.expect("the server reads");
        let head = http::read_reply(&mut connection, true).expect("an answer");
        Self {
            connection,
            head,
            left: 0,
            parser: Parser::default(),
            pings: 0,
        }
    }

    /// The next byte; `None` at the end of the stream, whether it is a proper one or not.
    pub fn byte(&mut self) -> Option<u8> {
        match self.try_byte() {
            Ok(byte) => byte,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                panic!("waited for an event in vain")
            }
            Err(_) => None,
        }
    }

    fn try_byte(&mut self) -> io::Result<Option<u8>> {
        if self.left == 0 {
            let mut line = String::new();
            self.connection.read_line(&mut line)?;
            if line.trim().is_empty() {
                return Ok(None);
            }
            self.left = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            if self.left == 0 {
                return Ok(None);
            }
        }
        let mut byte = [0];
        self.connection.read_exact(&mut byte)?;
        self.left -= 1;
        if self.left == 0 {
            self.connection.read_exact(&mut [0; 2])?;
        }
        Ok(Some(byte[0]))
    }

    /// The next line, without its end; `None` at the end of the stream.
    pub fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return Some(String::from_utf8(line).expect("whole lines are UTF-8")),
                byte => line.push(byte),
            }
        }
    }

    /// The next event, pings included; `None` at the end.
    pub fn any(&mut self) -> Option<Event> {
        loop {
            let byte = self.byte()?;
            if let Some(event) = self.parser.take(byte) {
                return Some(event);
            }
        }
    }

    /// The next event that is no ping.
    pub fn next(&mut self) -> Event {
        loop {
            let event = self.any().expect("the stream goes on");
            if event.name != "ping" {
                return event;
            }
            assert_eq!(event.data, "{}");
            self.pings += 1;
        }
    }

    /// The offsets of the next deltas, which must come without anything else between them.
    pub fn offsets(&mut self, count: usize) -> Vec<u64> {
        let offset = |event: Event| {
            assert_eq!(event.name, "message", "{event:?}");
            event.json()["offset"].as_u64().expect("an offset")
        };
        (0..count).map(|_| offset(self.next())).collect()
    }
}

/// What an event is to the judge of sequences, and in which room.
pub fn seen(event: &Event) -> Option<(String, Seen)> {
    #[derive(serde::Deserialize)]
    struct Data {
        room: String,
        offset: u64,
        data: Option<Box<serde_json::value::RawValue>>,
    }
    if event.name == "ping" {
        return None;
    }
    let data: Data = serde_json::from_str(&event.data).expect("a delta, or where to reload");
    let seen = match event.name.as_str() {
        "message" => Seen::Delta(Entry::new(
            data.offset,
            data.data.expect("a delta has data").get(),
        )),
        "reload" => Seen::Reload { at: data.offset },
        other => panic!("an event {other:?}"),
    };
    Some((data.room, seen))
}
