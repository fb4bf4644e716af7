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
/// There is one writer. What it committed is readable at once and survives a crash from the next
/// successful [`Store::flush`] on; of the commits since then a crash keeps some first ones, each
/// whole. A failed commit or flush leaves the store unusable until [`Store::reopen`] succeeds.
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
    #[error("the database is closed after a failed write and not open again yet")]
    Closed,
}
