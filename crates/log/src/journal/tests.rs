//! Tests of the journal as a whole: crashes and damage over a simulated disk, real files, and group commit.

mod crash;
mod damage;
mod files;
mod sim_disk;

use taccola_base::Uuid;

use super::{EntryHeader, EntryKind, JournalIdentity};

fn identity() -> JournalIdentity {
    JournalIdentity { cluster_id: "test-cluster".into(), node_id: 1, directory_id: Uuid::from_u128(7 << 100) }
}

fn entry(partition: i32, base_offset: i64, next_offset: i64) -> EntryHeader<'static> {
    EntryHeader {
        kind: EntryKind::Append,
        topic_id: Uuid::from_u128(1 << 77),
        topic: "orders",
        partition,
        base_offset,
        next_offset,
    }
}

/// SplitMix64: the same seed gives the same run.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}
