//! FindCoordinator, and members of classic groups: JoinGroup, SyncGroup, Heartbeat, LeaveGroup, OffsetCommit, OffsetFetch.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;

use bytes::Bytes;
use taccola_base::Uuid;
use taccola_wire::messages::join_group_request::JoinGroupRequestProtocol;
use taccola_wire::messages::leave_group_request::MemberIdentity;
use taccola_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use taccola_wire::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use taccola_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use taccola_wire::messages::*;

use super::groups::{strings, topic_id};
use super::{Differential, equal};
use crate::conn::Conn;
use crate::group::find_coordinator;
use crate::requests::{list_offset, new_topic};

/// Versions that know topics by their ids.
const OFFSETS_BY_ID: i16 = 10;

pub(super) fn run(d: &mut Differential) {
    d.prepare("a coordinator", |conn| {
        find_coordinator(conn, "m");
        true
    });
    d.prepare("a topic", |conn| {
        new_topic(conn, "m-topic", 2, &[]);
        true
    });
    d.prepare("leaders", |conn| (0..2).all(|p| list_offset(conn, "m-topic", p, -1).0 == 0));
    d.call("<m-topic>", |conn| topic_id(conn, "m-topic").to_string());
    coordinators(d);
    for version in 0..=9 {
        life(d, version);
    }
    joins(d);
    commits(d);
    fetches(d);
}

fn coordinators(d: &mut Differential) {
    let found = |response: &mut FindCoordinatorResponse| {
        response.port = response.port.min(1);
        equal::message(response.error_code, &mut response.error_message);
        for row in &mut response.coordinators {
            row.port = row.port.min(1);
            equal::message(row.error_code, &mut row.error_message);
        }
    };
    for version in 0..=6 {
        for key_type in 0..=if version == 0 { 0 } else { 3 } {
            for key in
                ["m", "", "__x", "a:b", "g:AAAAAAAAAAAAAAAAAAAAAQ:0", "g:AAAAAAAAAAAAAAAAAAAAAQ:x", "::", "g:AAAA:0"]
            {
                let request = if version < 4 {
                    FindCoordinatorRequest { key: key.to_owned(), key_type, ..Default::default() }
                } else {
                    FindCoordinatorRequest { coordinator_keys: strings(&[key]), key_type, ..Default::default() }
                };
                // The topic comes into being.
                let comes = match key_type {
                    1 => ["m", "__x"].contains(&key),
                    2 => version >= 6 && key.ends_with("Q:0"),
                    _ => false,
                };
                if comes {
                    let ready = request.clone();
                    d.prepare("the coordinators' topic", |conn| {
                        let found = conn.call(&ready, version);
                        found.is_ok_and(|f| f.error_code != 15 && f.coordinators.iter().all(|row| row.error_code != 15))
                    });
                }
                d.at(&format!("type {key_type}, key {key:?}"), version, &request, found);
            }
        }
        if version >= 4 {
            for keys in [&[][..], &["m", "n"], &["m", "m"]] {
                let request = FindCoordinatorRequest { coordinator_keys: strings(keys), ..Default::default() };
                d.at(&format!("keys {keys:?}"), version, &request, found);
            }
        }
        if version >= 1 {
            let request = FindCoordinatorRequest { key_type: -1, ..Default::default() };
            d.at("a negative type", version, &request, found);
        }
    }
}

/// A member's id at each broker.
#[derive(Default)]
struct Ids(RefCell<HashMap<SocketAddr, String>>);

impl Ids {
    fn of(&self, conn: &Conn) -> String {
        self.0.borrow()[&conn.stream.peer_addr().expect("connected")].clone()
    }

    fn keep(&self, conn: &Conn, id: &str) {
        self.0.borrow_mut().insert(conn.stream.peer_addr().expect("connected"), id.to_owned());
    }
}

fn join(group: &str, member: &str, version: i16) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: group.to_owned(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: if version == 0 { -1 } else { 30_000 },
        member_id: member.to_owned(),
        protocol_type: "consumer".to_owned(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".to_owned(), metadata: Bytes::from_static(b"\0\x01") }],
        ..Default::default()
    }
}

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

/// The version of another request that came with this one of JoinGroup.
fn beside(version: i16, max: i16) -> i16 {
    version.min(max)
}

