//! Groups of one kind and requests for another; lists and descriptions of all.

use bytes::Bytes;
use taccola_wire::messages::join_group_request::JoinGroupRequestProtocol;
use taccola_wire::messages::leave_group_request::MemberIdentity;
use taccola_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use taccola_wire::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use taccola_wire::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use taccola_wire::messages::*;

use super::super::{Differential, equal};
use super::{consumer, consumer_described, share, streams, strings};

/// One group of each kind with a member, and one without.
const GROUPS: [&str; 9] = [
    "k-classic",
    "k-consumer",
    "k-share",
    "k-streams",
    "k-simple",
    "k-consumer-0",
    "k-share-0",
    "k-streams-0",
    "k-never",
];

pub(super) fn run(d: &mut Differential) {
    prepare(d);
    list(d);
    describe(d);
    classic_requests(d);
    offsets(d);
    wrong_heartbeats(d);
    describe(d);
    delete(d);
    list(d);
}

fn join(group: &str, member: &str, instance: Option<&str>) -> JoinGroupRequest {
    let metadata = Bytes::from_static(b"\0\x01\0\0\0\x01\0\x05g-two\xff\xff\xff\xff\0\0\0\0");
    JoinGroupRequest {
        group_id: group.to_owned(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        member_id: member.to_owned(),
        group_instance_id: instance.map(str::to_owned),
        protocol_type: "consumer".to_owned(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".to_owned(), metadata }],
        reason: None,
    }
}

/// Member ids that the broker made up.
fn joined(response: &mut JoinGroupResponse) {
    let generated = |id: &mut String| {
        if id.len() > 36 {
            "(generated)".clone_into(id);
        }
    };
    generated(&mut response.member_id);
    generated(&mut response.leader);
    response.members.iter_mut().for_each(|member| generated(&mut member.member_id));
}

fn prepare(d: &mut Differential) {
    d.at("a classic group", 7, &join("k-classic", "", Some("i")), joined);
    commit(d, "a simple group", "k-simple", "", -1);
    consumer::beat(d, "a consumer group", 1, &consumer::joining("k-consumer", "m", &["g-two"]));
    share::beat(d, "a share group", &share::joining("k-share", "m", &["g-missing"]));
    streams::beat(d, "a streams group", &streams::joining("k-streams", "m"));
    consumer::beat(d, "a consumer group", 1, &consumer::joining("k-consumer-0", "m", &["g-two"]));
    consumer::beat(d, "left again", 1, &consumer::beating("k-consumer-0", "m", -1));
    share::beat(d, "a share group", &share::joining("k-share-0", "m", &["g-missing"]));
    share::beat(d, "left again", &share::beating("k-share-0", "m", -1));
    streams::beat(d, "a streams group", &streams::joining("k-streams-0", "m"));
    streams::beat(d, "left again", &streams::beating("k-streams-0", "m", -1));
}

fn list(d: &mut Differential) {
    let rows = |response: &mut ListGroupsResponse| {
        response.groups.retain(|group| group.group_id.starts_with("k-"));
        response.groups.sort_by(|a, b| a.group_id.cmp(&b.group_id));
    };
    let filtered = |states: &[&str], types: &[&str]| ListGroupsRequest {
        states_filter: strings(states),
        types_filter: strings(types),
    };
    d.all("all", 0..=5, &filtered(&[], &[]), rows);
    let states: [&[&str]; 9] = [
        &["Stable"],
        &["stable"],
        &["Empty", "Dead"],
        &["PreparingRebalance", "CompletingRebalance"],
        &["Assigning", "Reconciling", "NotReady"],
        &["Unknown"],
        &["nonsense"],
        &[""],
        &["nonsense", "EMPTY"],
    ];
    for states in states {
        d.all(&format!("states {states:?}"), 4..=5, &filtered(states, &[]), rows);
    }
    let types: [&[&str]; 8] = [
        &["classic"],
        &["consumer"],
        &["share"],
        &["streams"],
        &["Consumer", "SHARE"],
        &["unknown"],
        &["nonsense"],
        &[""],
    ];
    for types in types {
        d.at(&format!("types {types:?}"), 5, &filtered(&[], types), rows);
    }
    d.at("state and type", 5, &filtered(&["empty"], &["consumer", "classic"]), rows);
}

fn describe(d: &mut Differential) {
    let rows = |response: &mut DescribeGroupsResponse| {
        for group in &mut response.groups {
            equal::message(group.error_code, &mut group.error_message);
            for member in &mut group.members {
                if member.member_id.len() > 36 {
                    "(generated)".clone_into(&mut member.member_id);
                }
            }
        }
    };
    for include_authorized_operations in [false, true] {
        let request = DescribeGroupsRequest { groups: strings(&GROUPS), include_authorized_operations };
        let first = if include_authorized_operations { 3 } else { 0 };
        d.all("every kind", first..=6, &request, rows);
    }
    d.all("an empty id", 4..=6, &DescribeGroupsRequest { groups: strings(&[""]), ..Default::default() }, rows);
    let request = ConsumerGroupDescribeRequest { group_ids: strings(&GROUPS), ..Default::default() };
    d.all("every kind", 0..=1, &request, consumer_described);
    share::describe(d, "every kind", &GROUPS);
    streams::describe(d, "every kind", &GROUPS);
}

fn classic_requests(d: &mut Differential) {
    for group in ["k-consumer", "k-share", "k-streams", "k-share-0", "k-never"] {
        let with_member = join(group, "who", None);
        d.all(group, 2..=9, &with_member, joined);
        let heartbeat = HeartbeatRequest {
            group_id: group.to_owned(),
            generation_id: 1,
            member_id: "m".to_owned(),
            ..Default::default()
        };
        d.at(group, 4, &heartbeat, |_| {});
        let sync = SyncGroupRequest {
            group_id: group.to_owned(),
            generation_id: 1,
            member_id: "m".to_owned(),
            protocol_type: Some("consumer".to_owned()),
            protocol_name: Some("range".to_owned()),
            ..Default::default()
        };
        d.at(group, 5, &sync, |_| {});
        let leave = LeaveGroupRequest {
            group_id: group.to_owned(),
            members: vec![MemberIdentity { member_id: "who".to_owned(), ..Default::default() }],
            ..Default::default()
        };
        d.at(group, 5, &leave, |_| {});
    }
    d.at("k-share, joins", 9, &join("k-share", "", None), joined);
    d.at("k-streams, joins", 9, &join("k-streams", "", None), joined);
}

fn commit(d: &mut Differential, case: &str, group: &str, member: &str, epoch: i32) {
    let partition =
        OffsetCommitRequestPartition { committed_offset: 5, committed_leader_epoch: -1, ..Default::default() };
    let topic =
        OffsetCommitRequestTopic { name: "g-two".to_owned(), partitions: vec![partition], ..Default::default() };
    let request = OffsetCommitRequest {
        group_id: group.to_owned(),
        generation_id_or_member_epoch: epoch,
        member_id: member.to_owned(),
        topics: vec![topic],
        ..Default::default()
    };
    d.all(case, 8..=9, &request, |_| {});
}

fn offsets(d: &mut Differential) {
    for group in GROUPS {
        for (member, epoch) in [("", -1), ("m", 2), ("m", 9), ("who", 2)] {
            commit(d, &format!("{group} as {member:?} at {epoch}"), group, member, epoch);
            let topic =
                OffsetFetchRequestTopics { name: "g-two".to_owned(), partition_indexes: vec![0], ..Default::default() };
            let row = OffsetFetchRequestGroup {
                group_id: group.to_owned(),
                member_id: Some(member.to_owned()).filter(|member| !member.is_empty()),
                member_epoch: epoch,
                topics: Some(vec![topic]),
            };
            let request = OffsetFetchRequest { groups: vec![row], require_stable: true, ..Default::default() };
            d.all(&format!("{group} as {member:?} at {epoch}"), 8..=9, &request, |_| {});
        }
        let delete = OffsetDeleteRequest {
            group_id: group.to_owned(),
            topics: vec![OffsetDeleteRequestTopic {
                name: "g-two".to_owned(),
                partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
            }],
        };
        d.at(group, 0, &delete, |_| {});
    }
}

fn wrong_heartbeats(d: &mut Differential) {
    for group in ["k-classic", "k-consumer", "k-share", "k-streams", "k-share-0", "k-streams-0", "k-simple"] {
        if !["k-classic", "k-consumer"].contains(&group) {
            consumer::beat(d, &format!("{group}, joins"), 1, &consumer::joining(group, "c", &["g-two"]));
        }
        consumer::beat(d, &format!("{group}, stays"), 1, &consumer::beating(group, "who", 1));
        consumer::beat(d, &format!("{group}, leaves"), 1, &consumer::beating(group, "who", -1));
        if group != "k-share" && group != "k-share-0" {
            share::beat(d, &format!("{group}, joins"), &share::joining(group, "s", &["g-two"]));
        }
        share::beat(d, &format!("{group}, stays"), &share::beating(group, "who", 1));
        share::beat(d, &format!("{group}, leaves"), &share::beating(group, "who", -1));
        if group != "k-streams" && group != "k-streams-0" {
            streams::beat(d, &format!("{group}, joins"), &streams::joining(group, "t"));
        }
        streams::beat(d, &format!("{group}, stays"), &streams::beating(group, "who", 1));
        streams::beat(d, &format!("{group}, leaves"), &streams::beating(group, "who", -1));
    }
}

fn delete(d: &mut Differential) {
    let rows = |response: &mut DeleteGroupsResponse| {
        response.results.sort_by(|a, b| a.group_id.cmp(&b.group_id));
    };
    let request = DeleteGroupsRequest { groups_names: strings(&GROUPS) };
    d.all("every kind", 0..=2, &request, rows);
    d.at("an empty id", 2, &DeleteGroupsRequest { groups_names: strings(&[""]) }, rows);
    d.at("nothing", 2, &DeleteGroupsRequest { groups_names: Vec::new() }, rows);
}
