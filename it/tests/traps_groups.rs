//! Compatibility traps of classic groups and committed offsets.

use std::time::{Duration, Instant};

use taccola_it::conn::Conn;
use taccola_it::group::{
    JOIN, SYNC, commit, commit_request, find_coordinator, heartbeat, join, join_request, leave, member_id, sync_request,
};
use taccola_it::requests::{new_topic, produced};
use taccola_it::{Broker, eventually};
use taccola_wire::api::ApiKey;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use taccola_wire::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use taccola_wire::messages::{JoinGroupResponse, OffsetDeleteRequest, OffsetFetchRequest, SyncGroupResponse};

fn started() -> (Broker, Conn) {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "t", 2, &[]);
    find_coordinator(&mut conn, "g");
    (broker, conn)
}

fn connect(broker: &Broker) -> Conn {
    Conn::connect(broker.port).expect("the broker accepts")
}

fn code(code: i16) -> ErrorCode {
    ErrorCode::from_code(code)
}

#[test]
fn trap_53_offset_fetch_of_all_topics_and_of_several_groups() {
    let (mut broker, mut conn) = started();
    find_coordinator(&mut conn, "h");
    let mut request = commit_request("g", -1, "", "t", 7);
    let metadata = "with\0nul and ü".to_owned();
    request.topics[0].partitions[0].committed_metadata = Some(metadata.clone());
    assert_eq!(conn.ask(&request, 9).topics[0].partitions[0].error_code, 0);
    let group = |name: &str, topics| OffsetFetchRequestGroup {
        group_id: name.to_owned(),
        member_epoch: -1,
        topics,
        ..Default::default()
    };
    let named =
        vec![OffsetFetchRequestTopics { name: "t".to_owned(), partition_indexes: vec![0, 1], ..Default::default() }];
    let request = OffsetFetchRequest {
        groups: vec![group("g", None), group("g", Some(named.clone())), group("h", Some(named))],
        require_stable: true,
        ..Default::default()
    };
    for restarted in [false, true] {
        if restarted {
            broker.restart();
            conn = connect(&broker);
            find_coordinator(&mut conn, "g");
            find_coordinator(&mut conn, "h");
        }
        for version in [8, 9] {
            let reply = conn.ask(&request, version);
            assert_eq!(reply.groups.len(), 3);
            let all = &reply.groups[0].topics;
            assert_eq!((all.len(), all[0].partitions.len()), (1, 1), "null topics: what was committed, no more");
            let row = &all[0].partitions[0];
            assert_eq!((row.committed_offset, row.committed_leader_epoch), (7, 3));
            assert_eq!(row.metadata.as_deref(), Some(metadata.as_str()), "byte for byte");
            let rows: Vec<i64> = reply.groups[1].topics[0].partitions.iter().map(|row| row.committed_offset).collect();
            assert_eq!(rows, [7, -1]);
            let rows = &reply.groups[2].topics[0].partitions;
            assert!(rows.iter().all(|row| (row.committed_offset, row.error_code) == (-1, 0)), "{rows:?}");
        }
    }
    let old = OffsetFetchRequest { group_id: "g".to_owned(), topics: None, ..Default::default() };
    for version in 2..=7 {
        let reply = conn.ask(&old, version);
        assert_eq!(reply.topics[0].partitions[0].committed_offset, 7, "v{version}");
    }
}

