//! Records written, read and deleted, offsets committed and read.

use bytes::Bytes;
use taccola_base::Uuid;
use taccola_wire::batch::{BatchBuilder, Compression, batches};
use taccola_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use taccola_wire::messages::describe_producers_request::TopicRequest;
use taccola_wire::messages::fetch_response::PartitionData;
use taccola_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use taccola_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use taccola_wire::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use taccola_wire::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use taccola_wire::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use taccola_wire::messages::{
    DeleteRecordsRequest, DescribeProducersRequest, FetchRequest, ListOffsetsRequest, OffsetCommitRequest,
    OffsetDeleteRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest,
};

use super::world::{World, about, below, pick, version};
use crate::ledger::Rng;
use crate::requests::{fetch_request, now_ms, produce_request};

/// Who commits.
pub struct Committer {
    pub group_id: String,
    pub member_id: String,
    pub epoch: i32,
    pub instance: Option<String>,
}

pub fn step(world: &mut World, rng: &mut Rng) {
    match rng.below(16) {
        0..5 => produce(world, rng),
        5..8 => fetch(world, rng),
        8..10 => list(world, rng),
        10 => delete_records(world, rng),
        11 => epochs(world, rng),
        12 => producers(world, rng),
        13 => {
            let group_id = format!("{}-simple", world.prefix);
            let committer = Committer { group_id, member_id: String::new(), epoch: -1, instance: None };
            commit(world, rng, &committer);
        }
        14 => {
            let group_id = format!("{}-simple", world.prefix);
            let committer = Committer { group_id, member_id: String::new(), epoch: -1, instance: None };
            offsets(world, rng, &committer);
        }
        _ => {
            let group = below(rng, 2);
            delete_offsets(world, rng, group);
        }
    }
}

/// Mostly a partition that is there.
pub fn partition(rng: &mut Rng, partitions: i32) -> i32 {
    match rng.below(20) {
        0 => pick(rng, &[-1, partitions, 99]),
        _ => i32::try_from(rng.below(u64::try_from(partitions.max(1)).expect("few"))).expect("few"),
    }
}

/// The day's beginning: the same for both brokers, and young enough not to be deleted.
fn time() -> i64 {
    now_ms() / 86_400_000 * 86_400_000
}

/// A batch of some records.
pub fn batch(rng: &mut Rng, producer: Option<(i64, i16, i32)>, transactional: bool) -> (Bytes, i32) {
    let mut builder = BatchBuilder::new(pick(rng, &[Compression::None, Compression::None, Compression::Gzip]));
    if let Some((id, epoch, sequence)) = producer {
        builder = builder.producer(id, epoch, sequence);
    }
    builder = builder.transactional(transactional);
    let count = 1 + below(rng, 4);
    for n in 0..count {
        let value = vec![b'v'; below(rng, 40)];
        let key = (!rng.one_in(6)).then_some(&b"key"[..]);
        builder.append(time() + i64::try_from(n * 10).expect("small"), key, Some(&value), &[]);
    }
    (builder.build().expect("a batch"), i32::try_from(count).expect("few"))
}

pub fn produce(world: &mut World, rng: &mut Rng) {
    let topic = world.some_topic(rng);
    let (records, _) = batch(rng, None, false);
    let mut request = produce_request(-1, &topic.name, partition(rng, topic.partitions), records);
    let version = version(rng, 3..=13);
    if version >= 13 {
        let row = &mut request.topic_data[0];
        (row.name, row.topic_id) = (String::new(), topic.id);
    }
    world.ask(&request, version, normal_produce);
}

pub fn normal_produce(reply: &mut taccola_wire::messages::ProduceResponse) {
    for row in reply.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses) {
        row.error_message = None;
        row.record_errors.iter_mut().for_each(|record| record.batch_index_error_message = None);
    }
}

/// Records in words: what is the same on both sides.
pub fn in_words(records: &Bytes) -> Bytes {
    let words: Vec<String> = batches(records)
        .map(|batch| match batch {
            Ok(batch) => {
                let header = &batch.header;
                format!(
                    "{}..={}{}{} e{} s{} n{}",
                    header.base_offset,
                    header.last_offset(),
                    if header.is_control() { " control" } else { "" },
                    if header.is_transactional() { " txn" } else { "" },
                    header.producer_epoch,
                    header.base_sequence,
                    header.records_count,
                )
            }
            Err(_) => "what is no batch".to_owned(),
        })
        .collect();
    Bytes::from(words.join("; "))
}

