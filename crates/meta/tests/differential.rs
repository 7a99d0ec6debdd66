//! The same requests at a JVM Kafka 4.3.1 and at our controller: the rows of the answers must agree in everything but
//! words and random ids. Left out are requests that Kafka answers with UNKNOWN_SERVER_ERROR (an unknown operation of
//! IncrementalAlterConfigs) or never (AlterConfigs with a resource twice); we say INVALID_REQUEST.
//!
//! `KAFKA_RIG_SCRIPT=<the rig's script> cargo test -p taccola-meta --test differential -- --ignored`. Uses the ports 23110
//! and 23111.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::type_complexity
)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use bytes::Bytes;
use common::{MemoryLog, broker_spec, controller, controller_registration};
use taccola_base::Uuid;
use taccola_meta::bootstrap::BootstrapMetadata;
use taccola_meta::controller::PreviousShutdown;
use taccola_meta::quorum::activation_records;
use taccola_wire::codec::{Message, Reader, Request, Writer};
use taccola_wire::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use taccola_wire::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
use taccola_wire::messages::delete_topics_request::DeleteTopicState;
use taccola_wire::messages::*;

fn rig(args: &[&str]) {
    let script = std::env::var("KAFKA_RIG_SCRIPT").expect("KAFKA_RIG_SCRIPT names the rig's script");
    let out = Command::new(script).args(args).env("KAFKA_HEAP", "512m").output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

struct Jvm(TcpStream);

impl Jvm {
    fn ask<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        let header = RequestHeader {
            request_api_key: R::KEY as i16,
            request_api_version: version,
            correlation_id: 7,
            client_id: Some("differential".into()),
        };
        let mut w = Writer::new();
        header.write(&mut w, 2).unwrap();
        request.write(&mut w, version).unwrap();
        let body = w.into_bytes();
        self.0.write_all(&(body.len() as i32).to_be_bytes()).unwrap();
        self.0.write_all(&body).unwrap();
        let mut size = [0; 4];
        self.0.read_exact(&mut size).unwrap();
        let mut answer = vec![0; i32::from_be_bytes(size) as usize];
        self.0.read_exact(&mut answer).unwrap();
        let mut r = Reader::new(Bytes::from(answer));
        ResponseHeader::read(&mut r, 1).unwrap();
        R::Response::read(&mut r, version).unwrap()
    }
}

/// One request at both, and what differs.
struct Both {
    jvm: Jvm,
    log: MemoryLog,
    differences: Vec<String>,
}

type Row = (String, i16, i32);

impl Both {
    fn compare(&mut self, what: &str, mut theirs: Vec<Row>, mut ours: Vec<Row>) {
        theirs.sort();
        ours.sort();
        println!("{what}: {theirs:?}");
        if theirs != ours {
            self.differences.push(format!("{what}\n  Kafka {theirs:?}\n  we    {ours:?}"));
        }
    }

    fn create(&mut self, what: &str, topics: Vec<CreatableTopic>, validate_only: bool) {
        let request = CreateTopicsRequest { topics, timeout_ms: 10_000, validate_only };
        let theirs = self.jvm.ask(&request, 7);
        let ids: Vec<(String, Uuid)> = theirs.topics.iter().map(|t| (t.name.clone(), t.topic_id)).collect();
        let mut given = ids.iter().filter(|(_, id)| !id.is_zero()).map(|(_, id)| *id);
        let outcome =
            controller().create_topics(self.log.image(), &request, &mut || given.next().unwrap_or_else(Uuid::random));
        let ours = self.log.commit(outcome);
        let rows = |r: &CreateTopicsResponse| {
            r.topics
                .iter()
                .map(|t| (format!("{} rf {}", t.name, t.replication_factor), t.error_code, t.num_partitions))
                .collect()
        };
        self.compare(&format!("CreateTopics {what}"), rows(&theirs), rows(&ours));
    }

