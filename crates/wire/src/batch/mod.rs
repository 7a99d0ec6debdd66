//! Record batches, format v2 (magic 2): the unit in which Kafka produces, stores, replicates and fetches.
//!
//! Answers to `DefaultRecordBatch`, `DefaultRecord`, `MemoryRecordsBuilder`, `LogValidator` (KIP-98, KIP-32, KIP-82).
//! A batch is a header of [`HEADER_BYTES`] followed by its records, perhaps compressed as one block. All integers are
//! big-endian. The CRC-32C covers everything from the attributes (offset 21) to the end, so that the base offset and the
//! partition leader epoch can be rewritten without touching it.
//!
//! [`BatchHeader`] reads the header alone and never looks at a record; [`RecordIter`] walks the records with a bound on
//! what decompression may yield; [`BatchBuilder`] makes a batch; [`validate`] is what a broker checks before an append.

mod builder;
mod control;
mod error;
mod header;
mod records;
pub mod validate;

mod varint;

pub use builder::BatchBuilder;
pub use control::{ControlRecord, ControlType, end_txn_marker};
pub use error::BatchError;
pub use header::{
    Attributes, BatchHeader, BatchRef, Batches, HEADER_BYTES, LOG_OVERHEAD, NO_PARTITION_LEADER_EPOCH,
    NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP, TimestampType, batches, computed_crc, set_attributes,
    set_base_offset, set_last_offset_delta, set_max_timestamp, set_partition_leader_epoch, set_producer, verify_crc,
};
pub use records::{Record, RecordHeader, RecordIter, RecordView, RecordWalker};

pub use crate::compress::{Compression, max_decompressed};

#[cfg(test)]
mod tests;
