//! Roomwire pushes small deltas to rooms of clients, in one order, and replays exactly what a client missed.
pub mod cli;
pub mod client;
pub mod delta;
pub mod log;
