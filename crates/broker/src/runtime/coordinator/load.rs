//! Reads a partition of a coordinator's topic back into a shard.

use bytes::Bytes;
use taccola_base::planted::{Bug, planted};
use taccola_coord::CoordinatorShard;
use taccola_wire::batch::{BatchHeader, ControlRecord, ControlType, RecordIter, batches};

use crate::partition::{FetchIsolation, Partition};

/// Bytes read at a time.
const LOAD_BYTES: usize = 4 * 1024 * 1024;
const NO_PRODUCER_ID: i64 = -1;

/// Brings the shard to what the log says. An error says why the partition must not be served.
pub(super) fn replay_log<S: CoordinatorShard>(partition: &Partition, shard: &mut S) -> Result<(), String> {
    let mut offset = partition.with_log(|log| log.log_start_offset()).ok_or("the partition is gone")?;
    loop {
        let read =
            partition.read(offset, LOAD_BYTES, true, FetchIsolation::LogEnd).map_err(|error| error.to_string())?;
        let before = offset;
        for batch in batches(&read.records) {
            let batch = batch.map_err(|error| format!("offset {offset}: {error}"))?;
            if planted(Bug::LoadStopsShort) && batch.header.next_offset() == read.upper_bound {
                return Ok(());
            }
            let bytes = read.records.slice_ref(batch.bytes);
            offset = replay_batch(shard, &bytes, offset)?;
        }
        if offset == before {
            return Ok(());
        }
    }
}

/// Replays the records from `offset` on; answers the offset behind the batch.
fn replay_batch<S: CoordinatorShard>(shard: &mut S, batch: &Bytes, offset: i64) -> Result<i64, String> {
    let at = |error: &dyn std::fmt::Display| format!("offset {offset}: {error}");
    let header = BatchHeader::parse(batch).map_err(|error| at(&error))?;
    let producer_id = if header.is_transactional() { header.producer_id } else { NO_PRODUCER_ID };
    for record in RecordIter::new(batch).map_err(|error| at(&error))? {
        let record = record.map_err(|error| at(&error))?;
        let Some(key) = record.key.as_ref().filter(|_| record.offset >= offset) else { continue };
        if header.is_control() {
            let control = ControlRecord::decode(&record).map_err(|error| at(&error))?;
            if matches!(control.control_type(), ControlType::Commit | ControlType::Abort) {
                let commit = control.control_type() == ControlType::Commit || planted(Bug::AbortedOffsetsCount);
                shard.replay_end_transaction(header.producer_id, commit);
            }
            continue;
        }
        shard.replay(record.offset, producer_id, key, record.value.as_ref()).map_err(|error| at(&error))?;
    }
    Ok(header.next_offset())
}
