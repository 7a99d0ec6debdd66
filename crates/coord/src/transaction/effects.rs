//! What a transaction shard asks of its caller besides records: replies that were parked, timers, and markers to write
//! into the partitions of a transaction.

use std::sync::Arc;

use taccola_wire::error::ErrorCode;
use taccola_wire::messages::add_partitions_to_txn_response::AddPartitionsToTxnResult;
use taccola_wire::messages::{AddOffsetsToTxnResponse, EndTxnResponse, InitProducerIdResponse};

use super::partitions::Partitions;
use crate::effects::Effects;

/// The effects of a step of a transaction shard.
pub type TransactionEffects<R> = Effects<R, TransactionResponse, TransactionTimerKey, TransactionAction>;

/// The request needs a producer id that nobody has used yet: nothing has changed; call again with one. One that was
/// given and not used is lost, which does no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeedsProducerId;

/// The replies that can be parked.
#[derive(Clone, Debug, PartialEq)]
pub enum TransactionResponse {
    InitProducerId(InitProducerIdResponse),
    /// The share of one transaction in an AddPartitionsToTxn; in the versions of clients all of it.
    AddPartitions(AddPartitionsToTxnResult),
    AddOffsets(AddOffsetsToTxnResponse),
    EndTxn(EndTxnResponse),
}

impl TransactionResponse {
    /// The same reply when its records could not be written.
    pub(super) fn into_failure(self, error: ErrorCode) -> Self {
        let code = error.code();
        match self {
            Self::InitProducerId(_) => Self::InitProducerId(init_producer_id_error(error)),
            Self::AddPartitions(mut result) => {
                let partitions = result.topic_results.iter_mut().flat_map(|t| &mut t.results_by_partition);
                partitions.for_each(|p| p.partition_error_code = code);
                Self::AddPartitions(result)
            }
            Self::AddOffsets(mut response) => {
                response.error_code = code;
                Self::AddOffsets(response)
            }
            Self::EndTxn(_) => Self::EndTxn(end_txn_error(error)),
        }
    }
}

pub(super) fn init_producer_id_error(error: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse {
        error_code: error.code(),
        producer_id: -1,
        producer_epoch: -1,
        ongoing_txn_producer_id: -1,
        ongoing_txn_producer_epoch: -1,
        ..Default::default()
    }
}

pub(super) fn end_txn_error(error: ErrorCode) -> EndTxnResponse {
    EndTxnResponse { error_code: error.code(), producer_id: -1, producer_epoch: -1, ..Default::default() }
}

/// A timer that fires late, twice or after it was cancelled does no harm.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransactionTimerKey {
    /// The next look for transactions that are open for longer than their producer's timeout.
    AbortTimedOut,
    /// The next look for transactional ids that nobody uses any more.
    ExpireIds,
    /// The next attempt to record that markers are written, after one that failed.
    Complete { transactional_id: Arc<str> },
    /// How long the first partitions of the next transaction wait for the end of this one.
    Waiting { transactional_id: Arc<str> },
}

/// What the shard wants done outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionAction {
    /// The outcome is decided and cannot be lost: write it into every partition of the transaction, however often that
    /// takes, then say so with [`handle_markers_written`](super::TransactionShard::handle_markers_written). Given again
    /// after each loading until the end is recorded, so that a marker may be written twice.
    SendMarkers(Markers),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Markers {
    pub transactional_id: Arc<str>,
    /// Where the outcome stands in the log: tells this transaction from all others of the id, also from those of the
    /// same producer and epoch, whoever still writes their markers.
    pub decided_at: i64,
    pub producer_id: i64,
    /// Of the markers: from transaction version 2 on one above that of the records.
    pub producer_epoch: i16,
    pub coordinator_epoch: i32,
    pub commit: bool,
    /// Never empty.
    pub partitions: Partitions,
    /// Of the client that made the transaction; 0 or 2. Goes into WriteTxnMarkers v2.
    pub transaction_version: i16,
}
