//! What Fetch needs beyond the partitions: sessions (KIP-227) and the waiters of the long poll.

pub mod session;
pub mod waiter;
