//! What Roomwire answers over HTTP, and the way from an HTTP connection to a session.

pub mod body;
pub mod centrifugo;
pub mod connection;
mod credentials;
pub mod emulation;
pub mod erase;
pub mod error;
pub mod events;
pub mod health;
pub mod history;
pub mod openapi;
pub mod origin;
pub mod page;
pub mod polling;
pub mod publish;
pub mod query;
pub mod reading;
pub mod revoke;
pub mod rooms;
pub mod routes;
pub mod websocket;
