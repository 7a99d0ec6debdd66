//! TxnOffsetCommit, and the markers that end transactions in a partition of `__consumer_offsets`. Answers to Kafka's
//! `OffsetMetadataManager.commitTransactionalOffset` and `GroupCoordinatorShard.replayEndTransactionMarker`.
//!
//! Offsets of an open transaction are kept apart and count when its marker says so. Both are applied when they are
//! committed, which happens in the order of the log.

use std::sync::Arc;

use taccola_base::Uuid;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
use taccola_wire::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use taccola_wire::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use crate::effects::{BatchKind, Effects, Reply, RequestContext, Response};
use crate::group::{CommitScope, Committer};
use crate::offsets::OffsetAndMetadata;
use crate::outbox::{Change, Outbox};
use crate::shard::GroupShard;

/// A transaction's end, to be written into the shard's partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndMarker {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub commit: bool,
    pub coordinator_epoch: i32,
    pub transaction_version: i16,
}

/// The whole request refused: every partition carries the error.
pub fn error_response(request: &TxnOffsetCommitRequest, error: ErrorCode) -> TxnOffsetCommitResponse {
    response(request, |_| error.code())
}

fn response(
    request: &TxnOffsetCommitRequest,
    mut code: impl FnMut(&TxnOffsetCommitRequestPartition) -> i16,
) -> TxnOffsetCommitResponse {
    let mut partition = |p: &TxnOffsetCommitRequestPartition| TxnOffsetCommitResponsePartition {
        partition_index: p.partition_index,
        error_code: code(p),
    };
    let topics = request.topics.iter().map(|t| TxnOffsetCommitResponseTopic {
        name: t.name.clone(),
        partitions: t.partitions.iter().map(&mut partition).collect(),
    });
    TxnOffsetCommitResponse { topics: topics.collect(), ..Default::default() }
}

impl GroupShard {
    /// The caller refuses topics that are not there. `verification` is what the partition gave before the coordinator was
    /// asked whether the transaction includes it; the caller gets it back with the batch.
    pub fn handle_txn_offset_commit(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &TxnOffsetCommitRequest,
        verification: Option<u64>,
    ) -> Effects<TxnOffsetCommitResponse> {
        let mut out = Outbox::default();
        if let Err(error) = self.validate_txn_offset_commit(ctx, request) {
            return self.finish(Reply::Now(error_response(request, error)), out);
        }
        let group: Arc<str> = request.group_id.as_str().into();
        let (producer_id, producer_epoch) = (request.producer_id, request.producer_epoch);
        let mut codes = Vec::new();
        for topic in &request.topics {
            let name: Arc<str> = topic.name.as_str().into();
            for partition in &topic.partitions {
                let (index, offset) = (partition.partition_index, offset_of(now_ms, partition));
                let written = self.write_offset(&group, &name, index, offset, Some(producer_id), &mut out);
                codes.push(written.err().map_or(0, |error| error.code()));
            }
        }
        if !out.records.is_empty() {
            out.batch = BatchKind::Transactional { producer_id, producer_epoch, verification };
        }
        let mut codes = codes.into_iter();
        let response = response(request, |_| codes.next().unwrap_or_default());
        self.finish_with_records(ctx.token, response, out, Response::TxnOffsetCommit)
    }

    /// Clients that know nothing of groups in transactions (before v3) name neither member nor generation.
    fn validate_txn_offset_commit(
        &self,
        ctx: &RequestContext<'_>,
        request: &TxnOffsetCommitRequest,
    ) -> Result<(), ErrorCode> {
        let id = request.group_id.as_str();
        if id.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        let committer = Committer {
            member_id: &request.member_id,
            instance_id: request.group_instance_id.as_deref(),
            epoch: request.generation_id,
            transactional: true,
            api_version: ctx.api_version,
        };
        let Some(group) = self.any_group(id) else {
            // Offsets of a consumer that assigns itself make a group of their own.
            return if committer.epoch < 0 { Ok(()) } else { Err(ErrorCode::IllegalGeneration) };
        };
        let scope = group.validate_offset_commit(&committer).map_err(known)?;
        if scope == CommitScope::ByAssignmentEpoch {
            let mut partitions =
                request.topics.iter().flat_map(|t| t.partitions.iter().map(move |p| (t, p.partition_index)));
            let had = |(topic, partition): (&TxnOffsetCommitRequestTopic, i32)| {
                let topic_id = self.image.topic_by_name(&topic.name).map_or(Uuid::ZERO, |topic| topic.id);
                let epoch = group.assignment_epoch(committer.member_id, &topic.name, topic_id, partition);
                epoch.is_some_and(|epoch| epoch <= committer.epoch)
            };
            if !partitions.all(had) {
                return Err(ErrorCode::IllegalGeneration);
            }
        }
        Ok(())
    }

