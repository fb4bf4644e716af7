//! What Roomwire answers over HTTP, and the way from an HTTP connection to a session.

pub mod error;
pub mod health;
pub mod history;
pub mod page;
pub mod publish;
pub mod query;
pub mod routes;
pub mod websocket;
