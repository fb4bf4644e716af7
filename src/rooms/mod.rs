//! Rooms without actors: what a subscriber is owed, who gets what is live, and what is kept.
//!
//! [`sequence`] is one room as its subscribers see it, [`fanout`] one worker's table of wires. [`history`] is what all
//! others read, [`writer`] the only one that writes. Both stand on [`store`], a small ordered key-value seam, and on
//! `layout`, which names every key and record. [`retention`], [`dedup`] and [`producers`] decide; they know no
//! store and no clock.

mod catalogue;
mod checkpoint;
pub mod compaction;
pub mod dedup;
mod erasing;
mod expiry;
pub mod fanout;
pub mod history;
pub mod identity;
mod layout;
pub mod offline;
pub mod producers;
mod renewal;
pub mod retention;
pub mod sequence;
pub mod store;
pub mod store_memory;
pub mod store_sled;
pub mod writer;
