//! Whole batches as they stand in a log, for those who copy logs: read without looking at a record, written back byte for
//! byte except for what a producer must set. Answers to nothing in Kafka's clients; its replicas come nearest.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use taccola_base::{TopicPartition, Uuid};
use taccola_net::api::{Api, ApiExt, PendingReply, decode};
use taccola_wire::batch::{
    BatchError, BatchHeader, batches, set_base_offset, set_partition_leader_epoch, set_producer, verify_crc,
};
use taccola_wire::codec::Request;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use taccola_wire::messages::fetch_response::PartitionData;
use taccola_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use taccola_wire::messages::produce_response::ProduceResponse;
use taccola_wire::messages::{FetchRequest, InitProducerIdRequest, ProduceRequest};

use crate::cluster::{Backoff, Client, Lane};
use crate::config::ClientConfig;
use crate::consumer::IsolationLevel;
use crate::consumer::batches::{AbortedTransactions, is_abort};
use crate::error::{Error, Result};

/// First versions that name topics by id.
const FETCH_BY_ID: i16 = 13;
const PRODUCE_BY_ID: i16 = 13;
/// Batches of one partition on their way at a time: as many as a broker remembers of a producer, so that sending them again
/// is recognised.
const IN_FLIGHT: usize = 5;
/// What a read waits at the broker for, when there is nothing.
const MAX_WAIT: Duration = Duration::from_millis(500);

/// A piece of a partition's log.
#[derive(Clone, Debug)]
pub struct RawBatches {
    /// Batches one after the other; the first may begin before the offset that was asked for, the last may be cut off.
    pub bytes: Bytes,
    /// Producer id and first offset of aborted transactions that touch it (read_committed).
    pub aborted: Vec<(i64, i64)>,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    /// -1 when the broker does not tell.
    pub log_start: i64,
}

/// What of a piece of log is data.
#[derive(Clone, Debug, Default)]
pub struct DataBatches {
    /// Whole batches with their CRCs checked, without control batches and aborted transactions.
    pub batches: Vec<(BatchHeader, Bytes)>,
    /// Where to read on.
    pub next_offset: i64,
}

impl RawBatches {
    /// The batches that reach `from` or beyond.
    pub fn data(&self, from: i64) -> Result<DataBatches, BatchError> {
        let mut aborted = AbortedTransactions::default();
        aborted.load(self.aborted.iter().copied());
        let mut data = DataBatches { batches: Vec::new(), next_offset: from };
        for batch in batches(&self.bytes) {
            let batch = batch?;
            let header = batch.header;
            if header.next_offset() <= from {
                continue;
            }
            let raw = self.bytes.slice_ref(batch.bytes);
            verify_crc(&raw)?;
            let hidden = aborted.hides(&header);
            if header.is_control() {
                if is_abort(&raw) {
                    aborted.ended(header.producer_id);
                }
            } else if !hidden && header.records_count > 0 {
                data.batches.push((header, raw));
            }
            data.next_offset = header.next_offset();
        }
        Ok(data)
    }
}

impl Client {
    /// Reads from `offset` on; retries what may pass. OFFSET_OUT_OF_RANGE is the caller's to handle.
    pub async fn fetch_batches(
        &self,
        partition: &TopicPartition,
        offset: i64,
        max_bytes: i32,
        isolation: IsolationLevel,
    ) -> Result<RawBatches> {
        self.retrying(|| self.fetch_batches_once(partition, offset, max_bytes, isolation)).await
    }

    async fn fetch_batches_once(
        &self,
        partition: &TopicPartition,
        offset: i64,
        max_bytes: i32,
        isolation: IsolationLevel,
    ) -> Result<RawBatches> {
        let (node, topic_id, leader_epoch) = self.leader_of(partition).await?;
        let api = self.broker(node, Lane::Fetch).await?;
        let cap = if topic_id.is_zero() { FETCH_BY_ID - 1 } else { i16::MAX };
        let version = api.version_up_to::<FetchRequest>(cap)?;
        let asked = FetchPartition {
            partition: partition.partition,
            current_leader_epoch: leader_epoch,
            fetch_offset: offset,
            partition_max_bytes: max_bytes,
            ..Default::default()
        };
        let request = FetchRequest {
            replica_id: -1,
            max_wait_ms: i32::try_from(MAX_WAIT.as_millis()).unwrap_or(0),
            min_bytes: 1,
            max_bytes,
            isolation_level: isolation as i8,
            session_epoch: -1,
            topics: vec![FetchTopic { topic: partition.topic.to_string(), topic_id, partitions: vec![asked] }],
            ..Default::default()
        };
        let timeout = self.config().request_timeout.saturating_add(MAX_WAIT);
        let response = self.request_within(&api, &request, version, timeout).await?;
        Error::check(response.error_code, format!("fetch from broker {node}"), None)?;
        let mut answers = response.responses.into_iter().flat_map(|topic| topic.partitions);
        let data = answers.find(|data| data.partition_index == partition.partition);
        let data = data.ok_or_else(|| Error::Invalid(format!("the broker left {partition} out of its answer")))?;
        Error::check(data.error_code, partition.to_string(), None)?;
        Ok(raw(data))
    }

