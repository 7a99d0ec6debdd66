//! Reading partitions from chosen offsets. Answers to `KafkaConsumer` in manual assignment and its `Fetcher`; membership in
//! a group stands in [`group`].
//!
//! One fetch per broker is under way at a time, for all its partitions that are assigned, and the next one is started before
//! the records of the last are handed out. Each partition has a position; a reply only counts if the partition is still
//! assigned in the same generation (assign and seek start a new one), so that nothing is returned twice or out of order.
//! Bounded: at most one reply per broker is held, of about `fetch.max.bytes`.

pub mod assignor;
pub(crate) mod batches;
mod classic;
mod fetch;
pub mod group;
mod join;
pub(crate) mod membership;
pub(crate) mod modern;
pub(crate) mod offsets;
pub(crate) mod poll_clock;
mod sticky;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use taccola_base::TopicPartition;
use taccola_wire::batch::{RecordHeader, TimestampType};
use taccola_wire::error::ErrorCode;
use tokio::sync::mpsc;

use crate::admin::{Admin, OffsetSpec};
use crate::cluster::Client;
use crate::error::{Error, Result};
use fetch::{Fetched, PartitionResult};

/// `isolation.level`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(i8)]
pub enum IsolationLevel {
    #[default]
    ReadUncommitted = 0,
    ReadCommitted = 1,
}

/// Where reading starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartOffset {
    Earliest,
    Latest,
    /// This very offset.
    At(i64),
    /// So many records before the end, as far as offsets are dense.
    BeforeEnd(i64),
    /// The first record at or after this time in milliseconds; the end if there is none.
    Timestamp(i64),
}

#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    pub isolation: IsolationLevel,
    /// `fetch.min.bytes`, `fetch.max.bytes`, `max.partition.fetch.bytes`, `fetch.max.wait.ms`.
    pub fetch_min_bytes: i32,
    pub fetch_max_bytes: i32,
    pub partition_max_bytes: i32,
    pub fetch_max_wait: Duration,
    /// `auto.offset.reset` when a position is not (or no longer) in the log; `None` makes it an error.
    pub reset: Option<OffsetSpec>,
    /// `check.crcs`.
    pub check_crcs: bool,
    /// `client.rack`, for reading from the nearest replica.
    pub rack: String,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            isolation: IsolationLevel::ReadUncommitted,
            fetch_min_bytes: 1,
            fetch_max_bytes: 50 * 1024 * 1024,
            partition_max_bytes: 1024 * 1024,
            fetch_max_wait: Duration::from_millis(500),
            reset: Some(OffsetSpec::Latest),
            check_crcs: true,
            rack: String::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerRecord {
    pub topic: Arc<str>,
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds; -1 for none.
    pub timestamp: i64,
    pub timestamp_type: TimestampType,
    pub leader_epoch: i32,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<RecordHeader>,
}

/// What is known about one assigned partition.
#[derive(Clone, Debug)]
pub(crate) struct Position {
    /// Next offset to read.
    offset: i64,
    /// Leader epoch of the last record read, -1 before the first.
    leader_epoch: i32,
    generation: u64,
    /// Where the log ends for this isolation level; `None` until the first reply.
    end: Option<i64>,
    /// Not asked for before this time: its last fetch failed.
    paused_until: Option<Instant>,
    /// Producers whose transactions abort within what is still to be read (read_committed).
    aborted: batches::AbortedTransactions,
}

pub struct Consumer {
    client: Client,
    config: ConsumerConfig,
    positions: HashMap<TopicPartition, Position>,
    generation: u64,
    /// Brokers with a fetch under way, by node id.
    fetching: HashSet<i32>,
    /// Where each node's next request starts, so that no partition is starved by those in front of it.
    rotation: usize,
    /// What a poll met behind records that it returned; the next poll's result.
    held_error: Option<Error>,
    results: mpsc::Receiver<Fetched>,
    results_in: mpsc::Sender<Fetched>,
}