#[test]
fn trap_54_a_simple_consumer_commits_only_to_an_empty_group() {
    let (_broker, mut conn) = started();
    assert_eq!(commit(&mut conn, "g", -1, "", 1), 0);
    let mut old = commit_request("g", -1, "", "t", 2);
    for retention in [-1, 1_000] {
        old.retention_time_ms = retention;
        for version in 2..=4 {
            assert_eq!(conn.ask(&old, version).topics[0].partitions[0].error_code, 0, "retention {retention}");
        }
    }
    let joined = join(&mut conn, "g");
    assert_eq!(conn.ask(&sync_request("g", &joined, b"a"), SYNC).error_code, 0);
    assert_eq!(code(commit(&mut conn, "g", -1, "", 3)), ErrorCode::UnknownMemberId);
    assert_eq!(commit(&mut conn, "g", joined.generation_id, &joined.member_id, 3), 0);
    assert_eq!(code(commit(&mut conn, "g", joined.generation_id, "other", 3)), ErrorCode::UnknownMemberId);
    leave(&mut conn, "g", &[(&joined.member_id, None)], 5);
    assert_eq!(commit(&mut conn, "g", -1, "", 4), 0);
}

#[test]
fn offsets_of_topics_that_are_not_there_are_not_deleted() {
    let (_broker, mut conn) = started();
    let topic = |name: &str| OffsetDeleteRequestTopic {
        name: name.to_owned(),
        partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
    };
    let ask = |conn: &mut Conn, group: &str| {
        let topics = vec![topic("nowhere"), topic("t")];
        let reply = conn.ask(&OffsetDeleteRequest { group_id: group.to_owned(), topics }, 0);
        let rows = reply.topics.iter().map(|topic| (topic.name.clone(), code(topic.partitions[0].error_code)));
        (code(reply.error_code), rows.collect::<std::collections::BTreeMap<_, _>>())
    };
    assert_eq!(ask(&mut conn, "nobody"), (ErrorCode::GroupIdNotFound, Default::default()));
    assert_eq!(conn.ask(&commit_request("g", -1, "", "t", 3), 8).topics[0].partitions[0].error_code, 0);
    let (error, rows) = ask(&mut conn, "g");
    assert_eq!(error, ErrorCode::None);
    assert_eq!(rows["nowhere"], ErrorCode::UnknownTopicOrPartition);
    assert_eq!(rows["t"], ErrorCode::None);
}

#[test]
fn trap_55_commits_around_a_rebalance() {
    let (broker, mut conn) = started();
    let first = join(&mut conn, "g");
    assert_eq!(code(commit(&mut conn, "g", first.generation_id, &first.member_id, 1)), ErrorCode::RebalanceInProgress);
    assert_eq!(conn.ask(&sync_request("g", &first, b"a"), SYNC).error_code, 0);
    assert_eq!(commit(&mut conn, "g", first.generation_id, &first.member_id, 1), 0);
    assert_eq!(
        code(commit(&mut conn, "g", first.generation_id + 1, &first.member_id, 1)),
        ErrorCode::IllegalGeneration
    );
    // A second member: until the group has gathered, the first may still commit what it holds.
    let mut other = connect(&broker);
    let second = member_id(&mut other, "g");
    let waiting = other.send(&join_request("g", &second, None), JOIN).unwrap();
    eventually("the rebalance", || {
        (code(heartbeat(&mut conn, "g", &first)) == ErrorCode::RebalanceInProgress).then_some(())
    });
    assert_eq!(commit(&mut conn, "g", first.generation_id, &first.member_id, 2), 0);
    let again = conn.ask(&join_request("g", &first.member_id, None), JOIN);
    let _: JoinGroupResponse = other.reply(ApiKey::JoinGroup, JOIN, waiting).unwrap();
    assert_eq!(again.generation_id, first.generation_id + 1);
    assert_eq!(code(commit(&mut conn, "g", again.generation_id, &first.member_id, 3)), ErrorCode::RebalanceInProgress);
    assert_eq!(code(commit(&mut conn, "g", first.generation_id, &first.member_id, 3)), ErrorCode::IllegalGeneration);
}

