//! The load generator: one thread, raw protocol, requests encoded once and sent again and again, so that the client costs
//! little and both brokers get the same bytes. Produce v9 and Fetch v12, which both brokers know and which name topics.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use taccola_wire::batch::{BatchBuilder, Compression, batches};
use taccola_wire::codec::Request;
use taccola_wire::frame;
use taccola_wire::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use taccola_wire::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use taccola_wire::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use taccola_wire::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(super) const TOPIC: &str = "bench";
const PRODUCE_VERSION: i16 = 9;
const FETCH_VERSION: i16 = 12;
const CREATE_TOPICS_VERSION: i16 = 7;
const METADATA_VERSION: i16 = 12;
/// Longest wait for a new partition's leader.
const LED_WITHIN: Duration = Duration::from_secs(10);

/// Batches sent as fast as they are acknowledged, several requests in flight per connection.
#[derive(Clone)]
pub(crate) struct Pipelined {
    pub(crate) record_bytes: usize,
    /// One record per request when smaller than a record.
    pub(crate) batch_bytes: usize,
    pub(crate) total_bytes: u64,
    pub(crate) partitions: i32,
    pub(crate) in_flight: usize,
}

/// One record per request and one request in flight per producer, each on a connection and a partition of its own.
#[derive(Clone)]
pub(crate) struct ClosedLoop {
    pub(crate) producers: i32,
    pub(crate) record_bytes: usize,
    pub(crate) seconds: u64,
}

#[derive(Clone, Default)]
pub(crate) struct Measured {
    pub(crate) requests: u64,
    /// Bytes of record values.
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) cpu_user: f64,
    pub(crate) cpu_system: f64,
    /// Sorted, microseconds.
    latencies: Vec<u32>,
}

impl Measured {
    /// `None` where no latency was taken.
    pub(crate) fn percentile_ms(&self, fraction: f64) -> Option<f64> {
        let at = (self.latencies.len() as f64 * fraction) as usize;
        self.latencies.get(at.min(self.latencies.len().saturating_sub(1))).map(|us| f64::from(*us) / 1e3)
    }
}

/// The broker's CPU seconds so far: user, system.
pub(crate) type Cpu<'a> = &'a dyn Fn() -> (f64, f64);

pub(super) struct Connection {
    stream: TcpStream,
    inbox: BytesMut,
}

impl Connection {
    pub(super) async fn open(address: &str) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(Self { stream, inbox: BytesMut::with_capacity(1 << 20) })
    }

    async fn send(&mut self, frame: &[u8]) -> Result<(), String> {
        self.stream.write_all(frame).await.map_err(|error| error.to_string())
    }

    /// The next reply without its size.
    async fn receive(&mut self) -> Result<Bytes, String> {
        loop {
            if let Some(size) = self.inbox.first_chunk::<4>().map(|size| u32::from_be_bytes(*size) as usize) {
                if self.inbox.len() >= 4 + size {
                    let _ = self.inbox.split_to(4);
                    return Ok(self.inbox.split_to(size).freeze());
                }
                self.inbox.reserve(4 + size - self.inbox.len());
            }
            let read = self.stream.read_buf(&mut self.inbox).await.map_err(|error| error.to_string())?;
            if read == 0 {
                return Err("the broker closed the connection".to_owned());
            }
        }
    }

    /// The topic's id.
    pub(super) async fn topic_id(&mut self) -> Result<taccola_base::Uuid, String> {
        let topic = MetadataRequestTopic { name: Some(TOPIC.into()), ..Default::default() };
        let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
        let response = self.call(METADATA_VERSION, &request).await?;
        response.topics.first().map(|topic| topic.topic_id).ok_or_else(|| "Metadata: no topic".to_owned())
    }

    pub(super) async fn call<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response, String> {
        self.send(&encode(version, request)?).await?;
        decode::<R>(version, self.receive().await?)
    }
}

