//! What a room remembers: its history, what is trimmed from it, and which publishes repeat an
//! earlier one.
//!
//! [`history`] is what all others read, [`writer`] the only one that writes. Both stand on
//! [`store`], a small ordered key-value seam, and on `layout`, which names every key and record.
//! [`retention`] and [`dedup`] decide; they know no store and no clock.

pub mod dedup;
mod expiry;
pub mod history;
mod identity;
mod layout;
pub mod retention;
pub mod store;
pub mod store_memory;
pub mod store_sled;
pub mod writer;
