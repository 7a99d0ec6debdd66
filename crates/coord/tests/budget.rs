//! What loading a coordinator's partition costs in memory: no record whatever makes a shard allocate more than a multiple of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../../wire/tests/common/counting.rs"]
mod counting;

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use counting::peak;
use taccola_base::limits::{DECODE_BUDGET_FACTOR, DECODE_BUDGET_FLOOR};
use taccola_coord::cluster_image::EmptyImage;
use taccola_coord::share_state::{ShareStateConfig, ShareStateShard};
use taccola_coord::transaction::{TransactionConfig, TransactionShard};
use taccola_coord::{CoordinatorShard, GroupConfig, GroupShard};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// Of the kinds that are known: most keys begin with a name.
fn key(random: &mut Random) -> Bytes {
    let mut key = BytesMut::new();
    key.put_i16(random.below(22) as i16);
    for _ in 0..2 {
        key.put_i16(1);
        key.put_u8(b'a' + random.below(3) as u8);
    }
    key.put_bytes(0, random.below(24));
    key.freeze()
}

/// A version, and counts that name what is not there.
fn value(random: &mut Random) -> Bytes {
    let mut value = BytesMut::new();
    value.put_i16(random.below(4) as i16);
    for _ in 0..random.below(40) {
        match random.below(6) {
            0 => value.put_i32(i32::MAX),
            1 => value.put_slice(&[0xff, 0xff, 0xff, 0xff, 0x07]),
            2 => value.put_slice(&[1, b'x']),
            3 => value.put_bytes(1, random.below(200)),
            4 => value.put_i16(i16::MAX),
            _ => value.put_bytes(0, random.below(20)),
        }
    }
    value.freeze()
}

fn replays<S: CoordinatorShard>(config: S::Config) {
    let mut random = Random(0xc004d);
    let mut shard = S::new(config, Arc::new(EmptyImage), 0);
    for offset in 0..20_000 {
        let (key, value) = (key(&mut random), (random.below(8) > 0).then(|| value(&mut random)));
        let size = key.len() + value.as_ref().map_or(0, Bytes::len);
        // Tables grow by doubling: what they hold is counted once, as a new group or member.
        let allowed = size * DECODE_BUDGET_FACTOR * 2 + DECODE_BUDGET_FLOOR + (1 << 20);
        let (_, used) = peak(|| shard.replay(offset, -1, &key, value.as_ref()).is_ok());
        assert!(used <= allowed, "{}: {used} bytes for {size}: {key:?} {value:?}", S::TOPIC);
    }
}

#[test]
fn groups() {
    replays::<GroupShard>(GroupConfig::default());
}

#[test]
fn transactions() {
    replays::<TransactionShard>(TransactionConfig::default());
}

#[test]
fn share_state() {
    replays::<ShareStateShard>(ShareStateConfig::default());
}