pub fn fetch(world: &mut World, rng: &mut Rng) {
    let topic = world.some_topic(rng);
    let mut request: FetchRequest = fetch_request(&topic.name, partition(rng, topic.partitions), 0);
    request.isolation_level = pick(rng, &[0, 1, 1]);
    (request.max_wait_ms, request.min_bytes) = (0, 0);
    let row = &mut request.topics[0].partitions[0];
    row.fetch_offset = pick(rng, &[0, 0, 0, 1, 2, 3, 5, 8, 13, 21, 1000, -1]);
    row.partition_max_bytes = pick(rng, &[1 << 20, 1 << 20, 1, 200]);
    let version = version(rng, 4..=17);
    row.current_leader_epoch = if version >= 9 { pick(rng, &[-1, -1, 0, 0, 1]) } else { -1 };
    if version >= 13 {
        (request.topics[0].topic, request.topics[0].topic_id) = (String::new(), topic.id);
    }
    let ids = world.producer_names();
    world.read(&request, version, |reply| {
        reply.session_id = 0;
        for row in reply.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
            fetched(row, &ids);
        }
    });
}

fn fetched(row: &mut PartitionData, ids: &std::collections::BTreeMap<i64, String>) {
    row.records = row.records.as_ref().map(in_words);
    // Of one offset, in the order of the ids' names.
    if let Some(transactions) = &mut row.aborted_transactions {
        transactions.sort_by_key(|transaction| (transaction.first_offset, ids.get(&transaction.producer_id).cloned()));
    }
}

fn list(world: &mut World, rng: &mut Rng) {
    let topic = world.some_topic(rng);
    let version = version(rng, 1..=10);
    let times = [-1, -1, -2, -2, -3, -4, -5, time(), time() + 15, 0, i64::MAX, -9];
    let partition = ListOffsetsPartition {
        partition_index: partition(rng, topic.partitions),
        current_leader_epoch: if version >= 4 { pick(rng, &[-1, -1, 0, 1]) } else { -1 },
        timestamp: pick(rng, &times),
    };
    let topics = vec![ListOffsetsTopic { name: topic.name, partitions: vec![partition] }];
    let isolation_level = if version >= 2 { pick(rng, &[0, 1]) } else { 0 };
    let request = ListOffsetsRequest { replica_id: -1, isolation_level, topics, ..Default::default() };
    world.read(&request, version, |_| ());
}

fn delete_records(world: &mut World, rng: &mut Rng) {
    let topic = world.some_topic(rng);
    let row = DeleteRecordsPartition {
        partition_index: partition(rng, topic.partitions),
        offset: pick(rng, &[0, 1, 2, 3, 5, 8, -1, -2, 1000]),
    };
    let topics = vec![DeleteRecordsTopic { name: topic.name, partitions: vec![row] }];
    let request = DeleteRecordsRequest { topics, timeout_ms: 10_000, ..Default::default() };
    world.ask(&request, version(rng, 0..=2), |_| ());
}

fn epochs(world: &mut World, rng: &mut Rng) {
    let topic = world.some_topic(rng);
    let row = OffsetForLeaderPartition {
        partition: partition(rng, topic.partitions),
        current_leader_epoch: pick(rng, &[-1, 0, 1]),
        leader_epoch: pick(rng, &[-1, 0, 0, 1, 5]),
    };
    let topics = vec![OffsetForLeaderTopic { topic: topic.name, partitions: vec![row] }];
    world.read(
        &OffsetForLeaderEpochRequest { replica_id: -1, topics, ..Default::default() },
        version(rng, 2..=4),
        |_| (),
    );
}

pub fn producers(world: &mut World, rng: &mut Rng) {
    let topic = world.some_topic(rng);
    let partition_indexes = vec![partition(rng, topic.partitions)];
    let request = DescribeProducersRequest { topics: vec![TopicRequest { name: topic.name, partition_indexes }] };
    let ids = world.producer_names();
    world.read(&request, 0, |reply| {
        for row in reply.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            row.error_message = None;
            row.active_producers.sort_by_key(|producer| ids.get(&producer.producer_id).cloned());
            // Of a marker it is the time at which it was written.
            row.active_producers
                .iter_mut()
                .for_each(|producer| producer.last_timestamp = producer.last_timestamp.min(0));
        }
    });
}

