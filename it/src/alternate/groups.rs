//! Groups of every kind and their offsets: the steps of [`World`] that need a coordinator.

use taccola_base::Uuid;
use taccola_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use taccola_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use taccola_wire::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use taccola_wire::messages::share_acknowledge_request::{AcknowledgePartition, AcknowledgeTopic, AcknowledgementBatch};
use taccola_wire::messages::share_fetch_request::{FetchPartition, FetchTopic};
use taccola_wire::messages::streams_group_heartbeat_request::{Subtopology, Topology};
use taccola_wire::messages::*;

use super::{SHARED, World};
use crate::conn::Conn;
use crate::eventually;
use crate::group;
use crate::load::Place;
use crate::requests::{batch, list_offset, now_ms};
use crate::txn::offset_fetch;

const MEMBER: &str = "AAAAAAAAAAAAAAAAAAAAAQ";
const SHARERS: &str = "share-kind";
const ACCEPT: i8 = 1;
const RELEASE: i8 = 2;
const REJECT: i8 = 3;
/// Of a member that joins, and of one that leaves.
const JOINS: i32 = 0;
const LEAVES: i32 = -1;

impl World {
    pub(super) fn coordinator(&self, conn: &mut Conn, key_type: i8, key: &str) {
        let request = FindCoordinatorRequest { key_type, coordinator_keys: vec![key.to_owned()], ..Default::default() };
        eventually("a coordinator", || (conn.ask(&request, 4).coordinators[0].error_code == 0).then_some(()));
    }

    fn commit(&mut self, conn: &mut Conn, group: &str, member: &str, epoch: i32, place: &Place) {
        let offset = self.rng.below(10_000) as i64;
        let partition = OffsetCommitRequestPartition {
            partition_index: place.1,
            committed_offset: offset,
            committed_leader_epoch: -1,
            committed_metadata: Some(format!("at {offset}")),
        };
        let topic =
            OffsetCommitRequestTopic { name: place.0.clone(), partitions: vec![partition], ..Default::default() };
        let request = OffsetCommitRequest {
            group_id: group.to_owned(),
            generation_id_or_member_epoch: epoch,
            member_id: member.to_owned(),
            topics: vec![topic],
            ..Default::default()
        };
        eventually("a commit", || {
            let code = conn.ask(&request, 9).topics[0].partitions[0].error_code;
            // 3 and 14 to 16: the coordinator has not heard of the topic, or loads.
            assert!([0, 3, 14, 15, 16].contains(&code), "{group}: {code}\n{}", self.done.join("\n"));
            (code == 0).then_some(())
        });
        self.done.push(format!("{group} commits {place:?} at {offset}"));
        self.offsets.insert((group.to_owned(), place.clone()), offset);
    }

    /// Of no member at all.
    pub(super) fn simple_commit(&mut self, conn: &mut Conn) {
        let group = format!("simple-{}", self.rng.below(3));
        let place = self.place();
        self.coordinator(conn, 0, &group);
        self.commit(conn, &group, "", -1, &place);
    }

    /// A member of a classic group joins, commits and leaves.
    pub(super) fn classic_group(&mut self, conn: &mut Conn) {
        let group = "classic-kind";
        group::find_coordinator(conn, group);
        let joined = group::join(conn, group);
        let synced = conn.ask(&group::sync_request(group, &joined, b"all"), group::SYNC);
        assert_eq!(synced.error_code, 0, "{synced:?}");
        let place = self.place();
        self.commit(conn, group, &joined.member_id, joined.generation_id, &place);
        assert_eq!(group::leave(conn, group, &[(joined.member_id.as_str(), None)], 5).error_code, 0);
    }

    pub(super) fn consumer_group(&mut self, conn: &mut Conn) {
        let group = "consumer-kind";
        self.coordinator(conn, 0, group);
        let mut beat = ConsumerGroupHeartbeatRequest {
            group_id: group.to_owned(),
            member_id: MEMBER.to_owned(),
            member_epoch: JOINS,
            rebalance_timeout_ms: 30_000,
            subscribed_topic_names: Some(vec![SHARED.to_owned()]),
            topic_partitions: Some(Vec::new()),
            ..Default::default()
        };
        let epoch = eventually("a member of a consumer group", || {
            let reply = conn.ask(&beat, 1);
            (reply.error_code == 0).then_some(reply.member_epoch)
        });
        let place = self.place();
        self.commit(conn, group, MEMBER, epoch, &place);
        beat.member_epoch = LEAVES;
        assert_eq!(conn.ask(&beat, 1).error_code, 0);
    }

