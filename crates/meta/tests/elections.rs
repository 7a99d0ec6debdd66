//! ElectLeaders, AlterPartitionReassignments and UnregisterBroker in a cluster of three registered brokers, of which some
//! are gone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::{MemoryLog, broker_spec, controller, controller_registration};
use taccola_base::Uuid;
use taccola_meta::bootstrap::BootstrapMetadata;
use taccola_meta::controller::PreviousShutdown;
use taccola_meta::controller::reassignment::list_partition_reassignments;
use taccola_meta::image::{ConfigResource, NO_LEADER, PartitionRegistration};
use taccola_meta::quorum::activation_records;
use taccola_meta::record::{MetadataRecord, VersionedRecord};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use taccola_wire::messages::elect_leaders_request::TopicPartitions;
use taccola_wire::messages::*;

fn dir(broker: i32) -> Uuid {
    Uuid::from_u128(1_000 + u128::from(broker.unsigned_abs()))
}

/// Brokers 0, 1 and 2, live, and topic `t` with these replicas, a partition each.
fn cluster(partitions: &[&[i32]]) -> MemoryLog {
    let mut log = MemoryLog { epoch: 1, ..MemoryLog::default() };
    for command in activation_records(&log.loader, &BootstrapMetadata::default()) {
        log.append(&command, true);
    }
    log.commit(controller().register_controller(&controller_registration(0, Uuid::from_u128(900), 9093)));
    for id in 0..3 {
        let spec = broker_spec(id, Uuid::from_u128(910 + u128::from(id.unsigned_abs())), 0, dir(id));
        let next = log.next_offset();
        log.commit(controller().register_broker(log.image(), &spec, PreviousShutdown::NothingLost, next).unwrap());
        log.commit(controller().unfence_broker(log.image(), id).unwrap());
    }
    let topic_id = Uuid::from_u128(77);
    let mut records: Vec<MetadataRecord> = vec![TopicRecord { name: "t".to_owned(), topic_id }.into()];
    for (partition_id, replicas) in (0..).zip(partitions) {
        let partition = PartitionRecord {
            partition_id,
            topic_id,
            replicas: replicas.to_vec(),
            isr: replicas.to_vec(),
            leader: replicas[0],
            directories: replicas.iter().map(|r| dir(*r)).collect(),
            ..Default::default()
        };
        records.push(partition.into());
    }
    let version = |record: &MetadataRecord| if matches!(record, MetadataRecord::Topic(_)) { 0 } else { 2 };
    let records: Vec<_> =
        records.into_iter().map(|record| VersionedRecord { version: version(&record), record }).collect();
    log.append(&records, true);
    log
}

fn partition(log: &MemoryLog, id: i32) -> PartitionRegistration {
    PartitionRegistration::clone(log.image().topics.partition("t", id).expect("it is there"))
}

fn elect(log: &mut MemoryLog, kind: i8, version: i16, partitions: Option<&[i32]>) -> Vec<(i32, ErrorCode)> {
    let topics = partitions.map(|p| vec![TopicPartitions { topic: "t".to_owned(), partitions: p.to_vec() }]);
    let request = ElectLeadersRequest { election_type: kind, topic_partitions: topics, ..Default::default() };
    let response = log.commit(controller().elect_leaders(log.image(), &request, version));
    let results = response.replica_election_results.into_iter().flat_map(|topic| topic.partition_result);
    results.map(|row| (row.partition_id, ErrorCode::from_code(row.error_code))).collect()
}

fn reassign(log: &mut MemoryLog, id: i32, replicas: Option<&[i32]>, may_change_factor: bool) -> ErrorCode {
    let partition = ReassignablePartition { partition_index: id, replicas: replicas.map(<[i32]>::to_vec) };
    let topics = vec![ReassignableTopic { name: "t".to_owned(), partitions: vec![partition] }];
    let request = AlterPartitionReassignmentsRequest {
        allow_replication_factor_change: may_change_factor,
        topics,
        ..Default::default()
    };
    let response = log.commit(controller().alter_partition_reassignments(log.image(), &request));
    ErrorCode::from_code(response.responses[0].partitions[0].error_code)
}

fn fence(log: &mut MemoryLog, id: i32) {
    log.commit(controller().fence_broker(log.image(), id).unwrap());
}

fn unfence(log: &mut MemoryLog, id: i32) {
    log.commit(controller().unfence_broker(log.image(), id).unwrap());
}

