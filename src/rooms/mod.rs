//! Rooms without actors: what a subscriber is owed, who gets what is live, and what is kept.

pub mod fanout;
pub mod sequence;