    /// Leader, topic id and leader epoch.
    async fn leader_of(&self, partition: &TopicPartition) -> Result<(i32, Uuid, i32)> {
        let topic = self.topic(&partition.topic).await?;
        let found = topic.partition(partition.partition);
        let leader = found.and_then(|p| Some((p.leader?, topic.id, p.leader_epoch)));
        leader.ok_or_else(|| Error::broker(ErrorCode::LeaderNotAvailable, partition.to_string(), None))
    }

    /// A producer id of its own, without transactions.
    pub async fn new_producer_id(&self) -> Result<ProducerId> {
        self.retrying(|| self.new_producer_id_once()).await
    }

    async fn new_producer_id_once(&self) -> Result<ProducerId> {
        let api = self.any().await?;
        let version = api.version::<InitProducerIdRequest>()?;
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: i32::MAX,
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        };
        let response = self.request(&api, &request, version).await?;
        Error::check(response.error_code, "producer id", None)?;
        Ok(ProducerId { id: response.producer_id, epoch: response.producer_epoch })
    }
}

fn raw(data: PartitionData) -> RawBatches {
    let aborted = data.aborted_transactions.into_iter().flatten().map(|t| (t.producer_id, t.first_offset));
    RawBatches {
        bytes: data.records.unwrap_or_default(),
        aborted: aborted.collect(),
        high_watermark: data.high_watermark,
        last_stable_offset: data.last_stable_offset,
        log_start: data.log_start_offset,
    }
}

/// Whose sequences a [`BatchWriter`] uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerId {
    pub id: i64,
    pub epoch: i16,
}

/// Writes batches to the end of one partition (acks=all), in order and once each: several are on their way at a time, with
/// sequences by which the broker knows one that it has.
pub struct BatchWriter {
    client: Client,
    partition: TopicPartition,
    producer: ProducerId,
    next_sequence: i32,
    /// Whether the broker knows the producer: one that it does not know may begin with any sequence.
    known: bool,
    /// Oldest first.
    window: VecDeque<Sent>,
}

struct Sent {
    batch: Bytes,
    /// `None`: has to be sent (again).
    reply: Option<(PendingReply, i16)>,
}

impl BatchWriter {
    /// A producer id must not be used by two writers of one partition.
    pub fn new(client: Client, partition: TopicPartition, producer: ProducerId) -> Self {
        Self { client, partition, producer, next_sequence: 0, known: false, window: VecDeque::new() }
    }

    /// Takes a batch, whose producer, base offset and leader epoch are set here. Returns where the oldest one of those on
    /// their way was put, if it had to be waited for.
    pub async fn write(&mut self, mut batch: Vec<u8>) -> Result<Option<i64>> {
        let invalid = |source| Error::Invalid(format!("{}: not a batch to write: {source}", self.partition));
        let header = BatchHeader::parse_whole(&batch).map_err(invalid)?;
        set_base_offset(&mut batch, 0);
        set_partition_leader_epoch(&mut batch, -1);
        set_producer(&mut batch, self.producer.id, self.producer.epoch, self.next_sequence).map_err(invalid)?;
        self.next_sequence = sequence_after(self.next_sequence, header.records_count);
        self.window.push_back(Sent { batch: batch.into(), reply: None });
        self.send_unsent().await;
        match self.window.len() >= IN_FLIGHT || !self.known {
            true => self.settle_oldest().await.map(Some),
            false => Ok(None),
        }
    }

    /// Waits for the oldest batch that is on its way; `None` when there is none.
    pub async fn settle(&mut self) -> Result<Option<i64>> {
        match self.window.is_empty() {
            true => Ok(None),
            false => self.settle_oldest().await.map(Some),
        }
    }

