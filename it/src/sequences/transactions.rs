//! Transactional producers of both versions: two that share an id, two with their own, and one that is merely idempotent.

use std::collections::BTreeMap;

use taccola_wire::messages::add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
use taccola_wire::messages::txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
use taccola_wire::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use taccola_wire::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, DescribeTransactionsRequest, EndTxnRequest,
    InitProducerIdRequest, ListTransactionsRequest, TxnOffsetCommitRequest, WriteTxnMarkersRequest,
};

use super::data::{self, batch, normal_produce, partition};
use super::topics::Topic;
use super::world::{World, below, pick, version};
use crate::eventually;
use crate::ledger::Rng;
use crate::requests::produce_request;

#[derive(Clone, Debug)]
pub struct Producer {
    /// Empty: no transactions.
    id: String,
    producer_id: i64,
    epoch: i16,
    sequences: BTreeMap<(String, i32), i32>,
}

pub fn producers(prefix: &str) -> Vec<Producer> {
    ["x0", "x0", "x1", "x2", ""]
        .into_iter()
        .map(|id| Producer {
            id: if id.is_empty() { String::new() } else { format!("{prefix}-{id}") },
            producer_id: -1,
            epoch: -1,
            sequences: BTreeMap::new(),
        })
        .collect()
}

pub fn step(world: &mut World, rng: &mut Rng) {
    let at = below(rng, world.producers.len());
    let fresh = world.producers[at].producer_id < 0;
    match if fresh && !rng.one_in(6) { 0 } else { rng.below(26) } {
        0..2 => init(world, rng, at),
        2..9 => produce(world, rng, at),
        9..12 => add(world, rng, at),
        12 => add_many(world, rng, at),
        13..15 => add_offsets(world, rng, at),
        15..17 => commit_offsets(world, rng, at),
        17..21 => end(world, rng, at),
        21 => time_out(world, rng, at),
        22 => describe(world, rng),
        23 => list(world, rng),
        24 => data::producers(world, rng),
        _ if rng.one_in(2) => marker(world, rng, at),
        _ => data::fetch(world, rng),
    }
}

fn epoch_of(rng: &mut Rng, producer: &Producer) -> i16 {
    match rng.below(20) {
        0 => producer.epoch.wrapping_sub(1),
        1 => producer.epoch.wrapping_add(1),
        2 => pick(rng, &[-1, 0, i16::MAX]),
        _ => producer.epoch,
    }
}

fn id_of(world: &World, rng: &mut Rng, producer: &Producer) -> i64 {
    if rng.one_in(24) { pick(rng, &[-1, 999_999, world.producers[0].producer_id]) } else { producer.producer_id }
}

fn name_of(world: &World, rng: &mut Rng, producer: &Producer) -> String {
    if rng.one_in(24) {
        pick(rng, &[String::new(), format!("{}-xx", world.prefix), world.producers[2].id.clone()])
    } else {
        producer.id.clone()
    }
}

/// Waits until no transaction of the id is being ended.
fn over(world: &mut World, id: &str) {
    let request = DescribeTransactionsRequest { transactional_ids: vec![id.to_owned()] };
    eventually("the end of the transaction", || {
        let reply = world.conn.ask(&request, 0);
        reply.transaction_states.iter().all(|row| !row.transaction_state.starts_with("Prepare")).then_some(())
    });
}

fn init(world: &mut World, rng: &mut Rng, at: usize) {
    let producer = world.producers[at].clone();
    let again = rng.one_in(3) && producer.producer_id >= 0;
    let version = version(rng, if again { 3..=5 } else { 0..=5 });
    let request = InitProducerIdRequest {
        transactional_id: (!producer.id.is_empty()).then(|| producer.id.clone()),
        transaction_timeout_ms: pick(rng, &[60_000, 60_000, 60_000, 60_000, 60_000, 0, -1, i32::MAX]),
        producer_id: if again { id_of(world, rng, &producer) } else { -1 },
        producer_epoch: if again { epoch_of(rng, &producer) } else { -1 },
        ..Default::default()
    };
    ask_init(world, at, &request, version);
}

