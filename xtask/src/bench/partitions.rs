//! What partitions cost that nobody uses: creating and deleting ten thousand of them, memory, handles and CPU while they
//! rest, and starting again, after a clean stop and after `kill -9`; first empty, then with one record each. And how long
//! a broker with much data takes to serve again after `kill -9` in the middle of writing.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use taccola_wire::messages::create_partitions_request::{CreatePartitionsRequest, CreatePartitionsTopic};
use taccola_wire::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use taccola_wire::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use taccola_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use taccola_wire::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};

use super::broker::{BrokerKind, Ending, RunningBroker};
use super::load::{self, Connection, Pipelined};

const CREATE_TOPICS_VERSION: i16 = 7;
const CREATE_PARTITIONS_VERSION: i16 = 3;
const DELETE_TOPICS_VERSION: i16 = 6;
const LIST_OFFSETS_VERSION: i16 = 7;
const PRODUCE_VERSION: i16 = 9;
/// Partitions of one request: Kafka refuses more than 10,000.
const PARTITIONS_PER_REQUEST: i32 = 1000;
const SETTLE: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(20);
const ASK_EVERY: Duration = Duration::from_millis(5);
const SERVED_WITHIN: Duration = Duration::from_secs(600);

/// So many topics of so many partitions.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) topics: i32,
    pub(super) partitions: i32,
}

pub(super) const HEADINGS: &str = "\
| Partitions | Broker | Create | Delete | RSS | Idle CPU | Handles | Maps | Clean stop | Start after it | Start after kill -9 |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |";
pub(super) const RECOVERY_HEADINGS: &str = "\
| Recovery | Broker | Ready after kill -9 | All partitions served |
| --- | --- | ---: | ---: |";

/// A broker at rest with its partitions, and its restarts.
#[derive(Default)]
struct Resting {
    rss_mb: f64,
    idle_percent: f64,
    handles: usize,
    maps: usize,
    stop: Duration,
    start_clean: Duration,
    start_killed: Duration,
}

/// Two lines for one side: the partitions empty, and with one record each.
pub(super) async fn lines(side: &BrokerKind, shape: Shape) -> Result<Vec<String>, String> {
    let mut broker = RunningBroker::start(side, &[])?;
    let created = create(&broker, shape).await?;
    let empty = rest(&mut broker, shape).await?;
    let removed_empty = delete(&broker, shape).await?;
    broker.stop()?;
    // Another one: Kafka holds the files of deleted partitions open for a minute.
    let mut broker = RunningBroker::start(side, &[])?;
    create(&broker, shape).await?;
    let filled_within = fill(&broker, shape).await?;
    let full = rest(&mut broker, shape).await?;
    let removed_full = delete(&broker, shape).await?;
    broker.stop()?;
    let seconds = |duration: Duration| format!("{:.3} s", duration.as_secs_f64());
    let line = |what: &str, began: String, removed: Duration, at_rest: Resting| {
        format!(
            "| {} x {}, {what} | {} | {began} | {} | {:.0} MB | {:.2} % | {} | {} | {} | {} | {} |",
            shape.topics,
            shape.partitions,
            side.name(),
            seconds(removed),
            at_rest.rss_mb,
            at_rest.idle_percent,
            at_rest.handles,
            at_rest.maps,
            seconds(at_rest.stop),
            seconds(at_rest.start_clean),
            seconds(at_rest.start_killed),
        )
    };
    Ok(vec![
        line("empty", seconds(created), removed_empty, empty),
        line("one record each", format!("first write of each: {}", seconds(filled_within)), removed_full, full),
    ])
}

async fn rest(broker: &mut RunningBroker, shape: Shape) -> Result<Resting, String> {
    tokio::time::sleep(SETTLE).await;
    let before = broker.cpu_seconds();
    tokio::time::sleep(IDLE).await;
    let after = broker.cpu_seconds();
    let used = after.0 + after.1 - before.0 - before.1;
    let (handles, maps) = broker.handles_and_maps();
    let mut resting = Resting {
        rss_mb: broker.rss_mb(),
        idle_percent: used / IDLE.as_secs_f64() * 100.0,
        handles,
        maps,
        ..Resting::default()
    };
    resting.stop = broker.restart(Ending::Clean)?;
    resting.start_clean = served(broker, shape, broker.ready_after).await?;
    broker.restart(Ending::Kill)?;
    resting.start_killed = served(broker, shape, broker.ready_after).await?;
    Ok(resting)
}

fn name(topic: i32) -> String {
    format!("{}-{topic}", load::TOPIC)
}

async fn create(broker: &RunningBroker, shape: Shape) -> Result<Duration, String> {
    let mut connection = Connection::open(&broker.address()).await?;
    let began = Instant::now();
    let at_first = shape.partitions.min(PARTITIONS_PER_REQUEST);
    let per_request = (PARTITIONS_PER_REQUEST / at_first).max(1);
    let topics: Vec<_> = (0..shape.topics).map(|topic| creatable(topic, at_first)).collect();
    for some in topics.chunks(per_request as usize) {
        let request = CreateTopicsRequest { topics: some.to_vec(), timeout_ms: 60_000, ..Default::default() };
        let response = connection.call(CREATE_TOPICS_VERSION, &request).await?;
        check("CreateTopics", response.topics.iter().map(|topic| topic.error_code))?;
    }
    let mut count = at_first;
    while count < shape.partitions {
        count = (count + PARTITIONS_PER_REQUEST).min(shape.partitions);
        let topics =
            (0..shape.topics).map(|topic| CreatePartitionsTopic { name: name(topic), count, assignments: None });
        let request = CreatePartitionsRequest { topics: topics.collect(), timeout_ms: 60_000, ..Default::default() };
        let response = connection.call(CREATE_PARTITIONS_VERSION, &request).await?;
        check("CreatePartitions", response.results.iter().map(|topic| topic.error_code))?;
    }
    served(broker, shape, began.elapsed()).await
}

