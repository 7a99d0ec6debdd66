//! AddPartitionsToTxn, key 24, v0–v5.
//!
//! Behaviour: v0–v3 come from producers, one transaction each; from v4 on brokers ask for several transactions, either to
//! add partitions or only to verify that they are part of the transaction (KIP-890). Where one partition does not exist, or
//! a producer asks for one of an internal topic, nothing of the transaction is added, and the others are
//! OPERATION_NOT_ATTEMPTED.

use std::sync::Arc;

use taccola_base::topic::is_internal;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::add_partitions_to_txn_request::{AddPartitionsToTxnRequest, AddPartitionsToTxnTransaction};
use taccola_wire::messages::add_partitions_to_txn_response::{AddPartitionsToTxnResponse, AddPartitionsToTxnResult};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::transactions::add_partitions_error;

const BATCH_SINCE: i16 = 4;

pub async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    if context.api_version >= BATCH_SINCE {
        let mut results = Vec::new();
        for transaction in &request.transactions {
            results.push(add(broker, context, transaction).await);
        }
        return AddPartitionsToTxnResponse { results_by_transaction: results, ..Default::default() };
    }
    let transaction = AddPartitionsToTxnTransaction {
        transactional_id: request.v3_and_below_transactional_id,
        producer_id: request.v3_and_below_producer_id,
        producer_epoch: request.v3_and_below_producer_epoch,
        verify_only: false,
        topics: request.v3_and_below_topics,
    };
    let result = add(broker, context, &transaction).await;
    AddPartitionsToTxnResponse { results_by_topic_v3_and_below: result.topic_results, ..Default::default() }
}

async fn add(
    broker: &Arc<Broker>,
    context: &RequestContext,
    transaction: &AddPartitionsToTxnTransaction,
) -> AddPartitionsToTxnResult {
    let image = broker.image();
    let by_producer = context.api_version < BATCH_SINCE;
    let error = |topic: &str, partition: i32| match image.topics.partition(topic, partition) {
        _ if by_producer && is_internal(topic) => Some(ErrorCode::TopicAuthorizationFailed),
        None => Some(ErrorCode::UnknownTopicOrPartition),
        Some(_) => None,
    };
    if transaction.topics.iter().any(|topic| topic.partitions.iter().any(|p| error(&topic.name, *p).is_some())) {
        let told = |topic: &str, partition: i32| error(topic, partition).unwrap_or(ErrorCode::OperationNotAttempted);
        return add_partitions_error(transaction, told);
    }
    drop(image);
    broker.add_partitions_to_txn(context.api_version, transaction).await
}
