//! Topics that come, grow, change their configs and go. Each step ends when the broker's coordinators have seen it.

use taccola_base::Uuid;
use taccola_wire::messages::create_partitions_request::CreatePartitionsTopic;
use taccola_wire::messages::delete_topics_request::DeleteTopicState;
use taccola_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use taccola_wire::messages::{
    ConsumerGroupHeartbeatRequest, CreatePartitionsRequest, DeleteTopicsRequest, FindCoordinatorRequest,
    IncrementalAlterConfigsRequest, InitProducerIdRequest,
};

use super::world::{World, below, pick};
use crate::eventually;
use crate::ledger::Rng;
use crate::requests::{create_topic, list_offset};

#[derive(Clone, Debug)]
pub struct Topic {
    pub name: String,
    pub id: Uuid,
    pub exists: bool,
    pub partitions: i32,
    /// How often there was one of this name.
    lives: usize,
}

const TOPICS: usize = 4;
/// The last topic is not there at first.
const AT_FIRST: usize = 3;

pub fn prepare(world: &mut World, rng: &mut Rng) {
    for (kind, key) in [(0, "group"), (1, "id")] {
        let find =
            FindCoordinatorRequest { key_type: kind, coordinator_keys: vec![key.to_owned()], ..Default::default() };
        eventually("a coordinator", || (world.conn.ask(&find, 4).coordinators[0].error_code == 0).then_some(()));
    }
    eventually("producer ids", || {
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: 1,
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        };
        (world.conn.ask(&request, 4).error_code == 0).then_some(())
    });
    for n in 0..TOPICS {
        let partitions = 1 + i32::try_from(rng.below(4)).expect("small");
        let name = format!("{}-t{n}", world.prefix);
        world.topics.push(Topic { name, id: Uuid::ZERO, exists: false, partitions, lives: 0 });
        if n < AT_FIRST {
            assert_eq!(create(world, n), 0);
        }
    }
}

fn create(world: &mut World, at: usize) -> i16 {
    let Topic { name, partitions, .. } = world.topics[at].clone();
    let (code, id) = create_topic(&mut world.conn, &name, partitions, &[]);
    if code == 0 {
        let topic = &mut world.topics[at];
        (topic.id, topic.exists, topic.lives) = (id, true, topic.lives + 1);
        let lives = topic.lives;
        world.call(&id.to_string(), format!("<t{at} life {lives}>"));
        grown(world, at);
    }
    code
}

/// Waits until all partitions have leaders and the group coordinator assigns them.
fn grown(world: &mut World, at: usize) {
    let Topic { name, partitions, .. } = world.topics[at].clone();
    eventually("leaders", || (0..partitions).all(|p| list_offset(&mut world.conn, &name, p, -1).0 == 0).then_some(()));
    seen(world, &name, usize::try_from(partitions).expect("few"));
}

fn seen(world: &mut World, name: &str, partitions: usize) {
    let beat = |member_epoch| ConsumerGroupHeartbeatRequest {
        group_id: "lookout".to_owned(),
        member_id: "lookout".to_owned(),
        member_epoch,
        rebalance_timeout_ms: 30_000,
        subscribed_topic_names: Some(vec![name.to_owned()]),
        topic_partitions: Some(Vec::new()),
        ..Default::default()
    };
    eventually("the coordinator sees the topic", || {
        let joined = world.conn.ask(&beat(0), 1);
        if joined.error_code != 0 {
            return None;
        }
        assert_eq!(world.conn.ask(&beat(-1), 1).error_code, 0);
        let count: usize =
            joined.assignment.map_or(0, |a| a.topic_partitions.iter().map(|topic| topic.partitions.len()).sum());
        (count == partitions).then_some(())
    });
}

