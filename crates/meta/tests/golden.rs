//! Files of Apache Kafka 4.3.1: they are read into the expected image, what is written again is byte for byte the same, and
//! the same commands lead to the same records.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;

use bytes::Bytes;
use common::{MemoryLog, broker_spec, controller, controller_registration};
use taccola_base::Uuid;
use taccola_meta::batch::{AppendContext, BatchContent, DecodedBatch, decode_batch, decode_batches, encode_batches};
use taccola_meta::bootstrap::{BootstrapMetadata, standalone_snapshot};
use taccola_meta::controller::{Outcome, PreviousShutdown};
use taccola_meta::feature::MetadataVersion;
use taccola_meta::image::{ConfigResource, ConfigResourceType, QuotaEntity};
use taccola_meta::loader::QuorumFacts;
use taccola_meta::quorum::{StartState, activation_records, elect_alone, start_of_epoch_batch};
use taccola_meta::snapshot::{Snapshot, SnapshotId};
use taccola_meta::voters::StandaloneVoter;
use taccola_meta::{MetadataImage, MetadataLoader, MetadataRecord, VersionedRecord};
use taccola_wire::messages::create_partitions_request::CreatePartitionsTopic;
use taccola_wire::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
use taccola_wire::messages::delete_topics_request::DeleteTopicState;
use taccola_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use taccola_wire::messages::{
    AllocateProducerIdsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
    IncrementalAlterConfigsRequest,
};

const LOG: &[u8] = include_bytes!("../testdata/cluster_metadata.log");
const SNAPSHOT: &[u8] = include_bytes!("../testdata/00000000000000000096-0000000003.checkpoint");
const BOOTSTRAP: &[u8] = include_bytes!("../testdata/bootstrap.checkpoint");
const STANDALONE: &[u8] = include_bytes!("../testdata/standalone.checkpoint");

const SNAPSHOT_ID: SnapshotId = SnapshotId { end_offset: 96, epoch: 3 };

fn read(bytes: &'static [u8]) -> Vec<DecodedBatch> {
    decode_batches(&Bytes::from_static(bytes)).collect::<Result<_, _>>().unwrap()
}

fn load(batches: &[DecodedBatch]) -> MetadataImage {
    let mut loader = MetadataLoader::default();
    for batch in batches {
        loader.load(batch).unwrap();
    }
    loader.publish().unwrap().image
}

#[test]
fn every_batch_of_records_is_written_again_byte_for_byte() {
    for file in [LOG, SNAPSHOT, BOOTSTRAP] {
        let whole = Bytes::from_static(file);
        let mut seen = 0;
        for (batch, raw) in read(file).into_iter().zip(taccola_wire::batch::batches(&whole)) {
            let BatchContent::Records(records) = batch.content else { continue };
            let (base_offset, leader_epoch) = (batch.base_offset, batch.leader_epoch);
            let at = AppendContext { base_offset, leader_epoch, now_ms: batch.append_time_ms };
            let again = encode_batches(&records, false, MetadataVersion::LATEST, at).unwrap();
            assert_eq!(again.len(), 1);
            assert_eq!(again[0].bytes, raw.unwrap().bytes, "batch at offset {base_offset}");
            seen += records.len();
        }
        assert!(seen >= 6);
    }
}

#[test]
fn control_batches_are_written_again_byte_for_byte() {
    let whole = Bytes::from_static(LOG);
    let mut epochs = Vec::new();
    for (batch, raw) in read(LOG).into_iter().zip(taccola_wire::batch::batches(&whole)) {
        let BatchContent::Control(_) = batch.content else { continue };
        let start = StartState {
            node_id: 0,
            directory_id: Uuid::ZERO,
            static_voters: vec![0],
            quorum_state: None,
            listeners: Vec::new(),
            last_epoch: batch.leader_epoch - 1,
            facts: QuorumFacts::default(),
        };
        let election = elect_alone(&start).unwrap();
        let at = AppendContext {
            base_offset: batch.base_offset,
            leader_epoch: election.epoch,
            now_ms: batch.append_time_ms,
        };
        assert_eq!(start_of_epoch_batch(&election, at).unwrap().bytes, raw.unwrap().bytes);
        epochs.push(election.epoch);
    }
    assert_eq!(epochs, [1, 2, 3]);
}

