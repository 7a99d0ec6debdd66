//! A log of Kafka 4.3.1: it loads, and its records are written again to the byte. Limits and hostile records.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use taccola_base::limits;
use taccola_wire::batch::{RecordIter, batches};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
use taccola_wire::messages::add_partitions_to_txn_response::AddPartitionsToTxnResult;
use taccola_wire::messages::{EndTxnRequest, InitProducerIdRequest, InitProducerIdResponse};

use super::metadata::{End, Metadata, State};
use super::records::{self, Record};
use super::*;
use crate::cluster_image::EmptyImage;
use crate::{CoordinatorShard, Reply, RequestContext, RequestToken};

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

fn context(token: u64, api_version: i16) -> RequestContext<'static> {
    let token = RequestToken(token);
    RequestContext { token, api_version, client_id: "c", client_host: "/127.0.0.1", fresh_id: [0; 16] }
}

/// Commits what a step wrote.
fn commit<R>(shard: &mut TransactionShard, effects: &TransactionEffects<R>) {
    if let Some(append) = effects.append {
        shard.appended(0, append, 0);
        let _ = shard.committed(0, append, 0);
    }
}

fn init(shard: &mut TransactionShard, id: &str, producer_id: i64) -> TransactionEffects<InitProducerIdResponse> {
    let request = InitProducerIdRequest {
        transactional_id: Some(id.to_owned()),
        transaction_timeout_ms: 1000,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    shard.handle_init_producer_id(0, &context(1, 4), &request, Some(producer_id)).unwrap()
}

fn add(
    shard: &mut TransactionShard,
    id: &str,
    producer_id: i64,
    topics: Vec<AddPartitionsToTxnTopic>,
) -> TransactionEffects<AddPartitionsToTxnResult> {
    let transactional_id = id.to_owned();
    let request =
        AddPartitionsToTxnTransaction { transactional_id, producer_id, producer_epoch: 0, verify_only: false, topics };
    shard.handle_add_partitions(0, &context(1, 3), &request)
}

fn topic(name: String, partitions: Vec<i32>) -> AddPartitionsToTxnTopic {
    AddPartitionsToTxnTopic { name, partitions }
}

fn added_code(effects: &TransactionEffects<AddPartitionsToTxnResult>) -> Option<ErrorCode> {
    match &effects.response {
        Reply::Now(result) => {
            Some(ErrorCode::from_code(result.topic_results[0].results_by_partition[0].partition_error_code))
        }
        Reply::Parked => None,
    }
}

#[test]
fn open_transactions_have_a_limit() {
    let mut shard = TransactionShard::new(TransactionConfig::default(), Arc::new(EmptyImage), 1);
    for at in 0..=limits::OPEN_TRANSACTIONS_PER_PARTITION_MAX as i64 {
        let id = at.to_string();
        let effects = init(&mut shard, &id, at);
        commit(&mut shard, &effects);
        let effects = add(&mut shard, &id, at, vec![topic("t".to_owned(), vec![0])]);
        commit(&mut shard, &effects);
        let last = at == limits::OPEN_TRANSACTIONS_PER_PARTITION_MAX as i64;
        assert_eq!(added_code(&effects), last.then_some(ErrorCode::ConcurrentTransactions));
    }
    // All of them are aborted in turn, a thousand at a time.
    let mut aborted = 0;
    for _ in 0..10 {
        let effects = shard.on_timer(20_000, &TransactionTimerKey::AbortTimedOut);
        aborted += effects.records.len();
        commit(&mut shard, &effects);
    }
    assert_eq!(aborted, limits::OPEN_TRANSACTIONS_PER_PARTITION_MAX);
}

#[test]
fn partitions_of_a_transaction_have_a_limit() {
    let mut shard = TransactionShard::new(TransactionConfig::default(), Arc::new(EmptyImage), 1);
    let effects = init(&mut shard, "a", 5);
    commit(&mut shard, &effects);
    let many = (0..=limits::TRANSACTION_PARTITIONS_MAX as i32).collect();
    let effects = add(&mut shard, "a", 5, vec![topic("t".to_owned(), many)]);
    assert_eq!(added_code(&effects), Some(ErrorCode::UnknownServerError));
    let long = (0..40).map(|at| topic(format!("{at:0>30000}"), vec![0])).collect();
    let effects = add(&mut shard, "a", 5, long);
    assert_eq!(added_code(&effects), Some(ErrorCode::UnknownServerError));
    // A name that no record can hold.
    let effects = add(&mut shard, "a", 5, vec![topic("x".repeat(40_000), vec![i32::MIN, -1, i32::MAX])]);
    assert_eq!(added_code(&effects), Some(ErrorCode::UnknownServerError));
    let effects = add(&mut shard, "a", 5, vec![topic("t".to_owned(), vec![i32::MIN, -1, 0, 0, i32::MAX])]);
    assert_eq!(added_code(&effects), None);
    commit(&mut shard, &effects);
    assert_eq!(shard.describe_transaction("a").topics[0].partitions, [i32::MIN, -1, 0, i32::MAX]);
}

#[test]
fn transactional_ids_have_a_limit() {
    let mut shard = TransactionShard::new(TransactionConfig::default(), Arc::new(EmptyImage), 1);
    let mut refused = 0;
    for at in 0..2100 {
        let effects = init(&mut shard, &format!("{at:0>32000}"), at);
        refused += usize::from(matches!(&effects.response, Reply::Now(r)
            if r.error_code == ErrorCode::CoordinatorNotAvailable.code()));
        commit(&mut shard, &effects);
    }
    assert_eq!(refused, 2100 - limits::TRANSACTIONAL_ID_BYTES_PER_PARTITION_MAX / 32_000);
    // One that no record can hold takes no room.
    let mut shard = TransactionShard::new(TransactionConfig::default(), Arc::new(EmptyImage), 1);
    let effects = init(&mut shard, &"y".repeat(40_000), 1);
    assert!(matches!(&effects.response, Reply::Now(r) if r.error_code != 0));
    assert_eq!(shard.describe_transaction(&"y".repeat(40_000)).error_code, ErrorCode::TransactionalIdNotFound.code());
}

/// Commits what a step wrote, behind what is in the log, and answers the markers that are asked for.
fn log<R>(shard: &mut TransactionShard, end: &mut i64, effects: &TransactionEffects<R>) -> Vec<Markers> {
    let Some(append) = effects.append else { return Vec::new() };
    shard.appended(0, append, *end);
    let committed = shard.committed(0, append, *end);
    *end += effects.records.len() as i64;
    committed.actions.into_iter().map(|TransactionAction::SendMarkers(markers)| markers).collect()
}

/// Version 1 uses producer and epoch again: a report that comes late, as after a reload that had the markers written a
/// second time, must not end the next transaction before its own markers are written.
#[test]
fn a_late_report_ends_no_other_transaction() {
    let mut shard = TransactionShard::new(TransactionConfig::default(), Arc::new(EmptyImage), 1);
    let mut end = 0;
    let effects = init(&mut shard, "a", 5);
    log(&mut shard, &mut end, &effects);
    let transaction = |shard: &mut TransactionShard, end: &mut i64| {
        let effects = add(shard, "a", 5, vec![topic("t".to_owned(), vec![0])]);
        log(shard, end, &effects);
        let transactional_id = "a".to_owned();
        let request = EndTxnRequest { transactional_id, producer_id: 5, producer_epoch: 0, committed: true };
        let effects = shard.handle_end_txn(0, &context(1, 4), &request, None).unwrap();
        log(shard, end, &effects).remove(0)
    };
    let first = transaction(&mut shard, &mut end);
    let effects = shard.handle_markers_written(0, &first);
    log(&mut shard, &mut end, &effects);
    let second = transaction(&mut shard, &mut end);
    assert_eq!((second.producer_id, second.producer_epoch), (first.producer_id, first.producer_epoch));
    let effects = shard.handle_markers_written(0, &first);
    assert!(effects.records.is_empty());
    let effects = shard.handle_markers_written(0, &second);
    assert_eq!(effects.records.len(), 1);
}

proptest! {
    /// Whatever stands in the log is understood or refused.
    #[test]
    fn no_record_is_too_strange(
        key in prop::collection::vec(any::<u8>(), 0..20),
        value in prop::option::of(prop::collection::vec(any::<u8>(), 0..80)),
        typed in any::<bool>(),
        version in 0u8..3,
    ) {
        let mut key = key;
        let mut value = value;
        if typed {
            key = vec![0, 0, 0, 1, b'a'];
            if let Some(value) = &mut value {
                value.splice(0..0, [0, version]);
            }
        }
        let mut shard = TransactionShard::new(TransactionConfig::default(), Arc::new(EmptyImage), 1);
        let _ = shard.replay(0, -1, &key.into(), value.map(Bytes::from).as_ref());
        let loaded = shard.loaded(0);
        commit(&mut shard, &loaded);
        let aborted = shard.on_timer(i64::MAX, &TransactionTimerKey::AbortTimedOut);
        commit(&mut shard, &aborted);
        let effects = init(&mut shard, "a", 7);
        commit(&mut shard, &effects);
        let _ = shard.on_timer(i64::MAX, &TransactionTimerKey::ExpireIds);
        let _ = shard.unload();
    }
}
