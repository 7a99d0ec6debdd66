//! What a member says is kept within bounds, and not by keeping the request that it came in.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use bytes::Bytes;
use taccola_base::limits::GROUP_METADATA_BYTES_MAX;
use taccola_coord::{Effects, GroupConfig, GroupShard, Reply, RequestContext, RequestToken, Response, TimerKey};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::join_group_request::JoinGroupRequestProtocol;
use taccola_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use taccola_wire::messages::{JoinGroupRequest, JoinGroupResponse, SyncGroupRequest};

fn context(token: u64, client_id: &str) -> RequestContext<'_> {
    let mut fresh_id = [0; 16];
    fresh_id[0] = token as u8;
    RequestContext { token: RequestToken(token), api_version: 3, client_id, client_host: "/127.0.0.1", fresh_id }
}

fn join(shard: &mut GroupShard, token: u64, client_id: &str, metadata: Bytes) -> Effects<JoinGroupResponse> {
    let request = JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "p".into(),
        protocols: vec![JoinGroupRequestProtocol { name: "n".into(), metadata }],
        ..Default::default()
    };
    shard.handle_join(0, &context(token, client_id), request)
}

fn error(effects: &Effects<JoinGroupResponse>) -> Option<ErrorCode> {
    match &effects.response {
        Reply::Now(response) => Some(ErrorCode::from_code(response.error_code)),
        Reply::Parked => None,
    }
}

#[test]
fn metadata_beyond_the_limit_is_refused_and_leaves_nothing_behind() {
    let mut shard =
        GroupShard::new(GroupConfig::default(), std::sync::Arc::new(taccola_coord::cluster_image::EmptyImage));
    let huge = Bytes::from(vec![0; GROUP_METADATA_BYTES_MAX + 1]);
    let effects = join(&mut shard, 1, "a", huge.clone());
    assert_eq!(error(&effects), Some(ErrorCode::GroupMaxSizeReached));
    assert!(effects.records.is_empty() && effects.timers.is_empty());
    assert_eq!(shard.describe_groups(5, &["g".to_owned()])[0].group_state, "Dead");

    // All members together count.
    let half = Bytes::from(vec![0; GROUP_METADATA_BYTES_MAX / 2]);
    assert_eq!(error(&join(&mut shard, 2, "a", half.clone())), None);
    assert_eq!(error(&join(&mut shard, 3, "b", half)), Some(ErrorCode::GroupMaxSizeReached));
    assert_eq!(error(&join(&mut shard, 4, "b", Bytes::from_static(b"small"))), None);
    // So do names.
    let long = "c".repeat(30_000);
    let mut refused = false;
    for token in 5..255 {
        refused |= error(&join(&mut shard, token, &long, Bytes::new())) == Some(ErrorCode::GroupMaxSizeReached);
    }
    assert!(refused);
    let too_long = "c".repeat(32_750);
    assert_eq!(error(&join(&mut shard, 255, &too_long, Bytes::new())), Some(ErrorCode::InvalidRequest));
}

#[test]
fn assignments_beyond_the_limit_fail_and_everybody_joins_again() {
    let mut shard = GroupShard::new(
        GroupConfig { initial_rebalance_delay_ms: 0, ..Default::default() },
        std::sync::Arc::new(taccola_coord::cluster_image::EmptyImage),
    );
    let effects = join(&mut shard, 1, "a", Bytes::from_static(b"m"));
    let _ = shard.committed(0, effects.append.unwrap(), 0);
    let effects = shard.on_timer(0, &TimerKey::Join { group: "g".into() });
    let Response::JoinGroup(joined) = &effects.released[0].response else { panic!("the join is due") };
    let request = SyncGroupRequest {
        group_id: "g".into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        assignments: vec![SyncGroupRequestAssignment {
            member_id: joined.member_id.clone(),
            assignment: Bytes::from(vec![0; GROUP_METADATA_BYTES_MAX]),
        }],
        ..Default::default()
    };
    let effects = shard.handle_sync(0, &context(2, "a"), &request);
    let Reply::Now(response) = &effects.response else { panic!("nothing is written") };
    assert_eq!(ErrorCode::from_code(response.error_code), ErrorCode::UnknownServerError);
    assert!(effects.records.is_empty());
    assert_eq!(shard.describe_groups(5, &["g".to_owned()])[0].group_state, "PreparingRebalance");
}

#[test]
fn what_is_kept_is_a_copy_of_its_own() {
    let mut shard =
        GroupShard::new(GroupConfig::default(), std::sync::Arc::new(taccola_coord::cluster_image::EmptyImage));
    let frame = Bytes::from(vec![7; 1_000_000]);
    let effects = join(&mut shard, 1, "a", frame.slice(10..20));
    assert_eq!(error(&effects), None);
    assert!(frame.is_unique(), "a member keeps the whole frame alive");
}
