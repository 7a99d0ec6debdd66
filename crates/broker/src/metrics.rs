//! Counters of the broker. Each is one relaxed atomic: cheap enough for the data path.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub struct Metrics {
    bytes_in: AtomicU64,
}

impl Metrics {
    /// A batch of this many bytes was appended for a client.
    pub fn produced(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes of batches that clients produced since the start.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }
}