/// A dynamic member from its join to its leaving, all requests of about the same age; strangers between.
fn life(d: &mut Differential, version: i16) {
    let group = format!("m-life-{version}");
    let ids = Ids::default();
    // From version 4 on the id is given first.
    d.at("without an id", version, &join(&format!("{group}-first"), "", version), joined);
    d.prepare("a member", |conn| {
        let first = conn.ask(&join(&group, "", version), version);
        ids.keep(conn, &first.member_id);
        [0, 79].contains(&first.error_code)
    });
    d.per_broker("with its id", version, |conn| join(&group, &ids.of(conn), version), joined);
    let generation = if version < 4 { 2 } else { 1 };
    sync_and_beat(d, version, &group, generation, &ids);
    d.per_broker("once more", version, |conn| join(&group, &ids.of(conn), version), joined);
    d.at("a stranger", version, &join(&group, "stranger", version), joined);
    let mut other = join(&group, "", version);
    other.protocol_type = "connect".to_owned();
    d.at("another kind of group", version, &other, joined);
    let mut other = join(&group, "", version);
    other.protocols[0].name = "other".to_owned();
    d.at("another protocol", version, &other, joined);
    leave(d, version, &group, &ids);
}

fn sync_and_beat(d: &mut Differential, version: i16, group: &str, generation_id: i32, ids: &Ids) {
    let (sync_version, beat_version) = (beside(version, 5), beside(version, 4));
    let sync = |member_id: String, generation_id| SyncGroupRequest {
        group_id: group.to_owned(),
        generation_id,
        assignments: vec![SyncGroupRequestAssignment {
            member_id: member_id.clone(),
            assignment: Bytes::from_static(b"its part"),
        }],
        member_id,
        protocol_type: (sync_version >= 5).then(|| "consumer".to_owned()),
        protocol_name: (sync_version >= 5).then(|| "range".to_owned()),
        ..Default::default()
    };
    let beat = |member_id: String, generation_id| HeartbeatRequest {
        group_id: group.to_owned(),
        generation_id,
        member_id,
        ..Default::default()
    };
    let case = |what: &str| format!("{what}, group {group}");
    d.per_broker(&case("before the sync"), beat_version, |conn| beat(ids.of(conn), generation_id), |_| {});
    d.at(&case("a stranger"), sync_version, &sync("stranger".to_owned(), generation_id), |_| {});
    d.per_broker(&case("a later generation"), sync_version, |conn| sync(ids.of(conn), generation_id + 1), |_| {});
    if sync_version >= 5 {
        d.per_broker(
            &case("another protocol"),
            sync_version,
            |conn| SyncGroupRequest { protocol_name: Some("other".to_owned()), ..sync(ids.of(conn), generation_id) },
            |_| {},
        );
        d.per_broker(
            &case("without a protocol"),
            sync_version,
            |conn| SyncGroupRequest { protocol_name: None, ..sync(ids.of(conn), generation_id) },
            |_| {},
        );
    }
    d.per_broker(&case("the leader"), sync_version, |conn| sync(ids.of(conn), generation_id), |_| {});
    d.per_broker(&case("the leader again"), sync_version, |conn| sync(ids.of(conn), generation_id), |_| {});
    d.per_broker(&case("it beats"), beat_version, |conn| beat(ids.of(conn), generation_id), |_| {});
    d.per_broker(&case("an older generation"), beat_version, |conn| beat(ids.of(conn), generation_id - 1), |_| {});
    d.at(&case("a stranger"), beat_version, &beat("stranger".to_owned(), generation_id), |_| {});
    d.at(&case("nobody"), beat_version, &beat(String::new(), generation_id), |_| {});
    let nowhere = HeartbeatRequest { group_id: "m-nowhere".to_owned(), ..beat("x".to_owned(), 1) };
    d.at("no such group", beat_version, &nowhere, |_| {});
    d.at("an empty group", beat_version, &HeartbeatRequest { group_id: String::new(), ..nowhere }, |_| {});
    let nowhere = SyncGroupRequest { group_id: "m-nowhere".to_owned(), ..sync("x".to_owned(), 1) };
    d.at("no such group", sync_version, &nowhere, |_| {});
    d.at("an empty group", sync_version, &SyncGroupRequest { group_id: String::new(), ..nowhere }, |_| {});
}

