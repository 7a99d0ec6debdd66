//! Everything that a broker tells of its state, in lines that do not depend on which broker tells it.

use std::collections::BTreeMap;

use taccola_wire::batch::batches;
use taccola_wire::messages::describe_configs_request::DescribeConfigsResource;
use taccola_wire::messages::describe_producers_request::TopicRequest;
use taccola_wire::messages::describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup;
use taccola_wire::messages::offset_fetch_request::OffsetFetchRequestGroup;
use taccola_wire::messages::*;

use super::COMPACTED;
use crate::conn::Conn;
use crate::eventually;
use crate::requests::{fetch_request, list_offset};

/// Lines by what they are of.
pub type State = BTreeMap<String, String>;

/// What was set by somebody, in DescribeConfigs.
const SET: [i8; 3] = [1, 2, 3];

/// Everything, of a broker that nobody else uses. Asks until coordinators have loaded.
pub fn capture(port: u16) -> State {
    let mut conn = Conn::connect(port).expect("a connection");
    let mut state = State::new();
    let places = topics(&mut conn, &mut state);
    for (topic, partitions) in &places {
        log_ends(&mut conn, topic, *partitions, &mut state);
        producers(&mut conn, topic, *partitions, &mut state);
    }
    configs(&mut conn, &places, &mut state);
    groups(&mut conn, &mut state);
    transactions(&mut conn, &mut state);
    state
}

/// Names, ids, partitions; leader epochs are of the broker that leads now.
fn topics(conn: &mut Conn, state: &mut State) -> BTreeMap<String, i32> {
    let request = MetadataRequest { topics: None, ..Default::default() };
    let mut places = BTreeMap::new();
    for topic in conn.ask(&request, 12).topics {
        let name = topic.name.unwrap_or_default();
        let partitions = topic.partitions.len();
        state.insert(format!("topic {name}"), format!("{} with {partitions} partitions", topic.topic_id));
        if !topic.is_internal {
            places.insert(name, i32::try_from(partitions).expect("few partitions"));
        }
    }
    places
}

/// Where a log begins and ends, and its batches as they are stored.
fn log_ends(conn: &mut Conn, topic: &str, partitions: i32, state: &mut State) {
    for partition in 0..partitions {
        eventually("a leader", || (list_offset(conn, topic, partition, -1).0 == 0).then_some(()));
        let (start, end) = (list_offset(conn, topic, partition, -2).1, list_offset(conn, topic, partition, -1).1);
        state.insert(format!("log {topic}-{partition}"), format!("{start}..{end}"));
        if topic == COMPACTED {
            continue;
        }
        let newest = list_offset(conn, topic, partition, -3);
        state.insert(format!("newest of {topic}-{partition}"), format!("{newest:?}"));
        let (mut next, mut stored) = (start, Vec::new());
        while next < end {
            let data = conn.ask(&fetch_request(topic, partition, next), 12).responses.remove(0).partitions.remove(0);
            let bytes = data.records.unwrap_or_default();
            for batch in batches(&bytes).flatten() {
                let header = batch.header;
                stored.push(format!(
                    "{}..={} epoch {} {:08x}",
                    header.base_offset,
                    header.last_offset(),
                    header.partition_leader_epoch,
                    header.crc
                ));
                next = header.next_offset();
            }
            assert!(!bytes.is_empty(), "{topic}-{partition}: nothing at {next} of {end}");
        }
        state.insert(format!("batches of {topic}-{partition}"), stored.join("\n  "));
    }
}

fn producers(conn: &mut Conn, topic: &str, partitions: i32, state: &mut State) {
    let asked = TopicRequest { name: topic.to_owned(), partition_indexes: (0..partitions).collect() };
    for row in conn.ask(&DescribeProducersRequest { topics: vec![asked] }, 0).topics.remove(0).partitions {
        let mut producers = row.active_producers;
        producers.sort_by_key(|producer| producer.producer_id);
        let lines: Vec<String> = producers.iter().map(|producer| format!("{producer:?}")).collect();
        state.insert(format!("producers of {topic}-{}", row.partition_index), lines.join("\n  "));
    }
}

