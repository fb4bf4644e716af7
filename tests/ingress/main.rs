//! Other producers, who publish to an exchange: what they send is in the log once and in order, or
//! put away with the reason.

#[path = "../common/mod.rs"]
mod common;

mod examples;
mod faults;
mod messages;
mod rejected;

mod world;