impl Consumer {
    pub fn new(client: Client, config: ConsumerConfig) -> Self {
        // One slot suffices for each broker that has a fetch under way; senders wait beyond that.
        let (results_in, results) = mpsc::channel(16);
        Self {
            client,
            config,
            positions: HashMap::new(),
            generation: 0,
            fetching: HashSet::new(),
            rotation: 0,
            held_error: None,
            results,
            results_in,
        }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Replaces the assignment. Partitions that stay keep neither their position nor what was prefetched.
    pub async fn assign(&mut self, partitions: &[(TopicPartition, StartOffset)]) -> Result<()> {
        let starts = self.resolve(partitions).await?;
        self.positions.clear();
        for (partition, offset) in starts {
            self.seek(&partition, offset);
        }
        Ok(())
    }

    /// Sets (and, if need be, adds) a partition's position.
    pub fn seek(&mut self, partition: &TopicPartition, offset: i64) {
        self.generation += 1;
        let position = Position {
            offset,
            leader_epoch: -1,
            generation: self.generation,
            end: None,
            paused_until: None,
            aborted: Default::default(),
        };
        self.positions.insert(partition.clone(), position);
    }

    pub(crate) fn unassign(&mut self, partition: &TopicPartition) {
        self.positions.remove(partition);
    }

    pub(crate) fn unassign_all(&mut self) {
        self.positions.clear();
    }

    /// Turns starts into offsets.
    async fn resolve(&self, partitions: &[(TopicPartition, StartOffset)]) -> Result<BTreeMap<TopicPartition, i64>> {
        let admin = Admin::new(self.client.clone());
        let mut ends = Vec::new();
        let mut asked = Vec::new();
        for (partition, start) in partitions {
            match start {
                StartOffset::Earliest => asked.push((partition.clone(), OffsetSpec::Earliest)),
                StartOffset::Latest => ends.push((partition.clone(), OffsetSpec::Latest)),
                StartOffset::At(_) => {}
                StartOffset::BeforeEnd(_) => {
                    asked.push((partition.clone(), OffsetSpec::Earliest));
                    ends.push((partition.clone(), OffsetSpec::Latest));
                }
                StartOffset::Timestamp(ms) => {
                    asked.push((partition.clone(), OffsetSpec::Timestamp(*ms)));
                    ends.push((partition.clone(), OffsetSpec::Latest));
                }
            }
        }
        let asked = admin.list_offsets(&asked, self.config.isolation).await?;
        let ends = admin.list_offsets(&ends, self.config.isolation).await?;
        let mut starts = BTreeMap::new();
        for (partition, start) in partitions {
            let end = ends.get(partition).and_then(|e| e.offset).unwrap_or(0);
            let found = asked.get(partition).and_then(|e| e.offset);
            let offset = match start {
                StartOffset::At(offset) => *offset,
                StartOffset::Earliest => found.unwrap_or(0),
                StartOffset::Latest => end,
                StartOffset::BeforeEnd(count) => end.saturating_sub(*count).max(found.unwrap_or(0)),
                StartOffset::Timestamp(_) => found.unwrap_or(end),
            };
            starts.insert(partition.clone(), offset);
        }
        Ok(starts)
    }

    /// Assigned partitions with their next offsets, sorted.
    pub fn positions(&self) -> BTreeMap<TopicPartition, i64> {
        self.positions.iter().map(|(partition, position)| (partition.clone(), position.offset)).collect()
    }

    pub(crate) fn position_epoch(&self, partition: &TopicPartition) -> i32 {
        self.positions.get(partition).map_or(-1, |p| p.leader_epoch)
    }

    /// Whether every assigned partition was read up to the end that its last reply named.
    pub fn at_end(&self) -> bool {
        self.positions.values().all(|p| p.end.is_some_and(|end| p.offset >= end))
    }

    /// Records of one reply, in order per partition; empty when `timeout` passes without any.
    pub async fn poll(&mut self, timeout: Duration) -> Result<Vec<ConsumerRecord>> {
        if let Some(error) = self.held_error.take() {
            return Err(error);
        }
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            self.start_fetches().await?;
            let wake = match self.positions.values().filter_map(|p| p.paused_until).min() {
                Some(until) => deadline.min(until.into()),
                None => deadline,
            };
            let fetched = match tokio::time::timeout_at(wake, self.results.recv()).await {
                Ok(Some(fetched)) => fetched,
                // Cannot be: one sender lives in `self`.
                Ok(None) => return Err(Error::Closed),
                Err(_) if tokio::time::Instant::now() >= deadline => return Ok(Vec::new()),
                Err(_) => continue,
            };
            let records = self.take(fetched).await?;
            if !records.is_empty() {
                if let Err(error) = self.start_fetches().await {
                    self.held_error = Some(error);
                }
                return Ok(records);
            }
            // Replies without records (a partition's end, control batches) let the caller look at its positions.
            if self.at_end() || tokio::time::Instant::now() >= deadline {
                return Ok(records);
            }
        }
    }