    /// A Streams application's member comes and goes.
    pub(super) fn streams_group(&mut self, conn: &mut Conn) {
        let group = "streams-kind";
        self.coordinator(conn, 0, group);
        let parts = vec![Subtopology {
            subtopology_id: "0".to_owned(),
            source_topics: vec![SHARED.to_owned()],
            ..Default::default()
        }];
        let beat = StreamsGroupHeartbeatRequest {
            group_id: group.to_owned(),
            member_id: MEMBER.to_owned(),
            member_epoch: JOINS,
            rebalance_timeout_ms: 30_000,
            topology: Some(Topology { epoch: 1, subtopologies: parts }),
            active_tasks: Some(Vec::new()),
            standby_tasks: Some(Vec::new()),
            warmup_tasks: Some(Vec::new()),
            process_id: Some("process".to_owned()),
            ..Default::default()
        };
        eventually("a member of a streams group", || (conn.ask(&beat, 0).error_code == 0).then_some(()));
        let leaves = StreamsGroupHeartbeatRequest {
            group_id: group.to_owned(),
            member_id: MEMBER.to_owned(),
            member_epoch: LEAVES,
            ..Default::default()
        };
        assert_eq!(conn.ask(&leaves, 0).error_code, 0);
        self.done.push("streams group".to_owned());
    }

    /// A member of a share group takes what there is, accepts some, rejects some, gives the others back, and leaves.
    pub(super) fn share_group(&mut self, conn: &mut Conn) {
        self.coordinator(conn, 0, SHARERS);
        let partition = self.rng.below(2) as i32;
        let place = (SHARED.to_owned(), partition);
        let values: Vec<String> = (0..6).map(|n| format!("shared {n} of {}", now_ms())).collect();
        let bytes = batch(&values.iter().map(String::as_str).collect::<Vec<_>>());
        let answer = crate::requests::produce(conn, SHARED, partition, bytes);
        assert_eq!(answer.error_code, 0, "{answer:?}");
        self.wrote(&place, answer.base_offset, values, None);
        self.shared_from_the_start(conn);
        let mut beat = ShareGroupHeartbeatRequest {
            group_id: SHARERS.to_owned(),
            member_id: MEMBER.to_owned(),
            member_epoch: JOINS,
            subscribed_topic_names: Some(vec![SHARED.to_owned()]),
            ..Default::default()
        };
        let topic = eventually("a share group's partitions", || {
            let reply = conn.ask(&beat, 1);
            if reply.error_code != 0 {
                return None;
            }
            (beat.member_epoch, beat.subscribed_topic_names) = (reply.member_epoch, None);
            let topics = reply.assignment?.topic_partitions;
            topics.first().filter(|topic| topic.partitions.len() == 2).map(|topic| topic.topic_id)
        });
        self.take(conn, topic, partition);
        beat.member_epoch = LEAVES;
        assert_eq!(conn.ask(&beat, 1).error_code, 0);
    }

    fn shared_from_the_start(&self, conn: &mut Conn) {
        let config = AlterableConfig {
            name: "share.auto.offset.reset".to_owned(),
            value: Some("earliest".to_owned()),
            ..Default::default()
        };
        let row = AlterConfigsResource { resource_type: 32, resource_name: SHARERS.to_owned(), configs: vec![config] };
        let request = IncrementalAlterConfigsRequest { resources: vec![row], ..Default::default() };
        assert_eq!(conn.ask(&request, 1).responses[0].error_code, 0);
    }

