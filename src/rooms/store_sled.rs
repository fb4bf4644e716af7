//! The store on disk. The only file that knows sled.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use super::store::{Order, Store, StoreError, Visit, Write};

/// One sled tree in a directory of its own.
pub struct SledStore {
    path: PathBuf,
    cache_bytes: u64,
    /// `None` while it could not be reopened. Readers hold the lock while they scan, so that
    /// reopening, which needs every handle gone, waits for them.
    database: RwLock<Option<Database>>,
    /// A failed commit may have left a part of itself in sled's memory, which nobody may read.
    failed: AtomicBool,
    /// Bytes that were committed since the last flush. Commits hold it, one at a time, as sled has it anyway.
    unflushed: Mutex<usize>,
}

/// sled, and what it leaves to us: on Linux its flush writes the pages out but neither the file's
/// length nor the disk's own cache, and the large nodes that it keeps in files of their own it does
/// not sync at all. That survives the process, not a loss of power.
struct Database {
    tree: sled::Db,
    pages: File,
    large_nodes: LargeNodes,
}

/// The directory of sled's large nodes, each in a file named by its place in sled's log.
struct LargeNodes {
    directory: PathBuf,
    synced: Mutex<Synced>,
}

struct Synced {
    /// When the directory was last looked through.
    at: SystemTime,
    /// Beyond every file that was synced.
    next: u64,
}

/// Bytes of commits behind which the next one waits for a flush.
///
/// sled 0.34 can lock itself up: a write that needs a segment where its file was just made shorter waits for that, with
/// a lock held, and the shortening is a job in the queue of sled's seven threads; if seven segments wait to be written
/// meanwhile, all seven threads wait for that lock. So it never gets near seven segments, of 512 KiB each.
const MAX_UNFLUSHED_BYTES: usize = 512 * 1024;

/// sled's own threads may hold the lock for a moment after its last handle is gone, and so may a
/// process that is just being replaced.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// File systems date a change by a clock that ticks every few milliseconds.
const COARSE_CLOCK: Duration = Duration::from_millis(50);

impl SledStore {
    /// Opens or makes the database in the directory `path`. `cache_bytes` bounds sled's page cache;
    /// the process takes about twice as much.
    pub fn open(path: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        Ok(Self {
            path: path.to_owned(),
            cache_bytes,
            database: RwLock::new(Some(Database::open(path, cache_bytes)?)),
            failed: AtomicBool::new(false),
            unflushed: Mutex::new(0),
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn unflushed(&self) -> MutexGuard<'_, usize> {
        self.unflushed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on the database and makes sure that what it saw or wrote counts.
    fn with<T>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Database) -> sled::Result<T>,
    ) -> Result<T, StoreError> {
        let database = self.read();
        let result = match &*database {
            Some(database) => work(database),
            None => return Err(StoreError::Closed),
        };
        if self.failed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        result.map_err(|error| explain(error, what, &self.path))
    }

    fn change(
        &self,
        what: &'static str,
        work: impl FnOnce(&Database) -> sled::Result<()>,
    ) -> Result<(), StoreError> {
        let result = self.with(what, work);
        if result.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        result
    }
}

impl Store for SledStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let value = self.with("read", |database| database.tree.get(key))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        first: &[u8],
        last: &[u8],
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        if first > last {
            return Ok(());
        }
        self.with("read", |database| {
            let mut range = database.tree.range(first..=last);
            loop {
                let next = match order {
                    Order::Ascending => range.next(),
                    Order::Descending => range.next_back(),
                };
                let Some(pair) = next else { return Ok(()) };
                let (key, value) = pair?;
                if visit(&key, &value).is_break() {
                    return Ok(());
                }
            }
        })
    }

    fn commit(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        let mut unflushed = self.unflushed();
        if *unflushed > MAX_UNFLUSHED_BYTES {
            self.change("flush", Database::flush)?;
            *unflushed = 0;
        }
        let (mut batch, mut bytes) = (sled::Batch::default(), 0);
        for write in writes {
            match write {
                Write::Put { key, value } => {
                    bytes += key.len() + value.len();
                    batch.insert(key, value);
                }
                Write::Delete { key } => {
                    bytes += key.len();
                    batch.remove(key);
                }
            }
        }
        *unflushed += bytes;
        self.change("write", |database| database.tree.apply_batch(batch))
    }

    fn flush(&self) -> Result<(), StoreError> {
        let flushed = *self.unflushed();
        self.change("flush", Database::flush)?;
        // What was committed meanwhile may not be part of it.
        let mut unflushed = self.unflushed();
        *unflushed = unflushed.saturating_sub(flushed);
        Ok(())
    }

    fn reopen(&self) -> Result<(), StoreError> {
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // sled holds the file's lock as long as one handle lives.
        drop(database.take());
        *database = Some(Database::open(&self.path, self.cache_bytes)?);
        self.failed.store(false, Ordering::Release);
        Ok(())
    }

    fn place(&self) -> Result<u64, StoreError> {
        let file = fs::metadata(self.path.join("db"));
        file.map(|file| file.ino())
            .map_err(|source| StoreError::Io {
                what: "look at its file",
                source,
            })
    }

    fn free_bytes(&self) -> Result<u64, StoreError> {
        fs2::available_space(&self.path).map_err(|source| StoreError::Io {
            what: "ask for free space",
            source,
        })
    }
}