pub fn step(world: &mut World, rng: &mut Rng) {
    let at = below(rng, TOPICS);
    let Topic { name, exists, partitions, id, .. } = world.topics[at].clone();
    world.changing = true;
    match rng.below(10) {
        0..4 if !exists => {
            let code = create(world, at);
            world.note(format!("create {name}: {code}"));
        }
        0..2 => {
            let state = if rng.one_in(2) {
                DeleteTopicState { name: Some(name.clone()), topic_id: Uuid::ZERO }
            } else {
                DeleteTopicState { name: None, topic_id: if exists { id } else { Uuid::from_bytes([7; 16]) } }
            };
            let request = DeleteTopicsRequest { topics: vec![state], timeout_ms: 10_000, ..Default::default() };
            let reply = world.ask(&request, 6, |reply| {
                reply.responses.iter_mut().for_each(|row| row.error_message = None);
            });
            if reply.is_some_and(|reply| reply.responses.iter().all(|row| row.error_code == 0)) {
                world.topics[at].exists = false;
                eventually("it has no leaders", || (list_offset(&mut world.conn, &name, 0, -1).0 != 0).then_some(()));
                seen(world, &name, 0);
            }
        }
        2..5 => {
            let count = pick(rng, &[partitions + 1, partitions + 2, partitions, 1, 0, -1]);
            let topic = CreatePartitionsTopic { name, count, assignments: None };
            let request =
                CreatePartitionsRequest { topics: vec![topic], timeout_ms: 10_000, validate_only: rng.one_in(4) };
            let reply = world.ask(&request, 3, |reply| {
                reply.results.iter_mut().for_each(|row| row.error_message = None);
            });
            if !request.validate_only && reply.is_some_and(|reply| reply.results.iter().all(|row| row.error_code == 0))
            {
                world.topics[at].partitions = count;
                grown(world, at);
            }
        }
        _ => configs(world, rng, &name),
    }
}

fn configs(world: &mut World, rng: &mut Rng, topic: &str) {
    let (kind, name, key, value) = if rng.one_in(2) {
        let (key, value) = pick(
            rng,
            &[
                ("min.insync.replicas", "2"),
                ("min.insync.replicas", "1"),
                ("max.message.bytes", "150"),
                ("max.message.bytes", "1048588"),
                ("message.timestamp.type", "CreateTime"),
                ("cleanup.policy", "compact"),
                ("cleanup.policy", "delete"),
            ],
        );
        (2, topic.to_owned(), key, value)
    } else {
        let group = world.any_group(rng);
        let (key, value) = pick(
            rng,
            &[
                ("consumer.session.timeout.ms", "50000"),
                ("consumer.heartbeat.interval.ms", "6000"),
                ("share.heartbeat.interval.ms", "7000"),
                ("share.auto.offset.reset", "earliest"),
                ("share.isolation.level", "read_committed"),
                ("share.delivery.count.limit", "3"),
                ("streams.num.standby.replicas", "1"),
                ("streams.heartbeat.interval.ms", "6000"),
                ("streams.heartbeat.interval.ms", "1"),
                ("no.such.config", "1"),
            ],
        );
        (32, group, key, value)
    };
    set(world, kind, &name, key, value, true);
    if kind == 2 {
        // Replicas hear of it a moment later.
        world.pause(std::time::Duration::from_millis(80));
    }
}

/// Sets a config of a topic (2) or a group (32), and waits until it is there.
pub fn set(world: &mut World, kind: i8, name: &str, key: &str, value: &str, aloud: bool) {
    let config = AlterableConfig { name: key.to_owned(), value: Some(value.to_owned()), ..Default::default() };
    let resource = AlterConfigsResource { resource_type: kind, resource_name: name.to_owned(), configs: vec![config] };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    if aloud {
        world.ask(&request, 1, |reply| reply.responses.iter_mut().for_each(|row| row.error_message = None));
        world.pause(std::time::Duration::from_millis(40));
    } else {
        let reply = world.conn.ask(&request, 1);
        assert_eq!(reply.responses[0].error_code, 0, "{reply:?}");
    }
}

pub fn delete_all(world: &mut World) {
    let topics = world.topics.iter().filter(|topic| topic.exists);
    let topics =
        topics.map(|topic| DeleteTopicState { name: Some(topic.name.clone()), topic_id: Uuid::ZERO }).collect();
    let request = DeleteTopicsRequest { topics, timeout_ms: 10_000, ..Default::default() };
    let _ = world.conn.call(&request, 6);
}
