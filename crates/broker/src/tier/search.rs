//! ListOffsets by time for records that are in remote storage only. Answers to Kafka's `RemoteLogManager.findOffsetByTimestamp`.

use std::sync::Arc;

use bytes::Bytes;
use taccola_log::OffsetForTimestamp;
use taccola_log::remote::{RemoteSegment, RemoteSegments, SegmentState};
use taccola_wire::batch::{RecordIter, verify_crc};

use super::RemoteStorage;
use super::index::{offset_before, position_of};
use super::objects::ObjectKind;
use super::read::{LogView, RemoteReadError, SegmentReader, view};
use crate::partition::{FetchIsolation, Partition};

/// Bytes read at a time while looking.
const LOOK_BYTES: u64 = 256 * 1024;

/// The first record with this timestamp or a later one, among those below the local log.
pub(crate) async fn find_by_timestamp(
    remote: &Arc<RemoteStorage>,
    partition: &Arc<Partition>,
    timestamp: i64,
) -> Result<Option<OffsetForTimestamp>, RemoteReadError> {
    remote.wait_loaded().await;
    let view = view(partition, FetchIsolation::LogEnd)?;
    for segment in below_local(remote, partition, &view) {
        if segment.max_timestamp_ms < timestamp {
            continue;
        }
        let reader = SegmentReader { remote, partition, segment: &segment };
        if let Some(found) = first_record(&reader, &view, timestamp).await? {
            return Ok((found.offset < view.local_start).then_some(found));
        }
    }
    Ok(None)
}

/// The first record with the largest timestamp below the local log.
pub(crate) async fn find_max_timestamp(
    remote: &Arc<RemoteStorage>,
    partition: &Arc<Partition>,
) -> Result<Option<OffsetForTimestamp>, RemoteReadError> {
    remote.wait_loaded().await;
    let view = view(partition, FetchIsolation::LogEnd)?;
    let segments = below_local(remote, partition, &view);
    let max = segments.iter().map(|segment| segment.max_timestamp_ms).filter(|timestamp| *timestamp >= 0).max();
    match max {
        Some(timestamp) => find_by_timestamp(remote, partition, timestamp).await,
        None => Ok(None),
    }
}

fn below_local(remote: &RemoteStorage, partition: &Partition, view: &LogView) -> Vec<RemoteSegment> {
    let key = (partition.topic_id, partition.topic_partition.partition);
    let pick = |segments: &RemoteSegments| {
        let readable = |segment: &&RemoteSegment| {
            segment.state == SegmentState::CopyFinished
                && segment.end_offset >= view.start
                && segment.start_offset < view.local_start
                && RemoteSegments::is_of_log(segment, &view.epochs, view.start, view.end)
        };
        segments.all().into_iter().filter(readable).cloned().collect()
    };
    remote.with(&key, |known| pick(&known.segments)).unwrap_or_default()
}

async fn first_record(
    reader: &SegmentReader<'_>,
    view: &LogView,
    timestamp: i64,
) -> Result<Option<OffsetForTimestamp>, RemoteReadError> {
    let times = reader.whole(ObjectKind::TimeIndex).await?;
    let offsets = reader.whole(ObjectKind::OffsetIndex).await?;
    let mut position = position_of(&offsets, offset_before(&times, timestamp));
    loop {
        let wanted = |header: &taccola_wire::batch::BatchHeader| {
            header.max_timestamp >= timestamp && header.last_offset() >= view.start
        };
        let Some((at, bytes)) = reader.scan(position, wanted, LOOK_BYTES).await? else { return Ok(None) };
        let header = taccola_wire::batch::BatchHeader::parse(&bytes)
            .map_err(|error| RemoteReadError::Corrupt { offset: view.start, why: error.to_string() })?;
        let batch = reader.bytes(at, header.size_bytes() as u64).await?;
        if let Some((offset, timestamp_ms)) = record_in(&batch, view, timestamp)? {
            return Ok(Some(OffsetForTimestamp { offset, timestamp_ms, leader_epoch: header.partition_leader_epoch }));
        }
        position = at + header.size_bytes() as u64;
    }
}

fn record_in(batch: &Bytes, view: &LogView, timestamp: i64) -> Result<Option<(i64, i64)>, RemoteReadError> {
    let corrupt = |why: String| RemoteReadError::Corrupt { offset: view.start, why };
    verify_crc(batch).map_err(|error| corrupt(error.to_string()))?;
    for record in RecordIter::new(batch).map_err(|error| corrupt(error.to_string()))? {
        let record = record.map_err(|error| corrupt(error.to_string()))?;
        if record.timestamp >= timestamp && record.offset >= view.start {
            return Ok(Some((record.offset, record.timestamp)));
        }
    }
    Ok(None)
}