fn leave(d: &mut Differential, version: i16, group: &str, ids: &Ids) {
    let version = beside(version, 5);
    let request = |group: &str, member_id: String| {
        let mut request = LeaveGroupRequest { group_id: group.to_owned(), ..Default::default() };
        if version < 3 {
            request.member_id = member_id;
        } else {
            request.members = vec![MemberIdentity { member_id, ..Default::default() }];
        }
        request
    };
    let named = |response: &mut LeaveGroupResponse| {
        for member in &mut response.members {
            if member.member_id.len() > 36 {
                "(generated)".clone_into(&mut member.member_id);
            }
        }
    };
    let case = |what: &str| format!("{what}, group {group}");
    d.at(&case("a stranger"), version, &request(group, "stranger".to_owned()), named);
    d.at("no such group", version, &request("m-nowhere", "x".to_owned()), named);
    d.at("an empty group", version, &request("", "x".to_owned()), named);
    if version >= 3 {
        d.at(
            &case("nobody"),
            version,
            &LeaveGroupRequest { members: Vec::new(), ..request(group, String::new()) },
            named,
        );
        let instance = MemberIdentity { group_instance_id: Some("none".to_owned()), ..Default::default() };
        let request = LeaveGroupRequest { members: vec![instance], ..request(group, String::new()) };
        d.at(&case("an unknown instance"), version, &request, named);
    }
    d.per_broker(&case("it leaves"), version, |conn| request(group, ids.of(conn)), named);
    d.per_broker(&case("it leaves again"), version, |conn| request(group, ids.of(conn)), named);
}

fn joins(d: &mut Differential) {
    for version in 0..=9 {
        let good = || join("m-bad", "", version);
        let session = |session_timeout_ms| JoinGroupRequest { session_timeout_ms, ..good() };
        let mut cases = vec![
            ("an empty group", JoinGroupRequest { group_id: String::new(), ..good() }),
            ("a short session", session(5_999)),
            ("a long session", session(1_800_001)),
            ("no session", session(0)),
            ("a negative session", session(-1)),
            ("no kind", JoinGroupRequest { protocol_type: String::new(), ..good() }),
            ("no protocols", JoinGroupRequest { protocols: Vec::new(), ..good() }),
            ("no such group", join("m-nowhere", "somebody", version)),
        ];
        if version >= 5 {
            for instance in ["", ".", "a b", "inst"] {
                // Groups of their own, as a member that does not come again is waited for.
                let request = JoinGroupRequest {
                    group_instance_id: Some(instance.to_owned()),
                    ..join(&format!("m-static-{version}-{instance:?}"), "", version)
                };
                cases.push(("an instance", request.clone()));
                cases.push(("an instance", request));
            }
        }
        for (n, (case, request)) in cases.iter().enumerate() {
            d.at(&format!("{case}, case {n}"), version, request, joined);
        }
    }
}

fn commit(
    conn: &mut Conn,
    version: i16,
    group: &str,
    topic: &str,
    edit: &dyn Fn(&mut OffsetCommitRequest),
) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition {
        partition_index: 0,
        committed_offset: 7,
        committed_leader_epoch: if version >= 6 { 0 } else { -1 },
        committed_metadata: Some("where it is".to_owned()),
    };
    let by_id = version >= OFFSETS_BY_ID;
    let topic = OffsetCommitRequestTopic {
        name: if by_id { String::new() } else { topic.to_owned() },
        topic_id: if by_id { topic_id(conn, topic) } else { Uuid::ZERO },
        partitions: vec![partition],
    };
    let mut request = OffsetCommitRequest {
        group_id: group.to_owned(),
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    };
    edit(&mut request);
    request
}

