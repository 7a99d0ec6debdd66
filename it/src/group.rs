//! A member of a classic group, step by step, as a test wants it.

use bytes::Bytes;
use taccola_wire::messages::join_group_request::JoinGroupRequestProtocol;
use taccola_wire::messages::leave_group_request::MemberIdentity;
use taccola_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use taccola_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use taccola_wire::messages::{
    FindCoordinatorRequest, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, OffsetCommitRequest, SyncGroupRequest,
};

use crate::conn::Conn;
use crate::eventually;

pub const JOIN: i16 = 9;
pub const SYNC: i16 = 5;

/// Waits until the group's coordinator is there.
pub fn find_coordinator(conn: &mut Conn, group: &str) {
    let find = FindCoordinatorRequest { coordinator_keys: vec![group.to_owned()], ..Default::default() };
    eventually("a coordinator", || (conn.ask(&find, 4).coordinators[0].error_code == 0).then_some(()));
    let probe = HeartbeatRequest { group_id: group.to_owned(), member_id: "nobody".to_owned(), ..Default::default() };
    // 14, 15 and 16: it loads, or nobody is it yet.
    eventually("a loaded coordinator", || (!(14..=16).contains(&conn.ask(&probe, 4).error_code)).then_some(()));
}

pub fn join_request(group: &str, member: &str, instance: Option<&str>) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: group.to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        member_id: member.to_owned(),
        group_instance_id: instance.map(str::to_owned),
        protocol_type: "consumer".to_owned(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".to_owned(), metadata: Bytes::from_static(b"\0\x01") }],
        reason: None,
    }
}

/// A member id from MEMBER_ID_REQUIRED.
pub fn member_id(conn: &mut Conn, group: &str) -> String {
    let first = conn.ask(&join_request(group, "", None), JOIN);
    assert_eq!(first.error_code, 79, "MEMBER_ID_REQUIRED: {first:?}");
    first.member_id
}

/// Both steps of a dynamic member's join, which must be the only one.
pub fn join(conn: &mut Conn, group: &str) -> JoinGroupResponse {
    let id = member_id(conn, group);
    let joined = conn.ask(&join_request(group, &id, None), JOIN);
    assert_eq!(joined.error_code, 0, "{joined:?}");
    joined
}

/// What a leader sends gives `assignment` to each member that it was told of; others send none.
pub fn sync_request(group: &str, joined: &JoinGroupResponse, assignment: &'static [u8]) -> SyncGroupRequest {
    let rows = joined.members.iter().map(|member| SyncGroupRequestAssignment {
        member_id: member.member_id.clone(),
        assignment: Bytes::from_static(assignment),
    });
    SyncGroupRequest {
        group_id: group.to_owned(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        protocol_type: Some("consumer".to_owned()),
        protocol_name: Some("range".to_owned()),
        assignments: rows.collect(),
        ..Default::default()
    }
}

pub fn heartbeat(conn: &mut Conn, group: &str, joined: &JoinGroupResponse) -> i16 {
    let request = HeartbeatRequest {
        group_id: group.to_owned(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        ..Default::default()
    };
    conn.ask(&request, 4).error_code
}

pub fn commit_request(group: &str, generation: i32, member: &str, topic: &str, offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition {
        partition_index: 0,
        committed_offset: offset,
        committed_leader_epoch: 3,
        committed_metadata: Some("meta".to_owned()),
    };
    let topic = OffsetCommitRequestTopic { name: topic.to_owned(), partitions: vec![partition], ..Default::default() };
    OffsetCommitRequest {
        group_id: group.to_owned(),
        generation_id_or_member_epoch: generation,
        member_id: member.to_owned(),
        topics: vec![topic],
        ..Default::default()
    }
}

/// Commits; the partition's error.
pub fn commit(conn: &mut Conn, group: &str, generation: i32, member: &str, offset: i64) -> i16 {
    conn.ask(&commit_request(group, generation, member, "t", offset), 9).topics[0].partitions[0].error_code
}

pub fn leave(conn: &mut Conn, group: &str, members: &[(&str, Option<&str>)], version: i16) -> LeaveGroupResponse {
    let mut request = LeaveGroupRequest { group_id: group.to_owned(), ..Default::default() };
    if version < 3 {
        request.member_id = members[0].0.to_owned();
    } else {
        let rows = members.iter().map(|(member, instance)| MemberIdentity {
            member_id: (*member).to_owned(),
            group_instance_id: instance.map(str::to_owned),
            ..Default::default()
        });
        request.members = rows.collect();
    }
    conn.ask(&request, version)
}
