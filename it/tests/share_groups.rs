//! Share groups as clients, tools and other brokers see them: membership, offsets, the state APIs, and what a kill leaves.
//! `KAFKA_ORACLE=HOST:PORT` plays what does not kill to a Kafka that runs already.

use taccola_base::Uuid;
use taccola_it::clients::kafka_tool;
use taccola_it::conn::Conn;
use taccola_it::group::find_coordinator;
use taccola_it::requests::{batch, new_topic, produce, produced};
use taccola_it::server::{Server, fresh};
use taccola_it::{Broker, eventually, run_with_input};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::alter_share_group_offsets_request::{
    AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
};
use taccola_wire::messages::delete_share_group_offsets_request::DeleteShareGroupOffsetsRequestTopic;
use taccola_wire::messages::describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup;
use taccola_wire::messages::describe_share_group_offsets_response::DescribeShareGroupOffsetsResponseGroup;
use taccola_wire::messages::share_group_describe_response::DescribedGroup;
use taccola_wire::messages::{
    AlterShareGroupOffsetsRequest, DeleteGroupsRequest, DeleteShareGroupOffsetsRequest, DeleteShareGroupStateRequest,
    DescribeShareGroupOffsetsRequest, FindCoordinatorRequest, InitializeShareGroupStateRequest, ListGroupsRequest,
    ReadShareGroupStateRequest, ReadShareGroupStateSummaryRequest, ShareGroupDescribeRequest,
    ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse, WriteShareGroupStateRequest,
};
use taccola_wire::messages::{
    delete_share_group_state_request as deletes, initialize_share_group_state_request as initializes,
    read_share_group_state_request as reads, read_share_group_state_response as has,
    read_share_group_state_summary_request as summaries, write_share_group_state_request as writes,
};

const SHARE: i8 = 2;
const NONE: i16 = 0;

fn error(code: ErrorCode) -> i16 {
    code.code()
}

fn beat(
    conn: &mut Conn,
    group: &str,
    member: &str,
    member_epoch: i32,
    topics: Option<&[&str]>,
) -> ShareGroupHeartbeatResponse {
    let request = ShareGroupHeartbeatRequest {
        group_id: group.to_owned(),
        member_id: member.to_owned(),
        member_epoch,
        rack_id: None,
        subscribed_topic_names: topics.map(|topics| topics.iter().map(ToString::to_string).collect()),
    };
    conn.ask(&request, 1)
}

/// Heartbeats until the member has so many partitions; answers its epoch and them.
fn assigned(conn: &mut Conn, group: &str, member: &str, mut epoch: i32, count: usize) -> (i32, Vec<(Uuid, i32)>) {
    eventually("an assignment", || {
        let reply = beat(conn, group, member, epoch, None);
        assert_eq!(reply.error_code, NONE, "{:?}", reply.error_message);
        epoch = reply.member_epoch;
        let described = describe(conn, group);
        let member = described.members.iter().find(|m| m.member_id == member)?;
        let topics = &member.assignment.topic_partitions;
        let partitions: Vec<_> = topics.iter().flat_map(|t| t.partitions.iter().map(|p| (t.topic_id, *p))).collect();
        (partitions.len() == count).then_some((epoch, partitions))
    })
}

fn describe(conn: &mut Conn, group: &str) -> DescribedGroup {
    let request = ShareGroupDescribeRequest { group_ids: vec![group.to_owned()], include_authorized_operations: false };
    conn.ask(&request, 1).groups.into_iter().next().expect("one group")
}

fn offsets(conn: &mut Conn, group: &str) -> DescribeShareGroupOffsetsResponseGroup {
    let groups = vec![DescribeShareGroupOffsetsRequestGroup { group_id: group.to_owned(), topics: None }];
    conn.ask(&DescribeShareGroupOffsetsRequest { groups }, 1).groups.into_iter().next().expect("one group")
}

