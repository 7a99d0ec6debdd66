//! Writing records. Answers to `KafkaProducer`, `RecordAccumulator` and `Sender`: idempotent by default, batches per
//! partition, several requests in flight per broker, order kept per partition also through retries.
//!
//! [`Producer::send`] picks the partition and hands the record to one task (`sender`) that owns all batches; it waits
//! while `buffer.memory` is full. The [`Delivery`] that it returns resolves when the broker has answered. Records that were
//! sent may be neither lost silently nor stored twice: what cannot be known after a failure is reported as failed.

mod partition;
mod sender;
pub mod transaction;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use taccola_wire::batch::{BatchBuilder, Compression, RecordHeader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::cluster::{Client, TopicMetadata};
use crate::error::{Error, Result};
use crate::partitioner::{Sticky, partition_for_key};
use sender::{Command, Sender};
use transaction::Transaction;

/// Commands that wait for the sending task.
const COMMANDS_MAX: usize = 4_096;
/// Floor of what one record is charged against `buffer.memory`, for its bookkeeping.
const RECORD_OVERHEAD: usize = 128;

/// `acks`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(i16)]
pub enum Acks {
    /// All in-sync replicas have it.
    #[default]
    All = -1,
    /// No answer: offsets stay unknown and losses unseen.
    None = 0,
    Leader = 1,
}

#[derive(Clone, Debug)]
pub struct ProducerConfig {
    pub acks: Acks,
    /// `enable.idempotence`; needs [`Acks::All`].
    pub idempotent: bool,
    pub compression: Compression,
    /// `batch.size`: bytes before compression.
    pub batch_bytes: usize,
    pub linger: Duration,
    /// `max.request.size`.
    pub request_bytes_max: usize,
    /// `buffer.memory`: bytes of records that wait or are on their way.
    pub buffer_bytes: usize,
    /// `max.in.flight.requests.per.connection`; at most 5 with idempotence.
    pub in_flight_max: usize,
    /// `delivery.timeout.ms`.
    pub delivery_timeout: Duration,
    /// `request.timeout.ms`, which is also what the broker may wait for replicas.
    pub request_timeout: Duration,
    /// How long a topic that does not exist is waited for, in case the broker creates it.
    pub topic_patience: Duration,
    /// Whether metadata requests ask the broker to create topics.
    pub create_topics: bool,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            idempotent: true,
            compression: Compression::None,
            batch_bytes: 64 * 1024,
            linger: Duration::from_millis(5),
            request_bytes_max: 1024 * 1024,
            buffer_bytes: 32 * 1024 * 1024,
            in_flight_max: 5,
            delivery_timeout: Duration::from_secs(120),
            request_timeout: Duration::from_secs(30),
            topic_patience: Duration::from_secs(5),
            create_topics: true,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct ProducerRecord {
    pub topic: Arc<str>,
    /// `None`: by key, or spread when there is no key.
    pub partition: Option<i32>,
    /// Milliseconds; `None` takes the time of sending.
    pub timestamp: Option<i64>,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<RecordHeader>,
}

/// Where a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordMetadata {
    pub partition: i32,
    /// -1 with [`Acks::None`], or for a duplicate whose offset the broker no longer knows.
    pub offset: i64,
    /// Set by the broker under LogAppendTime, else the record's own.
    pub timestamp: i64,
}

/// Resolves when the broker has answered for a record.
#[derive(Debug)]
pub struct Delivery(oneshot::Receiver<Result<RecordMetadata>>);

impl Future for Delivery {
    type Output = Result<RecordMetadata>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|result| result.unwrap_or(Err(Error::Closed)))
    }
}

/// A record whose partition is known.
struct Placed {
    record: ProducerRecord,
    partition: i32,
    bytes: usize,
}

/// A record on its way to the sending task, with its share of `buffer.memory`.
struct Accepted {
    record: ProducerRecord,
    partition: i32,
    timestamp: i64,
    memory: OwnedSemaphorePermit,
    delivery: oneshot::Sender<Result<RecordMetadata>>,
}

/// Cheap to clone; the sending task ends when the last clone is dropped and what was sent is settled.
#[derive(Clone)]
pub struct Producer {
    client: Client,
    config: Arc<ProducerConfig>,
    commands: mpsc::Sender<Command>,
    memory: Arc<Semaphore>,
    sticky: Arc<Mutex<std::collections::HashMap<Arc<str>, Sticky>>>,
}

impl Producer {
    /// Nothing is connected yet.
    pub fn new(client: Client, config: ProducerConfig) -> Result<Self> {
        Self::start(client, config, None)
    }

