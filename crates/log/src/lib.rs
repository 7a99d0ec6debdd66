//! One partition's log in Kafka's on-disk format, and the journal that makes appends durable.
//!
//! A [`PartitionLog`] is a plain struct: no thread, no lock, no clock. Its owner serialises `&mut` calls, passes the
//! time in, and runs [`ReadSlice::read`] and [`FlushPlan::run`] outside its own critical section.

mod config;
mod error;
pub mod log_dir;
mod partition_log;
mod shared;

pub use config::LogConfig;
pub use error::{AppendError, LogError, ReadError};
pub use partition_log::{
    AbortedTxn, AppendContext, AppendOrigin, Appended, EpochEndOffset, FlushPlan, Offset, OffsetForTimestamp, OpenHints,
    PartitionLog, ProducerSummary, QuarantinedRange, ReadSlice, RecoveryReport, RetentionOutcome, TimestampQuery,
};
pub use shared::LogShared;