fn start_offsets(conn: &mut Conn, group: &str) -> Vec<(i32, i64)> {
    let described = offsets(conn, group);
    assert_eq!(described.error_code, NONE);
    let partitions = described.topics.iter().flat_map(|topic| &topic.partitions);
    let mut rows: Vec<_> = partitions.map(|p| (p.partition_index, p.start_offset)).collect();
    rows.sort_unstable();
    rows
}

fn alter(conn: &mut Conn, group: &str, topic: &str, offsets: &[(i32, i64)]) -> (i16, Vec<(i32, i16)>) {
    let partition = |(partition_index, start_offset): &(i32, i64)| AlterShareGroupOffsetsRequestPartition {
        partition_index: *partition_index,
        start_offset: *start_offset,
    };
    let request = AlterShareGroupOffsetsRequest {
        group_id: group.to_owned(),
        topics: vec![AlterShareGroupOffsetsRequestTopic {
            topic_name: topic.to_owned(),
            partitions: offsets.iter().map(partition).collect(),
        }],
    };
    let reply = conn.ask(&request, 0);
    let partitions = reply.responses.iter().flat_map(|topic| &topic.partitions);
    (reply.error_code, partitions.map(|p| (p.partition_index, p.error_code)).collect())
}

fn delete_offsets(conn: &mut Conn, group: &str, topic: &str) -> (i16, Vec<i16>) {
    let topics = vec![DeleteShareGroupOffsetsRequestTopic { topic_name: topic.to_owned() }];
    let reply = conn.ask(&DeleteShareGroupOffsetsRequest { group_id: group.to_owned(), topics }, 0);
    (reply.error_code, reply.responses.iter().map(|topic| topic.error_code).collect())
}

fn delete_group(conn: &mut Conn, group: &str) -> i16 {
    let reply = conn.ask(&DeleteGroupsRequest { groups_names: vec![group.to_owned()] }, 2);
    reply.results.first().expect("one group").error_code
}

fn find_share_coordinator(conn: &mut Conn, key: &str) -> i16 {
    let request =
        FindCoordinatorRequest { key_type: SHARE, coordinator_keys: vec![key.to_owned()], ..Default::default() };
    conn.ask(&request, 6).coordinators.first().expect("one coordinator").error_code
}

fn list(conn: &mut Conn, group: &str) -> Option<(String, String)> {
    let groups = conn.ask(&ListGroupsRequest::default(), 5).groups;
    groups.into_iter().find(|g| g.group_id == group).map(|g| (g.group_type, g.group_state))
}