/// Initializes; what was open must be over before anybody is told anything else than to wait.
fn ask_init(world: &mut World, at: usize, request: &InitProducerIdRequest, version: i16) {
    for _ in 0..2 {
        let reply = world.ask_learning(
            request,
            version,
            |world, reply| {
                if reply.error_code == 0 {
                    world.call_producer(reply.producer_id);
                }
            },
            |_| (),
        );
        let Some(reply) = reply else { return };
        if reply.error_code == 0 {
            let producer = &mut world.producers[at];
            (producer.producer_id, producer.epoch) = (reply.producer_id, reply.producer_epoch);
            producer.sequences.clear();
        }
        if reply.error_code != 51 {
            return;
        }
        let id = world.producers[at].id.clone();
        over(world, &id);
    }
}

fn produce(world: &mut World, rng: &mut Rng, at: usize) {
    let producer = world.producers[at].clone();
    let topic = world.some_topic(rng);
    let partition = partition(rng, topic.partitions);
    let place = (topic.name.clone(), partition);
    let next = producer.sequences.get(&place).copied().unwrap_or(0);
    let sequence = match rng.below(14) {
        0 => next + 1,
        1 => (next - 1).max(0),
        2 => 0,
        _ => next,
    };
    // Kafka takes a transactional batch of nobody, and no marker ends it.
    let transactional = producer.id.is_empty() == rng.one_in(20) && producer.producer_id >= 0;
    let epoch = epoch_of(rng, &producer);
    let id = if transactional { id_of(world, rng, &producer).max(0) } else { id_of(world, rng, &producer) };
    let (records, count) = batch(rng, Some((id, epoch, sequence)), transactional);
    let mut request = produce_request(-1, &topic.name, partition, records);
    request.transactional_id =
        if rng.one_in(24) { None } else { transactional.then(|| name_of(world, rng, &producer)) };
    let range = pick(rng, &[9..=11, 12..=13, 12..=12]);
    let version = version(rng, range);
    if version >= 13 {
        let row = &mut request.topic_data[0];
        (row.name, row.topic_id) = (String::new(), topic.id);
    }
    world.note(format!("producer {at} sequence {sequence} epoch {epoch}"));
    let reply = world.ask(&request, version, normal_produce);
    let ok = reply.is_some_and(|reply| {
        reply.responses.iter().flat_map(|topic| &topic.partition_responses).all(|row| row.error_code == 0)
    });
    if ok && sequence == next {
        world.producers[at].sequences.insert(place, next + count);
    }
}

fn topics_of(world: &World, rng: &mut Rng) -> Vec<AddPartitionsToTxnTopic> {
    let mut topics: Vec<AddPartitionsToTxnTopic> = Vec::new();
    for _ in 0..=below(rng, 2) {
        let Topic { name, partitions, .. } = world.some_topic(rng);
        if topics.iter().all(|topic| topic.name != name) {
            topics.push(AddPartitionsToTxnTopic { name, partitions: vec![partition(rng, partitions)] });
        }
    }
    topics
}

fn add(world: &mut World, rng: &mut Rng, at: usize) {
    let producer = world.producers[at].clone();
    let request = AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: name_of(world, rng, &producer),
        v3_and_below_producer_id: id_of(world, rng, &producer),
        v3_and_below_producer_epoch: epoch_of(rng, &producer),
        v3_and_below_topics: topics_of(world, rng),
        ..Default::default()
    };
    world.ask(&request, version(rng, 0..=3), sorted);
}