#[test]
fn the_log_builds_the_image() {
    let image = load(&read(LOG));
    assert_eq!(image.provenance.last_contained_offset, 95);
    assert_eq!(image.metadata_version(), MetadataVersion::LATEST);
    assert!(image.elr_enabled());
    let broker = &image.cluster.brokers[&0];
    assert_eq!((broker.epoch, broker.fenced, broker.listeners[0].port), (77, false, 23000));
    assert_eq!(broker.cordoned_log_dirs, Some(vec![]));
    assert_eq!(image.cluster.controllers[&0].listeners[0].name, "CONTROLLER");
    let names: Vec<_> = image.topics.iter().map(|t| (t.name.to_string(), t.partition_count())).collect();
    assert_eq!(names, [("alpha".into(), 5), ("beta.x".into(), 2), ("later".into(), 1)]);
    let alpha = image.topics.partition("alpha", 4).unwrap();
    assert_eq!((alpha.leader, alpha.leader_epoch, alpha.partition_epoch), (0, 4, 5));
    assert_eq!((alpha.leader_recovery_state, &alpha.isr[..], &alpha.elr[..]), (1, &[0][..], &[][..]));
    let configs = |resource| image.configs.of(&resource).map(|m| (**m).clone()).unwrap_or_default();
    let pairs =
        |of: &[(&str, &str)]| of.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect::<BTreeMap<String, String>>();
    assert_eq!(
        configs(ConfigResource::topic("alpha")),
        pairs(&[("cleanup.policy", "compact,delete"), ("max.message.bytes", "2000000")])
    );
    assert_eq!(configs(ConfigResource::broker(0)), pairs(&[("log.cleaner.threads", "2")]));
    assert_eq!(
        configs(ConfigResource::default_broker()),
        pairs(&[("log.retention.ms", "100000000"), ("min.insync.replicas", "1")])
    );
    assert_eq!(configs(ConfigResource::new(ConfigResourceType::Group, "g1")).len(), 1);
    assert_eq!(configs(ConfigResource::new(ConfigResourceType::ClientMetrics, "cm1")).len(), 2);
    assert_eq!(configs(ConfigResource::topic("gone")), BTreeMap::new());
    let default_user = QuotaEntity::new([("user".into(), None), ("client-id".into(), Some("c1".into()))]);
    assert_eq!(image.client_quotas.get(&default_user).unwrap()["request_percentage"], 200.0);
    assert_eq!(image.client_quotas.len(), 2);
    assert_eq!(image.next_producer_id, Some(1000));
    let principals: Vec<_> = image.acls.values().map(|a| a.principal.as_str()).collect();
    assert_eq!(principals, ["User:u2", "User:u1"]);
    assert_eq!(image.scram.len(), 1);
    assert_eq!(image.scram.values().next().unwrap().iterations, 4096);
}

#[test]
fn snapshot_and_log_hold_the_same_image() {
    let snapshot = Snapshot::decode(SNAPSHOT_ID, &Bytes::from_static(SNAPSHOT)).unwrap();
    let theirs: Vec<_> = snapshot.records.clone();
    let image = snapshot.clone().into_image().unwrap();
    assert_eq!(image, load(&read(LOG)));
    // Kafka walks hash maps: the order differs, the records do not.
    let sorted = |records: &[VersionedRecord]| {
        let mut bytes: Vec<_> = records.iter().map(|r| normal(r).encode().unwrap()).collect();
        bytes.sort();
        bytes
    };
    let ours = Snapshot::of(&image, &QuorumFacts::default());
    assert_eq!(ours.id, SNAPSHOT_ID);
    assert_eq!(ours.last_contained_log_time_ms, snapshot.last_contained_log_time_ms);
    assert_eq!(sorted(&ours.records), sorted(&theirs));
    let again = Snapshot::decode(SNAPSHOT_ID, &ours.encode(7).unwrap()).unwrap().into_image().unwrap();
    assert_eq!(again, image);
}

