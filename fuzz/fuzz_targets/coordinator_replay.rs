//! A partition of `__consumer_offsets` with any records: replaying them never panics, whatever they say, nor does what the
//! coordinator does once it has loaded them.
//!
//! The input is a run of records: a byte of flags (1: no value, 2: of a transaction, 4: the end of one, 8: committed), the
//! lengths of key and value as two bytes each, then both.
#![no_main]

use std::sync::Arc;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use taccola_coord::cluster_image::EmptyImage;
use taccola_coord::{GroupConfig, GroupShard};
use taccola_wire::messages::ListGroupsRequest;

const PRODUCER_ID: i64 = 7;

/// The next record, and what is behind it; `None` at the end.
fn record(data: &Bytes) -> Option<(u8, Bytes, Bytes, Bytes)> {
    let head = data.first_chunk::<5>()?;
    let [flags, key_high, key_low, value_high, value_low] = *head;
    let rest = data.slice(5..);
    let key_len = usize::from(u16::from_be_bytes([key_high, key_low])).min(rest.len());
    let value_len = usize::from(u16::from_be_bytes([value_high, value_low])).min(rest.len() - key_len);
    let value = rest.slice(key_len..key_len + value_len);
    Some((flags, rest.slice(..key_len), value, rest.slice(key_len + value_len..)))
}

fuzz_target!(|data: &[u8]| {
    let mut data = Bytes::copy_from_slice(data);
    let mut shard = GroupShard::new(GroupConfig::default(), Arc::new(EmptyImage));
    let mut offset = 0;
    while let Some((flags, key, value, rest)) = record(&data) {
        data = rest;
        if flags & 4 != 0 {
            shard.replay_end_transaction(PRODUCER_ID, flags & 8 != 0);
        } else {
            let producer_id = if flags & 2 != 0 { PRODUCER_ID } else { -1 };
            let value = (flags & 1 == 0).then_some(value);
            // What cannot be understood is an error, and the partition is not served; the next record is as good a test.
            let _ = shard.replay(offset, producer_id, &key, value.as_ref());
        }
        offset += 1;
    }
    let _ = shard.loaded(1_000);
    let _ = shard.list_groups(&ListGroupsRequest::default());
});
