//! What of a partition lies in remote storage (KIP-405), as a pure state machine: no store, no topic, no clock. The broker feeds it
//! the records of `__remote_log_metadata` and asks it where an offset is.

mod metadata;
mod segments;

pub use metadata::{DeleteState, RemoteLogRecord, RemoteSegment, SegmentState, metadata_partition};
pub use segments::{RemoteSegments, RemoteStateError};
