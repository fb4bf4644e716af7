//! Writes a database anew, as small as what it holds. sled reuses space and never gives it back.

use std::{
    fs::{self, File},
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crc32fast::Hasher;
use fs2::FileExt;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{
    layout,
    offline::{OfflineError, open_store},
    store::{Order, Store, StoreError, Write},
    store_sled::SledStore,
};

const CACHE_BYTES: u64 = 64 << 20;
/// Bytes of one commit.
const COMMIT_BYTES: usize = 1 << 20;
/// How long sled's own threads may hold the lock of a database that is closed.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Why a database was not written anew. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum CompactionError {
    #[error(transparent)]
    Offline(#[from] OfflineError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "what was written to {} is not what was read; its disk or the memory is not to be trusted",
        path.display()
    )]
    Different { path: PathBuf },
    #[error("can't {what} {}: {source}", path.display())]
    Files {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// What a compaction came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    pub before_bytes: u64,
    pub after_bytes: u64,
    pub keys: u64,
}

/// How much there is of all keys and values, and their checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Content {
    keys: u64,
    sum: u32,
}

/// Writes the database in the directory `path` anew and puts it into the other's place in one step; until then, and after
/// every error, the old one is there. `progress` is told how many keys are written. Needs space for both.
pub fn compact(path: &Path, progress: impl FnMut(u64)) -> Result<Compacted, CompactionError> {
    let files = |what, path: &Path| {
        let path = path.to_owned();
        move |source| CompactionError::Files { what, path, source }
    };
    let old = open_store(path)?;
    let before_bytes = size(path).map_err(files("measure", path))?;
    let beside = path.with_extension("compacting");
    // What an earlier compaction that was killed has left.
    if beside.exists() {
        fs::remove_dir_all(&beside).map_err(files("remove", &beside))?;
    }
    let written = write_anew(&old, &beside, progress);
    drop(old);
    let written = written.and_then(|content| {
        let lock = hold(path)?;
        let after_bytes = size(&beside).map_err(files("measure", &beside))?;
        renameat_with(CWD, &beside, CWD, path, RenameFlags::EXCHANGE)
            .map_err(|error| files("swap", path)(error.into()))?;
        let parent = path.parent().filter(|parent| *parent != Path::new(""));
        let parent = parent.unwrap_or(Path::new("."));
        File::open(parent)
            .and_then(|parent| parent.sync_all())
            .map_err(files("sync", parent))?;
        drop(lock);
        Ok(Compacted {
            before_bytes,
            after_bytes,
            keys: content.keys,
        })
    });
    let removed = match beside.exists() {
        true => fs::remove_dir_all(&beside),
        false => Ok(()),
    };
    let compacted = written?;
    removed.map_err(files("remove", &beside))?;
    Ok(compacted)
}

/// Fills the directory `to` with all that `old` has, and makes sure that it can be read back.
fn write_anew(
    old: &SledStore,
    to: &Path,
    progress: impl FnMut(u64),
) -> Result<Content, CompactionError> {
    let new = SledStore::open(to, CACHE_BYTES)?;
    let content = copy(old, &new, progress)?;
    // A server takes a database whose file is another one than it says for a copy, and begins a new epoch.
    let at_home = old.get(layout::PLACE_KEY)? == Some(layout::encode_place(old.place()?));
    let place = if at_home { new.place()? } else { 0 };
    new.commit(vec![Write::Put {
        key: layout::PLACE_KEY.to_vec(),
        value: layout::encode_place(place),
    }])?;
    new.flush()?;
    drop(new);
    match content == look_through(&SledStore::open(to, CACHE_BYTES)?)? {
        true => Ok(content),
        false => Err(CompactionError::Different { path: to.into() }),
    }
}

