//! A directory that this crate makes is opened by a JVM Kafka 4.3.1, and what the JVM makes of it is read back.
//!
//! `KAFKA_RIG_SCRIPT=<the rig's script> cargo test -p taccola-meta --test jvm -- --ignored --test-threads 1`. Uses the ports 23100 and 23101.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use common::{MemoryLog, broker_spec, controller, controller_registration};
use taccola_base::Uuid;
use taccola_meta::batch::decode_batches;
use taccola_meta::bootstrap::{self, BootstrapMetadata, standalone_snapshot};
use taccola_meta::controller::PreviousShutdown;
use taccola_meta::loader::QuorumFacts;
use taccola_meta::meta_properties::{self, MetaProperties};
use taccola_meta::quorum::{StartState, activation_records, elect_alone, start_of_epoch_batch};
use taccola_meta::quorum_state::{self, QuorumState};
use taccola_meta::snapshot::Snapshot;
use taccola_meta::voters::StandaloneVoter;
use taccola_meta::{MetadataImage, MetadataLoader};
use taccola_wire::messages::CreateTopicsRequest;
use taccola_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};

fn rig(args: &[&str]) -> String {
    let script = std::env::var("KAFKA_RIG_SCRIPT").expect("KAFKA_RIG_SCRIPT names the rig's script");
    let out = Command::new(script).args(args).env("KAFKA_HEAP", "512m").output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{args:?}: {text}");
    text
}

struct Dir {
    root: tempfile::TempDir,
    directory_id: Uuid,
}

impl Dir {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap(), directory_id: Uuid::random() }
    }

    fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    fn metadata(&self) -> PathBuf {
        self.data().join("__cluster_metadata-0")
    }

    /// What a newly formatted directory holds.
    fn format(&self) {
        fs::create_dir_all(self.metadata()).unwrap();
        let properties = MetaProperties {
            cluster_id: Uuid::random().to_string(),
            node_id: 0,
            directory_id: Some(self.directory_id),
        };
        fs::write(self.data().join(meta_properties::FILE_NAME), properties.format("now")).unwrap();
        let bytes = BootstrapMetadata::default().encode(1_795_225_973_614).unwrap();
        fs::write(self.data().join(bootstrap::FILE_NAME), bytes).unwrap();
    }

    fn log(&self) -> PathBuf {
        self.metadata().join("00000000000000000000.log")
    }

    fn image(&self) -> (MetadataImage, QuorumState) {
        let mut loader = MetadataLoader::default();
        let mut segments: Vec<_> = fs::read_dir(self.metadata()).unwrap().map(|e| e.unwrap().path()).collect();
        segments.retain(|p| p.extension().is_some_and(|e| e == "log"));
        segments.sort();
        for segment in segments {
            for batch in decode_batches(&Bytes::from(fs::read(segment).unwrap())) {
                loader.load(&batch.unwrap()).unwrap();
            }
        }
        let state = fs::read_to_string(self.metadata().join(quorum_state::FILE_NAME)).unwrap();
        (loader.publish().unwrap().image, QuorumState::parse(&state).unwrap())
    }
}

fn path(p: &Path) -> &str {
    p.to_str().unwrap()
}

fn start_state(dir: &Dir, facts: QuorumFacts, epoch: i32) -> StartState {
    StartState {
        node_id: 0,
        directory_id: dir.directory_id,
        static_voters: Vec::new(),
        quorum_state: None,
        listeners: Vec::new(),
        last_epoch: epoch,
        facts,
    }
}

/// A node's life up to an orderly stop: one topic with a config.
fn live_and_stop(dir: &Dir, facts: QuorumFacts) -> (MemoryLog, QuorumState) {
    let mut log = MemoryLog {
        epoch: 1,
        loader: MetadataLoader::new(MetadataImage::default(), facts.clone()),
        ..Default::default()
    };
    let election = elect_alone(&start_state(dir, facts, 0)).unwrap();
    let batch = start_of_epoch_batch(&election, log.at()).unwrap();
    log.append_bytes(batch.bytes);
    log.loader.publish();
    let ctl = controller();
    for command in activation_records(&log.loader, &BootstrapMetadata::default()) {
        log.append(&command, true);
    }
    log.commit(ctl.register_controller(&controller_registration(0, Uuid::random(), 23101)));
    let spec = broker_spec(0, Uuid::random(), 23100, dir.directory_id);
    let next = log.next_offset();
    log.commit(ctl.register_broker(log.image(), &spec, PreviousShutdown::NothingLost, next).unwrap());
    log.commit(ctl.unfence_broker(log.image(), 0).unwrap());
    let configs = vec![CreatableTopicConfig { name: "retention.ms".into(), value: Some("77777".into()) }];
    let topic = CreatableTopic {
        name: "made-here".into(),
        num_partitions: 3,
        replication_factor: 1,
        configs,
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 1, validate_only: false };
    let response = log.commit(ctl.create_topics(log.image(), &request, &mut Uuid::random));
    assert_eq!(response.topics[0].error_code, 0);
    log.commit(ctl.controlled_shutdown(log.image(), 0).unwrap());
    log.commit(ctl.fence_broker(log.image(), 0).unwrap());
    (log, election.quorum_state)
}

