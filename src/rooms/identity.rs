//! The log's identity and how far it is applied, as the store holds them.

use std::ops::ControlFlow;

use uuid::Uuid;

use super::{
    layout::{self, Checkpoint},
    store::{Order, Store, StoreError},
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
    let mut epoch = epoch
        .ok_or_else(|| layout::corrupt(layout::EPOCH_KEY))?
        .into();
    if store.get(layout::PLACE_KEY)? != Some(layout::encode_place(store.place()?)) {
        // A copy, such as a backup that was put back: clients may know positions that it will give to other deltas.
        epoch = renew(store)?;
    }
    let checkpoint = match store.get(layout::CHECKPOINT_KEY)? {
        Some(record) => Checkpoint::decode(&record)?,
        None => Checkpoint::default(),
    };
    Ok((epoch, checkpoint))
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
    store.commit(vec![put(
        layout::FORMAT_KEY.to_vec(),
        layout::encode_format(),
    )])?;
    Ok((renew(store)?, Checkpoint::default()))
}

/// Begins a new epoch.
pub fn renew(store: &dyn Store) -> Result<Epoch, StoreError> {
    let epoch: Epoch = Uuid::new_v4().simple().to_string().into();
    let place = layout::encode_place(store.place()?);
    store.commit(vec![
        put(layout::EPOCH_KEY.to_vec(), epoch.as_bytes().to_vec()),
        put(layout::PLACE_KEY.to_vec(), place),
    ])?;
    store.flush()?;
    Ok(epoch)
}
