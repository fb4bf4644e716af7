//! What Roomwire answers over HTTP, and the way from an HTTP connection to a session.

pub mod erase;
pub mod error;
pub mod health;
pub mod history;
pub mod page;
pub mod publish;
pub mod query;
pub mod rooms;
pub mod routes;
pub mod websocket;