/// Where the database lies is no part of its content.
fn copy(
    old: &SledStore,
    new: &SledStore,
    mut progress: impl FnMut(u64),
) -> Result<Content, StoreError> {
    let (mut first, mut keys, mut sum) = (Vec::new(), 0, Hasher::new());
    loop {
        let (mut writes, mut bytes) = (Vec::new(), 0);
        old.scan(&first, &[u8::MAX], Order::Ascending, &mut |key, value| {
            bytes += key.len() + value.len();
            if key != layout::PLACE_KEY {
                keys += 1;
                sum.update(key);
                sum.update(value);
            }
            writes.push(Write::Put {
                key: key.to_vec(),
                value: value.to_vec(),
            });
            match bytes < COMMIT_BYTES {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        })?;
        let Some(Write::Put { key: last, .. }) = writes.last() else {
            let sum = sum.finalize();
            return Ok(Content { keys, sum });
        };
        first = [last, &[0][..]].concat();
        new.commit(writes)?;
        progress(keys);
    }
}

fn look_through(store: &SledStore) -> Result<Content, StoreError> {
    let (mut keys, mut sum) = (0, Hasher::new());
    store.scan(&[], &[u8::MAX], Order::Ascending, &mut |key, value| {
        if key != layout::PLACE_KEY {
            keys += 1;
            sum.update(key);
            sum.update(value);
        }
        ControlFlow::Continue(())
    })?;
    let sum = sum.finalize();
    Ok(Content { keys, sum })
}

/// Keeps servers out of a database that is closed, as sled does with its own.
fn hold(path: &Path) -> Result<File, CompactionError> {
    let failed = |source| CompactionError::Files {
        what: "lock",
        path: path.into(),
        source,
    };
    let file = File::open(path.join("db")).map_err(failed)?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    while file.try_lock_exclusive().is_err() {
        if Instant::now() > deadline {
            return Err(StoreError::InUse { path: path.into() }.into());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(file)
}

/// Bytes of all files below a directory.
fn size(directory: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let of = entry.metadata()?;
        bytes += match of.is_dir() {
            true => size(&entry.path())?,
            false => of.len(),
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &[u8], value: Vec<u8>) -> Write {
        Write::Put {
            key: key.to_vec(),
            value,
        }
    }

    /// A database with a lot that was deleted.
    fn grown(path: &Path) -> SledStore {
        let store = SledStore::open(path, 1 << 20).unwrap();
        let place = layout::encode_place(store.place().unwrap());
        store
            .commit(vec![
                put(layout::FORMAT_KEY, layout::encode_format()),
                put(layout::PLACE_KEY, place),
            ])
            .unwrap();
        for n in 0..400_u32 {
            let key = [&b"h"[..], &n.to_be_bytes()].concat();
            store.commit(vec![put(&key, vec![7; 10_000])]).unwrap();
            if n % 50 > 0 {
                store.commit(vec![Write::Delete { key }]).unwrap();
            }
        }
        store.flush().unwrap();
        store
    }

    #[test]
    fn a_compacted_database_is_smaller_holds_the_same_and_is_no_copy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let content = look_through(&grown(&path)).unwrap();
        // As a compaction that was killed leaves it.
        drop(SledStore::open(&directory.path().join("log.compacting"), 1 << 20).unwrap());

        let mut told = 0;
        let compacted = compact(&path, |keys| told = keys).unwrap();
        assert!(compacted.after_bytes < compacted.before_bytes);
        assert_eq!((compacted.keys, told), (content.keys, content.keys));
        let store = SledStore::open(&path, 1 << 20).unwrap();
        assert_eq!(look_through(&store).unwrap(), content);
        let place = layout::encode_place(store.place().unwrap());
        assert_eq!(store.get(layout::PLACE_KEY).unwrap(), Some(place));
        let left = fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(left, 1, "only the database is there");
    }

    #[test]
    fn a_copy_stays_a_copy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let store = grown(&path);
        let elsewhere = layout::encode_place(store.place().unwrap() + 1);
        store
            .commit(vec![put(layout::PLACE_KEY, elsewhere)])
            .unwrap();
        drop(store);
        compact(&path, |_| ()).unwrap();
        let store = SledStore::open(&path, 1 << 20).unwrap();
        let place = layout::encode_place(store.place().unwrap());
        assert_ne!(store.get(layout::PLACE_KEY).unwrap(), Some(place));
    }

    #[test]
    fn a_database_in_use_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let store = grown(&path);
        let error = compact(&path, |_| ()).unwrap_err();
        assert!(error.to_string().contains("in use"), "{error}");
        drop(store);
        assert!(!directory.path().join("log.compacting").exists());
    }
}
