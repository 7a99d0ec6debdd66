//! The combiner by examples, and a log of the JVM.

use bytes::Bytes;
use taccola_wire::batch::{RecordIter, batches};

use super::*;
use crate::cluster_image::EmptyImage;
use crate::coordinator_shard::CoordinatorShard;

/// The partition as Kafka 4.3.1 wrote it with a snapshot after three updates: two partitions of a topic, consumed, reset,
/// deleted; a second group that consumed nothing.
const SEGMENT: &[u8] = include_bytes!("../../testdata/jvm_4_3_1.share_group_state.log");

#[test]
fn a_log_of_the_jvm_loads_and_is_written_again_to_the_byte() {
    let config = ShareStateConfig { updates_per_snapshot: 3, ..Default::default() };
    let mut shard = ShareStateShard::new(config, Arc::new(EmptyImage), 0);
    let (mut records, mut seen) = (0, Vec::new());
    for batch in batches(SEGMENT) {
        let batch = Bytes::copy_from_slice(batch.unwrap().bytes);
        for record in RecordIter::new(&batch).unwrap() {
            let record = record.unwrap();
            let (key, value) = (record.key.unwrap(), record.value);
            let (share_partition, change) = records::decode(&key, value.as_ref()).unwrap().unwrap();
            let encoded = records::encode(&share_partition, &change).unwrap();
            assert_eq!((encoded.key, encoded.value), (key.clone(), value.clone()));
            shard.replay(record.offset, -1, &key, value.as_ref()).unwrap();
            if &*share_partition.group_id == "g1" && share_partition.partition == 1 {
                let state = shard.state(&share_partition);
                seen.push(state.map(|s| (s.snapshot_epoch, s.state_epoch, s.start_offset, s.batches.clone())));
            }
            records += 1;
        }
    }
    assert_eq!(records, 12);
    assert_eq!(
        seen,
        [
            Some((0, 2, -1, vec![])),
            Some((0, 2, 0, vec![batch(0, 4, 1, 2)])),
            Some((0, 2, 5, vec![batch(5, 9, 1, 2)])),
            Some((0, 2, 10, vec![batch(10, 14, 1, 2)])),
            Some((1, 10, 0, vec![])),
            None
        ]
    );
}

fn batch(first_offset: i64, last_offset: i64, delivery_count: i16, delivery_state: i8) -> StateBatch {
    StateBatch { first_offset, last_offset, delivery_count, delivery_state }
}

#[test]
fn a_later_delivery_overwrites_an_earlier_one() {
    let so_far = [batch(0, 10, 1, 0)];
    assert_eq!(
        combine(&so_far, &[batch(3, 5, 2, 0)], NO_START_OFFSET),
        [batch(0, 2, 1, 0), batch(3, 5, 2, 0), batch(6, 10, 1, 0)]
    );
    assert_eq!(combine(&[batch(3, 5, 2, 0)], &so_far, NO_START_OFFSET), combine(&so_far, &[batch(3, 5, 2, 0)], -1));
}
