//! One directory, two brokers: Taccola and Apache Kafka 4.3.1 (`KAFKA_JARS`) take turns on it. After a clean stop the other
//! finds all records, groups, offsets, configs and deletions; after a kill of Taccola Kafka refuses to start.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use taccola_it::clients::kafka_tool;
use taccola_it::conn::Conn;
use taccola_it::kafka::{JVM, Kafka, said};
use taccola_it::load::{Place, committed};
use taccola_it::requests::{
    self, batch, create_topic, list_offset, new_topic, now_ms, produce, produced, read_all, records_of,
};
use taccola_it::{Broker, eventually, run};
use taccola_wire::batch::{BatchBuilder, Compression};
use taccola_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use taccola_wire::messages::delete_topics_request::DeleteTopicState;
use taccola_wire::messages::describe_configs_request::DescribeConfigsResource;
use taccola_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use taccola_wire::messages::update_features_request::FeatureUpdateKey;
use taccola_wire::messages::{
    ApiVersionsRequest, DeleteRecordsRequest, DeleteTopicsRequest, DescribeConfigsRequest, OffsetCommitRequest,
    UpdateFeaturesRequest,
};

const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// What must be found again.
#[derive(Default)]
struct Written {
    /// By partition: values from its start on, and where it starts.
    records: BTreeMap<Place, (i64, Vec<String>)>,
    offsets: BTreeMap<Place, i64>,
    gone: Vec<String>,
    configs: BTreeMap<String, (&'static str, &'static str)>,
    rounds: usize,
}

impl Written {
    /// A new topic with records of all codecs, more records for the old ones, commits, a deleted topic, deleted records.
    fn write(&mut self, port: u16) {
        let mut conn = Conn::connect(port).expect("a connection");
        self.rounds += 1;
        let topic = format!("swap-{}", self.rounds);
        let config = ("retention.ms", if self.rounds.is_multiple_of(2) { "172800000" } else { "259200000" });
        new_topic(&mut conn, &topic, 2, &[config]);
        self.configs.insert(topic.clone(), config);
        for partition in 0..2 {
            self.records.insert((topic.clone(), partition), (0, Vec::new()));
        }
        for (place, (_, values)) in &mut self.records {
            for codec in CODECS {
                let mut builder = BatchBuilder::new(codec);
                for i in 0..10 {
                    let value = format!("{codec:?} {i} of round {}", self.rounds);
                    builder.append(now_ms(), Some(b"key"), Some(value.as_bytes()), &[]);
                    values.push(value);
                }
                let bytes = builder.build().expect("a batch");
                // A leader that was just made may not know it yet.
                eventually("a leader", || {
                    (produce(&mut conn, &place.0, place.1, bytes.clone()).error_code == 0).then_some(())
                });
            }
        }
        self.delete(&mut conn, &topic);
        let places: Vec<Place> = self.records.keys().cloned().collect();
        committed(&mut conn, "swappers", &places);
        for place in places {
            let offset = self.records[&place].1.len() as i64 - self.rounds as i64;
            let partition = OffsetCommitRequestPartition {
                partition_index: place.1,
                committed_offset: offset,
                committed_leader_epoch: -1,
                committed_metadata: Some(format!("at {offset}")),
            };
            let topic =
                OffsetCommitRequestTopic { name: place.0.clone(), partitions: vec![partition], ..Default::default() };
            let request = OffsetCommitRequest {
                group_id: "swappers".to_owned(),
                generation_id_or_member_epoch: -1,
                topics: vec![topic],
                ..Default::default()
            };
            eventually("a commit", || (conn.ask(&request, 9).topics[0].partitions[0].error_code == 0).then_some(()));
            self.offsets.insert(place, offset);
        }
    }

    fn delete(&mut self, conn: &mut Conn, topic: &str) {
        let gone = format!("gone-{}", self.rounds);
        assert_eq!(create_topic(conn, &gone, 1, &[]).0, 0);
        let state = DeleteTopicState { name: Some(gone.clone()), ..Default::default() };
        let request = DeleteTopicsRequest { topics: vec![state], timeout_ms: 10_000, ..Default::default() };
        assert_eq!(conn.ask(&request, 6).responses[0].error_code, 0);
        self.gone.push(gone);
        let partition = DeleteRecordsPartition { partition_index: 1, offset: 15 };
        let row = DeleteRecordsTopic { name: topic.to_owned(), partitions: vec![partition] };
        let request = DeleteRecordsRequest { topics: vec![row], timeout_ms: 10_000 };
        assert_eq!(conn.ask(&request, 2).topics[0].partitions[0].error_code, 0);
        if let Some((start, _)) = self.records.get_mut(&(topic.to_owned(), 1)) {
            *start = 15;
        }
    }