    fn start(client: Client, mut config: ProducerConfig, transaction: Option<Arc<Transaction>>) -> Result<Self> {
        if config.idempotent && config.acks != Acks::All {
            return Err(Error::Invalid("an idempotent producer needs acks=all".to_owned()));
        }
        let in_flight_limit = if config.idempotent { 5 } else { 64 };
        config.in_flight_max = config.in_flight_max.clamp(1, in_flight_limit);
        config.buffer_bytes = config.buffer_bytes.min(u32::MAX as usize).min(Semaphore::MAX_PERMITS);
        let config = Arc::new(config);
        let (commands, queue) = mpsc::channel(COMMANDS_MAX);
        let memory = Arc::new(Semaphore::new(config.buffer_bytes));
        tokio::spawn(Sender::new(client.clone(), Arc::clone(&config), transaction, queue).run());
        Ok(Self { client, config, commands, memory, sticky: Arc::default() })
    }

    /// Resolves when the record is queued, in the order of the calls.
    pub async fn send(&self, record: ProducerRecord) -> Result<Delivery> {
        let placed = self.place(record).await?;
        self.enqueue(placed).await
    }

    /// Picks the partition.
    async fn place(&self, record: ProducerRecord) -> Result<Placed> {
        let bytes = BatchBuilder::record_bytes_max(record.key.as_deref(), record.value.as_deref(), &record.headers);
        if bytes > self.config.request_bytes_max {
            return Err(Error::RecordTooLarge { bytes, max: self.config.request_bytes_max });
        }
        let patience = self.config.topic_patience;
        let topic = self.client.topic_with(&record.topic, self.config.create_topics, patience).await?;
        let partition = self.partition(&topic, &record, bytes)?;
        Ok(Placed { record, partition, bytes })
    }

    async fn enqueue(&self, placed: Placed) -> Result<Delivery> {
        let Placed { record, partition, bytes } = placed;
        let permits = u32::try_from((bytes + RECORD_OVERHEAD).min(self.config.buffer_bytes)).unwrap_or(u32::MAX);
        let memory = Arc::clone(&self.memory).acquire_many_owned(permits);
        let memory = tokio::time::timeout(self.config.delivery_timeout, memory).await;
        let memory = match memory {
            Ok(permit) => permit.map_err(|_| Error::Closed)?,
            Err(_) => {
                let what = "room in the producer's buffer".to_owned();
                return Err(Error::Timeout { what, timeout: self.config.delivery_timeout });
            }
        };
        let (delivery, done) = oneshot::channel();
        let timestamp = record.timestamp.unwrap_or_else(now_ms);
        let accepted = Accepted { record, partition, timestamp, memory, delivery };
        self.command(Command::Record(Box::new(accepted))).await?;
        Ok(Delivery(done))
    }

    async fn command(&self, command: Command) -> Result<()> {
        self.commands.send(command).await.map_err(|_| Error::Closed)
    }

    fn partition(&self, topic: &TopicMetadata, record: &ProducerRecord, bytes: usize) -> Result<i32> {
        let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
        if count == 0 {
            return Err(Error::UnknownTopic(topic.name.to_string()));
        }
        if let Some(partition) = record.partition {
            return match topic.partition(partition) {
                Some(_) => Ok(partition),
                None => Err(Error::Invalid(format!(
                    "topic {} has no partition {partition}; its partitions are 0 to {}",
                    topic.name,
                    count - 1
                ))),
            };
        }
        if let Some(key) = &record.key {
            return Ok(partition_for_key(key, count));
        }
        let available: Vec<_> = topic.partitions.iter().filter(|p| p.leader.is_some()).map(|p| p.index).collect();
        let mut sticky = self.sticky.lock().unwrap_or_else(PoisonError::into_inner);
        if !sticky.contains_key(&topic.name) {
            sticky.insert(Arc::clone(&topic.name), Sticky::new(seed()));
        }
        let picked = sticky.get_mut(&topic.name).map(|s| s.pick(&available, count, bytes, self.config.batch_bytes));
        Ok(picked.unwrap_or(0))
    }

    /// Sends what waits and resolves when everything sent before is settled, well or badly.
    pub async fn flush(&self) -> Result<()> {
        self.settle(Command::Flush).await
    }

    async fn settle(&self, how: fn(oneshot::Sender<()>) -> Command) -> Result<()> {
        let (done, settled) = oneshot::channel();
        self.command(how(done)).await?;
        settled.await.map_err(|_| Error::Closed)
    }
}

pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
