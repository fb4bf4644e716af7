//! The copy of another instance's table.

use std::{collections::BTreeMap, ops::Bound};

use super::entry::{Key, Value, digest};

/// The longest that a wait between two requests for the whole table grows to, in ms.
const LONGEST_PATIENCE: u64 = 60_000;

#[derive(Debug)]
pub struct Peer {
    entries: BTreeMap<Key, Value>,
    digest: u64,
    /// Of the last numbered message.
    last: u64,
    /// The copy is not what the owner has.
    lacking: bool,
    /// When the owner may be asked for its table again, and how long it then has.
    ask_at: u64,
    patience: u64,
    beat: u64,
    /// When it is forgotten, if it says nothing more.
    expires: u64,
}

impl Peer {
    /// `beat`: milliseconds between its beats, until it says how many.
    pub fn new(now: u64, beat: u64) -> Self {
        Self {
            entries: BTreeMap::new(),
            digest: 0,
            last: 0,
            lacking: false,
            ask_at: now,
            patience: beat,
            beat,
            expires: now + 3 * beat,
        }
    }

    pub fn entries(&self) -> &BTreeMap<Key, Value> {
        &self.entries
    }

    pub fn into_entries(self) -> BTreeMap<Key, Value> {
        self.entries
    }

    pub fn expires(&self) -> u64 {
        self.expires
    }

    /// It said something.
    pub fn heard(&mut self, now: u64) {
        self.expires = self.expires.max(now + 3 * self.beat);
    }

    /// A numbered message came: whether it is to be applied. One that came late is older than what is known.
    pub fn accepts(&mut self, number: u64) -> bool {
        if number <= self.last {
            return false;
        }
        self.lacking |= number != self.last + 1;
        self.last = number;
        true
    }

    /// A beat came; `next` is the time to the one after it.
    pub fn beat(&mut self, now: u64, number: u64, digest: u64, next: u64) {
        self.beat = next.clamp(10, LONGEST_PATIENCE);
        self.heard(now);
        if number < self.last {
            return;
        }
        self.lacking = number > self.last || digest != self.digest;
        if !self.lacking {
            self.patience = self.beat;
        }
    }

    /// Whether the owner should be asked for its table now. Each time in vain it has longer.
    pub fn asks(&mut self, now: u64) -> bool {
        let due = self.lacking && now >= self.ask_at;
        if due {
            self.ask_at = now + self.patience;
            self.patience = (2 * self.patience).min(LONGEST_PATIENCE);
        }
        due
    }

    /// Changes an entry, or takes it out; gives what it was.
    pub fn set(&mut self, key: &Key, value: Option<Value>) -> Option<Value> {
        let old = match &value {
            Some(new) => self.entries.insert(key.clone(), new.clone()),
            None => self.entries.remove(key),
        };
        for value in [&old, &value].into_iter().flatten() {
            self.digest ^= digest(key, value);
        }
        old
    }

    /// The keys in a range that are known.
    pub fn keys(&self, after: Option<&Key>, upto: Option<&Key>) -> Vec<Key> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let upto = upto.map_or(Bound::Unbounded, Bound::Included);
        // Ends the wrong way round are no range, and would be a panic.
        if let (Bound::Excluded(from), Bound::Included(to)) = (after, upto)
            && from >= to
        {
            return Vec::new();
        }
        let range = self.entries.range((after, upto));
        range.map(|(key, _)| key.clone()).collect()
    }
}