#[test]
fn members_join_share_leave_and_survive_a_kill() {
    let mut server = Server::start(&[]);
    let mut conn = server.conn();
    let (group, topic) = (fresh("members"), fresh("topic"));
    new_topic(&mut conn, &topic, 3, &[]);
    find_coordinator(&mut conn, &group);
    let joined = beat(&mut conn, &group, "a", 0, Some(&[&topic]));
    assert_eq!((joined.error_code, joined.member_epoch), (NONE, 2), "{:?}", joined.error_message);
    assert!(joined.assignment.is_some_and(|a| a.topic_partitions.is_empty()), "state is set up first");
    let (epoch, partitions) = assigned(&mut conn, &group, "a", 2, 3);
    assert_eq!((epoch, partitions.len()), (3, 3));
    assert_eq!(list(&mut conn, &group), Some(("share".to_owned(), "Stable".to_owned())));
    assert_eq!(beat(&mut conn, &group, "a", 9, None).error_code, error(ErrorCode::FencedMemberEpoch));
    assert_eq!(beat(&mut conn, &group, "b", 3, None).error_code, error(ErrorCode::UnknownMemberId));
    assert_eq!(beat(&mut conn, &group, "", 0, Some(&[&topic])).error_code, error(ErrorCode::InvalidRequest));
    assert_eq!(beat(&mut conn, &group, "b", 0, None).error_code, error(ErrorCode::InvalidRequest));
    assert_eq!(delete_group(&mut conn, &group), error(ErrorCode::NonEmptyGroup));
    assert_eq!(describe(&mut conn, &fresh("none")).error_code, error(ErrorCode::GroupIdNotFound));

    if server.kill_and_restart() {
        conn = server.conn();
        find_coordinator(&mut conn, &group);
        let same = eventually("the coordinator is loaded", || {
            Some(beat(&mut conn, &group, "a", epoch, None)).filter(|reply| reply.error_code == NONE)
        });
        assert_eq!(same.member_epoch, epoch, "the member is what it was");
        assert_eq!(assigned(&mut conn, &group, "a", epoch, 3).1, partitions);
    }

    assert_eq!(beat(&mut conn, &group, "b", 0, Some(&[&topic])).error_code, NONE);
    let second = eventually("both have some", || {
        let epoch = describe(&mut conn, &group).members.iter().map(|m| (m.member_id.clone(), m.member_epoch)).collect();
        let epochs: std::collections::BTreeMap<String, i32> = epoch;
        for member in ["a", "b"] {
            beat(&mut conn, &group, member, epochs[member], None);
        }
        let counts: Vec<usize> = describe(&mut conn, &group)
            .members
            .iter()
            .map(|m| m.assignment.topic_partitions.iter().map(|t| t.partitions.len()).sum())
            .collect();
        (counts.iter().sum::<usize>() == 3 && counts.iter().all(|count| *count > 0)).then_some(counts)
    });
    assert_eq!(second.len(), 2);
    for member in ["a", "b"] {
        assert_eq!(beat(&mut conn, &group, member, -1, None).error_code, NONE);
    }
    let empty = describe(&mut conn, &group);
    assert_eq!((empty.group_state.as_str(), empty.members.len()), ("Empty", 0));
    assert_eq!(delete_group(&mut conn, &group), NONE);
    assert_eq!(list(&mut conn, &group), None);
}

#[test]
fn offsets_are_altered_described_and_deleted() {
    let mut server = Server::start(&[]);
    let mut conn = server.conn();
    let (group, topic) = (fresh("offsets"), fresh("topic"));
    new_topic(&mut conn, &topic, 2, &[]);
    eventually("the topic is there", || {
        (produce(&mut conn, &topic, 0, batch(&["w"])).error_code == NONE).then_some(())
    });
    for _ in 0..5 {
        produced(&mut conn, &topic, 0, batch(&["x"]));
    }
    find_coordinator(&mut conn, &group);
    let unknown = error(ErrorCode::UnknownTopicOrPartition);
    let mut altered = alter(&mut conn, &group, &topic, &[(0, 4), (1, 0), (7, 0)]);
    altered.1.sort_unstable();
    assert_eq!(altered, (NONE, vec![(0, NONE), (1, NONE), (7, unknown)]));
    assert_eq!(alter(&mut conn, &group, "no-such-topic", &[(0, 0)]), (NONE, vec![(0, unknown)]));
    for round in 0..2 {
        assert_eq!(start_offsets(&mut conn, &group), [(0, 4), (1, 0)], "round {round}");
        let described = offsets(&mut conn, &group);
        let lag = described.topics[0].partitions.iter().find(|p| p.partition_index == 0).map(|p| p.lag);
        assert_eq!(lag, Some(2));
        if round == 0 && server.kill_and_restart() {
            conn = server.conn();
            find_coordinator(&mut conn, &group);
            eventually("the coordinators are loaded", || {
                Some(offsets(&mut conn, &group)).filter(|group| group.error_code == NONE && !group.topics.is_empty())
            });
        }
    }
    // Back and forth: an empty group may go anywhere.
    assert_eq!(alter(&mut conn, &group, &topic, &[(0, 1)]), (NONE, vec![(0, NONE)]));
    assert_eq!(start_offsets(&mut conn, &group), [(0, 1), (1, 0)]);
    assert_eq!(delete_offsets(&mut conn, &group, "no-such-topic"), (NONE, vec![unknown]));
    assert_eq!(delete_offsets(&mut conn, &group, &topic), (NONE, vec![NONE]));
    assert_eq!(delete_offsets(&mut conn, &group, &topic), (NONE, vec![unknown]));
    assert_eq!(start_offsets(&mut conn, &group), []);
    assert_eq!(delete_offsets(&mut conn, &fresh("none"), &topic).0, error(ErrorCode::GroupIdNotFound));
    assert_eq!(beat(&mut conn, &group, "a", 0, Some(&[&topic])).error_code, NONE);
    assert_eq!(alter(&mut conn, &group, &topic, &[(0, 0)]).0, error(ErrorCode::NonEmptyGroup));
    assert_eq!(delete_offsets(&mut conn, &group, &topic).0, error(ErrorCode::NonEmptyGroup));
    assert_eq!(beat(&mut conn, &group, "a", -1, None).error_code, NONE);
    assert_eq!(delete_group(&mut conn, &group), NONE);
}

