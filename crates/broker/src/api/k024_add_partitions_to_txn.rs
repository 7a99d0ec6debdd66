//! AddPartitionsToTxn, key 24, v0–v5.
//!
//! Behaviour: v0–v3 come from producers, one transaction each; from v4 on brokers ask for several transactions, either to
//! add partitions or only to verify that they are part of the transaction (KIP-890). Where one partition does not exist
//! nothing of the transaction is added, and the others are OPERATION_NOT_ATTEMPTED.

use std::sync::Arc;

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
    let exists = |topic: &str, partition: i32| image.topics.partition(topic, partition).is_some();
    if transaction.topics.iter().any(|topic| topic.partitions.iter().any(|p| !exists(&topic.name, *p))) {
        return add_partitions_error(transaction, |topic, partition| match exists(topic, partition) {
            true => ErrorCode::OperationNotAttempted,
            false => ErrorCode::UnknownTopicOrPartition,
        });
    }
    drop(image);
    broker.add_partitions_to_txn(context.api_version, transaction).await
}