    fn delete(&mut self, what: &str, topics: Vec<DeleteTopicState>) {
        let request = DeleteTopicsRequest { topics, timeout_ms: 10_000, ..Default::default() };
        let theirs = self.jvm.ask(&request, 6);
        let ours = self.log.commit(controller().delete_topics(self.log.image(), &request));
        let rows = |r: &DeleteTopicsResponse| {
            let row = |t: &delete_topics_response::DeletableTopicResult| {
                (format!("{:?} {}", t.name, !t.topic_id.is_zero()), t.error_code, 0)
            };
            r.responses.iter().map(row).collect()
        };
        self.compare(&format!("DeleteTopics {what}"), rows(&theirs), rows(&ours));
    }

    fn grow(&mut self, what: &str, topics: Vec<CreatePartitionsTopic>, validate_only: bool) {
        let request = CreatePartitionsRequest { topics, timeout_ms: 10_000, validate_only };
        let theirs = self.jvm.ask(&request, 3);
        let ours = self.log.commit(controller().create_partitions(self.log.image(), &request));
        let rows = |r: &CreatePartitionsResponse| r.results.iter().map(|t| (t.name.clone(), t.error_code, 0)).collect();
        self.compare(&format!("CreatePartitions {what}"), rows(&theirs), rows(&ours));
    }

    fn incremental(&mut self, what: &str, resources: &[(i8, &str, &[(&str, i8, Option<&str>)])]) {
        use taccola_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
        let resource = |(kind, name, configs): &(i8, &str, &[(&str, i8, Option<&str>)])| AlterConfigsResource {
            resource_type: *kind,
            resource_name: (*name).into(),
            configs: configs
                .iter()
                .map(|(name, op, value)| AlterableConfig {
                    name: (*name).into(),
                    config_operation: *op,
                    value: value.map(Into::into),
                })
                .collect(),
        };
        let request = IncrementalAlterConfigsRequest {
            resources: resources.iter().map(resource).collect(),
            validate_only: false,
        };
        let theirs = self.jvm.ask(&request, 1);
        let ours = self.log.commit(controller().incremental_alter_configs(self.log.image(), &request));
        let rows = |r: &IncrementalAlterConfigsResponse| {
            r.responses.iter().map(|t| (t.resource_name.clone(), t.error_code, i32::from(t.resource_type))).collect()
        };
        self.compare(&format!("IncrementalAlterConfigs {what}"), rows(&theirs), rows(&ours));
    }

    fn alter(&mut self, what: &str, resources: &[(i8, &str, &[(&str, Option<&str>)])]) {
        use taccola_wire::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
        let resource = |(kind, name, configs): &(i8, &str, &[(&str, Option<&str>)])| AlterConfigsResource {
            resource_type: *kind,
            resource_name: (*name).into(),
            configs: configs
                .iter()
                .map(|(name, value)| AlterableConfig { name: (*name).into(), value: value.map(Into::into) })
                .collect(),
        };
        let request = AlterConfigsRequest { resources: resources.iter().map(resource).collect(), validate_only: false };
        let theirs = self.jvm.ask(&request, 2);
        let ours = self.log.commit(controller().alter_configs(self.log.image(), &request));
        let rows = |r: &AlterConfigsResponse| {
            r.responses.iter().map(|t| (t.resource_name.clone(), t.error_code, i32::from(t.resource_type))).collect()
        };
        self.compare(&format!("AlterConfigs {what}"), rows(&theirs), rows(&ours));
    }
}

fn topic(name: &str, num_partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic { name: name.into(), num_partitions, replication_factor, ..Default::default() }
}

fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> CreatableTopic {
    let assignments = assignments
        .iter()
        .map(|(index, brokers)| CreatableReplicaAssignment { partition_index: *index, broker_ids: brokers.to_vec() })
        .collect();
    CreatableTopic { assignments, ..topic(name, -1, -1) }
}

fn configured(name: &str, configs: &[(&str, Option<&str>)]) -> CreatableTopic {
    let configs = configs
        .iter()
        .map(|(name, value)| CreatableTopicConfig { name: (*name).into(), value: value.map(Into::into) })
        .collect();
    CreatableTopic { configs, ..topic(name, 1, 1) }
}

