//! The client protocol in Protobuf: the same commands, replies and pushes as in JSON, under the numbers of
//! `client.proto`. Fields that are `bytes` there hold JSON.

mod commands;
mod messages;
mod replies;
#[cfg(test)]
mod tests;

pub use self::{
    commands::commands,
    replies::{push, reply},
};

/// The protocol's ping and pong: a message of no bytes, behind its length.
pub const PING: &[u8] = &[0];