fn decode<R: Request>(version: i16, reply: Bytes) -> Result<R::Response, String> {
    frame::decode_response::<R>(version, reply).map(|(_, response)| response).map_err(|error| error.to_string())
}

fn encode<R: Request>(version: i16, request: &R) -> Result<Vec<u8>, String> {
    frame::encode_request(1, Some("bench"), version, request)
        .map(|bytes| bytes.to_vec())
        .map_err(|error| error.to_string())
}

pub(crate) async fn create_topic(address: &str, partitions: i32) -> Result<(), String> {
    let topic =
        CreatableTopic { name: TOPIC.into(), num_partitions: partitions, replication_factor: 1, ..Default::default() };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
    let mut connection = Connection::open(address).await?;
    let response = connection.call(CREATE_TOPICS_VERSION, &request).await?;
    if let Some(topic) = response.topics.iter().find(|topic| topic.error_code != 0) {
        return Err(format!("CreateTopics: error {}", topic.error_code));
    }
    for partition in 0..partitions {
        led(&mut connection, partition).await?;
    }
    Ok(())
}

/// Produces to a partition until its leader takes it: Kafka answers CreateTopics before its partitions can be written.
async fn led(connection: &mut Connection, partition: i32) -> Result<(), String> {
    let frame = produce_frame(partition, batch(100, 1).0)?;
    let until = Instant::now() + LED_WITHIN;
    loop {
        connection.send(&frame).await?;
        match check_produced(connection.receive().await?) {
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            Ok(()) => return Ok(()),
        }
    }
}

/// A batch of `batch_bytes` of records that compress badly, and how many bytes of values are in it.
pub(super) fn batch(record_bytes: usize, batch_bytes: usize) -> (Bytes, u64) {
    let records = (batch_bytes / record_bytes).max(1);
    let mut noise = noise();
    let mut builder = BatchBuilder::new(Compression::None);
    for _ in 0..records {
        let value: Vec<u8> = noise.by_ref().take(record_bytes).map(|[byte, ..]| byte).collect();
        builder.append(1_700_000_000_000, None, Some(&value), &[]);
    }
    (builder.build().unwrap_or_default(), (records * record_bytes) as u64)
}

/// Bytes that compress badly, the same ones each time.
pub(super) fn noise() -> impl Iterator<Item = [u8; 4]> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state as u32).to_le_bytes()
    })
}

fn produce_frame(partition: i32, records: Bytes) -> Result<Vec<u8>, String> {
    let data = PartitionProduceData { index: partition, records: Some(records) };
    let topic = TopicProduceData { name: TOPIC.into(), partition_data: vec![data], ..Default::default() };
    let request = ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() };
    encode(PRODUCE_VERSION, &request)
}

fn check_produced(reply: Bytes) -> Result<(), String> {
    let response = decode::<ProduceRequest>(PRODUCE_VERSION, reply)?;
    let errors = response.responses.iter().flat_map(|topic| &topic.partition_responses).find(|p| p.error_code != 0);
    errors.map_or(Ok(()), |p| Err(format!("Produce: error {}", p.error_code)))
}

pub(crate) async fn produce(address: &str, shape: &Pipelined, cpu: Cpu<'_>) -> Result<Measured, String> {
    let (records, value_bytes) = batch(shape.record_bytes, shape.batch_bytes);
    let frames: Vec<Vec<u8>> =
        (0..shape.partitions).map(|p| produce_frame(p, records.clone())).collect::<Result<_, _>>()?;
    let requests = shape.total_bytes.div_ceil(value_bytes);
    let mut connection = Connection::open(address).await?;
    let mut sent_at = VecDeque::new();
    let mut latencies = Vec::with_capacity(requests as usize);
    let (before, started) = (cpu(), Instant::now());
    let mut frames = frames.iter().cycle();
    for _ in 0..requests {
        if sent_at.len() == shape.in_flight {
            check_produced(connection.receive().await?)?;
            latencies.extend(sent_at.pop_front().map(|at: Instant| at.elapsed().as_micros() as u32));
        }
        sent_at.push_back(Instant::now());
        connection.send(frames.next().map_or(&[], |frame| frame.as_slice())).await?;
    }
    while let Some(at) = sent_at.pop_front() {
        check_produced(connection.receive().await?)?;
        latencies.push(at.elapsed().as_micros() as u32);
    }
    Ok(measured(requests, requests * value_bytes, started, before, cpu, latencies))
}