    /// Takes a reply in: moves positions, collects records, handles errors.
    async fn take(&mut self, fetched: Fetched) -> Result<Vec<ConsumerRecord>> {
        self.fetching.remove(&fetched.node);
        let results = match fetched.result {
            Ok(results) => results,
            Err(error) if error.retriable() => {
                tracing::debug!(%error, "fetch failed");
                if error.stale_metadata() {
                    self.forget_topics(&fetched.asked);
                }
                for (partition, generation) in &fetched.asked {
                    self.pause(partition, *generation);
                }
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let mut records = Vec::new();
        for result in results {
            if let Err(error) = self.take_partition(result, &mut records).await {
                if records.is_empty() {
                    return Err(error);
                }
                self.held_error = Some(error);
                break;
            }
        }
        Ok(records)
    }

    fn forget_topics(&self, asked: &[(TopicPartition, u64)]) {
        asked.iter().for_each(|(partition, _)| self.client.forget_topic(&partition.topic));
    }

    fn pause(&mut self, partition: &TopicPartition, generation: u64) {
        let until = Instant::now() + self.client.config().retry_backoff;
        if let Some(position) = self.positions.get_mut(partition).filter(|p| p.generation == generation) {
            position.paused_until = Some(until);
        }
    }

    async fn take_partition(&mut self, result: PartitionResult, records: &mut Vec<ConsumerRecord>) -> Result<()> {
        let PartitionResult { partition, generation, data } = result;
        let Some(position) = self.positions.get_mut(&partition).filter(|p| p.generation == generation) else {
            return Ok(());
        };
        match ErrorCode::from_code(data.error_code) {
            ErrorCode::None => {
                let end = match self.config.isolation {
                    IsolationLevel::ReadUncommitted => data.high_watermark,
                    IsolationLevel::ReadCommitted => data.last_stable_offset,
                };
                position.end = (end >= 0).then_some(end);
                batches::read(&partition, position, data, &self.config, records)
            }
            ErrorCode::OffsetOutOfRange => self.reset(partition).await,
            code => {
                let error = Error::broker(code, partition.to_string(), None);
                if error.stale_metadata() {
                    self.client.forget_topic(&partition.topic);
                }
                if !error.retriable() {
                    return Err(error);
                }
                self.pause(&partition, generation);
                Ok(())
            }
        }
    }

    async fn reset(&mut self, partition: TopicPartition) -> Result<()> {
        let Some(spec) = self.config.reset else {
            return Err(Error::broker(ErrorCode::OffsetOutOfRange, partition.to_string(), None));
        };
        let admin = Admin::new(self.client.clone());
        let found = admin.list_offsets(&[(partition.clone(), spec)], self.config.isolation).await?;
        let offset = found.get(&partition).and_then(|f| f.offset).unwrap_or(0);
        tracing::warn!(%partition, offset, "the position is outside the log; reading on from here");
        self.seek(&partition, offset);
        Ok(())
    }
}