    /// Writes the marker that ends a producer's transaction in this partition. The reply is NONE once it is committed.
    pub fn handle_end_marker(
        &mut self,
        _now_ms: i64,
        ctx: &RequestContext<'_>,
        marker: EndMarker,
    ) -> Effects<ErrorCode> {
        let EndMarker { producer_id, producer_epoch, commit, coordinator_epoch, transaction_version } = marker;
        let mut out = Outbox {
            batch: BatchKind::EndMarker { producer_id, producer_epoch, commit, coordinator_epoch, transaction_version },
            ..Default::default()
        };
        out.changes.push(Change::EndTransaction { producer_id, commit });
        self.finish_with_records(ctx.token, ErrorCode::None, out, Response::EndMarker)
    }
}

/// A stale epoch has no name in this API.
fn known(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::StaleMemberEpoch => ErrorCode::IllegalGeneration,
        error => error,
    }
}

fn offset_of(now_ms: i64, partition: &TxnOffsetCommitRequestPartition) -> OffsetAndMetadata {
    OffsetAndMetadata {
        record_offset: -1,
        committed_offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch.max(-1),
        metadata: partition.committed_metadata.as_deref().unwrap_or_default().into(),
        commit_timestamp_ms: now_ms,
        expire_timestamp_ms: None,
        // The request has none.
        topic_id: Uuid::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use taccola_wire::messages::offset_fetch_request::OffsetFetchRequestGroup;

    use super::*;
    use crate::cluster_image::EmptyImage;
    use crate::{GroupConfig, RequestToken};

    fn ctx() -> RequestContext<'static> {
        RequestContext { token: RequestToken(1), api_version: 8, client_id: "", client_host: "", fresh_id: [0; 16] }
    }

    fn commit(producer_id: i64, offset: i64) -> TxnOffsetCommitRequest {
        let partition = TxnOffsetCommitRequestPartition {
            committed_offset: offset,
            committed_leader_epoch: -1,
            ..Default::default()
        };
        TxnOffsetCommitRequest {
            group_id: "g".to_owned(),
            producer_id,
            generation_id: -1,
            topics: vec![TxnOffsetCommitRequestTopic { name: "t".to_owned(), partitions: vec![partition] }],
            ..Default::default()
        }
    }

    fn offset(shard: &mut GroupShard) -> Option<i64> {
        let request = OffsetFetchRequestGroup { group_id: "g".to_owned(), topics: None, ..Default::default() };
        let Reply::Now(response) = shard.handle_offset_fetch(0, &ctx(), request, false).response else { return None };
        response.topics.first().and_then(|t| t.partitions.first()).map(|p| p.committed_offset)
    }

    fn marker(producer_id: i64, commit: bool) -> EndMarker {
        EndMarker { producer_id, producer_epoch: 0, commit, coordinator_epoch: 0, transaction_version: 0 }
    }

    #[test]
    fn offsets_count_when_their_marker_is_committed() {
        let mut shard = GroupShard::new(GroupConfig::default(), Arc::new(EmptyImage));
        for (log_offset, commits, expected) in [(10, false, None), (20, true, Some(5))] {
            let written = shard.handle_txn_offset_commit(0, &ctx(), &commit(7, 5), Some(3));
            let batch = BatchKind::Transactional { producer_id: 7, producer_epoch: 0, verification: Some(3) };
            assert_eq!((written.batch, written.records.len(), &written.response), (batch, 1, &Reply::Parked));
            let released = shard.committed(0, written.append.unwrap(), log_offset).released;
            assert!(matches!(&released[0].response, Response::TxnOffsetCommit(_)));
            assert_eq!(offset(&mut shard), None, "the transaction is open");
            let ended = shard.handle_end_marker(0, &ctx(), marker(7, commits));
            assert!(ended.records.is_empty() && matches!(ended.batch, BatchKind::EndMarker { .. }));
            assert_eq!(offset(&mut shard), None, "the marker can still be lost");
            let released = shard.committed(0, ended.append.unwrap(), log_offset + 1).released;
            assert_eq!(released[0].response, Response::EndMarker(ErrorCode::None));
            assert_eq!(offset(&mut shard), expected);
        }
    }

    #[test]
    fn a_generation_without_a_group_is_refused() {
        let mut shard = GroupShard::new(GroupConfig::default(), Arc::new(EmptyImage));
        let refused = shard.handle_txn_offset_commit(
            0,
            &ctx(),
            &TxnOffsetCommitRequest { generation_id: 3, ..commit(7, 5) },
            None,
        );
        let Reply::Now(response) = refused.response else { panic!("nothing is written") };
        assert_eq!(response.topics[0].partitions[0].error_code, ErrorCode::IllegalGeneration.code());
    }
}
