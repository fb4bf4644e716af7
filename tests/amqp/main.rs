//! The log on RabbitMQ, against real brokers.

#[path = "../common/mod.rs"]
mod common;

mod faults;
mod generations;
mod reading;
mod world;
