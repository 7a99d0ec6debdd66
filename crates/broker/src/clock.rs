//! The broker's wall clock. Engines never read it: they are handed what this says.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, as records and checkpoints carry them.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
