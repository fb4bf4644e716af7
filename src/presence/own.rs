//! An instance's own table, and what it tells the others of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use super::{
    entry::{Key, Value, digest},
    form::{Body, MESSAGE_BYTES},
};

#[derive(Debug, Default)]
pub struct Own {
    entries: BTreeMap<Key, Value>,
    digest: u64,
    /// Of the last numbered message.
    number: u64,
    /// What has changed since it was told; nothing without others. Bounded by what the table held between two messages.
    dirty: BTreeSet<Key>,
    /// There are others.
    shared: bool,
    /// The whole table is being said: everything up to this key was.
    pass: Option<Option<Key>>,
    /// Somebody asked for the whole table.
    asked: bool,
}

impl Own {
    /// `shared`: there may be others to tell.
    pub fn new(shared: bool) -> Self {
        Self {
            shared,
            ..Self::default()
        }
    }

    pub fn get(&self, key: &Key) -> Option<&Value> {
        self.entries.get(key)
    }

    pub fn entries(&self) -> &BTreeMap<Key, Value> {
        &self.entries
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Changes an entry, or takes it out; gives what it was.
    pub fn set(&mut self, key: &Key, value: Option<Value>) -> Option<Value> {
        let old = match &value {
            Some(new) => self.entries.insert(key.clone(), new.clone()),
            None => self.entries.remove(key),
        };
        if old == value {
            return old;
        }
        for value in [&old, &value].into_iter().flatten() {
            self.digest ^= digest(key, value);
        }
        if self.shared {
            self.dirty.insert(key.clone());
        }
        old
    }

    /// The whole table is to be said.
    pub fn ask(&mut self) {
        self.asked = true;
    }

    /// Begins to say the whole table, if somebody has asked and it is not being said.
    pub fn begin_pass(&mut self) {
        if self.pass.is_none() && std::mem::take(&mut self.asked) {
            self.pass = Some(None);
        }
    }

    /// The next message about what has changed.
    pub fn changes(&mut self) -> Option<Body> {
        let (mut bytes, mut entries) = (0, Vec::new());
        while bytes < MESSAGE_BYTES {
            let Some(key) = self.dirty.pop_first() else {
                break;
            };
            let value = self.entries.get(&key).cloned();
            bytes += key.weight(value.as_ref());
            entries.push((key, value));
        }
        (!entries.is_empty()).then(|| Body::Changes {
            number: self.next_number(),
            entries,
        })
    }

    /// The next stretch of the whole table, if it is being said.
    pub fn range(&mut self) -> Option<Body> {
        let after = self.pass.take()?;
        let from = match &after {
            Some(key) => Bound::Excluded(key),
            None => Bound::Unbounded,
        };
        let (mut bytes, mut entries, mut upto) = (0, Vec::new(), None);
        for (key, value) in self.entries.range((from, Bound::Unbounded)) {
            if bytes >= MESSAGE_BYTES {
                upto = entries.last().map(|(key, _): &(Key, Value)| key.clone());
                break;
            }
            bytes += key.weight(Some(value));
            entries.push((key.clone(), value.clone()));
        }
        if upto.is_some() {
            self.pass = Some(upto.clone());
        }
        Some(Body::Range {
            number: self.next_number(),
            after,
            upto,
            entries,
        })
    }

    fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }
}