fn write_log(dir: &Dir, log: &MemoryLog, state: &QuorumState) {
    fs::write(dir.log(), log.batches.concat()).unwrap();
    fs::write(dir.metadata().join(quorum_state::FILE_NAME), state.format()).unwrap();
    fs::write(dir.metadata().join("partition.metadata"), bootstrap::METADATA_PARTITION_METADATA).unwrap();
    fs::write(dir.metadata().join("leader-epoch-checkpoint"), "0\n1\n1 0\n").unwrap();
    let epoch = log.image().cluster.brokers[&0].epoch;
    let clean = format!("{{\"version\":0,\"brokerEpoch\":{epoch}}}");
    fs::write(dir.data().join(".kafka_cleanshutdown"), clean).unwrap();
}

#[test]
#[ignore = "starts a JVM Kafka"]
fn a_jvm_starts_on_a_new_directory() {
    let dir = Dir::new();
    dir.format();
    let at = rig(&["start", path(dir.root.path()), "23100"]);
    assert!(at.contains("23100"), "{at}");
    rig(&["stop", path(dir.root.path())]);
    let (image, state) = dir.image();
    assert_eq!(image.features.level("transaction.version"), 2);
    assert_eq!((state.leader_epoch, state.data_version), (1, 0));
}

#[test]
#[ignore = "starts a JVM Kafka"]
fn a_jvm_goes_on_where_we_stopped_and_we_where_it_stopped() {
    let dir = Dir::new();
    dir.format();
    let (log, state) = live_and_stop(&dir, QuorumFacts::default());
    write_log(&dir, &log, &state);
    jvm_turn(&dir, "0");
    // The snapshot of what it left is read by it as well.
    let (image, _) = dir.image();
    let snapshot = Snapshot::of(&image, &QuorumFacts::default());
    fs::write(dir.metadata().join(snapshot.id.file_name()), snapshot.encode(5).unwrap()).unwrap();
    rig(&["start", path(dir.root.path()), "23100"]);
    let topics = rig(&["topics", "--bootstrap-server", "127.0.0.1:23100", "--list"]);
    assert!(topics.contains("made-here") && topics.contains("made-there"), "{topics}");
    rig(&["stop", path(dir.root.path())]);
}

#[test]
#[ignore = "starts a JVM Kafka"]
fn a_jvm_goes_on_with_a_dynamic_quorum() {
    let dir = Dir::new();
    dir.format();
    let listeners = vec![("CONTROLLER".into(), "127.0.0.1".into(), 23101)];
    let snapshot = standalone_snapshot(&StandaloneVoter { node_id: 0, directory_id: dir.directory_id, listeners });
    fs::write(dir.metadata().join(snapshot.id.file_name()), snapshot.encode(5).unwrap()).unwrap();
    let (log, state) = live_and_stop(&dir, snapshot.quorum.clone());
    write_log(&dir, &log, &state);
    jvm_turn(&dir, "1");
    let (image, state) = dir.image();
    assert!(image.topics.by_name("made-there").is_some());
    assert_eq!(state.data_version, 1);
}

/// Starts the JVM on the directory, looks at what it sees, makes a topic, stops it and checks what it left.
fn jvm_turn(dir: &Dir, kraft_version: &str) {
    rig(&["start", path(dir.root.path()), "23100"]);
    let server = ["--bootstrap-server", "127.0.0.1:23100"];
    let described = rig(&[&["topics"], &server[..], &["--describe", "--topic", "made-here"]].concat());
    assert!(described.contains("PartitionCount: 3") && described.contains("retention.ms=77777"), "{described}");
    assert_eq!(described.matches("Leader: 0").count(), 3, "{described}");
    let features = rig(&[&["features"], &server[..], &["describe"]].concat());
    let line = features.lines().find(|l| l.contains("kraft.version")).unwrap_or_default();
    assert!(line.contains(&format!("FinalizedVersionLevel: {kraft_version}")), "{features}");
    rig(&[&["topics"], &server[..], &["--create", "--topic", "made-there"]].concat());
    rig(&["stop", path(dir.root.path())]);
    let log = fs::read_to_string(dir.root.path().join("kafka.log")).unwrap();
    assert!(!log.contains(" ERROR "), "{log}");

    let (image, state) = dir.image();
    assert_eq!(state.leader_epoch, 2);
    let partition = image.topics.partition("made-here", 0).unwrap();
    // Created at 0; our stop, its start, its stop.
    assert_eq!((partition.leader, partition.leader_epoch, partition.leader_recovery_state), (-1, 3, 0));
    assert!(image.topics.by_name("made-there").is_some());
    let start = StartState { quorum_state: Some(state), ..start_state(dir, QuorumFacts::default(), 2) };
    if kraft_version == "0" {
        assert_eq!(elect_alone(&start).unwrap().epoch, 3);
    }
}