/// Lists that stand for sets, sorted.
fn normal(record: &VersionedRecord) -> VersionedRecord {
    let mut record = record.clone();
    match &mut record.record {
        MetadataRecord::RegisterBroker(r) => r.features.sort_by(|a, b| a.name.cmp(&b.name)),
        MetadataRecord::RegisterController(r) => r.features.sort_by(|a, b| a.name.cmp(&b.name)),
        _ => {}
    }
    record
}

#[test]
fn a_new_directory_starts_with_what_kafka_writes() {
    let content = |bytes: Bytes| -> Vec<_> {
        let batches: Vec<DecodedBatch> = decode_batches(&bytes).collect::<Result<_, _>>().unwrap();
        batches.into_iter().map(|b| (b.base_offset, b.last_offset, b.leader_epoch, b.content)).collect()
    };
    let theirs = Bytes::from_static(BOOTSTRAP);
    let ours = BootstrapMetadata::default();
    assert_eq!(BootstrapMetadata::decode(&theirs).unwrap(), ours);
    assert_eq!(content(ours.encode(5).unwrap()), content(theirs));

    let voter = StandaloneVoter {
        node_id: 0,
        directory_id: directory_of_standalone(),
        listeners: vec![("CONTROLLER".into(), "127.0.0.1".into(), 23011)],
    };
    let mut ours = content(standalone_snapshot(&voter).encode(5).unwrap());
    let mut theirs = content(Bytes::from_static(STANDALONE));
    // The header says when the directory was formatted.
    for content in [&mut ours, &mut theirs] {
        if let BatchContent::Control(records) = &mut content[0].3 {
            records.remove(0);
        }
    }
    assert_eq!(ours, theirs);
}

/// The voters stand in the log as soon as it has a leader.
#[test]
fn a_dynamic_quorum_opens_its_first_epoch_as_kafka_does() {
    let theirs = Bytes::from_static(include_bytes!("../testdata/standalone_first_batch.log"));
    let snapshot = Snapshot::decode(SnapshotId { end_offset: 0, epoch: 0 }, &Bytes::from_static(STANDALONE)).unwrap();
    let start = StartState {
        node_id: 0,
        directory_id: directory_of_standalone(),
        static_voters: Vec::new(),
        quorum_state: None,
        listeners: Vec::new(),
        last_epoch: 0,
        facts: snapshot.quorum,
    };
    let election = elect_alone(&start).unwrap();
    let at = AppendContext { base_offset: 0, leader_epoch: 1, now_ms: decode_batch(&theirs).unwrap().append_time_ms };
    assert_eq!(start_of_epoch_batch(&election, at).unwrap().bytes, theirs);
    let state =
        r#"{"leaderId":0,"leaderEpoch":1,"votedId":-1,"votedDirectoryId":"AAAAAAAAAAAAAAAAAAAAAA","data_version":1}"#;
    assert_eq!(election.quorum_state.format(), state);
}

fn directory_of_standalone() -> Uuid {
    let id = SnapshotId { end_offset: 0, epoch: 0 };
    let snapshot = Snapshot::decode(id, &Bytes::from_static(STANDALONE)).unwrap();
    assert_eq!(snapshot.quorum.kraft_version, 1);
    snapshot.quorum.voters.unwrap().voters[0].voter_directory_id
}

// The same life once more, led by our controller: every record that Kafka wrote, in the same order within a command.

struct Life {
    log: MemoryLog,
    /// What the JVM wrote, without batches.
    theirs: Vec<VersionedRecord>,
    ids: Vec<Uuid>,
}

impl Life {
    fn start(&mut self) {
        self.log.epoch += 1;
        let at = self.log.at();
        let start = StartState {
            node_id: 0,
            directory_id: Uuid::ZERO,
            static_voters: vec![0],
            quorum_state: None,
            listeners: Vec::new(),
            last_epoch: at.leader_epoch - 1,
            facts: QuorumFacts::default(),
        };
        let batch = start_of_epoch_batch(&elect_alone(&start).unwrap(), at).unwrap();
        self.log.append_bytes(batch.bytes);
        self.log.loader.publish();
        for command in activation_records(&self.log.loader, &BootstrapMetadata::default()) {
            self.expect(command.len(), Outcome { records: command, atomic: true, response: () });
        }
    }

