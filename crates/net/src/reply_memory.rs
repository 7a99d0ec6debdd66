//! Reply bytes that the whole process holds for clients that have not read them yet. Records that were fetched stay in
//! memory until the socket has taken them, so clients that ask for much and read nothing would fill it.
//!
//! Beyond the bound no further fetch is started, and whoever has not read a byte for a while is cut off. Below it a slow
//! reader is left in peace, as with Kafka. A fetch reserves what it is about to read, so that many that wake at once
//! share what room there is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The count of all connections together.
#[derive(Clone, Debug)]
pub struct ReplyMemory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    held: AtomicUsize,
    bytes_max: usize,
    freed: Notify,
}

/// What one connection or fetch holds of it, given back when dropped.
#[derive(Debug)]
pub struct ReplyShare {
    memory: ReplyMemory,
    held: usize,
}

impl ReplyMemory {
    pub fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Shared { held: AtomicUsize::new(0), bytes_max, freed: Notify::new() }))
    }

    /// Whether more is held than may be.
    pub fn is_spent(&self) -> bool {
        self.0.held.load(Ordering::Relaxed) > self.0.bytes_max
    }

    /// Resolves once there is room.
    pub(crate) async fn room(&self) {
        loop {
            let mut freed = std::pin::pin!(self.0.freed.notified());
            freed.as_mut().enable();
            if !self.is_spent() {
                return;
            }
            freed.await;
        }
    }

    /// A share of `bytes`, or of what room there is, but never of less than `bytes_min`.
    pub fn reserve(&self, bytes: usize, bytes_min: usize) -> ReplyShare {
        let mut share = self.share();
        let mut held = self.0.held.load(Ordering::Relaxed);
        loop {
            let granted = bytes.min(self.0.bytes_max.saturating_sub(held).max(bytes_min));
            match self.0.held.compare_exchange_weak(held, held + granted, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    share.held = granted;
                    return share;
                }
                Err(now) => held = now,
            }
        }
    }

    pub(crate) fn share(&self) -> ReplyShare {
        ReplyShare { memory: self.clone(), held: 0 }
    }
}

impl ReplyShare {
    pub fn bytes(&self) -> usize {
        self.held
    }

    /// Sets what is held now.
    pub fn set(&mut self, bytes: usize) {
        let shared = &self.memory.0;
        if bytes >= self.held {
            shared.held.fetch_add(bytes - self.held, Ordering::Relaxed);
        } else {
            let before = shared.held.fetch_sub(self.held - bytes, Ordering::Relaxed);
            if before > shared.bytes_max {
                shared.freed.notify_waiters();
            }
        }
        self.held = bytes;
    }

    pub(crate) fn memory(&self) -> &ReplyMemory {
        &self.memory
    }
}

impl Drop for ReplyShare {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn room_comes_back_with_the_bytes() {
        let memory = ReplyMemory::new(100);
        let (mut a, mut b) = (memory.share(), memory.share());
        a.set(60);
        assert!(memory.room().now_or_never().is_some());
        b.set(60);
        let mut room = Box::pin(memory.room());
        assert!(room.as_mut().now_or_never().is_none());
        drop(b);
        room.await;
        a.set(10);
        assert!(!memory.is_spent());
    }

    #[test]
    fn who_comes_late_reserves_what_is_left_and_a_little_always() {
        let memory = ReplyMemory::new(100);
        let mut first = memory.reserve(70, 10);
        let second = memory.reserve(70, 10);
        let third = memory.reserve(70, 10);
        assert_eq!([first.bytes(), second.bytes(), third.bytes()], [70, 30, 10]);
        assert!(memory.is_spent());
        first.set(5);
        assert!(!memory.is_spent());
        assert_eq!(memory.reserve(7, 10).bytes(), 7, "no more than was asked for");
    }
}