    /// Submits in order what has no reply pending. What cannot be sent stays unsent; settling finds it.
    async fn send_unsent(&mut self) {
        let Some(first) = self.window.iter().position(|sent| sent.reply.is_none()) else { return };
        let Ok((api, topic_id, version)) = connection(&self.client, &self.partition).await else { return };
        for sent in self.window.iter_mut().skip(first) {
            let request = request(&self.partition, topic_id, &sent.batch, self.client.config());
            match api.start(&request, version, true).await {
                Ok(reply) => sent.reply = Some((reply, version)),
                Err(error) => {
                    tracing::debug!(%error, partition = %self.partition, "not sent");
                    return;
                }
            }
        }
    }

    /// Tries until the oldest is stored, for at most `default.api.timeout.ms`. After a failure everything behind it is sent
    /// again in order; the broker answers what it has already with where it is.
    async fn settle_oldest(&mut self) -> Result<i64> {
        let begun = Instant::now();
        let mut backoff = Backoff::new(self.client.config());
        loop {
            let error = match self.oldest_reply().await {
                Ok(offset) => {
                    self.window.pop_front();
                    self.known = true;
                    return Ok(offset);
                }
                Err(error) => error,
            };
            // The outcome of what came behind is settled when it is sent again.
            for sent in &mut self.window {
                if let Some((reply, _)) = sent.reply.take() {
                    let _ = tokio::time::timeout(self.client.config().request_timeout, reply).await;
                }
            }
            let pause = backoff.next();
            if !error.retriable() || begun.elapsed() + pause >= self.client.config().operation_timeout {
                return Err(error);
            }
            tracing::debug!(%error, partition = %self.partition, "sending again");
            if error.stale_metadata() {
                self.client.forget_topic(&self.partition.topic);
            }
            tokio::time::sleep(pause).await;
            self.send_unsent().await;
        }
    }

    async fn oldest_reply(&mut self) -> Result<i64> {
        let reply = self.window.front_mut().and_then(|sent| sent.reply.take());
        let Some((reply, version)) = reply else {
            // Says why it could not be sent, unless it can be now.
            connection(&self.client, &self.partition).await?;
            return Err(Error::broker(ErrorCode::NetworkException, self.partition.to_string(), None));
        };
        let timeout = self.client.config().request_timeout;
        let body = match tokio::time::timeout(timeout, reply).await {
            Ok(body) => body?,
            Err(_) => return Err(Error::Timeout { what: format!("Produce to {}", self.partition), timeout }),
        };
        let response: <ProduceRequest as Request>::Response = decode(body, version)?;
        base_offset(response, &self.partition)
    }
}

async fn connection(client: &Client, partition: &TopicPartition) -> Result<(Arc<dyn Api>, Uuid, i16)> {
    let (node, topic_id, _) = client.leader_of(partition).await?;
    let api = client.broker(node, Lane::Produce).await?;
    let cap = if topic_id.is_zero() { PRODUCE_BY_ID - 1 } else { i16::MAX };
    let version = api.version_up_to::<ProduceRequest>(cap)?;
    Ok((api, topic_id, version))
}

fn sequence_after(sequence: i32, records: i32) -> i32 {
    let next = (i64::from(sequence) + i64::from(records.max(0))) % (i64::from(i32::MAX) + 1);
    i32::try_from(next).unwrap_or(0)
}

fn request(partition: &TopicPartition, topic_id: Uuid, batch: &Bytes, config: &ClientConfig) -> ProduceRequest {
    let data = PartitionProduceData { index: partition.partition, records: Some(batch.clone()) };
    ProduceRequest {
        transactional_id: None,
        acks: -1,
        timeout_ms: i32::try_from(config.request_timeout.as_millis()).unwrap_or(i32::MAX),
        topic_data: vec![TopicProduceData { name: partition.topic.to_string(), topic_id, partition_data: vec![data] }],
    }
}

fn base_offset(response: ProduceResponse, partition: &TopicPartition) -> Result<i64> {
    let mut answers = response.responses.into_iter().flat_map(|topic| topic.partition_responses);
    let answer = answers.find(|answer| answer.index == partition.partition);
    let answer = answer.ok_or_else(|| Error::Invalid(format!("the broker left {partition} out of its answer")))?;
    let detail = answer.record_errors.into_iter().find_map(|error| error.batch_index_error_message);
    Error::check(answer.error_code, partition.to_string(), answer.error_message.or(detail))?;
    Ok(answer.base_offset)
}
