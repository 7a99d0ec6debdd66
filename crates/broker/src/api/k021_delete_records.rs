//! DeleteRecords, key 21, v0–v2. Answers to `ReplicaManager.deleteRecords`.
//!
//! Behaviour: a partition's log start offset moves up to the offset (-1: the high watermark) and is on disk, in
//! `log-start-offset-checkpoint`, before the answer, so that a restart brings nothing back. The low watermark in the answer
//! is the log start offset, -1 with an error. An offset beyond the high watermark or below -1 is OFFSET_OUT_OF_RANGE, one
//! below the log start offset changes nothing. Internal topics are INVALID_TOPIC_EXCEPTION; topics that are only compacted
//! are POLICY_VIOLATION. A partition that comes twice counts with its last offset.

use std::collections::BTreeMap;
use std::sync::Arc;

use taccola_base::planted::{Bug, planted};
use taccola_base::topic::is_internal;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::delete_records_request::DeleteRecordsRequest;
use taccola_wire::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsResponse, DeleteRecordsTopicResult,
};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::error_map;
use crate::partition::Partition;
use crate::runtime::housekeeping;

/// Stands for the high watermark in a request.
const HIGH_WATERMARK: i64 = -1;
/// The low watermark beside an error.
const NO_LOW_WATERMARK: i64 = -1;

type Wanted = BTreeMap<String, BTreeMap<i32, i64>>;
type Outcomes = BTreeMap<String, BTreeMap<i32, Result<i64, ErrorCode>>>;

pub async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let mut wanted = Wanted::new();
    // A topic without partitions has no row in the answer.
    for topic in request.topics.into_iter().filter(|topic| !topic.partitions.is_empty()) {
        let offsets = topic.partitions.iter().map(|partition| (partition.partition_index, partition.offset));
        wanted.entry(topic.name).or_default().extend(offsets);
    }
    let outcomes = {
        let broker = broker.clone();
        let asked = wanted.clone();
        crate::runtime::blocking::spawn(move || delete_all(&broker, asked)).await
    };
    let outcomes = outcomes.unwrap_or_else(|error| {
        tracing::error!(%error, "deleting records");
        let failed = |offsets: BTreeMap<i32, i64>| {
            offsets.into_keys().map(|partition| (partition, Err(ErrorCode::UnknownServerError))).collect()
        };
        wanted.into_iter().map(|(topic, offsets)| (topic, failed(offsets))).collect()
    });
    let topics = outcomes.into_iter().map(|(name, partitions)| DeleteRecordsTopicResult {
        name,
        partitions: partitions.into_iter().map(|(index, outcome)| row(index, outcome)).collect(),
    });
    DeleteRecordsResponse { topics: topics.collect(), ..Default::default() }
}

fn row(partition_index: i32, outcome: Result<i64, ErrorCode>) -> DeleteRecordsPartitionResult {
    let (low_watermark, error) = match outcome {
        Ok(low_watermark) => (low_watermark, ErrorCode::None),
        Err(error) => (NO_LOW_WATERMARK, error),
    };
    DeleteRecordsPartitionResult { partition_index, low_watermark, error_code: error.code() }
}

/// Touches the disk.
fn delete_all(broker: &Broker, wanted: Wanted) -> Outcomes {
    let now_ms = broker.now_ms();
    let mut outcomes = Outcomes::new();
    for (topic, offsets) in wanted {
        let deleted = offsets.into_iter().map(|(index, offset)| (index, delete(broker, &topic, index, offset, now_ms)));
        outcomes.insert(topic.clone(), deleted.collect());
    }
    if !planted(Bug::LogStartForgotten) && !housekeeping::write_log_start_offsets(broker) {
        for outcome in outcomes.values_mut().flat_map(BTreeMap::values_mut).filter(|outcome| outcome.is_ok()) {
            *outcome = Err(ErrorCode::KafkaStorageError);
        }
    }
    outcomes
}

fn delete(broker: &Broker, topic: &str, index: i32, offset: i64, now_ms: i64) -> Result<i64, ErrorCode> {
    let missing = || broker.missing_partition_error(topic, index);
    let partition = broker.partitions.get(topic, index).ok_or_else(missing)?;
    if is_internal(topic) {
        return Err(ErrorCode::InvalidTopicException);
    }
    delete_before(&partition, offset, now_ms)
}

fn delete_before(partition: &Partition, offset: i64, now_ms: i64) -> Result<i64, ErrorCode> {
    let config = partition.topic_config();
    if config.values.cleanup_compact && !config.values.cleanup_delete {
        return Err(ErrorCode::PolicyViolation);
    }
    let deleted = partition.with_log(|log| {
        let high_watermark = log.high_watermark();
        let offset = if offset == HIGH_WATERMARK { high_watermark } else { offset };
        if !(0..=high_watermark).contains(&offset) {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        log.delete_records_before(offset, now_ms).map_err(|error| error_map::log(&error))
    });
    deleted.ok_or(ErrorCode::NotLeaderOrFollower)?
}
