//! The log's identity and how far it is applied, as the store holds them.

use std::ops::ControlFlow;

use uuid::Uuid;

use super::{
    layout::{self, Checkpoint},
    store::{Order, Store, StoreError, Write},
    writer::put,
};
use crate::delta::Epoch;

/// Reads the log's identity and how far it is applied; makes both in an empty store.
pub fn load(store: &dyn Store) -> Result<(Epoch, Checkpoint), StoreError> {
    let Some(format) = store.get(layout::FORMAT_KEY)? else {
        return create(store);
    };
    let found = layout::decode_format(&format)?;
    if found > layout::FORMAT {
        return Err(StoreError::NewerFormat {
            found,
            known: layout::FORMAT,
        });
    }
    let epoch = store
        .get(layout::EPOCH_KEY)?
        .and_then(|epoch| String::from_utf8(epoch).ok());
    let epoch = epoch.ok_or_else(|| layout::corrupt(layout::EPOCH_KEY))?;
    let checkpoint = match store.get(layout::CHECKPOINT_KEY)? {
        Some(record) => Checkpoint::decode(&record)?,
        None => Checkpoint::default(),
    };
    Ok((epoch.into(), checkpoint))
}

fn create(store: &dyn Store) -> Result<(Epoch, Checkpoint), StoreError> {
    let mut empty = true;
    store.scan(&[], &[u8::MAX], Order::Ascending, &mut |_, _| {
        empty = false;
        ControlFlow::Break(())
    })?;
    if !empty {
        return Err(StoreError::Foreign);
    }
    let epoch = new_epoch();
    store.commit(vec![
        put_epoch(&epoch),
        put(layout::FORMAT_KEY.to_vec(), layout::encode_format()),
    ])?;
    store.flush()?;
    Ok((epoch, Checkpoint::default()))
}

pub fn new_epoch() -> Epoch {
    Uuid::new_v4().simple().to_string().into()
}

pub fn put_epoch(epoch: &Epoch) -> Write {
    put(layout::EPOCH_KEY.to_vec(), epoch.as_bytes().to_vec())
}
