//! Reads a partition of `__consumer_offsets` back into a shard.

use bytes::Bytes;
use taccola_coord::{GroupConfig, GroupShard};
use taccola_wire::batch::{BatchHeader, ControlRecord, ControlType, RecordIter, batches};

use crate::partition::{FetchIsolation, Partition};

/// Bytes read at a time.
const LOAD_BYTES: usize = 4 * 1024 * 1024;
const NO_PRODUCER_ID: i64 = -1;

/// The shard as the log has it. An error says why the partition must not be served.
pub(super) fn replay_log(partition: &Partition, config: GroupConfig) -> Result<GroupShard, String> {
    let mut groups = GroupShard::new(config);
    let mut offset = partition.with_log(|log| log.log_start_offset()).ok_or("the partition is gone")?;
    loop {
        let read =
            partition.read(offset, LOAD_BYTES, true, FetchIsolation::LogEnd).map_err(|error| error.to_string())?;
        let before = offset;
        for batch in batches(&read.records) {
            let batch = batch.map_err(|error| format!("offset {offset}: {error}"))?;
            let bytes = read.records.slice_ref(batch.bytes);
            offset = replay_batch(&mut groups, &bytes, offset)?;
        }
        if offset == before {
            return Ok(groups);
        }
    }
}

/// Replays the records from `offset` on; answers the offset behind the batch.
fn replay_batch(groups: &mut GroupShard, batch: &Bytes, offset: i64) -> Result<i64, String> {
    let at = |error: &dyn std::fmt::Display| format!("offset {offset}: {error}");
    let header = BatchHeader::parse(batch).map_err(|error| at(&error))?;
    let producer_id = if header.is_transactional() { header.producer_id } else { NO_PRODUCER_ID };
    for record in RecordIter::new(batch).map_err(|error| at(&error))? {
        let record = record.map_err(|error| at(&error))?;
        let Some(key) = record.key.as_ref().filter(|_| record.offset >= offset) else { continue };
        if header.is_control() {
            let control = ControlRecord::decode(&record).map_err(|error| at(&error))?;
            if matches!(control.control_type(), ControlType::Commit | ControlType::Abort) {
                groups.replay_end_transaction(header.producer_id, control.control_type() == ControlType::Commit);
            }
            continue;
        }
        groups.replay(record.offset, producer_id, key, record.value.as_ref()).map_err(|error| at(&error))?;
    }
    Ok(header.next_offset())
}
