//! Memory permits: request bytes that the whole process holds at a time. A frame gets its permit before its body is
//! read, so a flood of large requests waits in the kernel's socket buffers instead of in this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Frames up to this many bytes need no permit: their number is bounded by that of the connections.
pub const UNCOUNTED_FRAME_BYTES: usize = 16 * 1024;
const UNIT_BYTES: usize = 1024;

/// A budget of request bytes, shared by all listeners. When it is spent, connections with large requests stop reading.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    permits: Arc<Semaphore>,
    units: u32,
    waiting: Arc<AtomicUsize>,
}

/// Counts one that waits, until dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A share of the budget, given back when dropped.
#[derive(Debug)]
pub struct MemoryPermit(#[allow(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>);

impl MemoryBudget {
    /// A budget of `bytes`, rounded up to whole KiB.
    pub fn new(bytes: usize) -> Self {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX >> 4).max(1);
        Self { permits: Arc::new(Semaphore::new(units as usize)), units, waiting: Arc::default() }
    }

    /// A permit at once, or `None` when the budget has no room for `bytes` now.
    pub fn try_acquire(&self, bytes: usize) -> Option<MemoryPermit> {
        if bytes <= UNCOUNTED_FRAME_BYTES {
            return Some(MemoryPermit(None));
        }
        let permit = self.permits.clone().try_acquire_many_owned(self.units_of(bytes)).ok()?;
        Some(MemoryPermit(Some(permit)))
    }

    /// Whether somebody waits for a permit.
    pub(crate) fn is_contended(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    fn units_of(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(self.units)
    }

    /// Waits until `bytes` may be held. A frame larger than the whole budget gets all of it, so it is still served, alone.
    pub async fn acquire(&self, bytes: usize) -> MemoryPermit {
        if bytes <= UNCOUNTED_FRAME_BYTES {
            return MemoryPermit(None);
        }
        let units = self.units_of(bytes);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        // The semaphore is never closed, so the only error cannot occur; without a permit the frame would just be uncounted.
        MemoryPermit(self.permits.clone().acquire_many_owned(units).await.ok())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_spent_budget_makes_the_next_frame_wait() {
        let budget = MemoryBudget::new(100 * 1024);
        let first = budget.acquire(80 * 1024).await;
        let small = budget.acquire(UNCOUNTED_FRAME_BYTES).await;
        assert!(budget.acquire(40 * 1024).now_or_never().is_none());
        assert!(budget.try_acquire(40 * 1024).is_none());
        assert!(!budget.is_contended(), "who gave up does not wait");
        let mut third = Box::pin(budget.acquire(40 * 1024));
        assert!(third.as_mut().now_or_never().is_none());
        assert!(budget.is_contended());
        drop(third);
        drop((first, small));
        assert!(budget.acquire(40 * 1024).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_frame_above_the_whole_budget_is_served_alone() {
        let budget = MemoryBudget::new(64 * 1024);
        let all = budget.acquire(10 * 1024 * 1024).await;
        assert!(budget.acquire(20 * 1024).now_or_never().is_none());
        drop(all);
    }
}
