//! Random commands: the image keeps its invariants, and log, snapshot and live image agree.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;

use common::{MemoryLog, broker_spec, controller, controller_registration};
use proptest::prelude::*;
use taccola_base::Uuid;
use taccola_meta::batch::decode_batch;
use taccola_meta::bootstrap::BootstrapMetadata;
use taccola_meta::controller::{PRODUCER_ID_BLOCK, PreviousShutdown};
use taccola_meta::image::NO_LEADER;
use taccola_meta::loader::QuorumFacts;
use taccola_meta::quorum::activation_records;
use taccola_meta::snapshot::Snapshot;
use taccola_meta::{MetadataImage, MetadataLoader, Outcome};
use taccola_wire::messages::create_partitions_request::CreatePartitionsTopic;
use taccola_wire::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
use taccola_wire::messages::delete_topics_request::DeleteTopicState;
use taccola_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use taccola_wire::messages::{
    AllocateProducerIdsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
    IncrementalAlterConfigsRequest,
};

#[derive(Debug, Clone)]
enum Command {
    Create {
        name: usize,
        partitions: i32,
        factor: i16,
        manual: Option<Vec<Vec<i32>>>,
        config: usize,
        validate_only: bool,
    },
    Delete {
        name: usize,
        by_id: bool,
    },
    Grow {
        name: usize,
        count: i32,
    },
    Config {
        kind: i8,
        name: usize,
        key: usize,
        op: i8,
        value: String,
    },
    Start {
        broker: i32,
        lost: bool,
        fence: bool,
    },
    Stop {
        broker: i32,
    },
    Fence {
        broker: i32,
    },
    ProducerIds {
        broker: i32,
    },
}

const NAMES: &[&str] = &["a", "b", "c.d", "c_d", "e-f", "", "bad name", "0", "1"];
const KEYS: &[&str] =
    &["cleanup.policy", "retention.ms", "min.insync.replicas", "unclean.leader.election.enable", "bad.key"];
const BROKERS: i32 = 3;

fn commands() -> impl Strategy<Value = Command> {
    let name = 0..NAMES.len();
    let broker = 0..BROKERS;
    prop_oneof![
        4 => (name.clone(), -2..5, -2i16..5, prop::option::weighted(0.2, prop::collection::vec(prop::collection::vec(0..4, 0..3), 0..4)), 0..KEYS.len(), prop::bool::weighted(0.1))
            .prop_map(|(name, partitions, factor, manual, config, validate_only)| Command::Create { name, partitions, factor, manual, config, validate_only }),
        1 => (name.clone(), any::<bool>()).prop_map(|(name, by_id)| Command::Delete { name, by_id }),
        1 => (name.clone(), -1..9).prop_map(|(name, count)| Command::Grow { name, count }),
        3 => (prop::sample::select(vec![2i8, 4, 8, 16, 32, 99]), name, 0..KEYS.len(), -1i8..5, "[0-9a-c,]{0,6}|true")
            .prop_map(|(kind, name, key, op, value)| Command::Config { kind, name, key, op, value }),
        3 => (broker.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(broker, lost, fence)| Command::Start { broker, lost, fence }),
        1 => broker.clone().prop_map(|broker| Command::Stop { broker }),
        1 => broker.clone().prop_map(|broker| Command::Fence { broker }),
        1 => broker.prop_map(|broker| Command::ProducerIds { broker }),
    ]
}

struct World {
    log: MemoryLog,
    ids: u128,
}

impl World {
    fn new() -> Self {
        let mut world = World { log: MemoryLog { epoch: 1, ..MemoryLog::default() }, ids: 1_000 };
        for command in activation_records(&world.log.loader, &BootstrapMetadata::default()) {
            world.log.append(&command, true);
        }
        let id = world.id();
        world.log.commit(controller().register_controller(&controller_registration(0, id, 9093)));
        world
    }

