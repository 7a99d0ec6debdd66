//! `__remote_log_metadata`: made when it is first needed, written before anything is done, read to its end at the start. Answers to Kafka's
//! `TopicBasedRemoteLogMetadataManager`.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use taccola_base::TopicPartition;
use taccola_base::topic::REMOTE_LOG_METADATA_TOPIC;
use taccola_log::AppendOrigin;
use taccola_log::remote::{DeleteState, RemoteLogRecord, RemoteSegment, SegmentState, metadata_partition};
use taccola_wire::batch::{BatchBuilder, Compression, RecordIter, batches};

use super::{Key, RemotePartition, RemoteStorage, TierError};
use crate::broker::Broker;
use crate::clock;
use crate::partition::{FetchIsolation, Partition};

/// How long a record may take to be durable.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes read at a time.
const LOAD_BYTES: usize = 4 * 1024 * 1024;

impl RemoteStorage {
    /// Makes a record durable, then true.
    pub(super) async fn record(&self, broker: &Broker, record: RemoteLogRecord) -> Result<(), TierError> {
        let failed = |why: &dyn std::fmt::Display| TierError::Metadata(why.to_string());
        let partition = self.metadata_partition(broker, &record).await?;
        let value = record.encode().ok_or_else(|| failed(&"a record that cannot be encoded"))?;
        let mut builder = BatchBuilder::new(Compression::None);
        builder.append(clock::now_ms(), None, Some(&value), &[]);
        let batch = builder.build().map_err(|error| failed(&error))?;
        let mut batch = batch.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
        let origin = AppendOrigin::Coordinator { transaction_version: 0 };
        let appended =
            partition.append(&broker.journal, &mut batch, origin, broker.acks_all_durability(), clock::now_ms());
        if let Some(ticket) = appended.map_err(|error| failed(&error))?.ticket {
            broker.journal.wait_for(ticket, WRITE_TIMEOUT).await.map_err(|error| failed(&error))?;
            let at = &partition.topic_partition;
            broker.lost_meanwhile(&at.topic, at.partition).map_or(Ok(()), |error| Err(failed(&error)))?;
        }
        self.apply(record);
        Ok(())
    }

    async fn metadata_partition(&self, broker: &Broker, record: &RemoteLogRecord) -> Result<Arc<Partition>, TierError> {
        let count = || broker.image().topics.by_name(REMOTE_LOG_METADATA_TOPIC).map(|topic| topic.partitions.len());
        if count().is_none() {
            broker.auto_create(std::iter::once(REMOTE_LOG_METADATA_TOPIC)).await;
        }
        let count = count().and_then(|count| i32::try_from(count).ok());
        let (topic_id, at) = record.partition();
        let index = metadata_partition(topic_id, at.partition, count.unwrap_or(0));
        let partition = broker.partitions.get(REMOTE_LOG_METADATA_TOPIC, index);
        partition.ok_or_else(|| TierError::Metadata(format!("partition {index} is not here")))
    }

    /// The next state of a segment.
    pub(super) async fn advance(
        &self,
        broker: &Broker,
        key: Key,
        at: &TopicPartition,
        segment: &RemoteSegment,
        state: SegmentState,
    ) -> Result<(), TierError> {
        let record = RemoteLogRecord::Update {
            topic_id: key.0,
            at: at.clone(),
            id: segment.id,
            state,
            broker_id: broker.node_id,
            event_timestamp_ms: clock::now_ms(),
        };
        self.record(broker, record).await
    }

    fn apply(&self, record: RemoteLogRecord) {
        let (topic_id, at) = record.partition();
        let key = (topic_id, at.partition);
        let mut partitions = self.partitions.lock();
        let remote = partitions.entry(key).or_insert_with(|| RemotePartition {
            at: at.clone(),
            segments: Default::default(),
            deleting: None,
            expired_before: -1,
        });
        let applied = match record {
            RemoteLogRecord::Segment { segment, .. } => remote.segments.begin(segment),
            RemoteLogRecord::Update { id, state, event_timestamp_ms, .. } => {
                remote.segments.update(id, state, event_timestamp_ms)
            }
            RemoteLogRecord::PartitionDelete { state, .. } => {
                remote.deleting = Some(state);
                if state == DeleteState::Finished {
                    partitions.remove(&key);
                }
                Ok(())
            }
        };
        if let Err(error) = applied {
            tracing::warn!(topic_id = %key.0, partition = key.1, %error, "a record of remote log metadata is skipped");
        }
    }

    /// Reads the whole topic. Blocks.
    pub(super) fn load(&self, broker: &Broker) -> Result<(), String> {
        for partition in broker.partitions.of_topic(REMOTE_LOG_METADATA_TOPIC) {
            let failed = |error: String| format!("{}: {error}", partition.topic_partition);
            self.load_partition(&partition).map_err(failed)?;
        }
        Ok(())
    }

    fn load_partition(&self, partition: &Partition) -> Result<(), String> {
        let mut offset = partition.with_log(|log| log.log_start_offset()).ok_or("the partition is gone")?;
        loop {
            let read =
                partition.read(offset, LOAD_BYTES, true, FetchIsolation::LogEnd).map_err(|error| error.to_string())?;
            let before = offset;
            for batch in batches(&read.records) {
                let batch = batch.map_err(|error| error.to_string())?;
                for record in
                    RecordIter::new(&read.records.slice_ref(batch.bytes)).map_err(|error| error.to_string())?
                {
                    let record = record.map_err(|error| error.to_string())?;
                    let Some(value) = record.value.filter(|_| !batch.header.is_control()) else { continue };
                    match RemoteLogRecord::decode(&value) {
                        Ok(Some(record)) => self.apply(record),
                        Ok(None) => {}
                        Err(error) => tracing::warn!(
                            partition = %partition.topic_partition, offset = record.offset, %error,
                            "a record of remote log metadata cannot be read and is skipped"
                        ),
                    }
                }
                offset = batch.header.next_offset();
            }
            if offset == before {
                return Ok(());
            }
        }
    }
}