fn initialize(
    conn: &mut Conn,
    group: &str,
    topic_id: Uuid,
    partition: i32,
    state_epoch: i32,
    start_offset: i64,
) -> i16 {
    let partitions = vec![initializes::PartitionData { partition, state_epoch, start_offset }];
    let topics = vec![initializes::InitializeStateData { topic_id, partitions }];
    let reply = conn.ask(&InitializeShareGroupStateRequest { group_id: group.to_owned(), topics }, 0);
    reply.results[0].partitions[0].error_code
}

fn write(
    conn: &mut Conn,
    group: &str,
    topic_id: Uuid,
    epochs: (i32, i32),
    start_offset: i64,
    batches: &[(i64, i64, i8, i16)],
) -> i16 {
    let batch =
        |(first_offset, last_offset, delivery_state, delivery_count): &(i64, i64, i8, i16)| writes::StateBatch {
            first_offset: *first_offset,
            last_offset: *last_offset,
            delivery_state: *delivery_state,
            delivery_count: *delivery_count,
        };
    let partition = writes::PartitionData {
        partition: 0,
        state_epoch: epochs.0,
        leader_epoch: epochs.1,
        start_offset,
        delivery_complete_count: 3,
        state_batches: batches.iter().map(batch).collect(),
    };
    let topics = vec![writes::WriteStateData { topic_id, partitions: vec![partition] }];
    let reply = conn.ask(&WriteShareGroupStateRequest { group_id: group.to_owned(), topics }, 1);
    reply.results[0].partitions[0].error_code
}

fn read(conn: &mut Conn, group: &str, topic_id: Uuid, leader_epoch: i32) -> has::PartitionResult {
    let partitions = vec![reads::PartitionData { partition: 0, leader_epoch }];
    let topics = vec![reads::ReadStateData { topic_id, partitions }];
    let reply = conn.ask(&ReadShareGroupStateRequest { group_id: group.to_owned(), topics }, 0);
    reply.results.into_iter().next().unwrap().partitions.into_iter().next().unwrap()
}

fn rows(read: &has::PartitionResult) -> Vec<(i64, i64, i8, i16)> {
    let row = |b: &has::StateBatch| (b.first_offset, b.last_offset, b.delivery_state, b.delivery_count);
    read.state_batches.iter().map(row).collect()
}

