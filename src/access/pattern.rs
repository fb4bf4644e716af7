//! Patterns of room names: `chat:*`, `news`, `*`.

use std::fmt;

use crate::delta::RoomName;

/// A room's name in which each `*` stands for any characters, also for none. Room names themselves have no `*`.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern(Box<str>);

impl Pattern {
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the names of all rooms that match begin with.
    pub fn prefix(&self) -> &str {
        self.0.split('*').next().unwrap_or_default()
    }

    pub fn matches(&self, room: &RoomName) -> bool {
        let name = room.as_str();
        let Some((start, rest)) = self.0.split_once('*') else {
            return name == &*self.0;
        };
        let Some(mut name) = name.strip_prefix(start) else {
            return false;
        };
        let mut parts = rest.split('*');
        let end = parts.next_back().unwrap_or_default();
        // The first place where a part fits leaves the most to those behind it.
        for part in parts {
            match name.split_once(part) {
                Some((_, behind)) => name = behind,
                None => return false,
            }
        }
        name.ends_with(end)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, room: &str) -> bool {
        Pattern::new(pattern).matches(&RoomName::new(room).unwrap())
    }

    #[test]
    fn a_star_stands_for_any_characters_and_everything_else_for_itself() {
        for (pattern, room) in [
            ("*", "lobby"),
            ("*", "chat:1"),
            ("chat:*", "chat:1"),
            ("lobby", "lobby"),
            ("chat:*:log", "chat:1:log"),
            ("chat:*:log", "chat:a:b:log"),
            ("a*b*c", "abc"),
            ("a*b*c", "a1b2b3c"),
            ("**", "x"),
        ] {
            assert!(matches(pattern, room), "{pattern} {room}");
        }
        for (pattern, room) in [
            ("", "lobby"),
            ("lobby", "lobby2"),
            ("lobby", "Lobby"),
            ("chat:*", "chats:1"),
            ("chat:*", "my-chat:1"),
            ("chat:*:log", "chat:log"),
            ("ab*ba", "aba"),
            ("a*b*c", "acb"),
            ("chat:?", "chat:1"),
        ] {
            assert!(!matches(pattern, room), "{pattern} {room}");
        }
    }

    /// The rule itself, without a thought for speed.
    fn slowly(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|at| slowly(rest, &name[at..])),
            Some((byte, rest)) => name.first() == Some(byte) && slowly(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn a_pattern_matches_what_the_rule_says(pattern in "[ab*]{0,8}", room in "[ab]{1,8}") {
            prop_assert_eq!(
                matches(&pattern, &room),
                slowly(pattern.as_bytes(), room.as_bytes())
            );
        }
    }
}
