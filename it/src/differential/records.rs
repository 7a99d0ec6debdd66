//! DeleteRecords, InitProducerId, OffsetForLeaderEpoch, DescribeProducers, DescribeLogDirs.

use crate::requests::{list_offset, produce_request};
use taccola_wire::batch::{BatchBuilder, Compression};
use taccola_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use taccola_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use taccola_wire::messages::describe_log_dirs_request::DescribableLogDirTopic;
use taccola_wire::messages::describe_producers_request::TopicRequest;
use taccola_wire::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use taccola_wire::messages::*;

use super::Differential;
use super::equal;

pub(crate) fn run(d: &mut Differential) {
    prepare(d);
    init_producer_id(d);
    describe_producers(d);
    offset_for_leader_epoch(d);
    describe_log_dirs(d);
    delete_records(d);
    describe_log_dirs(d);
    offset_for_leader_epoch(d);
}

/// `r-plain` with 10 records, `r-compact` and `r-both` with as many, `r-empty` without any, `__consumer_offsets`.
fn prepare(d: &mut Differential) {
    let topic = |name: &str, policy: &str| CreatableTopic {
        name: name.to_owned(),
        num_partitions: 2,
        replication_factor: 1,
        configs: vec![CreatableTopicConfig { name: "cleanup.policy".to_owned(), value: Some(policy.to_owned()) }],
        ..Default::default()
    };
    let request = CreateTopicsRequest {
        topics: vec![
            topic("r-plain", "delete"),
            topic("r-compact", "compact"),
            topic("r-both", "compact,delete"),
            topic("r-empty", "delete"),
        ],
        timeout_ms: 30_000,
        ..Default::default()
    };
    d.at("prepare", 7, &request, |response| response.topics.clear());
    let internal = CreatableTopic { num_partitions: 1, ..topic("__consumer_offsets", "compact") };
    let request = CreateTopicsRequest { topics: vec![internal], timeout_ms: 30_000, ..Default::default() };
    d.at("prepare", 7, &request, |response| response.topics.clear());
    for name in ["r-plain", "r-compact", "r-both"] {
        // Kafka answers CreateTopics before its broker leads the partitions.
        d.prepare("a leader", |conn| list_offset(conn, name, 0, -1).0 == 0);
        let mut batch = BatchBuilder::new(Compression::None).producer(4_000_000, 3, 0);
        for n in 0..10_i64 {
            batch.append(1_600_000_000_000 + n, Some(b"key"), Some(b"value"), &[]);
        }
        let request = produce_request(-1, name, 0, batch.build().expect("a batch"));
        d.at("prepare", 9, &request, |_| {});
    }
}

fn init_producer_id(d: &mut Differential) {
    let request = |transactional_id: Option<&str>, producer_id, producer_epoch| InitProducerIdRequest {
        transactional_id: transactional_id.map(str::to_owned),
        transaction_timeout_ms: 60_000,
        producer_id,
        producer_epoch,
        ..Default::default()
    };
    let rows = |response: &mut InitProducerIdResponse| response.producer_id = response.producer_id.min(0);
    // Kafka fetches its first block behind the first request, which it refuses.
    let loading = taccola_wire::error::ErrorCode::CoordinatorLoadInProgress.code();
    let first = request(None, -1, -1);
    d.prepare("producer ids", |conn| conn.ask(&first, 4).error_code != loading);
    d.all("new", 0..=5, &request(None, -1, -1), rows);
    d.all("known id and epoch", 3..=5, &request(None, 4_000_000, 3), rows);
    d.all("id alone", 3..=5, &request(None, 4_000_000, -1), rows);
    d.all("epoch alone", 3..=5, &request(None, -1, 3), rows);
    d.all("below -1", 3..=5, &request(None, -7, -7), rows);
    d.all("last epoch", 3..=5, &request(None, 4_000_000, i16::MAX), rows);
    d.all("empty transactional id", 0..=5, &request(Some(""), -1, -1), rows);
}

fn describe_producers(d: &mut Differential) {
    let request = |topics: &[(&str, &[i32])]| DescribeProducersRequest {
        topics: topics
            .iter()
            .map(|(name, indexes)| TopicRequest { name: (*name).to_owned(), partition_indexes: indexes.to_vec() })
            .collect(),
    };
    let rows = |response: &mut DescribeProducersResponse| {
        for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            equal::message(partition.error_code, &mut partition.error_message);
        }
    };
    d.at("a producer", 0, &request(&[("r-plain", &[0, 1])]), rows);
    d.at("unknown partition", 0, &request(&[("r-plain", &[2, -1, i32::MAX])]), rows);
    d.at("unknown topic", 0, &request(&[("r-missing", &[0])]), rows);
    d.at("bad name", 0, &request(&[("a b", &[0]), ("", &[0])]), rows);
    d.at("twice", 0, &request(&[("r-plain", &[0, 0]), ("r-plain", &[1])]), rows);
    d.at("no partitions", 0, &request(&[("r-plain", &[])]), rows);
    d.at("no topics", 0, &request(&[]), rows);
}