#[test]
fn the_state_apis_fence_and_remember() {
    let mut server = Server::start(&["share.coordinator.snapshot.update.records.per.snapshot=2"]);
    let mut conn = server.conn();
    let (group, topic) = (fresh("state"), fresh("topic"));
    let id = new_topic(&mut conn, &topic, 1, &[]);
    let key = format!("{group}:{id}:0");
    eventually("a share coordinator", || (find_share_coordinator(&mut conn, &key) == NONE).then_some(()));
    assert_eq!(find_share_coordinator(&mut conn, "nonsense"), error(ErrorCode::InvalidRequest));
    let invalid = error(ErrorCode::InvalidRequest);
    eventually("the share coordinator is loaded", || {
        (write(&mut conn, &group, id, (0, 0), 0, &[]) == invalid).then_some(())
    });
    assert_eq!(read(&mut conn, &group, id, 0).error_code, invalid);
    assert_eq!(initialize(&mut conn, &group, id, 0, 5, 10), NONE);
    assert_eq!(initialize(&mut conn, &group, id, 0, 4, 0), error(ErrorCode::FencedStateEpoch));
    assert_eq!(initialize(&mut conn, &group, id, 9, 0, 0), error(ErrorCode::UnknownTopicOrPartition));
    assert_eq!(initialize(&mut conn, &group, Uuid::from_u128(7), 0, 0, 0), error(ErrorCode::UnknownTopicOrPartition));
    let first = read(&mut conn, &group, id, 4);
    assert_eq!((first.error_code, first.state_epoch, first.start_offset, rows(&first)), (NONE, 5, 10, vec![]));
    assert_eq!(read(&mut conn, &group, id, 3).error_code, error(ErrorCode::FencedLeaderEpoch));
    assert_eq!(write(&mut conn, &group, id, (5, 3), 10, &[]), error(ErrorCode::FencedLeaderEpoch));
    assert_eq!(write(&mut conn, &group, id, (4, 4), 10, &[]), error(ErrorCode::FencedStateEpoch));
    // Enough for updates and snapshots.
    assert_eq!(write(&mut conn, &group, id, (5, 4), -1, &[(10, 29, 0, 1)]), NONE);
    assert_eq!(write(&mut conn, &group, id, (5, 4), 12, &[(15, 16, 2, 1), (20, 21, 0, 2)]), NONE);
    assert_eq!(write(&mut conn, &group, id, (5, 4), -1, &[(29, 31, 4, 3), (13, 13, 0, 1)]), NONE);
    assert_eq!(write(&mut conn, &group, id, (5, 4), 14, &[(40, 40, 2, 1)]), NONE);
    let expected = [
        (14, 14, 0, 1),
        (15, 16, 2, 1),
        (17, 19, 0, 1),
        (20, 21, 0, 2),
        (22, 28, 0, 1),
        (29, 31, 4, 3),
        (40, 40, 2, 1),
    ];
    for round in 0..2 {
        let known = read(&mut conn, &group, id, 4);
        assert_eq!((known.error_code, known.start_offset), (NONE, 14), "round {round}: {:?}", known.error_message);
        assert_eq!(rows(&known), expected, "round {round}");
        if round == 0 && server.kill_and_restart() {
            conn = server.conn();
            eventually("the share coordinator is loaded", || {
                (read(&mut conn, &group, id, 4).error_code == NONE).then_some(())
            });
        }
    }
    let summary = |conn: &mut Conn| {
        let partitions = vec![summaries::PartitionData { partition: 0, leader_epoch: -1 }];
        let topics = vec![summaries::ReadStateSummaryData { topic_id: id, partitions }];
        let reply = conn.ask(&ReadShareGroupStateSummaryRequest { group_id: group.clone(), topics }, 1);
        let row = &reply.results[0].partitions[0];
        (row.error_code, row.state_epoch, row.leader_epoch, row.start_offset, row.delivery_complete_count)
    };
    assert_eq!(summary(&mut conn), (NONE, 5, 4, 14, 3));
    for _ in 0..2 {
        let partitions = vec![deletes::PartitionData { partition: 0 }];
        let topics = vec![deletes::DeleteStateData { topic_id: id, partitions }];
        let reply = conn.ask(&DeleteShareGroupStateRequest { group_id: group.clone(), topics }, 0);
        assert_eq!(reply.results[0].partitions[0].error_code, NONE);
    }
    assert_eq!(summary(&mut conn), (NONE, 0, 0, -1, -1));
    assert!(conn.ask(&ReadShareGroupStateRequest::default(), 0).results.is_empty(), "a request that names nothing");
}

