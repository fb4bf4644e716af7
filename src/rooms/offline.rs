//! Histories in a database that no server has open.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Arc, RwLock, atomic::AtomicU64},
};

use super::{
    history::{History, Partition, Shared},
    identity, layout,
    store::{Order, Store, StoreError},
    store_sled::SledStore,
};

const CACHE_BYTES: u64 = 64 << 20;

/// Why a database can't be looked into.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    #[error("there is no database at {}; name the data directory of a server", path.display())]
    Missing { path: PathBuf },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Opens the histories in the directory `path` for reading; a database that is not there is not made. Nothing of what it
/// says is changed, so that a copy stays a copy.
pub fn open(path: &Path) -> Result<History, OfflineError> {
    let store = open_store(path)?;
    let mut partitions = Vec::new();
    for n in 0..count_partitions(&store)? {
        let stored = identity::load(&store, n)?;
        let stored = stored.ok_or_else(|| layout::corrupt(&layout::epoch_key(n)))?;
        partitions.push(Partition {
            durable: AtomicU64::new(stored.checkpoint.offset),
            epoch: RwLock::new(stored.epoch),
            floor: RwLock::new(stored.checkpoint.floor),
        });
    }
    Ok(History {
        shared: Arc::new(Shared {
            store: Arc::new(store),
            partitions,
            openings: RwLock::new(0),
        }),
    })
}

/// A database that is there, and has the layout that this version knows.
pub(super) fn open_store(path: &Path) -> Result<SledStore, OfflineError> {
    if !path.join("db").is_file() {
        return Err(OfflineError::Missing { path: path.into() });
    }
    let store = SledStore::open(path, CACHE_BYTES)?;
    let format = store.get(layout::FORMAT_KEY)?;
    identity::check_format(&format.ok_or(StoreError::Foreign)?)?;
    Ok(store)
}

/// Every partition has an epoch from the moment that the database is made.
fn count_partitions(store: &SledStore) -> Result<u16, StoreError> {
    let mut count = 0;
    let (first, last) = (layout::epoch_key(0), layout::epoch_key(u16::MAX));
    store.scan(&first, &last, Order::Ascending, &mut |_, _| {
        count += 1;
        ControlFlow::Continue(())
    })?;
    match count {
        0 => Err(layout::corrupt(&first)),
        count => Ok(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_database_is_told_and_not_made_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let missing = open(&path).err().unwrap();
        assert!(matches!(missing, OfflineError::Missing { .. }));
        assert!(!path.exists());
        drop(SledStore::open(&path, 1 << 20).unwrap());
        let foreign = open(&path).err().unwrap();
        assert!(matches!(foreign, OfflineError::Store(StoreError::Foreign)));
    }
}
