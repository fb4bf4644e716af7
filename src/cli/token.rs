//! `roomwire token`: makes a client's token, as a backend would.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use clap::Args;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    config::{Config, ServeFlags, parse_duration},
    delta::RoomName,
};

#[derive(Args)]
#[command(after_help = "\
Signs with the first of the server's access.token_secrets, which it takes from the same file and
variables as `roomwire serve`. For trying things out: in an application, the backend makes tokens, when
it knows who asks.

Examples:
  roomwire token --user ann --rooms 'chat:*'          connects, and follows all rooms of chat
  roomwire token --user ann --ttl 1h
  roomwire token --user ann --channel chat:7          a subscription token, for one room
  roomwire tail chat:7 --token \"$(roomwire token --user me --rooms 'chat:*')\"")]
pub struct Flags {
    /// The user; nobody in particular without it
    #[arg(long)]
    user: Option<String>,
    /// A room, or a pattern of rooms, that the token opens; may be given several times
    #[arg(long, value_name = "PATTERN", conflicts_with = "channel")]
    rooms: Vec<String>,
    /// Make a subscription token, for this room
    #[arg(long, value_name = "ROOM", value_parser = RoomName::new)]
    channel: Option<RoomName>,
    /// What others may know of the user, as JSON
    #[arg(long, value_name = "JSON", conflicts_with = "channel")]
    info: Option<String>,
    /// How long the token lasts: 30s, 10m, 2h, 7d; for ever without it
    #[arg(long, value_name = "TIME", value_parser = ttl)]
    ttl: Option<Duration>,
    /// The server's configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Serialize)]
struct Claims {
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rooms: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<Box<RawValue>>,
}

pub fn run(flags: Flags) -> anyhow::Result<()> {
    let settings = Config::load(&ServeFlags {
        config: flags.config,
        ..ServeFlags::default()
    })?;
    let secret = settings.access.token_secrets.first().context(
        "the configuration has no access.token_secrets to sign with; \
         set it there or as ROOMWIRE_ACCESS__TOKEN_SECRETS",
    )?;
    let info = flags.info.map(RawValue::from_string).transpose();
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let claims = Claims {
        sub: flags.user,
        exp: flags.ttl.map(|ttl| (now + ttl).as_secs()),
        aud: settings.access.token_audience,
        iss: settings.access.token_issuer,
        rooms: flags.rooms,
        channel: flags.channel.map(|room| room.as_str().to_owned()),
        info: info.context("--info takes JSON")?,
    };
    let key = EncodingKey::from_secret(secret.reveal().as_bytes());
    let token = encode(&Header::default(), &claims, &key).context("can't sign")?;
    Ok(writeln!(io::stdout(), "{token}")?)
}

fn ttl(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text).ok_or("it is like 30s, 10m, 2h or 7d")
}
