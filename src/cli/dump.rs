//! The lines that `export` writes and `import` reads.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// One delta of a history.
#[derive(Debug, Serialize, Deserialize)]
pub struct Line {
    pub room: String,
    /// Where it stood in the log that it was exported from.
    #[serde(default)]
    pub offset: u64,
    /// Milliseconds since the Unix epoch.
    #[serde(default)]
    pub time: u64,
    /// Its idempotency key, or the id that the server made for it.
    pub id: String,
    /// The client that published it through its socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<Box<RawValue>>,
    pub data: Box<RawValue>,
}
