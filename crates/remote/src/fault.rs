//! Faults on purpose, for tests: errors, delays, puts that tear, puts that lie. They stand between a [`crate::Store`]'s retries and the
//! store proper, so that retries see them too. Which request meets which fault is decided by a seed, or by a function.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What is about to be asked of the store. An upload in parts asks once for each part and once to complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A whole object.
    Put,
    /// One part of an upload.
    Part,
    /// The end of an upload in parts: only then is there an object.
    Complete,
    /// A range, or a whole object.
    Get,
    /// Size of an object.
    Head,
    /// One page of names.
    List,
    /// Removal of an object.
    Delete,
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing special.
    None,
    /// The request fails and had no effect.
    Error,
    /// The request has its effect, and its reply is lost.
    LostReply,
    /// The request succeeds after a while.
    Delay(Duration),
    /// A put leaves the first half of the object and fails, as no good store does. Like `Error` elsewhere.
    Torn,
    /// A put leaves the first half of the object and reports success; a get gives the first half. Like `None` elsewhere.
    Short,
}

/// How often which fault comes, in thousandths of all requests; the rest is left alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultPlan {
    /// Decides everything; the same seed and the same requests give the same faults.
    pub seed: u64,
    /// [`Fault::Error`].
    pub error: u32,
    /// [`Fault::LostReply`].
    pub lost_reply: u32,
    /// [`Fault::Delay`].
    pub delay: u32,
    /// How long a delay takes.
    pub delay_time: Duration,
    /// [`Fault::Torn`].
    pub torn: u32,
    /// [`Fault::Short`].
    pub short: u32,
}

type Decide = dyn Fn(Operation, &str) -> Fault + Send + Sync;

/// Decides about each request of a store.
#[derive(Clone)]
pub struct Faults(Arc<Decide>);

impl Faults {
    /// By seed.
    pub fn seeded(plan: FaultPlan) -> Self {
        let count = AtomicU64::new(0);
        Self::decide(move |_, _| {
            let n = count.fetch_add(1, Ordering::Relaxed);
            let mut roll = u32::try_from(mix(plan.seed, n) % 1_000).unwrap_or(0);
            for (share, fault) in [
                (plan.error, Fault::Error),
                (plan.lost_reply, Fault::LostReply),
                (plan.delay, Fault::Delay(plan.delay_time)),
                (plan.torn, Fault::Torn),
                (plan.short, Fault::Short),
            ] {
                if roll < share {
                    return fault;
                }
                roll -= share;
            }
            Fault::None
        })
    }

    /// By a function of the request and the object's key.
    pub fn decide(decide: impl Fn(Operation, &str) -> Fault + Send + Sync + 'static) -> Self {
        Self(Arc::new(decide))
    }

    pub(crate) fn next(&self, operation: Operation, key: &str) -> Fault {
        (self.0)(operation, key)
    }
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Faults")
    }
}

/// The finalizer of SplitMix64 over seed and count.
fn mix(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add(n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
