//! One partition's log in Kafka's on-disk format, and the journal that makes appends durable.
//!
//! A [`PartitionLog`] is a plain struct: no thread, no lock, no clock. Its owner serialises `&mut` calls, passes the
//! time in, and runs [`ReadSlice::read`] and [`FlushPlan::run`] outside its own critical section.

pub mod checkpoint;
pub mod cleaner;
mod config;
pub mod disk_watch;
mod epoch_cache;
mod error;
mod file;
mod index;
pub mod journal;
pub mod log_dir;
mod partition_log;
mod producer_state;
pub mod remote;
mod salvage;
mod scan;
mod segment;
mod shared;
mod txn_index;
mod txn_sums;
mod verification;
pub mod verify;

pub use config::LogConfig;
pub use error::{AppendError, LogError, ReadError};
pub use file::{BufferedIo, SegmentFile, SegmentIo};
pub use index::{parse_offset_index, parse_time_index};
pub use partition_log::{
    AbortedTxn, AppendContext, AppendOrigin, Appended, CopyCandidate, CopyIndexes, EpochEndOffset, FlushPlan, Offset,
    OffsetForTimestamp, OpenHints, OriginalLog, PartitionLog, ProducerSummary, QuarantinedRange, ReadSlice,
    RecoveryReport, Replayed, RetentionOutcome, ScrubJob, ScrubOutcome, TimestampQuery, parse_quarantine,
};
pub use producer_state::parse_snapshot;
pub use shared::{LogShared, TellOffline};
pub use txn_index::parse as parse_txn_index;
pub use verification::VerificationGuard;
