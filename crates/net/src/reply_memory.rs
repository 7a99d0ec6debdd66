//! Reply bytes that the whole process holds for clients that have not read them yet. Records that were fetched stay in
//! memory until the socket has taken them, so clients that ask for much and read nothing would fill it.
//!
//! Beyond the bound no further fetch is started, and whoever has not read a byte for a while is cut off. Below it a slow
//! reader is left in peace, as with Kafka.

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

/// What one connection holds of it, given back when dropped.
#[derive(Debug)]
pub(crate) struct ReplyShare {
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

    pub(crate) fn share(&self) -> ReplyShare {
        ReplyShare { memory: self.clone(), held: 0 }
    }
}

impl ReplyShare {
    /// Sets what the connection holds now.
    pub(crate) fn set(&mut self, bytes: usize) {
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
}
