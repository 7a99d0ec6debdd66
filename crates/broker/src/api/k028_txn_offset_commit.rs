//! TxnOffsetCommit, key 28, v0–v5.
//!
//! Behaviour: offsets of partitions that do not exist are refused one by one; the others become part of the producer's
//! transaction and count when it is committed. Version notes: v3 knows the group's members and generations; from v5 on
//! the partition of `__consumer_offsets` is added to the transaction here, before it is only verified (KIP-890).

use std::sync::Arc;

use taccola_base::topic::GROUP_METADATA_TOPIC;
use taccola_coord::{Response, txn_offset_commit_error_response};
use taccola_wire::batch::NO_SEQUENCE;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::txn_offset_commit_request::TxnOffsetCommitRequest;
use taccola_wire::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponse, TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::transactions::verification::{Place, Producer, Support};

/// Before this version producers do not wait for a coordinator that loads.
const LOADING_KNOWN_SINCE: i16 = 2;

pub async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    mut request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let refused = take_unknown(broker, &mut request);
    let mut response = match request.topics.is_empty() && !refused.is_empty() {
        true => TxnOffsetCommitResponse::default(),
        false => match commit(broker, context, &request).await {
            Ok(response) => response,
            Err(error) => txn_offset_commit_error_response(&request, told(error, context.api_version)),
        },
    };
    for topic in refused {
        match response.topics.iter_mut().find(|known| known.name == topic.name) {
            Some(known) => known.partitions.extend(topic.partitions),
            None => response.topics.push(topic),
        }
    }
    response
}

/// Takes what does not exist out of the request.
fn take_unknown(broker: &Broker, request: &mut TxnOffsetCommitRequest) -> Vec<TxnOffsetCommitResponseTopic> {
    let image = broker.image();
    let mut refused = Vec::new();
    for topic in &mut request.topics {
        let name = topic.name.clone();
        let (known, unknown): (Vec<_>, Vec<_>) = std::mem::take(&mut topic.partitions)
            .into_iter()
            .partition(|p| image.topics.partition(&name, p.partition_index).is_some());
        topic.partitions = known;
        if unknown.is_empty() {
            continue;
        }
        let row = |partition_index| TxnOffsetCommitResponsePartition {
            partition_index,
            error_code: ErrorCode::UnknownTopicOrPartition.code(),
        };
        let partitions = unknown.into_iter().map(|p| row(p.partition_index)).collect();
        refused.push(TxnOffsetCommitResponseTopic { name, partitions });
    }
    if !refused.is_empty() {
        request.topics.retain(|topic| !topic.partitions.is_empty());
    }
    refused
}

async fn commit(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: &TxnOffsetCommitRequest,
) -> Result<TxnOffsetCommitResponse, ErrorCode> {
    if request.group_id.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    let index = broker.group_partition(&request.group_id)?;
    let verification = verify(broker, context, request, index).await?;
    let committed = broker.groups.call(
        index,
        context,
        |groups, call| groups.handle_txn_offset_commit(call.now_ms, &call.context, request, verification),
        |response| match response {
            Response::TxnOffsetCommit(response) => Some(response),
            _ => None,
        },
    );
    committed.await
}

/// The guard under which the transaction may begin in the partition that keeps the offsets.
async fn verify(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: &TxnOffsetCommitRequest,
    index: i32,
) -> Result<Option<u64>, ErrorCode> {
    let support = Support::of_offset_commit(context.api_version);
    let TxnOffsetCommitRequest { transactional_id, producer_id, producer_epoch, .. } = request;
    let producer = Producer { transactional_id, producer_id: *producer_id, producer_epoch: *producer_epoch };
    let place = Place { topic: GROUP_METADATA_TOPIC.into(), partition: index, first_sequence: NO_SEQUENCE };
    let guard = match broker.verifies(support) {
        true => broker.verify_transaction(producer, support, &[place]).await.into_values().next(),
        false => broker.begin_verification(producer, support, &[place]).into_values().next().map(Ok),
    };
    Ok(guard.transpose()?.map(|guard| guard.0))
}

fn told(error: ErrorCode, api_version: i16) -> ErrorCode {
    match error {
        ErrorCode::NotEnoughReplicas => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::CoordinatorLoadInProgress if api_version < LOADING_KNOWN_SINCE => ErrorCode::CoordinatorNotAvailable,
        error => error,
    }
}