pub fn commit(world: &mut World, rng: &mut Rng, who: &Committer) {
    let version = version(rng, if who.instance.is_some() { 7..=10 } else { 2..=10 });
    let member = rng.below(12);
    let topics = (0..=below(rng, 2)).map(|_| {
        let topic = world.some_topic(rng);
        let partitions: Vec<_> = (0..=below(rng, 2))
            .map(|_| OffsetCommitRequestPartition {
                partition_index: partition(rng, topic.partitions),
                committed_offset: pick(rng, &[0, 1, 5, 77, -1, i64::MAX]),
                committed_leader_epoch: if version >= 6 { pick(rng, &[-1, 0, 3]) } else { -1 },
                committed_metadata: pick(rng, &[None, Some(""), Some("m"), Some("m\0n")]).map(str::to_owned),
            })
            .collect();
        let id = if rng.one_in(15) { Uuid::from_bytes([5; 16]) } else { topic.id };
        OffsetCommitRequestTopic {
            name: if version < 10 { topic.name } else { String::new() },
            topic_id: if version < 10 { Uuid::ZERO } else { id },
            partitions,
        }
    });
    let mut topics: Vec<OffsetCommitRequestTopic> = topics.collect();
    // Kafka makes one of two mentions of a topic.
    topics.sort_by_key(|topic| (topic.name.clone(), world.topic_name(topic.topic_id)));
    topics.dedup_by(|a, b| (&a.name, a.topic_id) == (&b.name, b.topic_id));
    let request = OffsetCommitRequest {
        group_id: who.group_id.clone(),
        generation_id_or_member_epoch: if member == 2 { -1 } else { about(rng, who.epoch) },
        member_id: match member {
            0 => "nobody".to_owned(),
            1 | 2 => String::new(),
            _ => who.member_id.clone(),
        },
        group_instance_id: who.instance.clone(),
        retention_time_ms: -1,
        topics,
    };
    let names = world.all_names();
    world.ask(&request, version, |reply| {
        reply.topics.sort_by_key(|topic| (topic.name.clone(), names.get(&topic.topic_id.to_string()).cloned()));
        reply
            .topics
            .iter_mut()
            .for_each(|topic| topic.partitions.sort_by_key(|row| (row.partition_index, row.error_code)));
    });
}

pub fn offsets(world: &mut World, rng: &mut Rng, who: &Committer) {
    let version = version(rng, 8..=10);
    let simple = rng.one_in(2);
    let topics = (!rng.one_in(3)).then(|| {
        let topics = (0..=below(rng, 2)).map(|_| {
            let topic = world.some_topic(rng);
            OffsetFetchRequestTopics {
                partition_indexes: (0..topic.partitions.min(3)).collect(),
                name: if version < 10 { topic.name } else { String::new() },
                topic_id: if version < 10 { Uuid::ZERO } else { topic.id },
            }
        });
        topics.collect()
    });
    let group = OffsetFetchRequestGroup {
        group_id: who.group_id.clone(),
        member_id: (version >= 9 && !simple).then(|| who.member_id.clone()),
        member_epoch: if version >= 9 && !simple { about(rng, who.epoch) } else { -1 },
        topics,
    };
    let request = OffsetFetchRequest { groups: vec![group], require_stable: rng.one_in(2), ..Default::default() };
    let names = world.all_names();
    world.read(&request, version, |reply| {
        for group in &mut reply.groups {
            group.topics.sort_by_key(|topic| (topic.name.clone(), names.get(&topic.topic_id.to_string()).cloned()));
            group.topics.iter_mut().for_each(|topic| topic.partitions.sort_by_key(|row| row.partition_index));
        }
    });
}

pub fn delete_offsets(world: &mut World, rng: &mut Rng, group: usize) {
    let group_id = match rng.below(4) {
        0 => world.classic[group].id.clone(),
        1 => world.consumers[group].id.clone(),
        2 => format!("{}-simple", world.prefix),
        _ => world.any_group(rng),
    };
    let topic = world.some_topic(rng);
    let partitions = (0..2).map(|_| OffsetDeleteRequestPartition { partition_index: partition(rng, topic.partitions) });
    let topics = vec![OffsetDeleteRequestTopic { name: topic.name, partitions: partitions.collect() }];
    world.ask(&OffsetDeleteRequest { group_id, topics }, 0, |reply| {
        reply.topics.iter_mut().for_each(|topic| topic.partitions.dedup());
    });
}
