//! The fields of a command, each of which is used or asks for nothing.

use std::{borrow::Cow, collections::HashMap};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{http::error::quoted, protocol::codes::ErrorCode};

/// What a field says that might as well be left out; clients in several languages send such.
const NOTHING: [&str; 6] = ["null", "false", "0", "\"\"", "[]", "{}"];

/// The fields that no one has taken yet.
pub struct Fields<'a>(HashMap<Cow<'a, str>, &'a RawValue>);

impl<'a> Fields<'a> {
    pub fn read(parameters: &'a RawValue) -> Result<Self, ErrorCode> {
        let read = serde_json::from_str(parameters.get());
        let read = read.map_err(|_| ErrorCode::BAD_REQUEST.because("it takes an object"));
        read.map(Self)
    }

    /// A field as it stands.
    pub fn raw(&mut self, name: &str) -> Result<&'a RawValue, ErrorCode> {
        let value = self.0.remove(name);
        value.ok_or_else(|| ErrorCode::BAD_REQUEST.because(format_args!("it takes {name}")))
    }

    /// A field that may be left out; null is as good.
    pub fn take<T: Deserialize<'a>>(&mut self, name: &str) -> Result<Option<T>, ErrorCode> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(value) => serde_json::from_str(value.get()).map_err(|error| {
                let text = error.to_string();
                let reason = text.split(" at line ").next().unwrap_or_default();
                ErrorCode::BAD_REQUEST.because(format_args!("{name} does not fit: {reason}"))
            }),
        }
    }

    pub fn need<T: Deserialize<'a>>(&mut self, name: &str) -> Result<T, ErrorCode> {
        let value = self.take(name)?;
        value.ok_or_else(|| ErrorCode::BAD_REQUEST.because(format_args!("it takes {name}")))
    }

    /// Nobody takes anything more: what is left asks for what is not there.
    pub fn end(self) -> Result<(), ErrorCode> {
        let asks = |value: &RawValue| !NOTHING.contains(&value.get());
        match self.0.into_iter().find(|(_, value)| asks(value)) {
            None => Ok(()),
            Some((name, _)) => Err(ErrorCode::NOT_AVAILABLE
                .because(format_args!("this server does not have {}", quoted(&name)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code<T>(outcome: Result<T, ErrorCode>) -> u32 {
        outcome.err().map_or(0, |error| error.code)
    }

    #[test]
    fn what_is_not_taken_is_refused_unless_it_asks_for_nothing() {
        for (json, expected) in [
            (r#"{"channel":"a"}"#, 0),
            (
                r#"{"channel":"a","tags":{},"b64data":"","skip":false,"n":0,"x":null,"y":[]}"#,
                0,
            ),
            (r#"{"channel":"a","tags":{"k":"v"}}"#, 108),
            (r#"{"channel":"a","from_a_later_version":true}"#, 108),
        ] {
            let raw: &RawValue = serde_json::from_str(json).unwrap();
            let mut fields = Fields::read(raw).unwrap();
            assert_eq!(fields.need::<String>("channel").unwrap(), "a");
            assert_eq!(code(fields.end()), expected, "{json}");
        }
    }

    #[test]
    fn a_field_that_is_missing_or_of_another_type_is_a_bad_request() {
        let read = |json: &'static str| Fields::read(serde_json::from_str(json).unwrap());
        assert_eq!(code(read("[]")), 107);
        assert_eq!(code(read("{}").unwrap().need::<String>("user")), 107);
        assert_eq!(code(read("{}").unwrap().raw("data")), 107);
        let mut fields = read(r#"{"user":7,"limit":null,"data":null}"#).unwrap();
        assert_eq!(code(fields.need::<String>("user")), 107);
        assert_eq!(fields.take::<i64>("limit").unwrap(), None);
        assert_eq!(fields.raw("data").unwrap().get(), "null");
    }
}