fn sorted(reply: &mut taccola_wire::messages::AddPartitionsToTxnResponse) {
    reply.results_by_transaction.sort_by(|a, b| a.transactional_id.cmp(&b.transactional_id));
    let nested = reply.results_by_transaction.iter_mut().map(|row| &mut row.topic_results);
    for topics in nested.chain([&mut reply.results_by_topic_v3_and_below]) {
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        topics.iter_mut().for_each(|topic| topic.results_by_partition.sort_by_key(|row| row.partition_index));
    }
}

/// As brokers ask, for several ids at once.
fn add_many(world: &mut World, rng: &mut Rng, at: usize) {
    let mut transactions: Vec<AddPartitionsToTxnTransaction> = Vec::new();
    for at in [at, below(rng, world.producers.len())] {
        let producer = world.producers[at].clone();
        let transaction = AddPartitionsToTxnTransaction {
            transactional_id: producer.id.clone(),
            producer_id: id_of(world, rng, &producer),
            producer_epoch: epoch_of(rng, &producer),
            verify_only: !rng.one_in(4),
            topics: topics_of(world, rng),
        };
        if transactions.iter().all(|known| known.transactional_id != transaction.transactional_id) {
            transactions.push(transaction);
        }
    }
    world.ask(&AddPartitionsToTxnRequest { transactions, ..Default::default() }, version(rng, 4..=5), sorted);
}

fn group_of(world: &World, rng: &mut Rng) -> String {
    if rng.one_in(2) { format!("{}-simple", world.prefix) } else { world.any_group(rng) }
}

fn add_offsets(world: &mut World, rng: &mut Rng, at: usize) {
    let producer = world.producers[at].clone();
    let request = AddOffsetsToTxnRequest {
        transactional_id: name_of(world, rng, &producer),
        producer_id: id_of(world, rng, &producer),
        producer_epoch: epoch_of(rng, &producer),
        group_id: group_of(world, rng),
    };
    world.ask(&request, version(rng, 0..=4), |_| ());
}

fn commit_offsets(world: &mut World, rng: &mut Rng, at: usize) {
    let producer = world.producers[at].clone();
    let version = version(rng, 0..=5);
    let member = (version >= 3 && rng.one_in(3)).then(|| pick(rng, &world.classic[0].members));
    let topic = world.some_topic(rng);
    let row = TxnOffsetCommitRequestPartition {
        partition_index: partition(rng, topic.partitions),
        committed_offset: pick(rng, &[0, 3, 9, -1]),
        committed_leader_epoch: if version >= 2 { pick(rng, &[-1, 0]) } else { -1 },
        committed_metadata: pick(rng, &[None, Some("t")]).map(str::to_owned),
    };
    let request = TxnOffsetCommitRequest {
        transactional_id: name_of(world, rng, &producer),
        group_id: if member.is_some() { world.classic[0].id.clone() } else { group_of(world, rng) },
        producer_id: id_of(world, rng, &producer),
        producer_epoch: epoch_of(rng, &producer),
        generation_id: if member.is_some() { 1 } else { -1 },
        member_id: member.map(|member| member.id).unwrap_or_default(),
        group_instance_id: None,
        topics: vec![TxnOffsetCommitRequestTopic { name: topic.name, partitions: vec![row] }],
    };
    world.ask(&request, version, |_| ());
}

fn end(world: &mut World, rng: &mut Rng, at: usize) {
    let producer = world.producers[at].clone();
    let request = EndTxnRequest {
        transactional_id: name_of(world, rng, &producer),
        producer_id: id_of(world, rng, &producer),
        producer_epoch: epoch_of(rng, &producer),
        committed: rng.one_in(2),
    };
    let range = pick(rng, &[0..=4, 5..=5, 5..=5]);
    let version = version(rng, range);
    let reply = world.ask_learning(
        &request,
        version,
        |world, reply| {
            if reply.error_code == 0 {
                world.call_producer(reply.producer_id);
            }
        },
        |_| (),
    );
    if let Some(reply) = reply
        && reply.error_code == 0
        && version >= 5
        && request.transactional_id == producer.id
    {
        let producer = &mut world.producers[at];
        if (producer.producer_id, producer.epoch) != (reply.producer_id, reply.producer_epoch) {
            (producer.producer_id, producer.epoch) = (reply.producer_id, reply.producer_epoch);
            producer.sequences.clear();
        }
    }
    over(world, &producer.id);
}

