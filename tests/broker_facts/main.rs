//! What a real RabbitMQ does with streams over AMQP 0.9.1, as far as the log depends on it: where a
//! consumer starts, what a confirm says, how a lost stream is recognised, and what a fault looks
//! like from outside.

#[path = "../common/mod.rs"]
mod common;

mod confirms;
mod faults;
mod identity;
mod offsets;
mod permissions;
mod probe;
