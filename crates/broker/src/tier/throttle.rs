//! Bytes per second, shared by all that copies (or fetches).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Hands out bytes at a steady rate; a rate beyond any device is no rate.
pub(super) struct Throttle {
    bytes_per_second: AtomicU64,
    /// When what was handed out is used up.
    free_at: Mutex<Option<Instant>>,
}

impl Throttle {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: AtomicU64::new(bytes_per_second), free_at: Mutex::default() }
    }

    /// Another rate, for what is asked for from now on.
    pub(super) fn set(&self, bytes_per_second: u64) {
        self.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Waits until `bytes` may go.
    pub(super) async fn take(&self, bytes: usize) {
        const NO_LIMIT: u64 = 1 << 50;
        let rate = self.bytes_per_second.load(Ordering::Relaxed);
        if rate >= NO_LIMIT {
            return;
        }
        let cost = Duration::try_from_secs_f64(bytes as f64 / rate.max(1) as f64);
        let at = {
            let mut free_at = self.free_at.lock();
            let now = Instant::now();
            let at = free_at.map_or(now, |at| at.max(now));
            *free_at = at.checked_add(cost.unwrap_or(Duration::from_secs(3_600)));
            at
        };
        tokio::time::sleep_until(at).await;
    }
}