    fn id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128(self.ids)
    }

    fn run(&mut self, command: Command) {
        let ctl = controller();
        let next = self.log.next_offset();
        match command {
            Command::Create { name, partitions, factor, manual, config, validate_only } => {
                let assignments: Vec<_> = manual
                    .unwrap_or_default()
                    .into_iter()
                    .zip(0..)
                    .map(|(broker_ids, partition_index)| CreatableReplicaAssignment { partition_index, broker_ids })
                    .collect();
                let (partitions, factor) = if assignments.is_empty() { (partitions, factor) } else { (-1, -1) };
                let configs = vec![CreatableTopicConfig { name: KEYS[config].into(), value: Some("1".into()) }];
                let topic = |name: &str| CreatableTopic {
                    name: name.into(),
                    num_partitions: partitions,
                    replication_factor: factor,
                    assignments: assignments.clone(),
                    configs: configs.clone(),
                };
                let topics = vec![topic(NAMES[name]), topic(NAMES[(name + 1) % NAMES.len()])];
                let request = CreateTopicsRequest { topics, timeout_ms: 1, validate_only };
                let outcome = ctl.create_topics(self.log.image(), &request, &mut || {
                    self.ids += 1;
                    Uuid::from_u128(self.ids)
                });
                assert_eq!(outcome.response.topics.len(), 2);
                let response = self.log.commit(outcome);
                for row in response.topics.iter().filter(|t| t.error_code == 0 && !validate_only) {
                    let topic = self.log.image().topics.by_name(&row.name).unwrap();
                    assert_eq!((topic.id, topic.partition_count() as i32), (row.topic_id, row.num_partitions));
                }
            }
            Command::Delete { name, by_id } => {
                let id = self.log.image().topics.by_name(NAMES[name]).map(|t| t.id).filter(|_| by_id);
                let topic = DeleteTopicState {
                    name: id.is_none().then(|| NAMES[name].into()),
                    topic_id: id.unwrap_or_default(),
                };
                let request = DeleteTopicsRequest { topics: vec![topic], ..Default::default() };
                let response = self.log.commit(ctl.delete_topics(self.log.image(), &request));
                assert_eq!(response.responses.len(), 1);
                assert!(self.log.image().topics.by_name(NAMES[name]).is_none());
            }
            Command::Grow { name, count } => {
                let topic = CreatePartitionsTopic { name: NAMES[name].into(), count, assignments: None };
                let request = CreatePartitionsRequest { topics: vec![topic], ..Default::default() };
                let response = self.log.commit(ctl.create_partitions(self.log.image(), &request));
                assert_eq!(response.results.len(), 1);
            }
            Command::Config { kind, name, key, op, value } => {
                let config = AlterableConfig { name: KEYS[key].into(), config_operation: op, value: Some(value) };
                let resource = AlterConfigsResource {
                    resource_type: kind,
                    resource_name: NAMES[name].into(),
                    configs: vec![config],
                };
                let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
                let response = self.log.commit(ctl.incremental_alter_configs(self.log.image(), &request));
                assert_eq!(response.responses.len(), 1);
            }
            Command::Start { broker, lost, fence } => {
                let led = self.led_by(broker);
                if fence && self.log.image().cluster.brokers.contains_key(&broker) {
                    self.log.commit(ctl.fence_broker(self.log.image(), broker).unwrap());
                }
                let next = self.log.next_offset();
                let spec = broker_spec(broker, self.id(), 9092, Uuid::from_u128(500 + broker as u128));
                let previous = if lost { PreviousShutdown::MayHaveLost } else { PreviousShutdown::NothingLost };
                let epoch = self.log.commit(ctl.register_broker(self.log.image(), &spec, previous, next).unwrap());
                assert_eq!(epoch, next);
                self.log.commit(ctl.unfence_broker(self.log.image(), broker).unwrap());
                assert!(self.log.image().cluster.is_active(broker));
                for (at, epoch) in self.led_by(broker) {
                    let before = led.iter().find(|(was, _)| *was == at);
                    assert!(before.is_none_or(|(_, before)| epoch > *before), "{at:?} is led again in the same epoch");
                }
            }
            Command::Stop { broker } => {
                if let Ok(outcome) = ctl.controlled_shutdown(self.log.image(), broker) {
                    self.log.commit(outcome);
                    self.log.commit(ctl.fence_broker(self.log.image(), broker).unwrap());
                }
            }
            Command::Fence { broker } => {
                if let Ok(outcome) = ctl.fence_broker(self.log.image(), broker) {
                    self.log.commit(outcome);
                }
            }
            Command::ProducerIds { broker } => {
                let before = self.log.image().next_producer_id.unwrap_or(0);
                let epoch = self.log.image().cluster.brokers.get(&broker).map_or(-1, |b| b.epoch);
                let request = AllocateProducerIdsRequest { broker_id: broker, broker_epoch: epoch };
                let outcome: Outcome<_> = ctl.allocate_producer_ids(self.log.image(), &request);
                let response = self.log.commit(outcome);
                if response.error_code == 0 {
                    assert_eq!(response.producer_id_start, before);
                    assert_eq!(self.log.image().next_producer_id, Some(before + i64::from(PRODUCER_ID_BLOCK)));
                } else {
                    assert_eq!(epoch, -1);
                }
            }
        }
        assert!(self.log.next_offset() >= next);
    }

    fn led_by(&self, broker: i32) -> Vec<((Uuid, i32), i32)> {
        let topics = self.log.image().topics.iter();
        let all = topics.flat_map(|t| t.partitions.iter().map(|(id, p)| ((t.id, *id), p)));
        all.filter(|(_, p)| p.leader == broker).map(|(at, p)| (at, p.leader_epoch)).collect()
    }

    fn replayed(&self) -> MetadataImage {
        let mut loader = MetadataLoader::default();
        for batch in &self.log.batches {
            loader.load(&decode_batch(batch).unwrap()).unwrap();
        }
        loader.publish().unwrap().image
    }
}