    /// One share session: what is acquired is acknowledged when it ends.
    fn take(&mut self, conn: &mut Conn, topic_id: Uuid, partition: i32) {
        let request = |epoch| ShareFetchRequest {
            group_id: Some(SHARERS.to_owned()),
            member_id: Some(MEMBER.to_owned()),
            share_session_epoch: epoch,
            max_wait_ms: 0,
            max_bytes: 1 << 20,
            max_records: 500,
            batch_size: 500,
            topics: vec![FetchTopic {
                topic_id,
                partitions: vec![FetchPartition { partition_index: partition, ..Default::default() }],
            }],
            ..Default::default()
        };
        let mut epoch = -1;
        let acquired = eventually("records of a share group", || {
            epoch += 1;
            let reply = conn.ask(&request(epoch), 1);
            assert_eq!(reply.error_code, 0, "{reply:?}");
            let rows = reply.responses.into_iter().flat_map(|topic| topic.partitions);
            let acquired: Vec<_> = rows.flat_map(|row| row.acquired_records).collect();
            (!acquired.is_empty()).then_some(acquired)
        });
        let known = (0..).find(|offset| !self.shared.contains(&(partition, *offset))).unwrap_or(0);
        let first = acquired[0].first_offset;
        assert_eq!(first, known, "the first record that is not done with\n{}", self.done.join("\n"));
        for rows in &acquired {
            for offset in rows.first_offset..=rows.last_offset {
                let times = self.delivered.entry((partition, offset)).or_default();
                *times += 1;
                assert_eq!(rows.delivery_count, *times, "{offset} was given out\n{}", self.done.join("\n"));
            }
        }
        let mut batches = Vec::new();
        for rows in &acquired {
            let (first_offset, last_offset) = (rows.first_offset, rows.last_offset);
            // A record that was given back five times is given up.
            let given_up = rows.delivery_count >= 4;
            let all = last_offset - first_offset + 1;
            let accepted = if given_up { all } else { self.rng.below(all as u64 + 1) as i64 };
            let kind = if self.rng.one_in(3) { REJECT } else { ACCEPT };
            let mut push = |first_offset, last_offset, kind| {
                if first_offset <= last_offset {
                    batches.push(AcknowledgementBatch { first_offset, last_offset, acknowledge_types: vec![kind] });
                }
            };
            push(first_offset, first_offset + accepted - 1, kind);
            push(first_offset + accepted, last_offset, RELEASE);
            self.shared.extend((first_offset..first_offset + accepted).map(|offset| (partition, offset)));
        }
        self.done.push(format!("shares of {partition}: {acquired:?}, {batches:?}"));
        let partitions = vec![AcknowledgePartition { partition_index: partition, acknowledgement_batches: batches }];
        let last = ShareAcknowledgeRequest {
            group_id: Some(SHARERS.to_owned()),
            member_id: Some(MEMBER.to_owned()),
            share_session_epoch: LEAVES,
            topics: vec![AcknowledgeTopic { topic_id, partitions }],
            ..Default::default()
        };
        let reply = conn.ask(&last, 1);
        assert_eq!(reply.error_code, 0, "{reply:?}");
        for row in reply.responses.iter().flat_map(|topic| &topic.partitions) {
            assert_eq!(row.error_code, 0, "{row:?}\n{}", self.done.join("\n"));
        }
    }

    /// Offsets of a topic, or a group as a whole, go.
    pub(super) fn forget_offsets(&mut self, conn: &mut Conn) {
        let Some((group, place)) = self.offsets.keys().find(|(group, _)| group.starts_with("simple")).cloned() else {
            return;
        };
        if self.rng.one_in(2) {
            let request = DeleteGroupsRequest { groups_names: vec![group.clone()] };
            assert_eq!(conn.ask(&request, 2).results[0].error_code, 0);
            self.offsets.retain(|(other, _), _| *other != group);
            return self.done.push(format!("{group} is deleted"));
        }
        let partition = OffsetDeleteRequestPartition { partition_index: place.1 };
        let topic = OffsetDeleteRequestTopic { name: place.0.clone(), partitions: vec![partition] };
        let request = OffsetDeleteRequest { group_id: group.clone(), topics: vec![topic] };
        let reply = conn.ask(&request, 0);
        assert_eq!((reply.error_code, reply.topics[0].partitions[0].error_code), (0, 0), "{reply:?}");
        self.done.push(format!("{group} forgets {place:?}"));
        self.offsets.remove(&(group, place));
    }

    pub(super) fn check_groups(&self, who: &str, conn: &mut Conn) {
        for ((group, place), offset) in &self.offsets {
            self.coordinator(conn, 0, group);
            // Also where a transaction is about to change it.
            let request = offset_fetch(group, place, false);
            let found = eventually("a committed offset", || {
                let group = conn.ask(&request, 8).groups.remove(0);
                (group.error_code == 0).then(|| group.topics[0].partitions[0].committed_offset)
            });
            assert_eq!(found, *offset, "{who}: {group} at {place:?}\n{}", self.done.join("\n"));
        }
        if self.session == 1 {
            return;
        }
        let groups = eventually("the list of groups", || {
            Some(conn.ask(&ListGroupsRequest::default(), 5)).filter(|reply| reply.error_code == 0)
        });
        for kind in ["classic", "consumer", "share", "streams"] {
            let group = groups.groups.iter().find(|group| group.group_id == format!("{kind}-kind"));
            let found = group.map(|group| group.group_type.to_lowercase());
            assert_eq!(found.as_deref(), Some(kind), "{who}\n{}", self.done.join("\n"));
        }
        assert!(list_offset(conn, SHARED, 0, -1).0 == 0);
    }
}