fn creations(both: &mut Both) {
    both.create("plain", vec![topic("t1", 3, 1), topic("t2", -1, -1)], false);
    both.create("again", vec![topic("t1", 3, 1)], false);
    both.create("validate only", vec![topic("t3", 2, 1), topic("t1", 1, 1)], true);
    both.create("factors", vec![topic("f1", 1, 2), topic("f2", 1, 0), topic("f3", 1, -2)], false);
    both.create("counts", vec![topic("n1", 0, 1), topic("n2", -2, 1)], false);
    let long = "x".repeat(250);
    both.create("names", ["", ".", "..", "a b", "ü", &long].map(|n| topic(n, 1, 1)).to_vec(), false);
    both.create("collision", vec![topic("c.d", 1, 1)], false);
    both.create("collision", vec![topic("c_d", 1, 1), topic("c-d", 1, 1)], false);
    both.create("twice", vec![topic("dup", 1, 1), topic("dup", 1, 1), topic("other", 1, 1)], false);
    both.create("manual", vec![assigned("m1", &[(1, &[0]), (0, &[0])])], false);
    both.create(
        "manual",
        vec![
            assigned("m2", &[(0, &[0]), (2, &[0])]),
            assigned("m3", &[(0, &[5])]),
            assigned("m4", &[(0, &[0, 0])]),
            assigned("m5", &[(0, &[])]),
            assigned("m6", &[(0, &[0]), (0, &[0])]),
            CreatableTopic { num_partitions: 1, ..assigned("m7", &[(0, &[0])]) },
            CreatableTopic { replication_factor: 1, ..assigned("m8", &[(0, &[0])]) },
        ],
        false,
    );
    both.create(
        "configs",
        vec![
            configured("k1", &[("bad.key", Some("1"))]),
            configured("k2", &[("retention.ms", None)]),
            configured("k3", &[("retention.ms", Some("1000")), ("retention.ms", Some("2000"))]),
        ],
        false,
    );
    both.create("too many", vec![topic("big", 10_001, 1), topic("small", 1, 1)], false);
    both.create("metadata topic", vec![topic("__cluster_metadata", 1, 1)], false);
    both.create("min isr", vec![configured("isr", &[("min.insync.replicas", Some("1"))])], false);
    both.create("none", vec![], false);
}

fn growths(both: &mut Both) {
    let grow = |name: &str, count| CreatePartitionsTopic { name: name.into(), count, assignments: None };
    let with = |name: &str, count, given: &[&[i32]]| CreatePartitionsTopic {
        assignments: Some(given.iter().map(|b| CreatePartitionsAssignment { broker_ids: b.to_vec() }).collect()),
        ..grow(name, count)
    };
    both.grow("plain", vec![grow("t1", 4)], false);
    both.grow("validate only", vec![grow("t1", 9)], true);
    both.grow("wrong", vec![grow("t1", 4), grow("t2", 0), grow("unknown", 4), grow("m1", -1)], false);
    both.grow("twice", vec![grow("t1", 6), grow("t1", 6), grow("t2", 2)], false);
    both.grow("assigned", vec![with("t1", 5, &[&[0]])], false);
    both.grow(
        "assigned wrong",
        vec![with("t1", 7, &[&[0]]), with("t2", 3, &[&[7]]), with("m1", 3, &[&[]]), with("c.d", 2, &[&[0, 0]])],
        false,
    );
    both.grow("none", vec![], false);
}