fn configs(conn: &mut Conn, places: &BTreeMap<String, i32>, state: &mut State) {
    let resources = places.keys().map(|topic| (2, topic.as_str())).chain([
        (4, "0"),
        (4, ""),
        (32, "configured"),
        (32, "share-kind"),
    ]);
    for (resource_type, name) in resources {
        let row = DescribeConfigsResource { resource_type, resource_name: name.to_owned(), configuration_keys: None };
        let request = DescribeConfigsRequest { resources: vec![row], ..Default::default() };
        let found = conn.ask(&request, 4).results.remove(0);
        let mut lines: Vec<String> = found
            .configs
            .iter()
            // Of a group 5 is a default; what was set is in the two below and 8.
            .filter(|config| SET.contains(&config.config_source) || config.config_source == 8)
            .map(|config| format!("{} = {:?} ({})", config.name, config.value, config.config_source))
            .collect();
        lines.sort();
        state.insert(format!("configs of {resource_type} {name:?}"), lines.join("\n  "));
    }
}

fn groups(conn: &mut Conn, state: &mut State) {
    let listed = eventually("the list of groups", || {
        Some(conn.ask(&ListGroupsRequest::default(), 5)).filter(|reply| reply.error_code == 0)
    });
    let of_kind = |kind: &str| -> Vec<String> {
        let groups = listed.groups.iter().filter(|group| group.group_type.eq_ignore_ascii_case(kind));
        groups.map(|group| group.group_id.clone()).collect()
    };
    for group in &listed.groups {
        state.insert(
            format!("group {}", group.group_id),
            format!("{} {} {}", group.group_type, group.group_state, group.protocol_type),
        );
        let row = OffsetFetchRequestGroup {
            group_id: group.group_id.clone(),
            member_epoch: -1,
            topics: None,
            ..Default::default()
        };
        let request = OffsetFetchRequest { groups: vec![row], ..Default::default() };
        let mut lines = Vec::new();
        for topic in conn.ask(&request, 9).groups.remove(0).topics {
            lines.extend(topic.partitions.iter().map(|row| format!("{} {row:?}", topic.name)));
        }
        lines.sort();
        state.insert(format!("offsets of {}", group.group_id), lines.join("\n  "));
    }
    let consumer = ConsumerGroupDescribeRequest { group_ids: of_kind("consumer"), ..Default::default() };
    for group in conn.ask(&consumer, 1).groups {
        state.insert(format!("consumer group {}", group.group_id), format!("{group:?}"));
    }
    let share = ShareGroupDescribeRequest { group_ids: of_kind("share"), ..Default::default() };
    for group in conn.ask(&share, 1).groups {
        state.insert(format!("share group {}", group.group_id), format!("{group:?}"));
    }
    let streams = StreamsGroupDescribeRequest { group_ids: of_kind("streams"), ..Default::default() };
    for group in conn.ask(&streams, 0).groups {
        state.insert(format!("streams group {}", group.group_id), format!("{group:?}"));
    }
    let groups =
        of_kind("share").into_iter().map(|group_id| DescribeShareGroupOffsetsRequestGroup { group_id, topics: None });
    let shared = conn.ask(&DescribeShareGroupOffsetsRequest { groups: groups.collect() }, 1);
    for group in shared.groups {
        for topic in group.topics {
            for row in topic.partitions {
                // The leader epoch is that of the last write of the state.
                let line = format!("{} lag {} error {}", row.start_offset, row.lag, row.error_code);
                state.insert(
                    format!("share offsets of {} {}-{}", group.group_id, topic.topic_name, row.partition_index),
                    line,
                );
            }
        }
    }
}

fn transactions(conn: &mut Conn, state: &mut State) {
    let listed = eventually("the list of transactions", || {
        Some(conn.ask(&ListTransactionsRequest { duration_filter: -1, ..Default::default() }, 1))
            .filter(|reply| reply.error_code == 0)
    });
    let transactional_ids = listed.transaction_states.iter().map(|row| row.transactional_id.clone()).collect();
    for mut row in conn.ask(&DescribeTransactionsRequest { transactional_ids }, 0).transaction_states {
        row.topics.sort_by(|a, b| a.topic.cmp(&b.topic));
        row.topics.iter_mut().for_each(|topic| topic.partitions.sort_unstable());
        state.insert(format!("transaction {}", row.transactional_id), format!("{row:?}"));
    }
}
