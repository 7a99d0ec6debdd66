//! The long poll's waiter. One fetch registers one waiter on each of its partitions; every partition that makes more
//! bytes visible tells it how many, and the fetch wakes once the sum reaches `min.bytes`. Nothing is polled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use tokio::sync::Notify;

/// Waiters that one partition keeps before it looks for finished ones among them.
const SWEEP_LEN: usize = 16;

#[derive(Debug)]
pub struct FetchWaiter {
    /// Bytes that are still missing until the fetch shall be answered.
    missing: AtomicI64,
    finished: AtomicBool,
    wake: Notify,
}

impl FetchWaiter {
    pub fn new(min_bytes: i64) -> Arc<Self> {
        Arc::new(Self { missing: AtomicI64::new(min_bytes), finished: AtomicBool::new(false), wake: Notify::new() })
    }

    /// `bytes` more became visible.
    pub fn add(&self, bytes: i64) {
        if self.missing.fetch_sub(bytes, Ordering::AcqRel) <= bytes {
            self.wake.notify_one();
        }
    }

    /// The fetch must look again whatever its size: an error, a changed leader, a deleted topic.
    pub fn wake(&self) {
        self.missing.store(0, Ordering::Release);
        self.wake.notify_one();
    }

    /// Waits until enough bytes are visible. Cancel safe.
    pub async fn woken(&self) {
        while self.missing.load(Ordering::Acquire) > 0 {
            self.wake.notified().await;
        }
    }

    /// The fetch was answered: partitions may forget the waiter.
    pub fn finish(&self) {
        self.finished.store(true, Ordering::Release);
    }
}

/// The waiters of one partition. Bounded by the fetches under way: finished ones are swept out as the list grows.
#[derive(Debug, Default)]
pub struct WaiterList {
    waiters: Vec<Arc<FetchWaiter>>,
    sweep_at: usize,
}

impl WaiterList {
    pub fn register(&mut self, waiter: Arc<FetchWaiter>) {
        if self.waiters.len() >= self.sweep_at.max(SWEEP_LEN) {
            self.waiters.retain(|waiter| !waiter.finished.load(Ordering::Acquire));
            self.sweep_at = self.waiters.len() * 2;
        }
        self.waiters.push(waiter);
    }

    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    pub fn add(&mut self, bytes: i64) {
        self.waiters.retain(|waiter| {
            if waiter.finished.load(Ordering::Acquire) {
                return false;
            }
            waiter.add(bytes);
            waiter.missing.load(Ordering::Acquire) > 0
        });
    }

    pub fn wake_all(&mut self) {
        for waiter in self.waiters.drain(..) {
            waiter.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_fetch_wakes_when_the_sum_over_partitions_is_enough() {
        let waiter = FetchWaiter::new(10);
        let (mut a, mut b) = (WaiterList::default(), WaiterList::default());
        a.register(waiter.clone());
        b.register(waiter.clone());
        a.add(6);
        assert!(tokio::time::timeout(std::time::Duration::from_millis(1), waiter.woken()).await.is_err());
        b.add(4);
        waiter.woken().await;
    }

    #[test]
    fn finished_waiters_do_not_pile_up() {
        let mut list = WaiterList::default();
        for _ in 0..10_000 {
            let waiter = FetchWaiter::new(1);
            list.register(waiter.clone());
            waiter.finish();
        }
        assert!(list.waiters.len() <= SWEEP_LEN * 2);
    }
}
