//! Which partition a record goes to: the same choice as Java's default partitioner, so that keys written by either client
//! meet in the same partition. Answers to `Utils.murmur2`, `BuiltInPartitioner` (KIP-480, KIP-794).

/// Murmur2 with the seed and the arithmetic of Java's clients (32-bit, little-endian words).
pub fn murmur2(data: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let mut h = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = word.iter().rev().fold(0u32, |k, byte| (k << 8) | u32::from(*byte));
        k = k.wrapping_mul(M);
        k ^= k >> 24;
        k = k.wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        h ^= rest.iter().rev().fold(0u32, |k, byte| (k << 8) | u32::from(*byte));
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^= h >> 15;
    h as i32
}

/// The partition of a keyed record. `partitions` is at least 1.
pub fn partition_for_key(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & i32::MAX) % partitions.max(1)
}

/// Spreads keyless records: stays on one partition until about one batch of bytes went there, then moves to another at
/// random.
#[derive(Debug)]
pub(crate) struct Sticky {
    current: i32,
    bytes: usize,
    state: u64,
}

impl Sticky {
    pub(crate) fn new(seed: u64) -> Self {
        Self { current: -1, bytes: 0, state: seed | 1 }
    }

    /// `available` are partitions that have a leader; falls back to all when there is none.
    pub(crate) fn pick(&mut self, available: &[i32], partitions: i32, record_bytes: usize, batch_bytes: usize) -> i32 {
        let stay = self.bytes < batch_bytes && self.current >= 0 && self.current < partitions;
        if !stay || !(available.is_empty() || available.contains(&self.current)) {
            let random = self.next();
            let other = available.get((random % available.len().max(1) as u64) as usize).copied();
            self.current = other.unwrap_or((random % partitions.max(1) as u64) as i32);
            self.bytes = 0;
        }
        self.bytes = self.bytes.saturating_add(record_bytes);
        self.current
    }

    /// xorshift64*: good enough to spread load.
    fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that `org.apache.kafka.common.utils.Utils.murmur2` returns.
    #[test]
    fn murmur2_is_javas() {
        let golden: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, hash) in golden {
            assert_eq!(murmur2(key), hash, "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn sticky_stays_for_a_batch_and_avoids_leaderless_partitions() {
        let mut sticky = Sticky::new(7);
        let first = sticky.pick(&[0, 2], 3, 60, 100);
        assert_eq!(sticky.pick(&[0, 2], 3, 60, 100), first);
        for _ in 0..50 {
            assert_ne!(sticky.pick(&[0, 2], 3, 100, 100), 1);
        }
        assert_eq!(sticky.pick(&[], 1, 1, 100), 0);
    }
}
