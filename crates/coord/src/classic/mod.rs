//! Classic groups: the members rebalance among themselves through JoinGroup and SyncGroup, the coordinator keeps the
//! generations, the leader and the sessions. `group` holds the state, `rebalance` its transitions, `requests` what the
//! group answers to each request.

mod as_group;
mod group;
mod member;
mod rebalance;
mod requests;

pub(crate) use group::{Group, State};
pub(crate) use member::Member;
pub(crate) use requests::{MEMBER_ID_PREFIX_MAX, bytes_of_member};

use taccola_wire::error::ErrorCode;
use taccola_wire::messages::leave_group_request::MemberIdentity;
use taccola_wire::messages::leave_group_response::MemberResponse;
use taccola_wire::messages::{JoinGroupResponse, SyncGroupResponse};

/// A JoinGroup reply that carries an error.
pub(crate) fn join_error(api_version: i16, member_id: &str, error: ErrorCode) -> JoinGroupResponse {
    JoinGroupResponse {
        error_code: error.code(),
        member_id: member_id.to_owned(),
        protocol_name: null_or_empty(api_version),
        ..Default::default()
    }
}

/// The protocol name could not be null before JoinGroup v7.
pub(crate) fn null_or_empty(api_version: i16) -> Option<String> {
    if api_version >= 7 { None } else { Some(String::new()) }
}

pub(crate) fn sync_error(error: ErrorCode) -> SyncGroupResponse {
    SyncGroupResponse { error_code: error.code(), ..Default::default() }
}

/// LeaveGroup for a group that does not exist.
pub(crate) fn unknown_members(leaving: &[MemberIdentity]) -> Vec<MemberResponse> {
    let row = |m: &MemberIdentity| MemberResponse {
        member_id: m.member_id.clone(),
        group_instance_id: m.group_instance_id.clone(),
        error_code: ErrorCode::UnknownMemberId.code(),
    };
    leaving.iter().map(row).collect()
}
