//! What share groups' leaders ask the share coordinator: InitializeShareGroupState, ReadShareGroupState,
//! ReadShareGroupStateSummary, WriteShareGroupState, DeleteShareGroupState.

use taccola_base::Uuid;
use taccola_wire::messages::*;

use super::Differential;
use super::groups::topic_id;
use crate::requests::{list_offset, new_topic};

const TOPIC: &str = "ss-topic";

pub(super) fn run(d: &mut Differential) {
    d.prepare("a topic", |conn| {
        new_topic(conn, TOPIC, 2, &[]);
        true
    });
    d.prepare("leaders", |conn| (0..2).all(|p| list_offset(conn, TOPIC, p, -1).0 == 0));
    d.call(&format!("<{TOPIC}>"), |conn| topic_id(conn, TOPIC).to_string());
    d.prepare("the share coordinator", |conn| {
        let keys = vec![format!("ss:{}:0", topic_id(conn, TOPIC))];
        let find = FindCoordinatorRequest { key_type: 2, coordinator_keys: keys, ..Default::default() };
        let found = conn.ask(&find, 6).coordinators[0].error_code == 0;
        let read = read("ss", topic_id(conn, TOPIC), 0, 0);
        found && !(14..=16).contains(&conn.ask(&read, 0).results[0].partitions[0].error_code)
    });
    all_reads(d, "nothing yet");
    initialize(d);
    all_reads(d, "initialized");
    for version in 0..=1 {
        write(d, version);
        all_reads(d, &format!("written, {version}"));
    }
    // Last, as Kafka keeps it.
    for version in 0..=1 {
        backwards(d, version);
    }
    delete(d);
    all_reads(d, "deleted");
}

/// Groups, ids and partitions that are wrong in turn; the first is right. `None`: the topic's own id.
const SUBJECTS: [(&str, &str, Option<Uuid>, i32); 8] = [
    ("right", "ss", None, 0),
    ("another partition", "ss", None, 1),
    ("no such partition", "ss", None, 9),
    ("a negative partition", "ss", None, -1),
    ("no topic", "ss", Some(Uuid::ZERO), 0),
    ("a topic of nobody", "ss", Some(Uuid::from_bytes([9; 16])), 0),
    ("an empty group", "", None, 0),
    ("another group", "ss-other", None, 0),
];

fn read(group: &str, topic_id: Uuid, partition: i32, leader_epoch: i32) -> ReadShareGroupStateRequest {
    use read_share_group_state_request::{PartitionData, ReadStateData};
    let partitions = vec![PartitionData { partition, leader_epoch }];
    ReadShareGroupStateRequest { group_id: group.to_owned(), topics: vec![ReadStateData { topic_id, partitions }] }
}

fn summarize(group: &str, topic_id: Uuid, partition: i32, leader_epoch: i32) -> ReadShareGroupStateSummaryRequest {
    use read_share_group_state_summary_request::{PartitionData, ReadStateSummaryData};
    let partitions = vec![PartitionData { partition, leader_epoch }];
    let topics = vec![ReadStateSummaryData { topic_id, partitions }];
    ReadShareGroupStateSummaryRequest { group_id: group.to_owned(), topics }
}

fn was_read(response: &mut ReadShareGroupStateResponse) {
    response.results.iter_mut().flat_map(|topic| &mut topic.partitions).for_each(|row| row.error_message = None);
}

fn summarized(response: &mut ReadShareGroupStateSummaryResponse) {
    response.results.iter_mut().flat_map(|topic| &mut topic.partitions).for_each(|row| row.error_message = None);
}

fn all_reads(d: &mut Differential, when: &str) {
    for (name, group, id, partition) in SUBJECTS {
        let case = format!("{when}: {}", name);
        d.per_broker(
            &case,
            0,
            |conn| {
                let id = id.unwrap_or_else(|| topic_id(conn, TOPIC));
                read(group, id, partition, 0)
            },
            was_read,
        );
        for version in 0..=1 {
            d.per_broker(
                &case,
                version,
                |conn| {
                    let id = id.unwrap_or_else(|| topic_id(conn, TOPIC));
                    summarize(group, id, partition, 0)
                },
                summarized,
            );
        }
    }
    d.per_broker(&format!("{when}: an older epoch"), 0, |conn| read("ss", topic_id(conn, TOPIC), 0, -1), was_read);
    let nothing = ReadShareGroupStateRequest { group_id: "ss".to_owned(), topics: Vec::new() };
    d.at(&format!("{when}: nothing"), 0, &nothing, was_read);
    let nothing = ReadShareGroupStateSummaryRequest { group_id: "ss".to_owned(), topics: Vec::new() };
    d.all(&format!("{when}: nothing"), 0..=1, &nothing, summarized);
}

