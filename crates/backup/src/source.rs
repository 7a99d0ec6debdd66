//! Reads one partition from its start to its cut and hands on the batches, as they stand in the log.

use std::time::{Duration, Instant};

use taccola_base::{TopicPartition, Uuid};
use taccola_client::admin::OffsetSpec;
use taccola_client::{Admin, Client, IsolationLevel, RawBatches};
use taccola_wire::batch::BatchHeader;
use taccola_wire::error::ErrorCode;

use crate::error::{Error, Result};

/// Bytes of one fetch, about; a larger batch comes whole all the same.
const FETCH_BYTES: i32 = 4 * 1024 * 1024;
/// How long a partition may answer nothing below its cut, as it does while a new leader learns what is committed.
const STALL_MAX: Duration = Duration::from_secs(60);
const STALL_PAUSE: Duration = Duration::from_millis(100);

/// A partition and where it is read.
pub(crate) struct Source {
    client: Client,
    partition: TopicPartition,
    topic_id: Uuid,
    isolation: IsolationLevel,
    /// Next offset to read.
    offset: i64,
    /// Exclusive.
    end: i64,
    stalled: Option<Instant>,
}

/// What the next fetch brought.
pub(crate) enum Step {
    /// Never empty.
    Batches(Vec<(BatchHeader, bytes::Bytes)>),
    /// Records up to here (exclusive) were removed before they could be read.
    Removed(i64),
    /// The topic is not there any more, or another one has its name.
    Gone,
    End,
}

impl Source {
    pub(crate) fn new(
        client: Client,
        partition: TopicPartition,
        topic_id: Uuid,
        isolation: IsolationLevel,
        range: std::ops::Range<i64>,
    ) -> Self {
        Self { client, partition, topic_id, isolation, offset: range.start, end: range.end, stalled: None }
    }

    pub(crate) async fn next(&mut self) -> Result<Step> {
        while self.offset < self.end {
            let fetched = self.client.fetch_batches(&self.partition, self.offset, FETCH_BYTES, self.isolation).await;
            let fetched = match fetched {
                Ok(fetched) => fetched,
                Err(error) => return self.failed(error).await,
            };
            if self.replaced() {
                return Ok(Step::Gone);
            }
            if let Some(step) = self.take(&fetched).await? {
                return Ok(step);
            }
        }
        Ok(Step::End)
    }

    /// Whether what was read may be of another topic with the same name.
    fn replaced(&self) -> bool {
        let known = self.client.cached_topic(&self.partition.topic);
        known.is_some_and(|topic| topic.id != self.topic_id)
    }

    async fn take(&mut self, fetched: &RawBatches) -> Result<Option<Step>> {
        let data = fetched.data(self.offset).map_err(|source| Error::Batch {
            partition: self.partition.to_string(),
            offset: self.offset,
            source,
        })?;
        if data.next_offset == self.offset {
            let since = *self.stalled.get_or_insert_with(Instant::now);
            if since.elapsed() > STALL_MAX {
                return Err(Error::Refused(format!(
                    "{}: the broker gives nothing at offset {}, below the cut at {}",
                    self.partition, self.offset, self.end
                )));
            }
            tokio::time::sleep(STALL_PAUSE).await;
            return Ok(None);
        }
        self.stalled = None;
        self.offset = data.next_offset;
        let mut batches = data.batches;
        batches.retain(|(header, _)| header.base_offset < self.end);
        Ok((!batches.is_empty()).then_some(Step::Batches(batches)))
    }

    async fn failed(&mut self, error: taccola_client::Error) -> Result<Step> {
        match error.code() {
            Some(ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId | ErrorCode::InconsistentTopicId) => {
                Ok(Step::Gone)
            }
            Some(ErrorCode::OffsetOutOfRange) => {
                let asked = [(self.partition.clone(), OffsetSpec::Earliest)];
                let found = Admin::new(self.client.clone()).list_offsets(&asked, self.isolation).await?;
                let start = found.get(&self.partition).and_then(|found| found.offset).unwrap_or(0);
                if start <= self.offset {
                    return Err(Error::Refused(format!(
                        "{}: offset {} was there at the cut and is not any more: the log was truncated",
                        self.partition, self.offset
                    )));
                }
                self.offset = start.min(self.end);
                Ok(Step::Removed(self.offset))
            }
            _ => Err(error.into()),
        }
    }
}
