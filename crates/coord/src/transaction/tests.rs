//! A log of Kafka 4.3.1: it loads, and its records are written again to the byte.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use taccola_wire::batch::{RecordIter, batches};

use super::metadata::{End, Metadata, State};
use super::records::{self, Record};
use super::*;
use crate::CoordinatorShard;
use crate::cluster_image::EmptyImage;

/// Batches of `__transaction_state` as Kafka 4.3.1 wrote them at `transaction.version` 2, then 1, then 0: clients of both
/// versions, fences, timeouts, epochs that ran out.
const SEGMENTS: &[u8] = include_bytes!("../../testdata/transaction_jvm_4_3_1.transaction_state.log");

fn stored() -> Vec<(Bytes, Option<Bytes>)> {
    let mut stored = Vec::new();
    for batch in batches(SEGMENTS) {
        let batch = Bytes::copy_from_slice(batch.unwrap().bytes);
        for record in RecordIter::new(&batch).unwrap() {
            let record = record.unwrap();
            stored.push((record.key.unwrap(), record.value));
        }
    }
    stored
}

#[test]
fn a_log_of_the_jvm_loads() {
    let mut shard = TransactionShard::new(TransactionConfig::default(), Arc::new(EmptyImage), 1);
    for (key, value) in stored() {
        shard.replay(0, -1, &key, value.as_ref()).unwrap();
    }
    let effects = shard.loaded(0);
    assert!(effects.records.is_empty() && effects.actions.is_empty(), "nothing is under way: {effects:?}");
    let rows: Vec<String> = ["a", "b", "c", "ova", "ovb", "ovc", "ovd", "ove"]
        .into_iter()
        .map(|id| {
            let t = shard.describe_transaction(id);
            format!("{id} {} {}/{}", t.transaction_state, t.producer_id, t.producer_epoch)
        })
        .collect();
    let expected = [
        "a CompleteAbort 0/6",
        "b Empty 1/1",
        "c Empty 2/1",
        "ova CompleteAbort 8/1",
        "ovb Empty 9/1",
        "ovc Empty 10/1",
        "ovd CompleteAbort 11/0",
        "ove Empty 12/0",
    ];
    assert_eq!(rows, expected);
}

/// Partitions of one topic are in the order of a hash set in Kafka, here in their own: records with several are left out.
#[test]
fn records_are_written_as_the_jvm_writes_them() {
    let mut written = BTreeMap::new();
    for (key, value, id, metadata) in states() {
        if metadata.partitions.len() < 2 {
            let record = records::state(&id, &metadata, level(value.as_ref())).unwrap();
            assert_eq!((record.key, record.value), (key, value), "{id} {metadata:?}");
            *written.entry(metadata.state.name()).or_insert(0) += 1;
        }
    }
    let counts = r#"{"CompleteAbort": 12, "CompleteCommit": 8, "Empty": 46, "Ongoing": 16, "PrepareAbort": 11, "PrepareCommit": 6}"#;
    assert_eq!(format!("{written:?}"), counts);
}

fn states() -> Vec<(Bytes, Option<Bytes>, String, Metadata)> {
    let stored = stored().into_iter();
    let states = stored.map(|(key, value)| match records::read(&key, value.as_ref()).unwrap() {
        Record::State(id, metadata) => (key, value, id, *metadata),
        other => panic!("{other:?}"),
    });
    states.collect()
}

/// A level of `transaction.version` at which values have this one's version.
fn level(value: Option<&Bytes>) -> i16 {
    i16::from_be_bytes(*value.unwrap().first_chunk().unwrap())
}

/// From each state that Kafka wrote, the same operation leads to the state that it wrote next.
#[test]
fn states_follow_each_other_as_in_the_jvm() {
    let mut before: BTreeMap<String, Metadata> = BTreeMap::new();
    let mut steps = 0;
    for (_, value, id, after) in states() {
        let previous = before.insert(id.clone(), after.clone());
        // Long rows of InitProducerId are left out of the file.
        let Some(previous) = previous.filter(|p| i32::from(p.producer_epoch) + 1 >= i32::from(after.producer_epoch))
        else {
            continue;
        };
        let now_ms = after.last_update_ms;
        let timeout_ms = after.timeout_ms;
        let candidates = match after.state {
            State::Empty => vec![
                previous.bumped(None, timeout_ms, now_ms),
                Some(previous.rotated(after.producer_id, true, timeout_ms, now_ms)),
                Metadata { last_producer_epoch: 7, ..previous.clone() }.bumped(Some(7), timeout_ms, now_ms),
            ],
            State::Ongoing => {
                vec![Some(previous.with_partitions(after.partitions.clone(), after.client_version, now_ms))]
            }
            State::PrepareCommit | State::PrepareAbort => {
                let end = End {
                    commit: after.state == State::PrepareCommit,
                    transaction_version: after.client_version,
                    next_producer_id: after.next_producer_id,
                    fence: false,
                };
                let fence = End { fence: true, ..end };
                vec![Some(previous.prepared(end, now_ms)), Some(previous.prepared(fence, now_ms))]
            }
            _ => vec![Some(previous.completed(now_ms))],
        };
        let written = |m: &Metadata| records::state(&id, m, level(value.as_ref())).unwrap().value;
        let same = candidates.iter().flatten().any(|m| written(m) == value || m.partitions.len() > 1);
        assert!(same, "{id}\n{previous:?}\n{after:?}\n{candidates:?}");
        steps += 1;
    }
    assert_eq!(steps, 88);
}
