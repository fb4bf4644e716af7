//! The store of tests: no file, and crashes and faults on demand.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::store::{Order, Store, StoreError, Visit, Write};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// Keeps what would be on disk apart from what was committed since, so that a test can crash at any
/// commit.
#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    flushed: Map,
    unflushed: Vec<Vec<Write>>,
    /// The flushed state with all unflushed commits.
    seen: Map,
    fault: Option<Fault>,
    failed: bool,
    used_up: bool,
}

/// What goes wrong next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The next commit does nothing and fails.
    Commit,
    /// The next flush fails; `survive` of the commits since the last one are on disk nevertheless.
    Flush { survive: usize },
    /// The next attempt to reopen fails.
    Reopen,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// How many commits a crash could take.
    pub fn unflushed(&self) -> usize {
        self.lock().unflushed.len()
    }

    /// Loses all commits since the last flush but the first `survive`, and any fault still to come.
    pub fn crash(&self, survive: usize) {
        let mut state = self.lock();
        state.crash(survive);
        state.fault = None;
    }

    pub fn inject(&self, fault: Fault) {
        self.lock().fault = Some(fault);
    }

    /// From here on the disk has no byte left, or ample space again.
    pub fn set_full(&self, full: bool) {
        self.lock().used_up = full;
    }

    /// A copy of everything that is readable.
    pub fn contents(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.lock().seen.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Moves the first `survive` unflushed commits to the disk and forgets the others.
    fn keep(&mut self, survive: usize) {
        for commit in std::mem::take(&mut self.unflushed)
            .into_iter()
            .take(survive)
        {
            write(&mut self.flushed, commit);
        }
    }

    fn crash(&mut self, survive: usize) {
        self.keep(survive);
        self.seen = self.flushed.clone();
        self.failed = false;
    }

    fn open(&self) -> Result<(), StoreError> {
        if self.failed {
            Err(StoreError::Closed)
        } else {
            Ok(())
        }
    }

    fn take_fault(&mut self, is_due: impl Fn(Fault) -> bool) -> Option<Fault> {
        self.fault.take_if(|fault| is_due(*fault))
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let state = self.lock();
        state.open()?;
        Ok(state.seen.get(key).cloned())
    }

    fn scan(
        &self,
        first: &[u8],
        last: &[u8],
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        let state = self.lock();
        state.open()?;
        if first > last {
            return Ok(());
        }
        let mut range = state.seen.range(first.to_vec()..=last.to_vec());
        while let Some((key, value)) = match order {
            Order::Ascending => range.next(),
            Order::Descending => range.next_back(),
        } {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn commit(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.open()?;
        if state.take_fault(|fault| fault == Fault::Commit).is_some() {
            state.failed = true;
            return Err(injected("write"));
        }
        write(&mut state.seen, writes.clone());
        state.unflushed.push(writes);
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.open()?;
        if let Some(Fault::Flush { survive }) =
            state.take_fault(|fault| matches!(fault, Fault::Flush { .. }))
        {
            state.unflushed.truncate(survive);
            state.failed = true;
            return Err(injected("flush"));
        }
        state.keep(usize::MAX);
        Ok(())
    }

    fn reopen(&self) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.take_fault(|fault| fault == Fault::Reopen).is_some() {
            state.failed = true;
            return Err(injected("open"));
        }
        state.crash(usize::MAX);
        Ok(())
    }

    fn place(&self) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn free_bytes(&self) -> Result<u64, StoreError> {
        Ok(if self.lock().used_up { 0 } else { u64::MAX })
    }
}

fn write(map: &mut Map, commit: Vec<Write>) {
    for write in commit {
        match write {
            Write::Put { key, value } => map.insert(key, value),
            Write::Delete { key } => map.remove(&key),
        };
    }
}

fn injected(what: &'static str) -> StoreError {
    StoreError::Io {
        what,
        source: io::Error::other("a fault that the test asked for"),
    }
}
