//! Counters of the broker. Each is one relaxed atomic: cheap enough for the data path.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub struct Metrics {
    bytes_in: AtomicU64,
    scrubbed_bytes: AtomicU64,
    scrub_passes: AtomicU64,
    damaged_ranges: AtomicU64,
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

    /// The scrubber read this many bytes.
    pub fn scrubbed(&self, bytes: u64) {
        self.scrubbed_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The scrubber has looked at everything once more.
    pub fn scrub_passed(&self) {
        self.scrub_passes.fetch_add(1, Ordering::Relaxed);
    }

    /// A damaged range that was not known before.
    pub fn damage_found(&self) {
        self.damaged_ranges.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes, passes, and damaged ranges found by the scrubber since the start.
    pub fn scrub(&self) -> (u64, u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.scrubbed_bytes), read(&self.scrub_passes), read(&self.damaged_ranges))
    }
}