/// As a leader's AlterPartition would.
fn change(log: &mut MemoryLog, id: i32, change: PartitionChangeRecord) {
    let topic_id = log.image().topics.by_name("t").unwrap().id;
    let record = MetadataRecord::from(PartitionChangeRecord { partition_id: id, topic_id, ..change });
    log.append(&[VersionedRecord { record, version: 2 }], true);
}

#[test]
fn the_preferred_leader_leads_again_when_it_is_asked_for() {
    let mut log = cluster(&[&[1, 0], &[0]]);
    assert_eq!(
        elect(&mut log, 0, 2, Some(&[0, 1, 2])),
        [(0, ErrorCode::ElectionNotNeeded), (1, ErrorCode::ElectionNotNeeded), (2, ErrorCode::UnknownTopicOrPartition)]
    );
    fence(&mut log, 1);
    assert_eq!((partition(&log, 0).leader, partition(&log, 0).isr), (0, vec![0]));
    assert_eq!(elect(&mut log, 0, 2, Some(&[0])), [(0, ErrorCode::PreferredLeaderNotAvailable)]);
    unfence(&mut log, 1);
    assert_eq!(elect(&mut log, 0, 2, Some(&[0])), [(0, ErrorCode::PreferredLeaderNotAvailable)], "it is not in sync");
    change(&mut log, 0, PartitionChangeRecord { isr: Some(vec![0, 1]), ..Default::default() });
    let epoch = partition(&log, 0).leader_epoch;
    // Version 0 has no kind; of all partitions those are told that were not well.
    assert_eq!(elect(&mut log, 1, 0, None), [(0, ErrorCode::None)]);
    assert_eq!((partition(&log, 0).leader, partition(&log, 0).leader_epoch), (1, epoch + 1));
    assert!(elect(&mut log, 0, 2, None).is_empty());
}

#[test]
fn an_unclean_election_is_made_when_it_is_asked_for() {
    let mut log = cluster(&[&[0, 1]]);
    fence(&mut log, 1);
    fence(&mut log, 0);
    unfence(&mut log, 1);
    let leaderless = partition(&log, 0);
    assert_eq!((leaderless.leader, leaderless.elr.as_slice()), (NO_LEADER, [0].as_slice()));
    assert_eq!(elect(&mut log, 0, 2, Some(&[0])), [(0, ErrorCode::PreferredLeaderNotAvailable)]);
    assert_eq!(elect(&mut log, 1, 2, Some(&[0])), [(0, ErrorCode::None)]);
    let elected = partition(&log, 0);
    assert_eq!((elected.leader, elected.isr.as_slice(), elected.elr.len()), (1, [1].as_slice(), 0));
    assert_eq!(elected.leader_recovery_state, 1);
    assert_eq!(elect(&mut log, 1, 2, Some(&[0])), [(0, ErrorCode::ElectionNotNeeded)]);
    assert_eq!(elect(&mut log, 7, 1, Some(&[0])), [(0, ErrorCode::InvalidRequest)]);
    let nothing = ElectLeadersRequest { election_type: 7, topic_partitions: Some(Vec::new()), ..Default::default() };
    assert_eq!(log.commit(controller().elect_leaders(log.image(), &nothing, 2)).error_code, 0);
}