    fn check(&self, who: &str, port: u16) {
        let mut conn = Conn::connect(port).expect("a connection");
        for ((topic, partition), (start, values)) in &self.records {
            eventually("a leader", || (list_offset(&mut conn, topic, *partition, -2).0 == 0).then_some(()));
            assert_eq!(list_offset(&mut conn, topic, *partition, -2).1, *start, "{who}: start of {topic}-{partition}");
            let got = read_all(&mut conn, topic, *partition, *start);
            let got: Vec<_> =
                got.iter().map(|record| String::from_utf8_lossy(record.value.as_ref().unwrap())).collect();
            assert_eq!(got, values[*start as usize..], "{who}: {topic}-{partition}");
        }
        let places: Vec<Place> = self.offsets.keys().cloned().collect();
        for (place, offset, metadata) in committed(&mut conn, "swappers", &places) {
            assert_eq!(offset, self.offsets[&place], "{who}: offset of {place:?}");
            assert_eq!(metadata, Some(format!("at {offset}")), "{who}");
        }
        let there = requests::topics(&mut conn);
        for gone in &self.gone {
            assert!(!there.contains(gone), "{who}: {gone} is back");
        }
        for (topic, (name, value)) in &self.configs {
            let resource = DescribeConfigsResource {
                resource_type: 2,
                resource_name: topic.clone(),
                configuration_keys: Some(vec![(*name).to_owned()]),
            };
            let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
            let found = conn.ask(&request, 4).results[0].configs[0].value.clone();
            assert_eq!(found.as_deref(), Some(*value), "{who}: {name} of {topic}");
        }
    }
}

fn assert_marker(home: &Path, there: bool) {
    let marker = home.join("data/taccola.journal.not-empty");
    assert_eq!(marker.is_dir(), there, "{}", marker.display());
}

fn swap(test: &str, kafka_first: bool) {
    let home = Arc::new(tempfile::tempdir().expect("a temporary folder"));
    let mut written = Written::default();
    let mut taccola = Broker::prepare_in(home.clone(), &["offsets.topic.num.partitions=3"]);
    if kafka_first {
        let Some(kafka) = Kafka::start(test, home.path(), &[], true) else { return };
        written.write(kafka.port);
        written.check("Kafka, what it wrote", kafka.port);
        kafka.stop();
    } else if kafka_tool(test, "kafka.Kafka").is_none() {
        return;
    }
    for round in 0..2 {
        taccola.launch();
        written.check("Taccola", taccola.port);
        written.write(taccola.port);
        if !kafka_first && round == 0 {
            raise_quorum(taccola.port);
        }
        taccola.stop();
        assert_marker(home.path(), false);
        if round == 1 {
            break;
        }
        let kafka = Kafka::start(test, home.path(), &[], false).expect("it is installed");
        written.check("Kafka", kafka.port);
        written.write(kafka.port);
        kafka.stop();
    }
    taccola.launch();
    written.check("Taccola at last", taccola.port);
    assert_eq!(kraft_version(taccola.port), i16::from(!kafka_first));
    let state = fs::read_to_string(home.path().join("data/__cluster_metadata-0/quorum-state")).expect("quorum-state");
    assert!(state.contains(if kafka_first { "\"data_version\":0" } else { "\"data_version\":1" }), "{state}");
}

/// From a static quorum to a dynamic one, whose voters stand in the log.
fn raise_quorum(port: u16) {
    let mut conn = Conn::connect(port).expect("a connection");
    assert_eq!(kraft_version(port), 0);
    let update = |level, upgrade_type, validate_only| {
        let key = FeatureUpdateKey {
            feature: "kraft.version".to_owned(),
            max_version_level: level,
            upgrade_type,
            ..Default::default()
        };
        UpdateFeaturesRequest { feature_updates: vec![key], validate_only, ..Default::default() }
    };
    assert_eq!(conn.ask(&update(1, 1, true), 2).error_code, 0);
    assert_eq!(kraft_version(port), 0, "a dry run changes nothing");
    assert_eq!(conn.ask(&update(1, 1, false), 2).error_code, 0);
    assert_eq!(kraft_version(port), 1);
    assert_ne!(conn.ask(&update(0, 3, false), 2).error_code, 0, "there is no way back");
}