pub(super) fn measured(
    requests: u64,
    bytes: u64,
    started: Instant,
    before: (f64, f64),
    cpu: Cpu<'_>,
    mut latencies: Vec<u32>,
) -> Measured {
    let seconds = started.elapsed().as_secs_f64();
    let after = cpu();
    latencies.sort_unstable();
    Measured { requests, bytes, seconds, cpu_user: after.0 - before.0, cpu_system: after.1 - before.1, latencies }
}

pub(crate) async fn closed_loop(address: &str, shape: &ClosedLoop, cpu: Cpu<'_>) -> Result<Measured, String> {
    let (records, value_bytes) = batch(shape.record_bytes, 1);
    let mut producers = Vec::new();
    for partition in 0..shape.producers {
        producers.push((Connection::open(address).await?, produce_frame(partition, records.clone())?));
    }
    let (before, started) = (cpu(), Instant::now());
    let until = started + Duration::from_secs(shape.seconds);
    let local = tokio::task::LocalSet::new();
    let tasks: Vec<_> = producers
        .into_iter()
        .map(|(mut connection, frame)| {
            local.spawn_local(async move {
                let mut latencies = Vec::new();
                while Instant::now() < until {
                    let at = Instant::now();
                    connection.send(&frame).await?;
                    check_produced(connection.receive().await?)?;
                    latencies.push(at.elapsed().as_micros() as u32);
                }
                Ok::<_, String>(latencies)
            })
        })
        .collect();
    local.await;
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.map_err(|error| error.to_string())??);
    }
    let requests = latencies.len() as u64;
    Ok(measured(requests, requests * value_bytes, started, before, cpu, latencies))
}

/// Reads the topic from its start to its end, all partitions by one fetch after another.
pub(crate) async fn consume(address: &str, shape: &Pipelined, cpu: Cpu<'_>) -> Result<Measured, String> {
    let mut connection = Connection::open(address).await?;
    let mut offsets = vec![0_i64; shape.partitions.max(0) as usize];
    let (mut bytes, mut requests) = (0_u64, 0);
    let (before, started) = (cpu(), Instant::now());
    loop {
        let partitions = offsets.iter().enumerate().map(|(index, offset)| FetchPartition {
            partition: index as i32,
            fetch_offset: *offset,
            partition_max_bytes: 1 << 20,
            ..Default::default()
        });
        let topic = FetchTopic { topic: TOPIC.into(), partitions: partitions.collect(), ..Default::default() };
        let request = FetchRequest {
            max_wait_ms: 0,
            min_bytes: 1,
            max_bytes: 4 << 20,
            topics: vec![topic],
            ..Default::default()
        };
        let response = connection.call(FETCH_VERSION, &request).await?;
        requests += 1;
        let mut got = 0;
        for partition in response.responses.iter().flat_map(|topic| &topic.partitions) {
            let records = partition.records.clone().unwrap_or_default();
            got += records.len() as u64;
            let next = batches(&records).map_while(Result::ok).last().map(|batch| batch.header.next_offset());
            if let (Some(slot), Some(next)) = (offsets.get_mut(partition.partition_index as usize), next) {
                *slot = next;
            }
        }
        if got == 0 {
            break;
        }
        bytes += got;
    }
    Ok(measured(requests, bytes, started, before, cpu, Vec::new()))
}