fn creatable(topic: i32, partitions: i32) -> CreatableTopic {
    CreatableTopic { name: name(topic), num_partitions: partitions, replication_factor: 1, ..Default::default() }
}

fn check(what: &str, mut errors: impl Iterator<Item = i16>) -> Result<(), String> {
    errors.find(|code| *code != 0).map_or(Ok(()), |code| Err(format!("{what}: error {code}")))
}

/// Until each partition tells its log end offset; `so_far` is what the caller has waited already.
async fn served(broker: &RunningBroker, shape: Shape, so_far: Duration) -> Result<Duration, String> {
    served_topics(broker, (0..shape.topics).map(name), shape.partitions, so_far).await
}

async fn served_topics(
    broker: &RunningBroker,
    topics: impl Iterator<Item = String>,
    partitions: i32,
    so_far: Duration,
) -> Result<Duration, String> {
    let began = Instant::now();
    let mut connection = Connection::open(&broker.address()).await?;
    let of_topic = |name: String| {
        let partition =
            |partition_index| ListOffsetsPartition { partition_index, current_leader_epoch: -1, timestamp: -1 };
        ListOffsetsTopic { name, partitions: (0..partitions).map(partition).collect() }
    };
    let request = ListOffsetsRequest { replica_id: -1, topics: topics.map(of_topic).collect(), ..Default::default() };
    loop {
        let response = connection.call(LIST_OFFSETS_VERSION, &request).await?;
        let mut partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
        match partitions.find(|partition| partition.error_code != 0) {
            None => return Ok(so_far + began.elapsed()),
            Some(partition) if began.elapsed() > SERVED_WITHIN => {
                return Err(format!("ListOffsets: error {}", partition.error_code));
            }
            Some(_) => tokio::time::sleep(ASK_EVERY).await,
        }
    }
}

/// One record to each partition, a topic's partitions in one request.
async fn fill(broker: &RunningBroker, shape: Shape) -> Result<Duration, String> {
    let (records, _) = load::batch(100, 1);
    let mut connection = Connection::open(&broker.address()).await?;
    let began = Instant::now();
    for topic in 0..shape.topics {
        for first in (0..shape.partitions).step_by(PARTITIONS_PER_REQUEST as usize) {
            let indexes = first..(first + PARTITIONS_PER_REQUEST).min(shape.partitions);
            let response = connection.call(PRODUCE_VERSION, &produce(name(topic), indexes, &records)).await?;
            let partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
            check("Produce", partitions.map(|partition| partition.error_code))?;
        }
    }
    Ok(began.elapsed())
}

fn produce(name: String, indexes: std::ops::Range<i32>, records: &Bytes) -> ProduceRequest {
    let partition = |index| PartitionProduceData { index, records: Some(records.clone()) };
    let topic = TopicProduceData { name, partition_data: indexes.map(partition).collect(), ..Default::default() };
    ProduceRequest { acks: -1, timeout_ms: 60_000, topic_data: vec![topic], ..Default::default() }
}

/// Until no folder stands under its own name any more.
async fn delete(broker: &RunningBroker, shape: Shape) -> Result<Duration, String> {
    let mut connection = Connection::open(&broker.address()).await?;
    let began = Instant::now();
    let topics = (0..shape.topics).map(|topic| DeleteTopicState { name: Some(name(topic)), ..Default::default() });
    let request = DeleteTopicsRequest { topics: topics.collect(), timeout_ms: 120_000, ..Default::default() };
    let response = connection.call(DELETE_TOPICS_VERSION, &request).await?;
    check("DeleteTopics", response.responses.iter().map(|topic| topic.error_code))?;
    while folders(&broker.data())? > 0 {
        if began.elapsed() > SERVED_WITHIN {
            return Err("folders of deleted topics stay".to_owned());
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
    Ok(began.elapsed())
}

fn folders(data: &Path) -> Result<usize, String> {
    let entries = std::fs::read_dir(data).map_err(|error| error.to_string())?;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|name| name.starts_with(load::TOPIC) && !name.ends_with("-delete")).count())
}

/// Writes much, kills the broker while it is written to, and starts it again.
pub(super) async fn recovery(side: &BrokerKind, shape: &Pipelined) -> Result<String, String> {
    let mut broker = RunningBroker::start(side, &[])?;
    let address = broker.address();
    load::create_topic(&address, shape.partitions).await?;
    load::produce(&address, shape, &|| (0.0, 0.0)).await?;
    // In the middle of a burst that nobody waits for.
    let burst = Pipelined { total_bytes: shape.total_bytes / 20, ..shape.clone() };
    let cut = tokio::time::timeout(Duration::from_millis(500), load::produce(&address, &burst, &|| (0.0, 0.0)));
    let _ = cut.await;
    broker.restart(Ending::Kill)?;
    let ready = broker.ready_after;
    let all = served_topics(&broker, std::iter::once(load::TOPIC.to_owned()), shape.partitions, ready).await?;
    broker.stop()?;
    Ok(format!(
        "| {:.1} GB in {} partitions | {} | {:.3} s | {:.3} s |",
        shape.total_bytes as f64 / 1e9,
        shape.partitions,
        side.name(),
        ready.as_secs_f64(),
        all.as_secs_f64()
    ))
}
