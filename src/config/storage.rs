//! What the store may take of memory and disk.

use super::{
    reader::Reader,
    units::{GIB, MIB, TIB},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// Bytes of memory for the store's page cache.
    pub cache: u64,
    /// Bytes of the disk that stay free: below it, nothing new is accepted, while replay goes on.
    pub reserve: u64,
}

impl Storage {
    pub(super) fn read(from: &mut Reader) -> Self {
        Self {
            cache: from.size("storage.cache", 64 * MIB, MIB..=64 * GIB),
            reserve: from.size("storage.reserve", 64 * MIB, 0..=1024 * TIB),
        }
    }
}
