//! The ordered key-value store that history stands on.

use std::{io, ops::ControlFlow, path::PathBuf};

/// One change of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    Put { key: Vec<u8>, value: Vec<u8> },
    Delete { key: Vec<u8> },
}

/// Which end of a range is read first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Ascending,
    Descending,
}

/// Sees one key and its value; `Break` ends the scan.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Bytes by bytes, in the order of their keys.
///
/// Several may write, if no two write the same keys. What was committed is readable at once and
/// survives a crash from the next successful [`Store::flush`] on; of the commits since then a crash
/// keeps some first ones, each whole. A failed commit or flush leaves the store unusable until [`Store::reopen`] succeeds.
pub trait Store: Send + Sync {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Visits the keys from `first` to `last`, both included. A scan is not a snapshot: it may see
    /// some of what is committed while it runs.
    fn scan(
        &self,
        first: &[u8],
        last: &[u8],
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError>;

    /// Does all writes or none; of several writes to one key the last one counts. No reader that
    /// comes later sees a part of them.
    fn commit(&self, writes: Vec<Write>) -> Result<(), StoreError>;

    /// Blocks until everything committed is on disk.
    fn flush(&self) -> Result<(), StoreError>;

    /// Opens anew what is on disk. Until it succeeds, reads and writes give [`StoreError::Closed`].
    fn reopen(&self) -> Result<(), StoreError>;

    /// Tells this store from its copies: the same at every opening, another one for a store that was put back from a
    /// backup.
    fn place(&self) -> Result<u64, StoreError>;

    /// Bytes that the file system still has for us.
    fn free_bytes(&self) -> Result<u64, StoreError>;
}

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "the database {path} is in use by another process; stop it, or give this one a data \
         directory of its own"
    )]
    InUse { path: PathBuf },
    #[error("the database could not {what}: {source}")]
    Io {
        what: &'static str,
        source: io::Error,
    },
    #[error(
        "the database is damaged at key {key}; restore a backup, or start with an empty data \
         directory"
    )]
    Corrupt { key: String },
    #[error(
        "the database has format {found} and this roomwire reads up to {known}; run the newer \
         roomwire that wrote it"
    )]
    NewerFormat { found: u32, known: u32 },
    #[error("the database was not made by roomwire; give it a data directory of its own")]
    Foreign,
    #[error(
        "the database has format {found} and this roomwire reads {known}; start with an empty data \
         directory, or run the older roomwire that wrote it"
    )]
    OlderFormat { found: u32, known: u32 },
    #[error(
        "the database belongs to the log {found} and this server is configured for {configured}; \
         give it a data directory of its own, or configure the log that the database belongs to"
    )]
    OtherLog { found: String, configured: String },
    #[error("the database is closed after a failed write and not open again yet")]
    Closed,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rooms::{
        store_memory::{Fault, MemoryStore},
        store_sled::SledStore,
    };
    use tempfile::TempDir;

    const CACHE_BYTES: u64 = 1 << 20;

    fn on_disk() -> (TempDir, SledStore) {
        let directory = tempfile::tempdir().unwrap();
        let store = SledStore::open(directory.path(), CACHE_BYTES).unwrap();
        (directory, store)
    }

    fn put(key: &str, value: &str) -> Write {
        Write::Put {
            key: key.into(),
            value: value.into(),
        }
    }

    fn delete(key: &str) -> Write {
        Write::Delete { key: key.into() }
    }

    fn keys(store: &dyn Store, first: &str, last: &str, order: Order, limit: usize) -> Vec<String> {
        let mut keys = Vec::new();
        store
            .scan(first.as_bytes(), last.as_bytes(), order, &mut |key, _| {
                keys.push(String::from_utf8(key.to_vec()).unwrap());
                if keys.len() == limit {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })
            .unwrap();
        keys
    }

    fn keeps_the_contract(store: &dyn Store) {
        let batch = vec![
            put("b", "1"),
            put("a", "1"),
            put("d", "1"),
            put("c", "1"),
            put("b", "2"),
        ];
        store.commit(batch).unwrap();
        assert_eq!(
            store.get(b"b").unwrap().unwrap(),
            b"2",
            "the last write to a key counts"
        );
        assert_eq!(store.get(b"bb").unwrap(), None);
        assert_eq!(
            keys(store, "b", "c", Order::Ascending, 9),
            ["b", "c"],
            "both ends belong"
        );
        assert_eq!(
            keys(store, "a", "z", Order::Descending, 2),
            ["d", "c"],
            "a visitor can stop"
        );
        assert!(keys(store, "c", "b", Order::Ascending, 9).is_empty());

        store
            .commit(vec![delete("b"), put("b", "3"), put("a", "2"), delete("a")])
            .unwrap();
        assert_eq!(keys(store, "a", "b", Order::Ascending, 9), ["b"]);
        store.flush().unwrap();
        store.reopen().unwrap();
        assert_eq!(
            store.get(b"b").unwrap().unwrap(),
            b"3",
            "what was flushed survives"
        );
        assert!(store.free_bytes().unwrap() > 0);
    }

    #[test]
    fn both_stores_keep_the_same_contract() {
        keeps_the_contract(&MemoryStore::new());
        keeps_the_contract(&on_disk().1);
    }

    #[test]
    fn a_database_that_somebody_holds_is_a_clear_error() {
        let (directory, _store) = on_disk();
        let error = SledStore::open(directory.path(), CACHE_BYTES)
            .err()
            .unwrap();
        assert!(matches!(error, StoreError::InUse { path } if path == directory.path()));
    }

    #[test]
    fn large_values_survive_reopening() {
        let (_directory, store) = on_disk();
        // Beyond a quarter of sled's segment a node goes to a file of its own.
        let value = "x".repeat(300_000);
        for n in 0..20 {
            store.commit(vec![put(&format!("{n:02}"), &value)]).unwrap();
            store.flush().unwrap();
        }
        store.reopen().unwrap();
        assert_eq!(store.get(b"19").unwrap().unwrap(), value.as_bytes());
        assert_eq!(keys(&store, "", "z", Order::Ascending, 99).len(), 20);
    }

    #[test]
    fn a_crash_keeps_the_flushed_and_a_first_part_of_the_rest() {
        let store = MemoryStore::new();
        store.commit(vec![put("a", "1")]).unwrap();
        store.flush().unwrap();
        for key in ["b", "c", "d"] {
            store.commit(vec![put(key, "1")]).unwrap();
        }
        store.crash(2);
        assert_eq!(keys(&store, "a", "z", Order::Ascending, 9), ["a", "b", "c"]);
    }

    #[test]
    fn a_failed_store_serves_nobody_until_it_is_open_again() {
        let store = MemoryStore::new();
        store.commit(vec![put("a", "1")]).unwrap();
        store.inject(Fault::Flush { survive: 0 });
        assert!(matches!(store.flush(), Err(StoreError::Io { .. })));
        assert!(matches!(store.get(b"a"), Err(StoreError::Closed)));
        assert!(matches!(store.commit(Vec::new()), Err(StoreError::Closed)));
        store.reopen().unwrap();
        assert_eq!(store.get(b"a").unwrap(), None);
    }
}
