//! ListOffsets, key 2, v1–v11.
//!
//! Behaviour: offset by timestamp (first record at or after it; none: -1/-1 and no error), or by the special timestamps
//! -1 latest, -2 earliest, -3 max timestamp (v7), -4 earliest local (v8), -5 latest tiered (v9), -6 earliest pending
//! upload (v11). Under read_committed "latest" is the last stable offset. -3 and the like at a version that does not
//! know them are UNSUPPORTED_VERSION. Only the leader answers. By time both tiers are searched.

use std::collections::HashSet;
use std::sync::Arc;

use taccola_log::{OffsetForTimestamp, TimestampQuery};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest};
use taccola_wire::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::error_map;
use crate::partition::{EpochCheck, FetchIsolation, Partition};
use crate::tier::{RemoteReadError, RemoteStorage, find_by_timestamp, find_max_timestamp};

/// Leader epochs came with this version.
const LEADER_EPOCH_SINCE: i16 = 4;
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

pub async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let isolation = match request.isolation_level {
        0 => Ok(FetchIsolation::HighWatermark),
        1 => Ok(FetchIsolation::TxnCommitted),
        _ => Err(ErrorCode::UnknownServerError),
    };
    let mut response = ListOffsetsResponse::default();
    for topic in request.topics {
        let mut seen = HashSet::new();
        let repeated: HashSet<i32> =
            topic.partitions.iter().map(|p| p.partition_index).filter(|index| !seen.insert(*index)).collect();
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            // Who asks twice hears once that this is nothing to ask.
            if !seen.remove(&wanted.partition_index) {
                continue;
            }
            let answer = match isolation {
                Err(error) => Err(error),
                Ok(_) if repeated.contains(&wanted.partition_index) => Err(ErrorCode::InvalidRequest),
                Ok(isolation) => look_up(broker, context.api_version, &topic.name, wanted, isolation).await,
            };
            partitions.push(partition_response(context.api_version, wanted.partition_index, answer));
        }
        response.topics.push(ListOffsetsTopicResponse { partitions, name: topic.name });
    }
    response
}

fn partition_response(
    version: i16,
    partition_index: i32,
    answer: Result<Option<OffsetForTimestamp>, ErrorCode>,
) -> ListOffsetsPartitionResponse {
    let none = OffsetForTimestamp { offset: -1, timestamp_ms: -1, leader_epoch: -1 };
    let (error, found) = match answer {
        Ok(found) => (ErrorCode::None, found.unwrap_or(none)),
        Err(error) => (error, none),
    };
    ListOffsetsPartitionResponse {
        partition_index,
        error_code: error.code(),
        timestamp: found.timestamp_ms,
        offset: found.offset,
        leader_epoch: if version >= LEADER_EPOCH_SINCE { found.leader_epoch } else { -1 },
    }
}

/// The special timestamp's meaning at this version.
fn query(version: i16, timestamp: i64) -> Result<TimestampQuery, ErrorCode> {
    let since = |min_version: i16, query| {
        if version >= min_version { Ok(query) } else { Err(ErrorCode::UnsupportedVersion) }
    };
    match timestamp {
        LATEST => Ok(TimestampQuery::Latest),
        EARLIEST => Ok(TimestampQuery::Earliest),
        MAX_TIMESTAMP => since(7, TimestampQuery::MaxTimestamp),
        EARLIEST_LOCAL => since(8, TimestampQuery::EarliestLocal),
        LATEST_TIERED => since(9, TimestampQuery::LatestTiered),
        EARLIEST_PENDING_UPLOAD => since(11, TimestampQuery::EarliestPendingUpload),
        timestamp if timestamp < 0 => Err(ErrorCode::UnsupportedVersion),
        timestamp => Ok(TimestampQuery::At(timestamp)),
    }
}

async fn look_up(
    broker: &Arc<Broker>,
    version: i16,
    topic: &str,
    wanted: &ListOffsetsPartition,
    isolation: FetchIsolation,
) -> Result<Option<OffsetForTimestamp>, ErrorCode> {
    let query = query(version, wanted.timestamp)?;
    let missing = || broker.missing_partition_error(topic, wanted.partition_index);
    let partition = broker.partitions.get(topic, wanted.partition_index).ok_or_else(missing)?;
    match partition.check_leader_epoch(wanted.current_leader_epoch) {
        EpochCheck::Ok => {}
        EpochCheck::Fenced => return Err(ErrorCode::FencedLeaderEpoch),
        EpochCheck::Unknown => return Err(ErrorCode::UnknownLeaderEpoch),
    }
    let is_tiered = partition.with_log(|log| log.is_tiered() && log.log_start_offset() < log.local_log_start_offset());
    match (&broker.remote, query) {
        (Some(remote), TimestampQuery::At(_) | TimestampQuery::MaxTimestamp) if is_tiered == Some(true) => {
            let found = in_both_tiers(remote, &partition, query, isolation);
            let max_wait = broker.dynamic_config().remote.list_offsets_timeout;
            tokio::time::timeout(max_wait, found).await.unwrap_or(Err(ErrorCode::RequestTimedOut))
        }
        _ => found_below_bound(&partition, query, isolation),
    }
}

/// By time, where the older part of the log is in remote storage: what is found there comes first, and of two largest timestamps
/// the earlier record counts.
async fn in_both_tiers(
    remote: &Arc<RemoteStorage>,
    partition: &Arc<Partition>,
    query: TimestampQuery,
    isolation: FetchIsolation,
) -> Result<Option<OffsetForTimestamp>, ErrorCode> {
    let failed = |error: RemoteReadError| {
        tracing::warn!(partition = %partition.topic_partition, %error, "a look-up by time in remote storage");
        error_map::remote_read(&error)
    };
    if let TimestampQuery::At(timestamp) = query {
        let found = find_by_timestamp(remote, partition, timestamp).await.map_err(failed)?;
        return if found.is_some() { Ok(found) } else { found_below_bound(partition, query, isolation) };
    }
    let older = find_max_timestamp(remote, partition).await.map_err(failed)?;
    let newer = found_below_bound(partition, query, isolation)?;
    Ok(match (older, newer) {
        (Some(older), Some(newer)) if newer.timestamp_ms > older.timestamp_ms => Some(newer),
        (Some(older), _) => Some(older),
        (None, newer) => newer,
    })
}

/// A record that the reader may not see yet does not exist for it.
fn found_below_bound(
    partition: &Partition,
    query: TimestampQuery,
    isolation: FetchIsolation,
) -> Result<Option<OffsetForTimestamp>, ErrorCode> {
    let leader_epoch = partition.leadership().leader_epoch;
    let found = partition.with_log(|log| {
        let bound = isolation.upper_bound(log);
        if query == TimestampQuery::Latest {
            return Ok(Some(OffsetForTimestamp { offset: bound, timestamp_ms: -1, leader_epoch }));
        }
        let mut found = log.offset_for_timestamp(query)?;
        // What is empty begins with the epoch of its leader.
        if let Some(found) =
            found.as_mut().filter(|found| found.leader_epoch < 0 && found.offset == log.log_end_offset())
        {
            found.leader_epoch = leader_epoch;
        }
        let by_time = matches!(query, TimestampQuery::At(_) | TimestampQuery::MaxTimestamp);
        Ok(found.filter(|found| !by_time || found.offset < bound))
    });
    found.ok_or(ErrorCode::NotLeaderOrFollower)?.map_err(|error| error_map::log_read(&error))
}