/// The quorum's level as clients are told.
fn kraft_version(port: u16) -> i16 {
    let mut conn = Conn::connect(port).expect("a connection");
    let request = ApiVersionsRequest {
        client_software_name: "swap".to_owned(),
        client_software_version: "1".to_owned(),
        ..Default::default()
    };
    let features = conn.ask(&request, 4).finalized_features;
    features.iter().find(|feature| feature.name == "kraft.version").map_or(0, |feature| feature.max_version_level)
}

#[test]
fn taccola_first_then_kafka_then_taccola() {
    swap("taccola_first_then_kafka_then_taccola", false);
}

#[test]
fn kafka_first_then_taccola_then_kafka() {
    swap("kafka_first_then_taccola_then_kafka", true);
}

#[test]
fn kafka_refuses_what_a_killed_taccola_left() {
    let test = "kafka_refuses_what_a_killed_taccola_left";
    if kafka_tool(test, "kafka.Kafka").is_none() {
        return;
    }
    let mut taccola = Broker::start(&[]);
    let mut conn = Conn::connect(taccola.port).expect("a connection");
    new_topic(&mut conn, "t", 1, &[]);
    produced(&mut conn, "t", 0, batch(&["acknowledged"]));
    taccola.kill();
    assert_marker(taccola.dir.path(), true);
    let mut kafka = Kafka::spawn(test, taccola.dir.path(), &[], false).expect("it is installed");
    let until = Instant::now() + JVM;
    let status = loop {
        if let Some(status) = kafka.child.try_wait().expect("our child") {
            break status;
        }
        assert!(Instant::now() < until, "Kafka neither serves nor ends: {}", said(taccola.dir.path()));
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(!status.success());
    assert!(said(taccola.dir.path()).contains("taccola.journal.not-empty"), "{}", said(taccola.dir.path()));
    taccola.launch();
    let mut conn = Conn::connect(taccola.port).expect("a connection");
    assert_eq!(records_of(&requests::fetch(&mut conn, "t", 0, 0), 0).len(), 1);
}

#[test]
fn the_dump_tool_reads_every_file() {
    let test = "the_dump_tool_reads_every_file";
    let mut taccola = Broker::start(&["offsets.topic.num.partitions=2"]);
    let mut conn = Conn::connect(taccola.port).expect("a connection");
    new_topic(&mut conn, "dumped", 1, &[("internal.segment.bytes", "4096"), ("index.interval.bytes", "100")]);
    let producer = requests::init_producer(&mut conn).unwrap().expect("a producer id");
    for i in 0..60 {
        let mut builder = BatchBuilder::new(CODECS[i as usize % CODECS.len()]).producer(producer.0, producer.1, i * 2);
        for _ in 0..2 {
            builder.append(now_ms(), Some(b"key"), Some("value ".repeat(40).as_bytes()), &[]);
        }
        produced(&mut conn, "dumped", 0, builder.build().unwrap());
    }
    committed(&mut conn, "g", &[("dumped".to_owned(), 0)]);
    taccola.stop();
    let mut files = Vec::new();
    for folder in fs::read_dir(taccola.data_dir()).unwrap().map(|entry| entry.unwrap().path()).filter(|p| p.is_dir()) {
        for file in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let kind = file.extension().and_then(|kind| kind.to_str()).unwrap_or_default().to_owned();
            if ["log", "index", "timeindex", "snapshot"].contains(&kind.as_str()) {
                files.push(file.display().to_string());
            }
        }
    }
    assert!(files.iter().filter(|file| file.contains("dumped-0") && file.ends_with(".log")).count() > 1, "{files:?}");
    let Some(mut tool) = kafka_tool(test, "org.apache.kafka.tools.DumpLogSegments") else { return };
    let said = run(tool.args(["--deep-iteration", "--files", &files.join(",")]));
    for complaint in ["Mismatches", "corrupt", "invalid bytes", "Non-consecutive", "isvalid: false", "out of order"] {
        let line = said.lines().find(|line| line.contains(complaint));
        assert_eq!(line, None, "{said}");
    }
    assert!(said.contains("isvalid: true") && said.contains("producerId: "), "{said}");
    println!("{} files dumped", files.len());
}
