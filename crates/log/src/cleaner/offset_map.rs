//! The map from a key's hash to the offset of its last record in the dirty part. Answers to Kafka's `SkimpyOffsetMap`.
//!
//! Keys are known by a keyed 128-bit hash: two keys that collide would cost the older one's record, so nobody may be able
//! to choose them. The map grows as keys come, up to its bound.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use siphasher::sip128::{Hasher128, SipHasher13};

use super::CleanerLimits;
use crate::partition_log::Offset;

/// What one entry takes: hash, offset and the table's own overhead at its fullest after it doubled.
const ENTRY_BYTES: u64 = 24 * 2 + 4;

pub(super) struct OffsetMap {
    offsets: HashMap<u128, Offset, BuildHasherDefault<Halved>>,
    entries_max: usize,
    hasher: SipHasher13,
    /// Exclusive end of what the map has seen.
    pub(super) end_offset: Offset,
    begin_offset: Offset,
    refused: bool,
}

impl OffsetMap {
    pub(super) fn new(limits: CleanerLimits, begin_offset: Offset) -> Self {
        Self {
            offsets: HashMap::default(),
            entries_max: usize::try_from(limits.map_bytes / ENTRY_BYTES).unwrap_or(usize::MAX).max(1),
            hasher: SipHasher13::new_with_keys(limits.hash_key.0, limits.hash_key.1),
            end_offset: begin_offset,
            begin_offset,
            refused: false,
        }
    }

    pub(super) fn hash(&self, key: &[u8]) -> u128 {
        let mut hasher = self.hasher;
        hasher.write(key);
        hasher.finish128().as_u128()
    }

    /// Whether so many more keys surely fit.
    pub(super) fn has_room_for(&mut self, records: i32) -> bool {
        let fits = self.offsets.len().saturating_add(usize::try_from(records).unwrap_or(0)) <= self.entries_max;
        self.refused |= !fits;
        fits
    }

    /// The map refused the very first batch.
    pub(super) fn is_empty_but_full(&self) -> bool {
        self.refused && self.end_offset == self.begin_offset
    }

    pub(super) fn put(&mut self, hash: u128, offset: Offset) {
        let last = self.offsets.entry(hash).or_insert(offset);
        *last = (*last).max(offset);
    }

    /// The last offset of the key in the dirty part.
    pub(super) fn get(&self, key: &[u8]) -> Option<Offset> {
        self.offsets.get(&self.hash(key)).copied()
    }
}

/// The keys are hashes already: half of one is as good as any.
#[derive(Default)]
pub(super) struct Halved(u64);

impl Hasher for Halved {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}
