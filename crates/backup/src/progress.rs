//! How far a run is: counters that whoever shows them reads while the run goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
struct Counters {
    partitions: AtomicU64,
    partitions_done: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
}

/// Cheap to clone; clones count together.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Counters>);

/// One reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    pub partitions: u64,
    pub partitions_done: u64,
    pub records: u64,
    pub bytes: u64,
}

impl Progress {
    pub fn read(&self) -> Reading {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Reading {
            partitions: of(&self.0.partitions),
            partitions_done: of(&self.0.partitions_done),
            records: of(&self.0.records),
            bytes: of(&self.0.bytes),
        }
    }

    pub(crate) fn expect(&self, partitions: usize) {
        self.0.partitions.store(partitions as u64, Ordering::Relaxed);
    }

    pub(crate) fn partition_done(&self) {
        self.0.partitions_done.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, records: u64, bytes: u64) {
        self.0.records.fetch_add(records, Ordering::Relaxed);
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}
