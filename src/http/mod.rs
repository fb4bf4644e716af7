//! What Roomwire answers over HTTP.

pub mod error;
