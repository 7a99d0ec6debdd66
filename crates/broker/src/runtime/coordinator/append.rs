//! A shard's records become batches in its partition.

use std::sync::Arc;

use bytes::BytesMut;
use taccola_coord::{BatchKind, CoordinatorRecord, CoordinatorShard};
use taccola_log::{AppendOrigin, VerificationGuard};
use taccola_wire::batch::{BatchBuilder, BatchError, ControlRecord, NO_SEQUENCE, end_txn_marker};
use taccola_wire::error::ErrorCode;

use super::Coordinator;
use crate::clock;
use crate::error_map;
use crate::partition::{AppendRejected, Partition};
use crate::runtime::journal::Ticket;

/// What a batch takes besides its records.
const BATCH_HEADER_BYTES: usize = 61;

impl<S: CoordinatorShard> Coordinator<S> {
    /// Appends a step's records, in as many batches as the topic's `max.message.bytes` asks for. Answers where the first
    /// record stands, and what to wait for. When a later batch of several fails, those before it are in the log although
    /// the step counts as failed: a shard's records are made so that a part of them does no harm.
    pub(super) fn append(
        &self,
        partition: &Arc<Partition>,
        records: &[CoordinatorRecord],
        kind: BatchKind,
    ) -> Result<(i64, Option<Ticket>), ErrorCode> {
        if let BatchKind::EndMarker { producer_id, producer_epoch, commit, coordinator_epoch, transaction_version } =
            kind
        {
            let marker = match commit {
                true => ControlRecord::Commit { coordinator_epoch },
                false => ControlRecord::Abort { coordinator_epoch },
            };
            let batch = end_txn_marker(clock::now_ms(), producer_id, producer_epoch, &marker);
            return self.append_batch(partition, batch, AppendOrigin::Coordinator { transaction_version });
        }
        let origin = match kind {
            BatchKind::Transactional { verification, .. } => {
                AppendOrigin::CoordinatorTransaction { guard: verification.map(VerificationGuard) }
            }
            BatchKind::Plain | BatchKind::EndMarker { .. } => AppendOrigin::Coordinator { transaction_version: 0 },
        };
        let max_bytes = usize::try_from(partition.topic_config().values.max_message_bytes).unwrap_or(0);
        let mut first = None;
        let mut ticket = None;
        let mut records = records.iter().peekable();
        while records.peek().is_some() {
            let mut builder = BatchBuilder::new(self.compression);
            if let BatchKind::Transactional { producer_id, producer_epoch, .. } = kind {
                builder = builder.producer(producer_id, producer_epoch, NO_SEQUENCE).transactional(true);
            }
            let now_ms = clock::now_ms();
            while let Some(record) = records.next_if(|record| {
                let more = BatchBuilder::record_bytes_max(Some(&record.key), record.value.as_deref(), &[]);
                builder.is_empty() || BATCH_HEADER_BYTES + builder.uncompressed_bytes() + more <= max_bytes
            }) {
                builder.append(now_ms, Some(&record.key), record.value.as_deref(), &[]);
            }
            let (base_offset, next) = self.append_batch(partition, builder.build(), origin)?;
            first.get_or_insert(base_offset);
            ticket = ticket.max(next);
        }
        first.map(|base_offset| (base_offset, ticket)).ok_or(ErrorCode::UnknownServerError)
    }

    fn append_batch(
        &self,
        partition: &Arc<Partition>,
        batch: Result<bytes::Bytes, BatchError>,
        origin: AppendOrigin,
    ) -> Result<(i64, Option<Ticket>), ErrorCode> {
        let batch = batch.map_err(|_| ErrorCode::UnknownServerError)?;
        let mut batch = batch.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
        let appended = partition.append(&self.journal, &mut batch, origin, self.durability, clock::now_ms());
        let outcome = appended.map_err(|error| match error {
            AppendRejected::NotLeader => ErrorCode::NotCoordinator,
            error => error_map::append(&error),
        })?;
        Ok((outcome.base_offset, outcome.ticket))
    }
}
