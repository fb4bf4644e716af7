//! The JSON messages of the client protocol, as far as a following client needs them.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::delta::{Position, RoomName};

/// The answer to a ping.
pub const PONG: &str = "{}";

/// The command that opens a session; `name` tells the server's operator which program it is.
pub fn connect(id: u32, name: &str) -> String {
    command(&Command {
        id,
        connect: Some(Connect {
            name,
            version: env!("CARGO_PKG_VERSION"),
        }),
        subscribe: None,
    })
}

/// The command that subscribes to a room; with a `position`, to all that came after it.
pub fn subscribe(id: u32, room: &RoomName, position: Option<&Position>) -> String {
    command(&Command {
        id,
        connect: None,
        subscribe: Some(Subscribe {
            channel: room,
            recover: position.is_some(),
            offset: position.map(|position| position.offset),
            epoch: position.map(|position| &*position.epoch),
        }),
    })
}

fn command(command: &Command) -> String {
    serde_json::to_string(command).expect("text and numbers always serialize")
}

#[derive(Serialize)]
struct Command<'a> {
    id: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect: Option<Connect<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscribe: Option<Subscribe<'a>>,
}

#[derive(Serialize)]
struct Connect<'a> {
    name: &'a str,
    version: &'a str,
}

#[derive(Serialize)]
struct Subscribe<'a> {
    channel: &'a RoomName,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    recover: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<&'a str>,
}

/// What a server sends: the answer to a command if `id` is not 0, else a push, else a ping.
#[derive(Debug, Deserialize)]
pub struct Reply<'a> {
    #[serde(default)]
    pub id: u32,
    pub error: Option<Refusal>,
    pub connect: Option<Connected>,
    #[serde(borrow)]
    pub subscribe: Option<Subscribed<'a>>,
    #[serde(borrow)]
    pub push: Option<Push<'a>>,
}

#[derive(Debug, Deserialize)]
pub struct Refusal {
    pub code: u32,
    pub message: String,
    #[serde(default)]
    pub temporary: bool,
}

#[derive(Debug, Deserialize)]
pub struct Connected {
    /// Seconds between the server's pings; 0 if it sends none.
    #[serde(default)]
    pub ping: u64,
    /// Whether pings are to be answered.
    #[serde(default)]
    pub pong: bool,
}

#[derive(Debug, Deserialize)]
pub struct Subscribed<'a> {
    #[serde(default)]
    pub recoverable: bool,
    #[serde(default)]
    pub epoch: String,
    #[serde(default)]
    pub offset: u64,
    #[serde(default)]
    pub was_recovering: bool,
    #[serde(default)]
    pub recovered: bool,
    #[serde(default, borrow)]
    pub publications: Vec<Publication<'a>>,
}

#[derive(Debug, Deserialize)]
pub struct Publication<'a> {
    #[serde(borrow)]
    pub data: &'a RawValue,
    #[serde(default)]
    pub offset: u64,
    /// Milliseconds since the Unix epoch; 0 if the server does not say.
    #[serde(default)]
    pub time: u64,
}

#[derive(Debug, Deserialize)]
pub struct Push<'a> {
    #[serde(default)]
    pub channel: String,
    #[serde(rename = "pub", borrow)]
    pub publication: Option<Publication<'a>>,
    pub unsubscribe: Option<Ended>,
    pub disconnect: Option<Ended>,
}

#[derive(Debug, Deserialize)]
pub struct Ended {
    pub code: u16,
    #[serde(default)]
    pub reason: String,
}