#[test]
fn trap_56_member_ids_are_asked_for_and_only_the_leader_hears_of_members() {
    let (broker, mut conn) = started();
    // Before version 4 nobody knows MEMBER_ID_REQUIRED.
    find_coordinator(&mut conn, "old");
    let old = conn.ask(&join_request("old", "", None), 3);
    assert_eq!((old.error_code, old.members.len()), (0, 1));
    let first = join(&mut conn, "g");
    assert_eq!(first.leader, first.member_id);
    assert_eq!(first.members.len(), 1);
    assert_eq!((first.protocol_type.as_deref(), first.protocol_name.as_deref()), (Some("consumer"), Some("range")));
    let mut other = connect(&broker);
    let id = member_id(&mut other, "g");
    assert_ne!(id, first.member_id);
    let waiting = other.send(&join_request("g", &id, None), JOIN).unwrap();
    eventually("the rebalance", || (code(heartbeat(&mut conn, "g", &first)) != ErrorCode::None).then_some(()));
    let again = conn.ask(&join_request("g", &first.member_id, None), JOIN);
    let follower: JoinGroupResponse = other.reply(ApiKey::JoinGroup, JOIN, waiting).unwrap();
    assert_eq!((again.members.len(), follower.members.len()), (2, 0));
    assert_eq!(follower.leader, first.member_id);
    let unknown = conn.ask(&join_request("g", "who", None), JOIN);
    assert_eq!(code(unknown.error_code), ErrorCode::UnknownMemberId);
    let mut strange = join_request("g", "", None);
    strange.protocol_type = "connect".to_owned();
    assert_eq!(code(conn.ask(&strange, JOIN).error_code), ErrorCode::InconsistentGroupProtocol);
}

#[test]
fn trap_57_a_follower_waits_for_the_leader_and_gets_its_bytes() {
    let (broker, mut conn) = started();
    let first = join(&mut conn, "g");
    assert_eq!(first.generation_id, 1);
    assert_eq!(conn.ask(&sync_request("g", &first, b"all"), SYNC).assignment, "all");
    let mut other = connect(&broker);
    let id = member_id(&mut other, "g");
    let waiting = other.send(&join_request("g", &id, None), JOIN).unwrap();
    eventually("the rebalance", || (heartbeat(&mut conn, "g", &first) != 0).then_some(()));
    let leader = conn.ask(&join_request("g", &first.member_id, None), JOIN);
    let follower: JoinGroupResponse = other.reply(ApiKey::JoinGroup, JOIN, waiting).unwrap();
    assert_eq!((leader.generation_id, follower.generation_id), (2, 2), "one generation per completed rebalance");
    let early = other.send(&sync_request("g", &follower, b""), SYNC).unwrap();
    // The leader's sync releases it, not the time.
    assert_eq!(heartbeat(&mut conn, "g", &leader), 0, "heartbeats are in order between join and sync");
    let own = conn.ask(&sync_request("g", &leader, b"half"), SYNC);
    let reply: SyncGroupResponse = other.reply(ApiKey::SyncGroup, SYNC, early).unwrap();
    assert_eq!((own.assignment.as_ref(), reply.assignment.as_ref()), (&b"half"[..], &b"half"[..]));
    assert_eq!((reply.protocol_type.as_deref(), reply.protocol_name.as_deref()), (Some("consumer"), Some("range")));
    assert_eq!(heartbeat(&mut conn, "g", &leader), 0);
}

#[test]
fn trap_58_a_static_member_comes_back_without_a_rebalance() {
    let (broker, mut conn) = started();
    let first = conn.ask(&join_request("g", "", Some("i")), JOIN);
    assert_eq!(first.error_code, 0, "a static member needs no second round");
    let mut sync = sync_request("g", &first, b"mine");
    sync.group_instance_id = Some("i".to_owned());
    assert_eq!(conn.ask(&sync, SYNC).error_code, 0);
    let mut other = connect(&broker);
    let again = other.ask(&join_request("g", "", Some("i")), JOIN);
    assert_eq!((again.error_code, again.generation_id), (0, first.generation_id), "{again:?}");
    assert_ne!(again.member_id, first.member_id);
    let mut sync = sync_request("g", &again, b"");
    sync.group_instance_id = Some("i".to_owned());
    assert_eq!(other.ask(&sync, SYNC).assignment, "mine");
    let fenced = conn.ask(&join_request("g", &first.member_id, Some("i")), JOIN);
    assert_eq!(code(fenced.error_code), ErrorCode::FencedInstanceId);
}