impl Database {
    fn open(path: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(cache_bytes)
            .mode(sled::Mode::HighThroughput)
            .flush_every_ms(None);
        let deadline = Instant::now() + LOCK_PATIENCE;
        let tree = loop {
            match config.open().map_err(|error| explain(error, "open", path)) {
                Err(StoreError::InUse { .. }) if Instant::now() < deadline => {
                    thread::sleep(LOCK_RETRY);
                }
                // An error but for the lock means that nobody else has the database open.
                Err(StoreError::Corrupt { .. }) if remove_torn_snapshots(path) => {}
                result => break result?,
            }
        };
        let io_error = |source| StoreError::Io {
            what: "open",
            source,
        };
        // The names of new files are as durable as their directory.
        File::open(path)
            .and_then(|directory| directory.sync_all())
            .map_err(io_error)?;
        Ok(Self {
            tree,
            pages: File::open(path.join("db")).map_err(io_error)?,
            large_nodes: LargeNodes {
                directory: path.join("blobs"),
                synced: Mutex::new(Synced {
                    at: SystemTime::UNIX_EPOCH,
                    next: 0,
                }),
            },
        })
    }

    fn flush(&self) -> sled::Result<()> {
        self.tree.flush()?;
        self.large_nodes.sync()?;
        self.pages.sync_data()?;
        Ok(())
    }
}

/// sled writes a snapshot of its page table beside its log when it opens, under a name that ends in `.generating` until
/// it is whole. One that a crash or a full disk has left behind makes sled refuse the database, which does not need it.
/// Tells whether there was one.
fn remove_torn_snapshots(path: &Path) -> bool {
    let files = fs::read_dir(path).into_iter().flatten().flatten();
    let torn = files.filter(|file| file.file_name().to_string_lossy().ends_with(".generating"));
    torn.filter(|file| fs::remove_file(file.path()).is_ok())
        .count()
        > 0
}

impl LargeNodes {
    /// Syncs the files that came since the last time; most often one look at the directory's date.
    fn sync(&self) -> io::Result<()> {
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        let now = SystemTime::now();
        if fs::metadata(&self.directory)?.modified()? + COARSE_CLOCK < synced.at {
            return Ok(());
        }
        let first = synced.next;
        for file in fs::read_dir(&self.directory)? {
            let file = file?;
            let Some(place) = file
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u64>().ok())
            else {
                continue;
            };
            if place < first {
                continue;
            }
            match File::open(file.path()).and_then(|file| file.sync_data()) {
                Ok(()) => synced.next = synced.next.max(place + 1),
                // sled has replaced the node since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        if synced.next > first {
            File::open(&self.directory)?.sync_all()?;
        }
        synced.at = now;
        Ok(())
    }
}

fn explain(error: sled::Error, what: &'static str, path: &Path) -> StoreError {
    match error {
        // sled has no error of its own for a file that somebody else has locked.
        sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => {
            StoreError::InUse { path: path.into() }
        }
        sled::Error::Io(source) => StoreError::Io { what, source },
        sled::Error::Corruption { at, .. } => StoreError::Corrupt {
            key: at.map_or_else(|| "unknown".into(), |at| format!("{at:?}")),
        },
        other => StoreError::Io {
            what,
            source: io::Error::other(other.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_snapshot_does_not_keep_the_database_shut() {
        let directory = tempfile::tempdir().unwrap();
        let write = Write::Put {
            key: b"k".to_vec(),
            value: b"v".to_vec(),
        };
        let store = SledStore::open(directory.path(), 1 << 20).unwrap();
        store.commit(vec![write]).unwrap();
        store.flush().unwrap();
        drop(store);
        let torn = directory.path().join("snap.FFFFFFFFFFFFFFFF.generating");
        fs::write(&torn, b"").unwrap();
        let store = SledStore::open(directory.path(), 1 << 20).unwrap();
        assert_eq!(store.get(b"k").unwrap().as_deref(), Some(&b"v"[..]));
        assert!(!torn.exists());
    }

    #[test]
    fn a_flush_syncs_the_large_nodes_that_came_since_the_last() {
        let directory = tempfile::tempdir().unwrap();
        let store = SledStore::open(directory.path(), 1 << 20).unwrap();
        let blobs = directory.path().join("blobs");
        let newest = || {
            let names = fs::read_dir(&blobs).unwrap();
            let place = |name: io::Result<fs::DirEntry>| {
                name.unwrap().file_name().to_str().unwrap().parse().unwrap()
            };
            names.map(place).max()
        };
        let synced = || {
            let database = store.read();
            let synced = database
                .as_ref()
                .unwrap()
                .large_nodes
                .synced
                .lock()
                .unwrap();
            synced.next.checked_sub(1)
        };
        assert_eq!((newest(), synced()), (None, None));
        for n in 0..5_u8 {
            let value = vec![n; 200_000];
            store
                .commit(vec![Write::Put {
                    key: vec![n],
                    value,
                }])
                .unwrap();
            store.flush().unwrap();
            assert!(synced().is_some());
            assert_eq!(synced(), newest());
        }
    }
}
