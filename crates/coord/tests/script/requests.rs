//! The requests that the commands of a script stand for.

use bytes::Bytes;
use taccola_base::Uuid;
use taccola_wire::codec::Message;
use taccola_wire::messages::join_group_request::JoinGroupRequestProtocol;
use taccola_wire::messages::leave_group_request::MemberIdentity;
use taccola_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use taccola_wire::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use taccola_wire::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use taccola_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use taccola_wire::messages::{
    ConsumerProtocolSubscription, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest,
    OffsetCommitRequest, OffsetDeleteRequest, SyncGroupRequest,
};

use super::{Args, duration_ms, print};

/// `v=`, or a version in which a script may leave out what newer ones demand.
pub(crate) fn version(args: &Args<'_>, what: &str) -> i16 {
    let default = match what {
        "sync" => 4,
        "leave" => 5,
        "chb" => 1,
        "fetch" => 8,
        _ => 7,
    };
    args.number("v", default)
}

pub(crate) fn join(args: &Args<'_>) -> JoinGroupRequest {
    let protocol_type = args.get("type").unwrap_or("consumer");
    let protocols = args.get("protocols").unwrap_or("range:t").split(',').filter(|p| !p.is_empty());
    let protocol = |p: &str| {
        let (name, topics) = p.split_once(':').unwrap_or((p, ""));
        JoinGroupRequestProtocol { name: name.into(), metadata: subscription(protocol_type, topics) }
    };
    JoinGroupRequest {
        group_id: group(args),
        session_timeout_ms: args.duration("session", 10_000) as i32,
        rebalance_timeout_ms: args.duration("rebalance", 60_000) as i32,
        member_id: member(args.get("member").unwrap_or_default()),
        group_instance_id: args.get("instance").map(str::to_owned),
        protocol_type: protocol_type.to_owned(),
        protocols: protocols.map(protocol).collect(),
        reason: None,
    }
}

pub(crate) fn sync(args: &Args<'_>) -> SyncGroupRequest {
    let rows = args.get("assign").unwrap_or_default().split(',').filter_map(|row| row.split_once(':'));
    SyncGroupRequest {
        group_id: group(args),
        generation_id: args.number("gen", -1),
        member_id: member(args.get("member").unwrap_or_default()),
        group_instance_id: args.get("instance").map(str::to_owned),
        protocol_type: args.get("type").map(str::to_owned),
        protocol_name: args.get("protocol").map(str::to_owned),
        assignments: rows
            .map(|(id, text)| SyncGroupRequestAssignment {
                member_id: member(id),
                assignment: Bytes::copy_from_slice(text.as_bytes()),
            })
            .collect(),
    }
}

pub(crate) fn heartbeat(args: &Args<'_>) -> HeartbeatRequest {
    HeartbeatRequest {
        group_id: group(args),
        generation_id: args.number("gen", -1),
        member_id: member(args.get("member").unwrap_or_default()),
        group_instance_id: args.get("instance").map(str::to_owned),
    }
}

pub(crate) fn leave(args: &Args<'_>) -> LeaveGroupRequest {
    let mut request = LeaveGroupRequest { group_id: group(args), ..Default::default() };
    for row in args.get("members").unwrap_or_default().split(',') {
        let (id, instance) = row.split_once('/').map_or((row, None), |(id, i)| (id, Some(i.to_owned())));
        request.member_id = member(id);
        request.members.push(MemberIdentity { member_id: member(id), group_instance_id: instance, reason: None });
    }
    if version(args, "leave") < 3 {
        request.members.clear();
    }
    request
}

pub(crate) fn commit(args: &Args<'_>) -> OffsetCommitRequest {
    let mut request = OffsetCommitRequest {
        group_id: group(args),
        generation_id_or_member_epoch: args.number("gen", -1),
        member_id: member(args.get("member").unwrap_or_default()),
        group_instance_id: args.get("instance").map(str::to_owned),
        retention_time_ms: args.get("retention").map_or(-1, |r| r.parse().unwrap_or_else(|_| duration_ms(r))),
        ..Default::default()
    };
    for word in args.rest(2) {
        let (partition, offset) = word.split_once('=').unwrap();
        let (topic, index) = partition.rsplit_once('-').unwrap();
        let (offset, epoch) = offset.split_once('@').unwrap_or((offset, "-1"));
        let row = OffsetCommitRequestPartition {
            partition_index: index.parse().unwrap(),
            committed_offset: offset.parse().unwrap(),
            committed_leader_epoch: epoch.parse().unwrap(),
            committed_metadata: args.get("meta").map(print::unescape),
        };
        request.topics.push(OffsetCommitRequestTopic {
            name: topic.to_owned(),
            topic_id: topic_id(args),
            partitions: vec![row],
        });
    }
    request
}

pub(crate) fn is_stable(args: &Args<'_>) -> bool {
    args.rest(2).contains(&"stable")
}

pub(crate) fn fetch(args: &Args<'_>) -> OffsetFetchRequestGroup {
    let words = args.rest(2);
    let partitions = words.iter().filter(|w| !["stable", "all"].contains(w)).map(|w| w.rsplit_once('-').unwrap());
    let topic = |(topic, index): (&str, &str)| OffsetFetchRequestTopics {
        name: topic.to_owned(),
        topic_id: topic_id(args),
        partition_indexes: vec![index.parse().unwrap()],
    };
    OffsetFetchRequestGroup {
        group_id: group(args),
        topics: (!words.contains(&"all")).then(|| partitions.map(topic).collect()),
        ..Default::default()
    }
}

pub(crate) fn offset_delete(args: &Args<'_>) -> OffsetDeleteRequest {
    let topics = args.rest(2).iter().map(|w| w.rsplit_once('-').unwrap());
    let topic = |(name, index): (&str, &str)| OffsetDeleteRequestTopic {
        name: name.to_owned(),
        partitions: vec![OffsetDeleteRequestPartition { partition_index: index.parse().unwrap() }],
    };
    OffsetDeleteRequest { group_id: group(args), topics: topics.map(topic).collect() }
}

pub(crate) fn list(args: &Args<'_>) -> ListGroupsRequest {
    let filter = |key| args.get(key).map(|v| v.split(',').map(str::to_owned).collect()).unwrap_or_default();
    ListGroupsRequest { states_filter: filter("states"), types_filter: filter("types") }
}

pub(crate) fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

/// `''` is the empty group id.
fn group(args: &Args<'_>) -> String {
    args.word(1).trim_matches('\'').to_owned()
}

fn member(short: &str) -> String {
    print::lengthen(short)
}

pub(crate) fn topic_id(args: &Args<'_>) -> Uuid {
    Uuid::from_u128(args.number("id", 0))
}

/// A consumer's subscription (version 0 of it), or the text itself.
fn subscription(protocol_type: &str, topics: &str) -> Bytes {
    if protocol_type != "consumer" || topics == "garbage" {
        return Bytes::copy_from_slice(topics.as_bytes());
    }
    let topics = topics.split('+').filter(|t| !t.is_empty()).map(str::to_owned).collect();
    let body = ConsumerProtocolSubscription { topics, ..Default::default() }.to_bytes(0).unwrap();
    [&0i16.to_be_bytes(), &body[..]].concat().into()
}