#[test]
fn trap_59_leaving_alone_and_in_a_batch() {
    let (_broker, mut conn) = started();
    let joined = join(&mut conn, "g");
    let reply = leave(&mut conn, "g", &[("nobody", None), (&joined.member_id, None)], 5);
    assert_eq!(reply.error_code, 0, "errors are per member");
    let codes: Vec<ErrorCode> = reply.members.iter().map(|row| code(row.error_code)).collect();
    assert_eq!(codes, [ErrorCode::UnknownMemberId, ErrorCode::None]);
    for version in 0..=2 {
        let joined = join(&mut conn, "g");
        assert_eq!(leave(&mut conn, "g", &[(&joined.member_id, None)], version).error_code, 0);
        let gone = leave(&mut conn, "g", &[(&joined.member_id, None)], version);
        assert_eq!(code(gone.error_code), ErrorCode::UnknownMemberId, "v{version}");
    }
}

#[test]
fn trap_60_timeouts_are_bounded_and_kept() {
    let broker = Broker::start(&["group.min.session.timeout.ms=500", "group.max.session.timeout.ms=60000"]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "t", 1, &[]);
    find_coordinator(&mut conn, "g");
    for timeout in [0, -1, 499, 60_001, i32::MAX] {
        let mut request = join_request("g", "", None);
        request.session_timeout_ms = timeout;
        assert_eq!(code(conn.ask(&request, JOIN).error_code), ErrorCode::InvalidSessionTimeout, "{timeout}");
    }
    let id = member_id(&mut conn, "g");
    let mut request = join_request("g", &id, None);
    request.session_timeout_ms = 500;
    let joined = conn.ask(&request, JOIN);
    assert_eq!(conn.ask(&sync_request("g", &joined, b"a"), SYNC).error_code, 0);
    // Heartbeats keep it beyond its session.
    let until = Instant::now() + Duration::from_millis(1_500);
    while Instant::now() < until {
        assert_eq!(heartbeat(&mut conn, "g", &joined), 0);
        std::thread::sleep(Duration::from_millis(50));
    }
    // Without them it is put out; asking whether it is there must not keep it there, so a second member looks.
    let mut other = connect(&broker);
    let id = member_id(&mut other, "g");
    let begun = Instant::now();
    let second = other.ask(&join_request("g", &id, None), JOIN);
    assert_eq!((second.error_code, second.members.len()), (0, 1), "the first one has not come back");
    assert!(begun.elapsed() < Duration::from_secs(9), "its session ended the wait: {:?}", begun.elapsed());
    assert_eq!(code(heartbeat(&mut conn, "g", &joined)), ErrorCode::UnknownMemberId);
}

#[test]
fn members_survive_a_restart_of_the_coordinator() {
    let (mut broker, mut conn) = started();
    let joined = join(&mut conn, "g");
    assert_eq!(conn.ask(&sync_request("g", &joined, b"kept"), SYNC).error_code, 0);
    produced(&mut conn, "t", 0, taccola_it::requests::batch(&["v"]));
    for crash in [false, true] {
        if crash {
            broker.kill();
            broker.launch();
        } else {
            broker.restart();
        }
        conn = connect(&broker);
        find_coordinator(&mut conn, "g");
        assert_eq!(heartbeat(&mut conn, "g", &joined), 0, "crash: {crash}");
        assert_eq!(commit(&mut conn, "g", joined.generation_id, &joined.member_id, 1), 0);
        assert_eq!(conn.ask(&sync_request("g", &joined, b""), SYNC).assignment, "kept");
    }
}
