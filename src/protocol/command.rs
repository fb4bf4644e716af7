//! What clients send: commands, in JSON one object a line, several in a frame.
//!
//! Unknown fields are ignored everywhere: SDKs send fields that older servers have never heard of.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::value::RawValue;

/// One message of a client. Of several requests in one command the first in this order counts.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Command<'a> {
    /// Echoed in the reply; 0 stands for none.
    pub id: u32,
    #[serde(borrow)]
    pub connect: Option<Connect<'a>>,
    pub ping: Option<IgnoredAny>,
    #[serde(borrow)]
    pub subscribe: Option<Subscribe<'a>>,
    #[serde(borrow)]
    pub unsubscribe: Option<Channel<'a>>,
    #[serde(borrow)]
    pub publish: Option<Publish<'a>>,
    #[serde(borrow)]
    pub presence: Option<Channel<'a>>,
    #[serde(borrow)]
    pub presence_stats: Option<Channel<'a>>,
    #[serde(borrow)]
    pub history: Option<History<'a>>,
    pub rpc: Option<IgnoredAny>,
    pub send: Option<IgnoredAny>,
    #[serde(borrow)]
    pub refresh: Option<Refresh<'a>>,
    #[serde(borrow)]
    pub sub_refresh: Option<Refresh<'a>>,
}

impl<'a> Command<'a> {
    /// `None` if the line is no command.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        // serde would also take an array of the fields' values for a struct.
        let object = line.trim_ascii_start().starts_with(b"{");
        object.then(|| serde_json::from_slice(line).ok()).flatten()
    }
}

/// Has no `Debug`: a token is nobody's to see.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Connect<'a> {
    /// Empty: none.
    #[serde(borrow)]
    pub token: Cow<'a, str>,
}

/// Another token for the connection, or for a subscription.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Refresh<'a> {
    /// Only of a subscription.
    #[serde(borrow)]
    pub channel: Cow<'a, str>,
    #[serde(borrow)]
    pub token: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Channel<'a> {
    #[serde(borrow)]
    pub channel: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Subscribe<'a> {
    #[serde(borrow)]
    pub channel: Cow<'a, str>,
    /// Replay what came after `offset` in `epoch`.
    pub recover: bool,
    pub offset: u64,
    /// Empty: any epoch.
    #[serde(borrow)]
    pub epoch: Cow<'a, str>,
    /// A wish to see who joins and leaves.
    pub join_leave: bool,
    pub flag: u64,
    /// Kind of subscription; 0 is the plain one.
    #[serde(rename = "type")]
    pub kind: u32,
    /// A filter by tags, which this server does not have.
    pub tf: Option<IgnoredAny>,
    /// Empty: none.
    #[serde(borrow)]
    pub token: Cow<'a, str>,
}

impl Subscribe<'_> {
    /// Bit of `flag`: answer an impossible recovery with error 112 instead of an unrecovered subscription.
    pub const ERROR_UNLESS_RECOVERED: u64 = 2;
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Publish<'a> {
    #[serde(borrow)]
    pub channel: Cow<'a, str>,
    /// Empty: none.
    #[serde(borrow, deserialize_with = "json")]
    pub data: &'a [u8],
}

fn json<'a, 'de: 'a, D: Deserializer<'de>>(field: D) -> Result<&'a [u8], D::Error> {
    let value = Option::<&RawValue>::deserialize(field)?;
    Ok(value.map_or(&[], |value| value.get().as_bytes()))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct History<'a> {
    #[serde(borrow)]
    pub channel: Cow<'a, str>,
    /// 0: only the position; negative: as many as the server gives.
    pub limit: i64,
    #[serde(borrow)]
    pub since: Option<Since<'a>>,
    pub reverse: bool,
}

/// Exclusive.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Since<'a> {
    pub offset: u64,
    #[serde(borrow)]
    pub epoch: Cow<'a, str>,
}

/// The lines of a frame: commands joined by single line feeds, of which one may trail.
pub fn lines(frame: &[u8]) -> impl Iterator<Item = &[u8]> {
    let frame = frame.strip_suffix(b"\n").unwrap_or(frame);
    frame.split(|&byte| byte == b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_both_sdks_parse_and_unknown_fields_are_ignored() {
        let js = br#"{"subscribe":{"channel":"r","flag":1,"novel":{"a":[1]}},"id":41}"#;
        let command: Command = serde_json::from_slice(js).unwrap();
        assert_eq!(command.id, 41);
        assert_eq!(command.subscribe.unwrap().channel, "r");

        let python = br#"{"id": 2, "subscribe": {"channel": "\u00e9", "recover": true, "offset": 7, "epoch": "x"}}"#;
        let subscribe = serde_json::from_slice::<Command>(python)
            .unwrap()
            .subscribe
            .unwrap();
        assert_eq!(
            (&*subscribe.channel, subscribe.offset, &*subscribe.epoch),
            ("é", 7, "x")
        );
    }

    #[test]
    fn a_frame_is_split_at_line_feeds_and_one_may_trail() {
        assert_eq!(lines(b"a\nb\n").collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(lines(b"a\n\nb").collect::<Vec<_>>(), [&b"a"[..], b"", b"b"]);
        assert_eq!(lines(b"").collect::<Vec<_>>(), [b""]);
    }
}
