//! ShareFetch and ShareAcknowledge: sessions, what is acquired, what becomes of it.

use bytes::Bytes;
use taccola_base::Uuid;
use taccola_wire::batch::{BatchBuilder, Compression, batches};
use taccola_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use taccola_wire::messages::share_acknowledge_request as acknowledging;
use taccola_wire::messages::share_fetch_request::{AcknowledgementBatch, FetchPartition, FetchTopic, ForgottenTopic};
use taccola_wire::messages::*;

use super::Differential;
use super::groups::{strings, topic_id};
use crate::conn::Conn;
use crate::group::find_coordinator;
use crate::requests::{list_offset, new_topic, produce};

const MEMBER: &str = "AAAAAAAAAAAAAAAAAAAAAQ";
const TOPIC: &str = "sf-topic";
/// What a group's configs are in DescribeConfigs and its kin.
const GROUP: i8 = 32;

pub(super) fn run(d: &mut Differential) {
    d.prepare("a coordinator", |conn| {
        find_coordinator(conn, "sf");
        true
    });
    for topic in [TOPIC, "sf-other"] {
        d.prepare("a topic", |conn| {
            new_topic(conn, topic, 2, &[]);
            true
        });
        d.prepare("leaders", |conn| (0..2).all(|p| list_offset(conn, topic, p, -1).0 == 0));
        d.call(&format!("<{topic}>"), |conn| topic_id(conn, topic).to_string());
    }
    let mut records = BatchBuilder::new(Compression::None);
    for n in 0..10_i64 {
        records.append(1_600_000_000_000 + n, Some(b"key"), Some(b"value"), &[]);
    }
    let records = records.build().expect("a batch");
    d.prepare("records", |conn| (0..3).all(|_| produce(conn, TOPIC, 0, records.clone()).error_code == 0));
    for version in 1..=2 {
        let group = format!("sf-life-{version}");
        join(d, &group);
        sessions(d, version, &group);
        acquires(d, version, &group);
        let group = format!("sf-odd-{version}");
        join(d, &group);
        odd(d, version, &group);
    }
}

/// A group that begins at the earliest record, and its one member with all partitions.
fn join(d: &mut Differential, group: &str) {
    d.prepare("a group's config", |conn| {
        let config = AlterableConfig {
            name: "share.auto.offset.reset".to_owned(),
            value: Some("earliest".to_owned()),
            ..Default::default()
        };
        let resource =
            AlterConfigsResource { resource_type: GROUP, resource_name: group.to_owned(), configs: vec![config] };
        let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
        conn.ask(&request, 1).responses[0].error_code == 0
    });
    let mut epochs = std::collections::HashMap::new();
    d.prepare("a member with partitions", |conn| {
        let epoch = epochs.entry(conn.stream.peer_addr().expect("connected")).or_insert(0);
        let beat = ShareGroupHeartbeatRequest {
            group_id: group.to_owned(),
            member_id: MEMBER.to_owned(),
            member_epoch: *epoch,
            subscribed_topic_names: (*epoch == 0).then(|| strings(&[TOPIC])),
            ..Default::default()
        };
        let reply = conn.ask(&beat, 1);
        if reply.error_code == 0 {
            *epoch = reply.member_epoch;
        }
        reply
            .assignment
            .is_some_and(|a| a.topic_partitions.iter().map(|topic| topic.partitions.len()).sum::<usize>() == 2)
    });
}

fn fetched(response: &mut ShareFetchResponse) {
    response.error_message = None;
    in_words(response);
}

/// With records in words, and without those of errors.
pub(crate) fn in_words(response: &mut ShareFetchResponse) {
    for row in response.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
        (row.error_message, row.acknowledge_error_message) = (None, None);
        let spans: Vec<String> = batches(&row.records)
            .flatten()
            .map(|batch| {
                format!("{}..={} {:08x}", batch.header.base_offset, batch.header.last_offset(), batch.header.crc)
            })
            .collect();
        row.records = Bytes::from(spans.join("; "));
    }
}

fn acknowledged(response: &mut ShareAcknowledgeResponse) {
    response.error_message = None;
    for row in response.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
        row.error_message = None;
    }
}

/// First and last offset (both inclusive), and what becomes of them.
type Ack<'a> = (i64, i64, &'a [i8]);