#[test]
fn only_a_reassignment_that_is_complete_at_once_is_taken() {
    let mut log = cluster(&[&[0, 1], &[0]]);
    let epochs = (partition(&log, 0).leader_epoch, partition(&log, 0).partition_epoch);
    // Another order: the leader stays.
    assert_eq!(reassign(&mut log, 0, Some(&[1, 0]), false), ErrorCode::None);
    let turned = partition(&log, 0);
    assert_eq!((turned.replicas, turned.directories), (vec![1, 0], vec![dir(1), dir(0)]));
    assert_eq!((turned.leader, turned.leader_epoch, turned.partition_epoch), (0, epochs.0, epochs.1 + 1));
    // The same again changes nothing.
    assert_eq!(reassign(&mut log, 0, Some(&[1, 0]), true), ErrorCode::None);
    assert_eq!(partition(&log, 0).partition_epoch, epochs.1 + 1);
    // Fewer: who leaves is out of the ISR, and the leader has a new epoch.
    assert_eq!(reassign(&mut log, 0, Some(&[1]), false), ErrorCode::InvalidReplicationFactor);
    assert_eq!(reassign(&mut log, 0, Some(&[7]), false), ErrorCode::InvalidReplicaAssignment, "brokers before numbers");
    assert_eq!(reassign(&mut log, 0, Some(&[1]), true), ErrorCode::None);
    let fewer = partition(&log, 0);
    assert_eq!((fewer.replicas.as_slice(), fewer.isr.as_slice(), fewer.leader), ([1].as_slice(), [1].as_slice(), 1));
    assert_eq!((fewer.leader_epoch, fewer.directories), (epochs.0 + 1, vec![dir(1)]));
    // What would have to be copied.
    let before = partition(&log, 1);
    for wrong in [[2].as_slice(), &[0, 2], &[2, 0], &[], &[0, 0], &[7]] {
        assert_eq!(reassign(&mut log, 1, Some(wrong), true), ErrorCode::InvalidReplicaAssignment, "{wrong:?}");
    }
    assert_eq!(reassign(&mut log, 5, Some(&[0]), true), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(reassign(&mut log, 1, None, true), ErrorCode::NoReassignmentInProgress);
    assert_eq!(partition(&log, 1), before);
    assert!(list_partition_reassignments(log.image(), &ListPartitionReassignmentsRequest::default()).topics.is_empty());
}

#[test]
fn a_reassignment_that_another_controller_began_is_told_ended_or_taken_back() {
    let began = PartitionChangeRecord {
        replicas: Some(vec![2, 0]),
        adding_replicas: Some(vec![2]),
        removing_replicas: Some(vec![0]),
        directories: Some(vec![dir(2), dir(0)]),
        ..Default::default()
    };
    let mut log = cluster(&[&[0]]);
    change(&mut log, 0, began.clone());
    let told = list_partition_reassignments(log.image(), &ListPartitionReassignmentsRequest::default());
    let row = &told.topics[0].partitions[0];
    assert_eq!((row.adding_replicas.as_slice(), row.removing_replicas.as_slice()), ([2].as_slice(), [0].as_slice()));
    assert_eq!(reassign(&mut log, 0, None, true), ErrorCode::None);
    let back = partition(&log, 0);
    assert_eq!((back.replicas, back.isr, back.leader), (vec![0], vec![0], 0));
    assert!(back.adding_replicas.is_empty() && back.removing_replicas.is_empty());

    // To where it was, by name; in the middle of it the target's size counts.
    change(&mut log, 0, began.clone());
    assert_eq!(reassign(&mut log, 0, Some(&[0, 2]), false), ErrorCode::InvalidReplicationFactor);
    assert_eq!(reassign(&mut log, 0, Some(&[0]), false), ErrorCode::None);
    assert_eq!(partition(&log, 0).replicas, [0]);
    assert!(partition(&log, 0).adding_replicas.is_empty());

    // Only new replicas are in sync: what would be left may lack acknowledged records.
    change(&mut log, 0, PartitionChangeRecord { isr: Some(vec![2]), leader: 2, ..began });
    assert_eq!(reassign(&mut log, 0, None, true), ErrorCode::InvalidReplicaAssignment);
    let unclean = taccola_wire::messages::ConfigRecord {
        resource_type: 2,
        resource_name: "t".to_owned(),
        name: "unclean.leader.election.enable".to_owned(),
        value: Some("true".to_owned()),
    };
    log.append(&[VersionedRecord { record: unclean.into(), version: 0 }], true);
    assert!(log.image().configs.of(&ConfigResource::topic("t")).is_some());
    assert_eq!(reassign(&mut log, 0, None, true), ErrorCode::None);
    assert_eq!((partition(&log, 0).leader, partition(&log, 0).isr), (0, vec![0]));
}

#[test]
fn a_broker_that_is_unregistered_leads_nothing() {
    let mut log = cluster(&[&[1, 0], &[1]]);
    log.commit(controller().unregister_broker(log.image(), 1).unwrap());
    assert!(!log.image().cluster.brokers.contains_key(&1));
    assert_eq!((partition(&log, 0).leader, partition(&log, 0).isr), (0, vec![0]));
    assert_eq!((partition(&log, 1).leader, partition(&log, 1).elr), (NO_LEADER, vec![1]));
    let again = controller().unregister_broker(log.image(), 1).unwrap_err();
    assert_eq!(again.code, ErrorCode::BrokerIdNotRegistered);
    // What only it held can be brought to nobody, but what others hold can do without it.
    assert_eq!(reassign(&mut log, 1, Some(&[0]), true), ErrorCode::InvalidReplicaAssignment);
    assert_eq!(reassign(&mut log, 0, Some(&[0]), true), ErrorCode::None);
    assert_eq!(partition(&log, 0).replicas, [0]);
}