fn initialize(d: &mut Differential) {
    use initialize_share_group_state_request::{InitializeStateData, PartitionData};
    let request = |group: &str, topic_id, partition, state_epoch, start_offset| InitializeShareGroupStateRequest {
        group_id: group.to_owned(),
        topics: vec![InitializeStateData {
            topic_id,
            partitions: vec![PartitionData { partition, state_epoch, start_offset }],
        }],
    };
    let equal = |response: &mut InitializeShareGroupStateResponse| {
        response.results.iter_mut().flat_map(|topic| &mut topic.partitions).for_each(|row| row.error_message = None);
    };
    for (name, group, id, partition) in SUBJECTS {
        d.per_broker(
            name,
            0,
            |conn| {
                let id = id.unwrap_or_else(|| topic_id(conn, TOPIC));
                request(group, id, partition, 2, 5)
            },
            equal,
        );
    }
    for (case, epoch, start) in [
        ("the same again", 2, 5),
        ("another start", 2, 9),
        ("an older epoch", 1, 5),
        ("a newer epoch", 3, 4),
        ("a negative epoch", -1, 4),
        ("no start", 4, -1),
        ("a start below that", 4, -2),
    ] {
        d.per_broker(case, 0, |conn| request("ss", topic_id(conn, TOPIC), 0, epoch, start), equal);
    }
    d.at("nothing", 0, &InitializeShareGroupStateRequest { group_id: "ss".to_owned(), topics: Vec::new() }, equal);
}

fn write(d: &mut Differential, version: i16) {
    use write_share_group_state_request::{PartitionData, StateBatch, WriteStateData};
    // State epoch, leader epoch, start offset, batches.
    type Written<'a> = (i32, i32, i64, &'a [(i64, i64, i8, i16)]);
    let request = |group: &str, topic_id, partition, written: Written<'_>| WriteShareGroupStateRequest {
        group_id: group.to_owned(),
        topics: vec![WriteStateData {
            topic_id,
            partitions: vec![PartitionData {
                partition,
                state_epoch: written.0,
                leader_epoch: written.1,
                start_offset: written.2,
                delivery_complete_count: if version == 0 { -1 } else { 3 },
                state_batches: written
                    .3
                    .iter()
                    .map(|(first_offset, last_offset, delivery_state, delivery_count)| StateBatch {
                        first_offset: *first_offset,
                        last_offset: *last_offset,
                        delivery_state: *delivery_state,
                        delivery_count: *delivery_count,
                    })
                    .collect(),
            }],
        }],
    };
    let equal = |response: &mut WriteShareGroupStateResponse| {
        response.results.iter_mut().flat_map(|topic| &mut topic.partitions).for_each(|row| row.error_message = None);
    };
    for (name, group, id, partition) in SUBJECTS {
        d.per_broker(
            name,
            version,
            |conn| {
                let id = id.unwrap_or_else(|| topic_id(conn, TOPIC));
                request(group, id, partition, (4, 0, 5, &[(5, 9, 0, 1)]))
            },
            equal,
        );
    }
    let cases: [(&str, Written<'_>); 10] = [
        ("more", (4, 0, 5, &[(10, 14, 2, 1), (15, 19, 0, 2)])),
        ("over the old", (4, 0, 5, &[(7, 12, 2, 3)])),
        ("a state that is none", (4, 0, 5, &[(20, 21, 7, 1)])),
        ("a negative count", (4, 0, 5, &[(20, 21, 0, -1)])),
        ("below the start", (4, 0, 5, &[(1, 2, 0, 1)])),
        ("no batches", (4, 0, 6, &[])),
        ("no start", (4, 0, -1, &[(22, 23, 0, 1)])),
        ("an older state epoch", (1, 0, 6, &[])),
        ("a later state epoch", (9, 0, 6, &[])),
        ("an older leader", (4, -1, 6, &[])),
    ];
    for (case, written) in cases {
        d.per_broker(case, version, |conn| request("ss", topic_id(conn, TOPIC), 0, written), equal);
    }
    let nothing = WriteShareGroupStateRequest { group_id: "ss".to_owned(), topics: Vec::new() };
    d.at("nothing", version, &nothing, equal);
}

fn backwards(d: &mut Differential, version: i16) {
    use write_share_group_state_request::{PartitionData, StateBatch, WriteStateData};
    let batch = StateBatch { first_offset: 25, last_offset: 22, delivery_count: 1, ..Default::default() };
    let request = |conn: &mut crate::conn::Conn| WriteShareGroupStateRequest {
        group_id: "ss".to_owned(),
        topics: vec![WriteStateData {
            topic_id: topic_id(conn, TOPIC),
            partitions: vec![PartitionData {
                state_epoch: 4,
                start_offset: 6,
                state_batches: vec![batch.clone()],
                ..Default::default()
            }],
        }],
    };
    d.per_broker("a batch that ends before it begins", version, request, |response| {
        response.results.iter_mut().flat_map(|topic| &mut topic.partitions).for_each(|row| row.error_message = None);
    });
}

fn delete(d: &mut Differential) {
    use delete_share_group_state_request::{DeleteStateData, PartitionData};
    let equal = |response: &mut DeleteShareGroupStateResponse| {
        response.results.iter_mut().flat_map(|topic| &mut topic.partitions).for_each(|row| row.error_message = None);
    };
    for (name, group, id, partition) in SUBJECTS.into_iter().chain([SUBJECTS[0]]) {
        d.per_broker(
            name,
            0,
            |conn| {
                let topic_id = id.unwrap_or_else(|| topic_id(conn, TOPIC));
                DeleteShareGroupStateRequest {
                    group_id: group.to_owned(),
                    topics: vec![DeleteStateData { topic_id, partitions: vec![PartitionData { partition }] }],
                }
            },
            equal,
        );
    }
    d.at("nothing", 0, &DeleteShareGroupStateRequest { group_id: "ss".to_owned(), topics: Vec::new() }, equal);
}
