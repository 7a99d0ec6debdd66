//! Log directories that fail and come back, as Kafka 4.3.1's controller records it on one node with two directories.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::{MemoryLog, broker_spec, controller, controller_registration};
use taccola_base::Uuid;
use taccola_meta::bootstrap::BootstrapMetadata;
use taccola_meta::controller::{PreviousShutdown, ReplicaPlace};
use taccola_meta::image::NO_LEADER;
use taccola_meta::quorum::activation_records;
use taccola_meta::record::{MetadataRecord, VersionedRecord};
use taccola_meta::views::{self, ListenerView};
use taccola_wire::messages::{PartitionRecord, TopicRecord};

const TOPIC: Uuid = Uuid::from_u128(77);

fn dir(index: u128) -> Uuid {
    Uuid::from_u128(1_000 + index)
}

fn register(log: &mut MemoryLog, dirs: &[Uuid], incarnation: u128) {
    let mut spec = broker_spec(0, Uuid::from_u128(incarnation), 0, dir(0));
    spec.log_dirs = dirs.to_vec();
    let next = log.next_offset();
    log.commit(controller().register_broker(log.image(), &spec, PreviousShutdown::NothingLost, next).unwrap());
    log.commit(controller().unfence_broker(log.image(), 0).unwrap());
}

/// A node with two directories, and a partition in each.
fn node() -> MemoryLog {
    let mut log = MemoryLog { epoch: 1, ..MemoryLog::default() };
    for command in activation_records(&log.loader, &BootstrapMetadata::default()) {
        log.append(&command, true);
    }
    log.commit(controller().register_controller(&controller_registration(0, Uuid::from_u128(900), 9093)));
    register(&mut log, &[dir(0), dir(1)], 910);
    let mut records: Vec<MetadataRecord> = vec![TopicRecord { name: "t".to_owned(), topic_id: TOPIC }.into()];
    for partition_id in 0..2 {
        let partition = PartitionRecord {
            partition_id,
            topic_id: TOPIC,
            replicas: vec![0],
            isr: vec![0],
            leader: 0,
            leader_epoch: 0,
            partition_epoch: 0,
            directories: vec![Uuid::DIRECTORY_UNASSIGNED],
            ..Default::default()
        };
        records.push(partition.into());
    }
    let version = |record: &MetadataRecord| if matches!(record, MetadataRecord::Topic(_)) { 0 } else { 2 };
    let records: Vec<_> =
        records.into_iter().map(|record| VersionedRecord { version: version(&record), record }).collect();
    log.append(&records, true);
    let places = [0, 1].map(|at| ReplicaPlace { topic_id: TOPIC, partition: at, directory: dir(at as u128) });
    log.commit(controller().assign_directories(log.image(), 0, &places));
    log
}

/// Leaders and offline replicas.
fn told(log: &MemoryLog) -> Vec<(i32, Vec<i32>)> {
    let topic = log.image().topics.by_name("t").unwrap();
    let shown = views::metadata_topic(log.image(), topic, ListenerView::for_metadata("PLAINTEXT", 12));
    shown.partitions.into_iter().map(|p| (p.leader_id, p.offline_replicas)).collect()
}

#[test]
fn where_replicas_are_is_noted_once() {
    let log = node();
    let of = |id| log.image().topics.partition("t", id).unwrap().clone();
    assert_eq!((of(0).directories.clone(), of(1).directories.clone()), (vec![dir(0)], vec![dir(1)]));
    assert_eq!((of(1).leader_epoch, of(1).partition_epoch), (0, 1), "nobody is elected for it");
    let again = [ReplicaPlace { topic_id: TOPIC, partition: 1, directory: dir(1) }];
    assert!(controller().assign_directories(log.image(), 0, &again).records.is_empty());
    let of_nobody = [ReplicaPlace { topic_id: Uuid::from_u128(5), partition: 1, directory: dir(1) }];
    assert!(controller().assign_directories(log.image(), 0, &of_nobody).records.is_empty());
}

#[test]
fn a_directory_fails_and_comes_back() {
    let mut log = node();
    assert_eq!(told(&log), [(0, vec![]), (0, vec![])]);
    let outcome = controller().directories_offline(log.image(), 0, &[dir(1)]).unwrap();
    assert_eq!(outcome.records.len(), 2, "the partition, and what is left of the registration");
    log.commit(outcome);
    assert_eq!(told(&log), [(0, vec![]), (NO_LEADER, vec![0])]);
    assert_eq!(log.image().cluster.brokers[&0].log_dirs, [dir(0)]);
    let of = log.image().topics.partition("t", 1).unwrap().clone();
    assert_eq!((of.isr.clone(), of.elr.clone()), (vec![], vec![0]));
    assert!(controller().directories_offline(log.image(), 0, &[dir(1)]).unwrap().records.is_empty());

    // A start without it elects nobody there; one with it does.
    register(&mut log, &[dir(0)], 911);
    assert_eq!(told(&log), [(0, vec![]), (NO_LEADER, vec![0])]);
    register(&mut log, &[dir(0), dir(1)], 912);
    assert_eq!(told(&log), [(0, vec![]), (0, vec![])]);
    assert_eq!(log.image().topics.partition("t", 1).unwrap().leader_recovery_state, 0);
}