fn commits(d: &mut Differential) {
    type Edit = Box<dyn Fn(&mut OffsetCommitRequest)>;
    let partition = |edit: fn(&mut OffsetCommitRequestPartition)| -> Edit {
        Box::new(move |request| edit(&mut request.topics[0].partitions[0]))
    };
    let cases: Vec<(&str, &str, Edit)> = vec![
        ("of no member", "m-topic", Box::new(|_| {})),
        ("no metadata", "m-topic", partition(|p| p.committed_metadata = None)),
        ("much metadata", "m-topic", partition(|p| p.committed_metadata = Some("x".repeat(4097)))),
        ("just enough metadata", "m-topic", partition(|p| p.committed_metadata = Some("x".repeat(4096)))),
        ("a negative offset", "m-topic", partition(|p| p.committed_offset = -5)),
        ("an unknown partition", "m-topic", partition(|p| p.partition_index = 9)),
        ("a negative partition", "m-topic", partition(|p| p.partition_index = -1)),
        ("an unknown topic", "m-nowhere", Box::new(|_| {})),
        ("an empty name", "", Box::new(|_| {})),
        ("nothing", "m-topic", Box::new(|r| r.topics.clear())),
        ("no partitions", "m-topic", Box::new(|r| r.topics[0].partitions.clear())),
        ("an empty group", "m-topic", Box::new(|r| r.group_id.clear())),
        ("a generation of nobody", "m-topic", Box::new(|r| r.generation_id_or_member_epoch = 3)),
        ("a member of nobody", "m-topic", Box::new(|r| r.member_id = "x".to_owned())),
        (
            "twice",
            "m-topic",
            Box::new(|r| {
                let mut second = r.topics[0].partitions[0].clone();
                second.committed_offset = 9;
                r.topics[0].partitions.push(second);
            }),
        ),
    ];
    for version in 2..=10 {
        for (case, topic, edit) in &cases {
            let group = format!("m-offsets-{version}");
            d.per_broker(case, version, |conn| commit(conn, version, &group, topic, edit.as_ref()), |_| {});
        }
    }
}

fn fetches(d: &mut Differential) {
    let partitions = |name: &str| if name == "m-topic" { vec![0, 1, 9] } else { vec![0] };
    for version in 1..=7 {
        for (group, names) in [
            ("m-offsets-5", Some(&["m-topic"][..])),
            ("m-offsets-5", Some(&["m-nowhere", "m-topic"])),
            ("m-offsets-5", Some(&[])),
            ("m-offsets-5", None),
            ("m-nowhere", Some(&["m-topic"])),
            ("", Some(&["m-topic"])),
        ] {
            if names.is_none() && version < 2 {
                continue;
            }
            let topic =
                |name: &&str| OffsetFetchRequestTopic { name: (*name).to_owned(), partition_indexes: partitions(name) };
            let request = OffsetFetchRequest {
                group_id: group.to_owned(),
                topics: names.map(|names| names.iter().map(topic).collect()),
                require_stable: version >= 7,
                ..Default::default()
            };
            d.at(&format!("{group:?} {names:?}"), version, &request, |response| {
                response.topics.sort_by(|a, b| a.name.cmp(&b.name));
            });
        }
    }
    for version in 8..=10 {
        for (groups, names) in [
            (&["m-offsets-5"][..], Some(&["m-topic"][..])),
            (&["m-offsets-5", "m-nowhere"], Some(&["m-topic", "m-nowhere"])),
            (&["m-offsets-5", "m-offsets-10"], None),
            (&["m-offsets-5", "m-offsets-5"], Some(&[])),
            (&[""], None),
            (&[], None),
        ] {
            let request = |conn: &mut Conn| {
                let mut topic = |name: &&str| OffsetFetchRequestTopics {
                    name: if version < OFFSETS_BY_ID { (*name).to_owned() } else { String::new() },
                    topic_id: if version < OFFSETS_BY_ID { Uuid::ZERO } else { topic_id(conn, name) },
                    partition_indexes: partitions(name),
                };
                let topics: Option<Vec<_>> = names.map(|names| names.iter().map(&mut topic).collect());
                let group = |group: &&str| OffsetFetchRequestGroup {
                    group_id: (*group).to_owned(),
                    member_epoch: -1,
                    topics: topics.clone(),
                    ..Default::default()
                };
                OffsetFetchRequest { groups: groups.iter().map(group).collect(), ..Default::default() }
            };
            d.per_broker(&format!("{groups:?} {names:?}"), version, request, |response| {
                for group in &mut response.groups {
                    group.topics.sort_by(|a, b| a.name.cmp(&b.name));
                }
            });
        }
    }
}