fn offset_for_leader_epoch(d: &mut Differential) {
    // Partition, the client's view of the leader epoch, the epoch that is asked for.
    type Asked<'a> = (&'a str, &'a [(i32, i32, i32)]);
    let request = |topics: &[Asked<'_>]| OffsetForLeaderEpochRequest {
        replica_id: -1,
        topics: topics
            .iter()
            .map(|(topic, partitions)| OffsetForLeaderTopic {
                topic: (*topic).to_owned(),
                partitions: partitions
                    .iter()
                    .map(|(partition, current_leader_epoch, leader_epoch)| OffsetForLeaderPartition {
                        partition: *partition,
                        current_leader_epoch: *current_leader_epoch,
                        leader_epoch: *leader_epoch,
                    })
                    .collect(),
            })
            .collect(),
    };
    for version in 2..=4 {
        d.at("epoch 0", version, &request(&[("r-plain", &[(0, -1, 0), (1, -1, 0)])]), |_| {});
        d.at("own view", version, &request(&[("r-plain", &[(0, 0, 0), (1, 0, 0)])]), |_| {});
        d.at("undefined epoch", version, &request(&[("r-plain", &[(0, -1, -1)])]), |_| {});
        d.at("later epoch", version, &request(&[("r-plain", &[(0, -1, 5)])]), |_| {});
        d.at("view ahead", version, &request(&[("r-plain", &[(0, 5, 0)])]), |_| {});
        d.at("below -1", version, &request(&[("r-plain", &[(0, -5, -5)])]), |_| {});
        d.at("empty log", version, &request(&[("r-empty", &[(0, -1, 0), (0, 0, 0)])]), |_| {});
        d.at("unknown", version, &request(&[("r-plain", &[(9, -1, 0)]), ("r-missing", &[(0, -1, 0)])]), |_| {});
        d.at("twice", version, &request(&[("r-plain", &[(0, -1, 0)]), ("r-plain", &[(0, -1, 0)])]), |_| {});
        d.at("no partitions", version, &request(&[("r-plain", &[])]), |_| {});
        d.at("no topics", version, &request(&[]), |_| {});
    }
}

fn describe_log_dirs(d: &mut Differential) {
    let request = |topics: Option<&[(&str, &[i32])]>| DescribeLogDirsRequest {
        topics: topics.map(|topics| {
            topics
                .iter()
                .map(|(topic, partitions)| DescribableLogDirTopic {
                    topic: (*topic).to_owned(),
                    partitions: partitions.to_vec(),
                })
                .collect()
        }),
    };
    let rows = |response: &mut DescribeLogDirsResponse| {
        for dir in &mut response.results {
            dir.log_dir = "dir".to_owned();
            // How large the file system is, and how full, is the machine's.
            (dir.total_bytes, dir.usable_bytes) = (dir.total_bytes.min(0), dir.usable_bytes.min(0));
            dir.topics.sort_by(|a, b| a.name.cmp(&b.name));
            for topic in &mut dir.topics {
                topic.partitions.sort_by_key(|partition| partition.partition_index);
            }
        }
    };
    for version in 1..=5 {
        d.at("all", version, &request(None), rows);
        d.at("none", version, &request(Some(&[])), rows);
        d.at("some", version, &request(Some(&[("r-plain", &[0, 1])])), rows);
        d.at("unknown", version, &request(Some(&[("r-plain", &[7, -1]), ("r-missing", &[0])])), rows);
        d.at("no partitions", version, &request(Some(&[("r-plain", &[])])), rows);
        d.at("twice", version, &request(Some(&[("r-plain", &[0, 0])])), rows);
    }
}

fn delete_records(d: &mut Differential) {
    let request = |topics: &[(&str, &[(i32, i64)])]| DeleteRecordsRequest {
        topics: topics
            .iter()
            .map(|(name, partitions)| DeleteRecordsTopic {
                name: (*name).to_owned(),
                partitions: partitions
                    .iter()
                    .map(|(partition_index, offset)| DeleteRecordsPartition {
                        partition_index: *partition_index,
                        offset: *offset,
                    })
                    .collect(),
            })
            .collect(),
        timeout_ms: 30_000,
    };
    let rows = |response: &mut DeleteRecordsResponse| {
        response.topics.sort_by(|a, b| a.name.cmp(&b.name));
        response.topics.iter_mut().for_each(|topic| topic.partitions.sort_by_key(|row| row.partition_index));
    };
    for (version, offset) in [(0, 2), (1, 4), (2, 6)] {
        d.at("forward", version, &request(&[("r-plain", &[(0, offset), (1, 0)])]), rows);
        d.at("backward", version, &request(&[("r-plain", &[(0, 1)])]), rows);
        d.at("beyond", version, &request(&[("r-plain", &[(0, 11), (1, 1)])]), rows);
        d.at("below -1", version, &request(&[("r-plain", &[(0, -2), (1, i64::MIN)])]), rows);
        d.at("unknown", version, &request(&[("r-plain", &[(2, 0), (-1, 0)]), ("r-missing", &[(0, 0)])]), rows);
        d.at("bad names", version, &request(&[("", &[(0, 0)]), ("a b", &[(0, 0)])]), rows);
        d.at("compacted", version, &request(&[("r-compact", &[(0, 1)]), ("r-both", &[(0, 1)])]), rows);
        d.at("internal", version, &request(&[("__consumer_offsets", &[(0, 0), (9, 0)])]), rows);
        d.at("cluster metadata", version, &request(&[("__cluster_metadata", &[(0, 0)])]), rows);
        d.at("no partitions", version, &request(&[("r-plain", &[])]), rows);
        d.at("no topics", version, &request(&[]), rows);
    }
    d.at("twice, the lower first", 2, &request(&[("r-plain", &[(0, 7), (0, 8)])]), rows);
    d.at("topic twice", 2, &request(&[("r-plain", &[(0, 8)]), ("r-plain", &[(1, 0)])]), rows);
    d.at("to the high watermark", 2, &request(&[("r-plain", &[(0, -1), (1, -1)])]), rows);
    d.at("again", 2, &request(&[("r-plain", &[(0, -1), (1, -1)])]), rows);
}