    /// Commits a command, of which Kafka's log must hold the same records next.
    fn expect<R>(&mut self, count: usize, outcome: Outcome<R>) -> R {
        assert_eq!(outcome.records.len(), count);
        for ours in &outcome.records {
            assert_eq!(normal(ours), normal(&self.theirs.remove(0)));
        }
        self.log.commit(outcome)
    }

    /// Commits a command whose records Kafka wrote in another order.
    fn expect_in_any_order<R>(&mut self, outcome: Outcome<R>) -> R {
        for ours in &outcome.records {
            let at = self.theirs.iter().position(|t| normal(t) == normal(ours));
            self.theirs.remove(at.unwrap_or_else(|| panic!("not written by Kafka: {ours:?}")));
        }
        self.log.commit(outcome)
    }

    /// Takes over what we have no commands for.
    fn copy(&mut self, count: usize) {
        let records: Vec<_> = self.theirs.drain(..count).collect();
        self.log.append(&records, true);
    }

    fn incarnation(&self) -> Uuid {
        match &self.theirs[0].record {
            MetadataRecord::RegisterController(r) => r.incarnation_id,
            other => panic!("unexpected {other:?}"),
        }
    }

    fn broker_incarnation(&self) -> Uuid {
        let of = |r: &VersionedRecord| match &r.record {
            MetadataRecord::RegisterBroker(r) => Some(r.incarnation_id),
            _ => None,
        };
        self.theirs.iter().find_map(of).unwrap()
    }

    fn create(&mut self, topic: CreatableTopic, records: usize) {
        let id = self.ids.remove(0);
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 1, validate_only: false };
        let outcome = controller().create_topics(self.log.image(), &request, &mut || id);
        let response = self.expect(records, outcome);
        assert_eq!((response.topics[0].error_code, response.topics[0].topic_id), (0, id));
    }

    fn configs(&mut self, resource_type: i8, name: &str, ops: &[(&str, i8, &str)], records: usize) {
        let config = |(key, op, value): &(&str, i8, &str)| AlterableConfig {
            name: (*key).into(),
            config_operation: *op,
            value: (*op != 1).then(|| (*value).to_owned()),
        };
        let resource = AlterConfigsResource {
            resource_type,
            resource_name: name.into(),
            configs: ops.iter().map(config).collect(),
        };
        let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
        let outcome = controller().incremental_alter_configs(self.log.image(), &request);
        let response = self.expect(records, outcome);
        assert_eq!(response.responses[0].error_code, 0, "{response:?}");
    }
}

fn topic(name: &str, partitions: i32) -> CreatableTopic {
    CreatableTopic { name: name.into(), num_partitions: partitions, replication_factor: -1, ..Default::default() }
}

