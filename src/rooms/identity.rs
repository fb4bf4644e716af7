//! Which log a store holds, and how far it is applied.

use std::ops::ControlFlow;

use uuid::Uuid;

use super::{
    checkpoint::Checkpoint,
    layout,
    store::{Order, Store, StoreError},
    writer::put,
};
use crate::delta::Epoch;

/// The log of which a store holds the histories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogIdentity {
    /// The store is all there is of the log: its positions mean what the store says.
    Embedded,
    /// The log is elsewhere, in several partitions.
    Shared {
        /// Tells the log from all others.
        name: String,
        /// The present life of each partition, as the log says.
        epochs: Vec<Epoch>,
    },
}

/// One partition, as the store has it.
pub struct Stored {
    pub epoch: Epoch,
    pub checkpoint: Checkpoint,
}

impl LogIdentity {
    pub fn partitions(&self) -> u16 {
        match self {
            Self::Embedded => 1,
            Self::Shared { epochs, .. } => {
                u16::try_from(epochs.len()).expect("partitions are numbered by u16")
            }
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Embedded => "embedded",
            Self::Shared { name, .. } => name,
        }
    }
}

/// Makes an empty store one of this log, and makes sure that any other is.
pub fn establish(store: &dyn Store, log: &LogIdentity) -> Result<(), StoreError> {
    match store.get(layout::FORMAT_KEY)? {
        None => create(store, log)?,
        Some(format) => check_format(&format)?,
    }
    let found = store.get(layout::LOG_KEY)?;
    let found = found.and_then(|name| String::from_utf8(name).ok());
    let found = found.ok_or_else(|| layout::corrupt(layout::LOG_KEY))?;
    if found != log.name() {
        return Err(StoreError::OtherLog {
            found,
            configured: log.name().to_owned(),
        });
    }
    let moved = store.get(layout::PLACE_KEY)? != Some(layout::encode_place(store.place()?));
    if moved && *log == LogIdentity::Embedded {
        // A copy, such as a backup that was put back: clients may know positions that it will give to other deltas.
        renew(store)?;
    }
    Ok(())
}

/// Makes sure that the layout is the one that is known here; `format` is the record that says which it is.
pub fn check_format(format: &[u8]) -> Result<(), StoreError> {
    let known = layout::FORMAT;
    match layout::decode_format(format)? {
        found if found > known => Err(StoreError::NewerFormat { found, known }),
        found if found < known => Err(StoreError::OlderFormat { found, known }),
        _ => Ok(()),
    }
}

/// Reads a partition's life and how far it is applied; none if the store never had anything of it.
pub fn load(store: &dyn Store, partition: u16) -> Result<Option<Stored>, StoreError> {
    let key = layout::epoch_key(partition);
    let Some(epoch) = store.get(&key)? else {
        return Ok(None);
    };
    let epoch = String::from_utf8(epoch).map_err(|_| layout::corrupt(&key))?;
    let key = layout::checkpoint_key(partition);
    let checkpoint = match store.get(&key)? {
        Some(record) => Checkpoint::decode(&key, &record)?,
        None => Checkpoint::default(),
    };
    Ok(Some(Stored {
        epoch: epoch.into(),
        checkpoint,
    }))
}

fn create(store: &dyn Store, log: &LogIdentity) -> Result<(), StoreError> {
    let mut empty = true;
    store.scan(&[], &[u8::MAX], Order::Ascending, &mut |_, _| {
        empty = false;
        ControlFlow::Break(())
    })?;
    if !empty {
        return Err(StoreError::Foreign);
    }
    store.commit(vec![
        put(layout::LOG_KEY.to_vec(), log.name().as_bytes().to_vec()),
        put(layout::FORMAT_KEY.to_vec(), layout::encode_format()),
    ])?;
    store.flush()
}

/// Begins a new epoch of the only partition of an embedded log.
pub fn renew(store: &dyn Store) -> Result<Epoch, StoreError> {
    let epoch: Epoch = Uuid::new_v4().simple().to_string().into();
    let place = layout::encode_place(store.place()?);
    store.commit(vec![
        put(layout::epoch_key(0), epoch.as_bytes().to_vec()),
        put(layout::PLACE_KEY.to_vec(), place),
    ])?;
    store.flush()?;
    Ok(epoch)
}