#[test]
fn a_killed_broker_keeps_the_log_of_share_state_short() {
    let properties = [
        "share.coordinator.snapshot.update.records.per.snapshot=2",
        "share.coordinator.state.topic.prune.interval.ms=200",
        "share.coordinator.state.topic.num.partitions=1",
    ];
    let mut broker = Broker::start(&properties);
    let mut conn = Conn::connect(broker.port).unwrap();
    let id = new_topic(&mut conn, "t", 1, &[]);
    let start = |conn: &mut Conn| {
        let topic = "__share_group_state";
        taccola_it::requests::list_offset(conn, topic, 0, -2).1
    };
    eventually("a coordinator", || (initialize(&mut conn, "g", id, 0, 0, 0) == NONE).then_some(()));
    for offset in 0..50 {
        assert_eq!(write(&mut conn, "g", id, (0, -1), offset, &[(offset, offset, 2, 1)]), NONE);
    }
    let cut = eventually("the log is cut", || Some(start(&mut conn)).filter(|start| *start >= 45));
    broker.kill();
    broker.restart();
    let mut conn = Conn::connect(broker.port).unwrap();
    let known = eventually("the share coordinator is loaded", || {
        Some(read(&mut conn, "g", id, -1)).filter(|known| known.error_code == NONE)
    });
    assert_eq!((known.start_offset, rows(&known)), (49, vec![(49, 49, 2, 1)]));
    assert!(start(&mut conn) >= cut);
}

#[test]
fn kafkas_console_share_consumer_and_share_groups_tool() {
    let test = "kafkas_console_share_consumer_and_share_groups_tool";
    const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ShareGroupCommand";
    const CONSUMER: &str = "org.apache.kafka.tools.consumer.ConsoleShareConsumer";
    let broker = Broker::start(&[]);
    let mut conn = Conn::connect(broker.port).unwrap();
    let tool = |class: &str, arguments: &[&str]| {
        let mut command = kafka_tool(test, class)?;
        command.arg("--bootstrap-server").arg(broker.bootstrap()).args(arguments);
        Some(run_with_input(&mut command, ""))
    };
    new_topic(&mut conn, "shared", 2, &[]);
    for partition in 0..2 {
        produced(&mut conn, "shared", partition, batch(&["a", "b", "c"]));
    }
    find_coordinator(&mut conn, "g");
    assert_eq!(alter(&mut conn, "g", "shared", &[(0, 0), (1, 0)]).0, NONE);
    let consume = ["--topic", "shared", "--group", "g", "--max-messages", "6", "--timeout-ms", "30000"];
    let Some(consumed) = tool(CONSUMER, &consume) else { return };
    let mut lines: Vec<&str> = consumed.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["a", "a", "b", "b", "c", "c"]);
    let of = |arguments: &[&str]| tool(GROUPS, arguments).expect("it was there");
    eventually("the consumer has left", || of(&["--list", "--state"]).contains("Empty").then_some(()));
    let described = of(&["--describe", "--group", "g"]);
    assert_eq!(
        described.lines().filter(|line| line.starts_with("g ") && line.ends_with(" 0")).count(),
        2,
        "{described}"
    );
    let reset = of(&["--group", "g", "--reset-offsets", "--topic", "shared", "--to-latest", "--execute"]);
    assert_eq!(reset.lines().filter(|line| line.trim_end().ends_with(" 3")).count(), 2, "{reset}");
    assert!(of(&["--delete-offsets", "--group", "g", "--topic", "shared"]).contains("Successful"));
    assert!(of(&["--delete", "--group", "g"]).contains("successful"));
    assert_eq!(of(&["--list"]).trim(), "");
}