#[test]
fn the_same_commands_lead_to_the_same_records() {
    let mut theirs = Vec::new();
    for batch in read(LOG) {
        if let BatchContent::Records(records) = batch.content {
            theirs.extend(records);
        }
    }
    let id_of = |r: &VersionedRecord| match &r.record {
        MetadataRecord::Topic(t) => Some(t.topic_id),
        _ => None,
    };
    let ids = theirs.iter().filter_map(id_of).collect();
    let mut life = Life { log: MemoryLog::default(), theirs, ids };
    let directory = load(&read(LOG)).cluster.brokers[&0].log_dirs[0];
    let ctl = controller();

    life.start();
    let registration = controller_registration(0, life.incarnation(), 23001);
    life.expect(1, ctl.register_controller(&registration));
    let spec = broker_spec(0, life.broker_incarnation(), 23000, directory);
    let next = life.log.next_offset();
    let outcome = ctl.register_broker(life.log.image(), &spec, PreviousShutdown::NothingLost, next).unwrap();
    assert_eq!(life.expect(1, outcome), 11);
    let outcome = ctl.unfence_broker(life.log.image(), 0).unwrap();
    life.expect(2, outcome);

    let config = |name: &str, value: &str| CreatableTopicConfig { name: name.into(), value: Some(value.into()) };
    let configs = vec![config("retention.ms", "60000"), config("cleanup.policy", "compact,delete")];
    life.create(CreatableTopic { configs, ..topic("alpha", 3) }, 6);
    let assignment = |partition_index| CreatableReplicaAssignment { partition_index, broker_ids: vec![0] };
    life.create(CreatableTopic { assignments: vec![assignment(0), assignment(1)], ..topic("beta.x", -1) }, 3);
    life.create(topic("gone", 2), 3);
    let more = CreatePartitionsTopic { name: "alpha".into(), count: 5, assignments: None };
    let request = CreatePartitionsRequest { topics: vec![more], ..Default::default() };
    let outcome = ctl.create_partitions(life.log.image(), &request);
    life.expect(2, outcome);
    life.configs(2, "alpha", &[("max.message.bytes", 0, "2000000"), ("retention.ms", 1, "")], 2);
    life.configs(4, "0", &[("log.cleaner.threads", 0, "2")], 1);
    life.configs(4, "", &[("log.retention.ms", 0, "100000000")], 1);
    life.configs(32, "g1", &[("consumer.session.timeout.ms", 0, "50000")], 1);
    life.configs(16, "cm1", &[("interval.ms", 0, "10000"), ("metrics", 0, "org.apache.kafka")], 2);
    // Two quotas, three SCRAM records, four ACL records.
    life.copy(9);
    let gone = DeleteTopicState { name: Some("gone".into()), topic_id: Uuid::ZERO };
    let request = DeleteTopicsRequest { topics: vec![gone], ..Default::default() };
    let outcome = ctl.delete_topics(life.log.image(), &request);
    life.expect(1, outcome);
    let request = AllocateProducerIdsRequest { broker_id: 0, broker_epoch: 11 };
    let outcome = ctl.allocate_producer_ids(life.log.image(), &request);
    life.expect(1, outcome);

    // An orderly stop, and a start.
    let outcome = ctl.controlled_shutdown(life.log.image(), 0).unwrap();
    life.expect(8, outcome);
    let outcome = ctl.fence_broker(life.log.image(), 0).unwrap();
    life.expect(1, outcome);
    life.start();
    let registration = controller_registration(0, life.incarnation(), 23001);
    life.expect(1, ctl.register_controller(&registration));
    let spec = broker_spec(0, life.broker_incarnation(), 23000, directory);
    let next = life.log.next_offset();
    let outcome = ctl.register_broker(life.log.image(), &spec, PreviousShutdown::NothingLost, next).unwrap();
    assert_eq!(life.expect(1, outcome), 57);
    let outcome = ctl.unfence_broker(life.log.image(), 0).unwrap();
    life.expect(9, outcome);

    // SIGKILL, and a start of a broker that may have lost records.
    life.start();
    let registration = controller_registration(0, life.incarnation(), 23001);
    life.expect(1, ctl.register_controller(&registration));
    let outcome = ctl.fence_broker(life.log.image(), 0).unwrap();
    life.expect(8, outcome);
    let spec = broker_spec(0, life.broker_incarnation(), 23000, directory);
    let next = life.log.next_offset();
    let outcome = ctl.register_broker(life.log.image(), &spec, PreviousShutdown::MayHaveLost, next).unwrap();
    assert_eq!(life.expect(8, outcome), 77);
    let outcome = ctl.unfence_broker(life.log.image(), 0).unwrap();
    life.expect_in_any_order(outcome);
    life.create(topic("later", 1), 2);

    assert_eq!(life.theirs, []);
    let theirs = load(&read(LOG));
    let ours = MetadataImage { provenance: theirs.provenance, ..life.log.image().clone() };
    assert_eq!(ours, theirs);
    assert_eq!(life.log.next_offset(), 96);
}