fn check(image: &MetadataImage, epochs: &mut BTreeMap<(Uuid, i32), (i32, i32)>) {
    let mut unified = std::collections::BTreeSet::new();
    for topic in image.topics.iter() {
        assert_eq!(image.topics.by_id(topic.id), Some(topic));
        if let Some(name) = taccola_meta::image::unify_collision_chars(&topic.name) {
            assert!(unified.insert(name), "{} collides", topic.name);
        }
        assert!(topic.partition_count() > 0);
        for ((id, p), expected) in topic.partitions.iter().zip(0..) {
            assert_eq!(*id, expected);
            assert_eq!(p.replicas.len(), p.directories.len());
            assert!(!p.replicas.is_empty());
            for set in [&p.isr, &p.elr, &p.last_known_elr] {
                let distinct: std::collections::BTreeSet<_> = set.iter().collect();
                assert_eq!(distinct.len(), set.len());
                assert!(set.iter().all(|r| p.replicas.contains(r)), "{p:?}");
            }
            assert!(p.isr.iter().all(|r| !p.elr.contains(r)), "{p:?}");
            if p.leader == NO_LEADER {
                assert!(p.isr.is_empty(), "{p:?}");
            } else {
                assert!(p.isr.contains(&p.leader) && image.cluster.is_active(p.leader), "{p:?}");
            }
            // Epochs never go back, and another leader has another epoch.
            let (leader, leader_epoch) =
                epochs.insert((topic.id, *id), (p.leader, p.leader_epoch)).unwrap_or((p.leader, p.leader_epoch));
            assert!(p.leader_epoch >= leader_epoch);
            assert!(leader == p.leader || p.leader_epoch > leader_epoch);
        }
    }
    for (_, values) in image.configs.iter() {
        assert!(!values.is_empty() && !values.contains_key("bad.key"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn log_snapshot_and_live_image_agree(commands in prop::collection::vec(commands(), 1..60)) {
        let mut world = World::new();
        let mut epochs = BTreeMap::new();
        for command in commands {
            world.run(command);
            check(world.log.image(), &mut epochs);
        }
        let live = world.log.image();
        prop_assert_eq!(&world.replayed(), live);
        let snapshot = Snapshot::of(live, &QuorumFacts::default());
        let decoded = Snapshot::decode(snapshot.id, &snapshot.encode(1).unwrap()).unwrap();
        prop_assert_eq!(&decoded, &snapshot);
        prop_assert_eq!(&decoded.into_image().unwrap(), live);
        prop_assert_eq!(live.to_records(), snapshot.records);
    }

    #[test]
    fn bytes_that_are_no_record_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), key in 0u8..30, version in 0u8..5) {
        let _ = taccola_meta::VersionedRecord::decode(bytes.clone().into());
        let framed = [vec![1, key, version], bytes].concat();
        if let Ok(record) = taccola_meta::VersionedRecord::decode(framed.into()) {
            let again = record.encode().unwrap().freeze();
            prop_assert_eq!(taccola_meta::VersionedRecord::decode(again).unwrap(), record.clone());
            let _ = taccola_meta::MetadataDelta::new(&MetadataImage::default()).replay(&record.record);
        }
    }
}