fn fetch(group: &str, epoch: i32, topics: &[(Uuid, i32, &[Ack<'_>])]) -> ShareFetchRequest {
    let topic = |(topic_id, partition_index, acks): &(Uuid, i32, &[Ack<'_>])| FetchTopic {
        topic_id: *topic_id,
        partitions: vec![FetchPartition {
            partition_index: *partition_index,
            acknowledgement_batches: acks
                .iter()
                .map(|(first_offset, last_offset, types)| AcknowledgementBatch {
                    first_offset: *first_offset,
                    last_offset: *last_offset,
                    acknowledge_types: types.to_vec(),
                })
                .collect(),
            ..Default::default()
        }],
    };
    ShareFetchRequest {
        group_id: Some(group.to_owned()),
        member_id: Some(MEMBER.to_owned()),
        share_session_epoch: epoch,
        max_wait_ms: 0,
        min_bytes: 0,
        max_bytes: 1 << 20,
        max_records: 500,
        batch_size: 500,
        topics: topics.iter().map(topic).collect(),
        ..Default::default()
    }
}

fn acknowledge(group: &str, epoch: i32, topics: &[(Uuid, i32, &[Ack<'_>])]) -> ShareAcknowledgeRequest {
    let topic = |(topic_id, partition_index, acks): &(Uuid, i32, &[Ack<'_>])| acknowledging::AcknowledgeTopic {
        topic_id: *topic_id,
        partitions: vec![acknowledging::AcknowledgePartition {
            partition_index: *partition_index,
            acknowledgement_batches: acks
                .iter()
                .map(|(first_offset, last_offset, types)| acknowledging::AcknowledgementBatch {
                    first_offset: *first_offset,
                    last_offset: *last_offset,
                    acknowledge_types: types.to_vec(),
                })
                .collect(),
        }],
    };
    ShareAcknowledgeRequest {
        group_id: Some(group.to_owned()),
        member_id: Some(MEMBER.to_owned()),
        share_session_epoch: epoch,
        topics: topics.iter().map(topic).collect(),
        ..Default::default()
    }
}

fn sessions(d: &mut Differential, version: i16, group: &str) {
    let of = |id: Uuid| [(id, 0, &[][..])];
    d.at("an epoch without a session", version, &fetch(group, 3, &[]), fetched);
    d.at("the end of no session", version, &fetch(group, -1, &[]), fetched);
    d.at("acknowledges without a session", version, &acknowledge(group, 1, &[]), acknowledged);
    d.at("acknowledges at the first epoch", version, &acknowledge(group, 0, &[]), acknowledged);
    for (case, edit) in [
        ("no group", (|r| r.group_id = None) as fn(&mut ShareFetchRequest)),
        ("an empty group", |r| r.group_id = Some(String::new())),
        ("no member", |r| r.member_id = None),
        ("an empty member", |r| r.member_id = Some(String::new())),
        ("a member that is no id", |r| r.member_id = Some("x".to_owned())),
        ("a negative epoch", |r| r.share_session_epoch = -2),
        ("no records wanted", |r| r.max_records = 0),
        ("a negative number of records", |r| r.max_records = -1),
    ] {
        d.per_broker(
            &format!("{case}, {group}"),
            version,
            |conn| {
                let mut request = fetch(&format!("{group}-not"), 0, &of(topic_id(conn, TOPIC)));
                edit(&mut request);
                request
            },
            fetched,
        );
    }
    for (case, edit) in [
        ("no group", (|r| r.group_id = None) as fn(&mut ShareAcknowledgeRequest)),
        ("an empty group", |r| r.group_id = Some(String::new())),
        ("no member", |r| r.member_id = None),
        ("a member that is no id", |r| r.member_id = Some("x".to_owned())),
        ("a negative epoch", |r| r.share_session_epoch = -2),
    ] {
        let mut request = acknowledge(group, 1, &[]);
        edit(&mut request);
        d.at(&format!("{case}, {group}"), version, &request, acknowledged);
    }
}

/// Asks until something is acquired: the partition's state is read when it is first asked for.
fn acquired(response: &ShareFetchResponse) -> bool {
    response.error_code != 0
        || response
            .responses
            .iter()
            .flat_map(|t| &t.partitions)
            .any(|p| p.error_code != 0 || !p.acquired_records.is_empty())
}

fn acquires(d: &mut Differential, version: i16, group: &str) {
    let epoch = std::cell::RefCell::new(std::collections::HashMap::<_, i32>::new());
    // The epoch goes up with each request, also with those that are repeated.
    let next = |conn: &Conn| {
        let mut epochs = epoch.borrow_mut();
        let next = epochs.entry(conn.stream.peer_addr().expect("connected")).or_insert(-1);
        *next += 1;
        *next
    };
    let request = |conn: &mut Conn, acks: &[Ack<'_>]| {
        let id = topic_id(conn, TOPIC);
        let mut request = fetch(group, next(conn), &[(id, 0, acks)]);
        request.max_records = 10;
        request.batch_size = 10;
        request
    };
    d.until("the first records", version, |conn| request(conn, &[]), acquired, fetched);
    d.per_broker("and more", version, |conn| request(conn, &[]), fetched);
    let cases: [(&str, &[Ack<'_>]); 9] = [
        ("accepts", &[(0, 3, &[1])]),
        ("releases", &[(4, 5, &[2])]),
        ("rejects", &[(6, 6, &[3])]),
        ("one by one", &[(7, 9, &[1, 2, 3])]),
        ("what was accepted", &[(0, 3, &[1])]),
        ("a gap where there is none", &[(10, 11, &[0])]),
        ("too few kinds", &[(12, 15, &[1, 2])]),
        ("a kind that is none", &[(12, 12, &[9])]),
        ("backwards", &[(15, 12, &[1])]),
    ];
    for (case, acks) in cases {
        d.per_broker(
            &format!("{case}, {group}"),
            version,
            |conn| {
                let id = topic_id(conn, TOPIC);
                acknowledge(group, next(conn), &[(id, 0, acks)])
            },
            acknowledged,
        );
    }
    d.per_broker("what was released comes again", version, |conn| request(conn, &[]), fetched);
    d.per_broker("accepts and fetches", version, |conn| request(conn, &[(4, 5, &[1]), (8, 8, &[2])]), fetched);
    d.per_broker(
        "acknowledges out of order",
        version,
        |conn| request(conn, &[(14, 15, &[1]), (12, 13, &[1])]),
        fetched,
    );
    d.per_broker("acknowledges what nobody has", version, |conn| request(conn, &[(29, 40, &[1])]), fetched);
    for (case, types, renews) in
        [("renews", &[4][..], true), ("renews without saying so", &[4], false), ("says that it renews", &[1], true)]
    {
        d.per_broker(
            case,
            version,
            |conn| {
                let id = topic_id(conn, TOPIC);
                let mut request = acknowledge(group, next(conn), &[(id, 0, &[(16, 16, types)])]);
                request.is_renew_ack = renews && version >= 2;
                request
            },
            acknowledged,
        );
    }
    if version >= 2 {
        d.per_broker(
            "exactly two",
            version,
            |conn| {
                let mut request = request(conn, &[]);
                (request.share_acquire_mode, request.max_records) = (1, 2);
                request
            },
            fetched,
        );
        d.per_broker(
            "another mode",
            version,
            |conn| {
                let mut request = request(conn, &[]);
                request.share_acquire_mode = 7;
                request
            },
            fetched,
        );
    }
    d.per_broker(
        "ends, with its last words",
        version,
        |conn| {
            let id = topic_id(conn, TOPIC);
            acknowledge(group, -1, &[(id, 0, &[(17, 18, &[1])])])
        },
        acknowledged,
    );
    d.at("ends again", version, &acknowledge(group, -1, &[]), acknowledged);
}

fn odd(d: &mut Differential, version: i16, group: &str) {
    d.per_broker(
        "opens with an acknowledgement",
        version,
        |conn| {
            let id = topic_id(conn, TOPIC);
            fetch(group, 0, &[(id, 0, &[(0, 1, &[1])])])
        },
        fetched,
    );
    d.until(
        "opens",
        version,
        |conn| fetch(group, 0, &[(topic_id(conn, TOPIC), 0, &[])]),
        |_| true,
        |response| {
            fetched(response);
            // Whether the partition's state is there already.
            response.responses.clear();
        },
    );
    d.per_broker(
        "an unknown partition",
        version,
        |conn| fetch(group, 1, &[(topic_id(conn, TOPIC), 7, &[])]),
        |r| {
            fetched(r);
            r.responses.iter_mut().for_each(|topic| topic.partitions.retain(|row| row.partition_index == 7));
        },
    );
    d.at("an unknown topic", version, &fetch(group, 2, &[(Uuid::from_bytes([9; 16]), 0, &[])]), |r| {
        fetched(r);
        r.responses.retain(|topic| topic.topic_id == Uuid::from_bytes([9; 16]));
    });
    d.at("an epoch behind", version, &fetch(group, 1, &[]), fetched);
    d.at("an epoch ahead", version, &fetch(group, 9, &[]), fetched);
    d.at("acknowledges an epoch behind", version, &acknowledge(group, 1, &[]), acknowledged);
    d.per_broker(
        "acknowledges what was never acquired",
        version,
        |conn| {
            let id = topic_id(conn, "sf-other");
            acknowledge(group, 3, &[(id, 0, &[(0, 1, &[1])])])
        },
        acknowledged,
    );
    d.at(
        "acknowledges an unknown topic",
        version,
        &acknowledge(group, 4, &[(Uuid::from_bytes([9; 16]), 0, &[(0, 0, &[1])])]),
        acknowledged,
    );
    d.per_broker(
        "forgets",
        version,
        |conn| {
            let forgotten = ForgottenTopic { topic_id: topic_id(conn, TOPIC), partitions: vec![0] };
            ShareFetchRequest { forgotten_topics_data: vec![forgotten], ..fetch(group, 5, &[]) }
        },
        |r| {
            fetched(r);
            r.responses.clear();
        },
    );
    d.at("ends", version, &fetch(group, -1, &[]), fetched);
    d.at("is over", version, &fetch(group, 6, &[]), fetched);
}