/// A transaction that its coordinator aborts.
fn time_out(world: &mut World, rng: &mut Rng, at: usize) {
    let producer = world.producers[at].clone();
    if producer.id.is_empty() {
        return;
    }
    let request = InitProducerIdRequest {
        transactional_id: Some(producer.id.clone()),
        transaction_timeout_ms: 100,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    ask_init(world, at, &request, 5);
    let producer = world.producers[at].clone();
    let add = AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: producer.id.clone(),
        v3_and_below_producer_id: producer.producer_id,
        v3_and_below_producer_epoch: producer.epoch,
        v3_and_below_topics: topics_of(world, rng),
        ..Default::default()
    };
    world.ask(&add, 3, sorted);
    let describe = DescribeTransactionsRequest { transactional_ids: vec![producer.id.clone()] };
    eventually("the abort", || {
        let state = &world.conn.ask(&describe, 0).transaction_states[0];
        (state.transaction_state != "Ongoing" && !state.transaction_state.starts_with("Prepare")).then_some(())
    });
}

fn describe(world: &mut World, rng: &mut Rng) {
    let mut transactional_ids: Vec<String> =
        world.producers.iter().skip(1).map(|producer| producer.id.clone()).collect();
    if rng.one_in(3) {
        transactional_ids.push(format!("{}-none", world.prefix));
    }
    world.read(&DescribeTransactionsRequest { transactional_ids }, 0, |reply| {
        for row in &mut reply.transaction_states {
            row.transaction_start_time_ms = row.transaction_start_time_ms.clamp(-2, 0);
            row.topics.sort_by(|a, b| a.topic.cmp(&b.topic));
            row.topics.iter_mut().for_each(|topic| topic.partitions.sort_unstable());
        }
        reply.transaction_states.sort_by(|a, b| a.transactional_id.cmp(&b.transactional_id));
    });
}

fn list(world: &mut World, rng: &mut Rng) {
    let version = version(rng, 0..=2);
    let states = pick(rng, &[&[][..], &["Ongoing"], &["CompleteAbort", "CompleteCommit"], &["Empty", "x"]]);
    let request = ListTransactionsRequest {
        state_filters: states.iter().map(|state| (*state).to_owned()).collect(),
        producer_id_filters: Vec::new(),
        duration_filter: -1,
        transactional_id_pattern: (version >= 2 && rng.one_in(2)).then(|| format!("{}-x[12]", world.prefix)),
    };
    let prefix = format!("{}-", world.prefix);
    world.read(&request, version, |reply| {
        reply.transaction_states.retain(|row| row.transactional_id.starts_with(&prefix));
        reply.transaction_states.sort_by(|a, b| a.transactional_id.cmp(&b.transactional_id));
        reply.unknown_state_filters.sort();
    });
}

/// A marker that no coordinator sends.
fn marker(world: &mut World, rng: &mut Rng, at: usize) {
    let producer = world.producers[at].clone();
    let topic = world.some_topic(rng);
    let topics =
        vec![WritableTxnMarkerTopic { name: topic.name, partition_indexes: vec![partition(rng, topic.partitions)] }];
    let version = version(rng, 1..=2);
    let marker = WritableTxnMarker {
        producer_id: producer.producer_id,
        producer_epoch: epoch_of(rng, &producer),
        transaction_result: rng.one_in(2),
        topics,
        coordinator_epoch: pick(rng, &[0, 0, 5, -1]),
        transaction_version: if version >= 2 { pick(rng, &[0, 1, 2]) } else { 0 },
    };
    world.ask(&WriteTxnMarkersRequest { markers: vec![marker] }, version, |_| ());
}