fn configs(both: &mut Both) {
    const T: i8 = 2;
    const B: i8 = 4;
    let list = Some("compact");
    both.incremental("set", &[(T, "t1", &[("retention.ms", 0, Some("5")), ("cleanup.policy", 2, list)])]);
    both.incremental("subtract", &[(T, "t1", &[("cleanup.policy", 3, Some("delete,none"))])]);
    both.incremental("delete", &[(T, "t1", &[("retention.ms", 1, None), ("segment.ms", 1, None)])]);
    both.incremental("no list", &[(T, "t1", &[("retention.ms", 2, Some("5"))])]);
    both.incremental(
        "unknown",
        &[(T, "nope", &[("retention.ms", 0, Some("5"))]), (T, "t2", &[("bad.key", 0, Some("5"))])],
    );
    both.incremental("key twice", &[(T, "t1", &[("retention.ms", 0, Some("5")), ("retention.ms", 0, Some("6"))])]);
    both.incremental(
        "resource twice",
        &[(T, "t1", &[("retention.ms", 0, Some("5"))]), (T, "t1", &[("segment.ms", 1, None)]), (T, "t2", &[])],
    );
    both.incremental("null", &[(T, "t1", &[("retention.ms", 0, None)])]);
    both.incremental(
        "topic name",
        &[(T, "", &[("retention.ms", 0, Some("5"))]), (T, "a b", &[("retention.ms", 0, Some("5"))])],
    );
    both.incremental("type", &[(99, "x", &[("a", 0, Some("5"))]), (0, "y", &[("a", 0, Some("5"))])]);
    both.incremental("broker", &[(B, "0", &[("log.retention.ms", 0, Some("50000"))])]);
    both.incremental("default broker", &[(B, "", &[("log.retention.ms", 0, Some("60000"))])]);
    both.incremental("other broker", &[(B, "5", &[("log.retention.ms", 0, Some("5000"))])]);
    both.incremental("no broker", &[(B, "abc", &[("log.retention.ms", 0, Some("5000"))])]);
    both.incremental("min isr", &[(B, "", &[("min.insync.replicas", 1, None)])]);
    both.incremental("min isr", &[(B, "0", &[("min.insync.replicas", 0, Some("2"))])]);
    both.incremental("min isr", &[(B, "", &[("min.insync.replicas", 0, Some("1"))])]);
    both.incremental("group", &[(32, "g", &[("consumer.session.timeout.ms", 0, Some("50000"))])]);
    both.incremental("no group", &[(32, "", &[("consumer.session.timeout.ms", 0, Some("50000"))])]);
    both.incremental("metrics", &[(16, "m", &[("interval.ms", 0, Some("50000"))])]);
    both.incremental("no metrics", &[(16, "", &[("interval.ms", 0, Some("50000"))])]);
    both.incremental("none", &[]);
    both.alter("replace", &[(T, "t1", &[("segment.ms", Some("100000"))])]);
    both.alter("null", &[(T, "t1", &[("segment.ms", None)])]);
    both.alter("unknown", &[(T, "nope", &[("segment.ms", Some("100000"))]), (T, "t2", &[("bad.key", Some("1"))])]);
    both.alter("key twice", &[(T, "t2", &[("segment.ms", Some("100000")), ("segment.ms", Some("200000"))])]);
    both.alter("min isr", &[(B, "", &[("log.retention.ms", Some("50000"))])]);
}

fn deletions(both: &mut Both) {
    let name = |n: &str| DeleteTopicState { name: Some(n.into()), topic_id: Uuid::ZERO };
    let id = |topic_id| DeleteTopicState { name: None, topic_id };
    let known = both.log.image().topics.by_name("t2").unwrap().id;
    both.delete("unknown", vec![name("nope"), id(Uuid::from_u128(12_345)), name("")]);
    both.delete("neither", vec![id(Uuid::ZERO)]);
    both.delete("both", vec![DeleteTopicState { name: Some("t1".into()), topic_id: known }]);
    both.delete("name twice", vec![name("t1"), name("t1"), name("m1")]);
    both.delete("id twice", vec![id(known), id(known)]);
    both.delete("name and id", vec![id(known), name("t2")]);
    both.delete("by id", vec![id(known)]);
    both.delete("by name", vec![name("t1"), name("c.d")]);
    both.delete("none", vec![]);
}

#[test]
#[ignore = "starts a JVM Kafka"]
fn the_rows_are_kafkas() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    rig(&["start", path, "23110"]);
    let mut log = MemoryLog { epoch: 1, ..MemoryLog::default() };
    for command in activation_records(&log.loader, &BootstrapMetadata::default()) {
        log.append(&command, true);
    }
    log.commit(controller().register_controller(&controller_registration(0, Uuid::random(), 23111)));
    let spec = broker_spec(0, Uuid::random(), 23110, Uuid::random());
    let next = log.next_offset();
    log.commit(controller().register_broker(log.image(), &spec, PreviousShutdown::NothingLost, next).unwrap());
    log.commit(controller().unfence_broker(log.image(), 0).unwrap());

    let stream = TcpStream::connect("127.0.0.1:23110").unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    let mut both = Both { jvm: Jvm(stream), log, differences: Vec::new() };
    creations(&mut both);
    growths(&mut both);
    configs(&mut both);
    deletions(&mut both);
    let differences = both.differences;
    rig(&["stop", path]);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
