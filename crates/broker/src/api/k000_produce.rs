//! Produce, key 0, advertised v0–v13, served v3–v13.
//!
//! Behaviour: batches are checked and appended before this returns, in request order, so pipelined requests of one
//! connection keep their order; the acknowledgement waits for the journal where `acks=all` asks for the disk. acks=0
//! gets no reply, and a closed connection when anything failed, because the client would not learn of it otherwise.
//! The first batch of a transaction in a partition waits until the coordinator has said that the partition is part of the
//! transaction, and has what comes behind it wait too (`transactions/verification.rs`; KIP-890). From v12 on the partition
//! is added to the transaction by that.
//! Version notes: v13 names topics by id (KIP-516); v10 adds the current leader to NOT_LEADER answers (KIP-951).
//! v0–v2 are advertised for old librdkafka (KAFKA-18659) and refused like any version without a schema.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use taccola_base::planted::{Bug, planted};
use taccola_log::{AppendError, AppendOrigin, LogError};
use taccola_net::server::{Call, Reply};
use taccola_wire::batch::validate::{Validated, validate};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use taccola_wire::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, ProduceResponse,
    TopicProduceResponse,
};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::dispatch;
use crate::error_map;
use crate::partition::{AppendRejected, Durability, Partition};
use crate::runtime::journal::Ticket;
use crate::transactions::produce::{self as transaction, Begun, Verified};

const ACKS_ALL: i16 = -1;
const ACKS_NONE: i16 = 0;
/// The one client id that may write to internal topics (Kafka's `AdminUtils.ADMIN_CLIENT_ID`).
const ADMIN_CLIENT_ID: &str = "__admin_client";

/// First stage: everything up to the journal. See the module's text.
pub fn start(broker: &Arc<Broker>, context: RequestContext, request: ProduceRequest) -> Call {
    let acks = request.acks;
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    match transaction::begin(broker, &context, &request) {
        Err(error) => Call::Done(refuse_all(&context, &request, error)),
        Ok(Begun::Nothing) => {
            let (response, ticket) = append_all(broker, &context, request, &Verified::default());
            let Some(ticket) = ticket.filter(|_| acks != ACKS_NONE) else {
                return Call::Done(reply(&context, acks, &response));
            };
            let broker = broker.clone();
            Call::Pending(Box::pin(async move { acknowledged(&broker, &context, ticket, timeout, response).await }))
        }
        Ok(Begun::Ask(asked)) => {
            let broker = broker.clone();
            Call::Exclusive(Box::pin(async move {
                let verified = transaction::ask(&broker, &context, &request, asked).await;
                let (response, ticket) = append_all(&broker, &context, request, &verified);
                match ticket.filter(|_| acks != ACKS_NONE) {
                    None => reply(&context, acks, &response),
                    Some(ticket) => acknowledged(&broker, &context, ticket, timeout, response).await,
                }
            }))
        }
    }
}

fn append_all(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: ProduceRequest,
    verified: &Verified,
) -> (ProduceResponse, Option<Ticket>) {
    let acks = request.acks;
    let mut ticket = None;
    let mut response = ProduceResponse::default();
    for topic in request.topic_data.into_iter().filter(|topic| !topic.partition_data.is_empty()) {
        response.responses.push(append_topic(broker, context, acks, topic, verified, &mut ticket));
    }
    if acks != ACKS_NONE {
        add_current_leaders(broker, context, &mut response);
    }
    (response, ticket)
}

async fn acknowledged(
    broker: &Broker,
    context: &RequestContext,
    ticket: Ticket,
    timeout: Duration,
    mut response: ProduceResponse,
) -> Reply {
    finish(broker, ticket, timeout, &mut response).await;
    dispatch::encode(context, &response)
}

fn reply(context: &RequestContext, acks: i16, response: &ProduceResponse) -> Reply {
    if acks == ACKS_NONE { reply_to_no_acks(response) } else { dispatch::encode(context, response) }
}

/// The same error for every partition.
fn refuse_all(context: &RequestContext, request: &ProduceRequest, error: ErrorCode) -> Reply {
    let responses = request.topic_data.iter().map(|topic| TopicProduceResponse {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partition_responses: topic
            .partition_data
            .iter()
            .map(|p| Rejected::code(error).into_response(p.index))
            .collect(),
    });
    reply(context, request.acks, &ProduceResponse { responses: responses.collect(), ..Default::default() })
}

/// Second stage: waits for the disk. What the journal refuses was never acknowledged.
async fn finish(broker: &Broker, ticket: Ticket, timeout: Duration, response: &mut ProduceResponse) {
    if planted(Bug::AcknowledgeEarly) {
        return;
    }
    let waited = broker.journal.wait_for(ticket, timeout).await.map_err(|error| error_map::journal_wait(&error));
    if waited.is_ok() && !broker.lacks_log_dirs() {
        return;
    }
    for topic in &mut response.responses {
        let of_id = broker.partitions.topic_name(&topic.topic_id);
        let name = of_id.as_deref().unwrap_or(&topic.name);
        for partition in &mut topic.partition_responses {
            if partition.error_code != ErrorCode::None.code() {
                continue;
            }
            let error = waited.err().or_else(|| broker.lost_meanwhile(name, partition.index));
            if let Some(error) = error {
                *partition = PartitionProduceResponse {
                    index: partition.index,
                    error_code: error.code(),
                    base_offset: -1,
                    ..Default::default()
                };
            }
        }
    }
}

fn append_topic(
    broker: &Arc<Broker>,
    context: &RequestContext,
    acks: i16,
    topic: TopicProduceData,
    verified: &Verified,
    ticket: &mut Option<Ticket>,
) -> TopicProduceResponse {
    let by_id = context.api_version >= 13;
    let name = if by_id { broker.partitions.topic_name(&topic.topic_id) } else { Some(topic.name.as_str().into()) };
    let partition_responses = topic
        .partition_data
        .into_iter()
        .map(|data| {
            let index = data.index;
            let result = match &name {
                None => Err(Rejected::code(ErrorCode::UnknownTopicId)),
                Some(name) => append_partition(broker, context, acks, name, data, verified, ticket),
            };
            result.unwrap_or_else(|rejected| rejected.into_response(index))
        })
        .collect();
    TopicProduceResponse { name: topic.name, topic_id: topic.topic_id, partition_responses }
}

/// Why a partition's batch was not appended, in the words of the response.
struct Rejected {
    code: ErrorCode,
    message: Option<String>,
    record_errors: Vec<BatchIndexAndErrorMessage>,
    log_start_offset: i64,
    /// The log was not asked.
    of_request: bool,
}

impl Rejected {
    fn code(code: ErrorCode) -> Self {
        Self { code, message: None, record_errors: Vec::new(), log_start_offset: -1, of_request: false }
    }

    /// With where the log begins, unless the log was not asked, or has no say in what is wrong.
    fn with_log_start(self, partition: &Partition) -> Self {
        let silent = [
            ErrorCode::UnknownTopicOrPartition,
            ErrorCode::NotLeaderOrFollower,
            ErrorCode::MessageTooLarge,
            ErrorCode::RecordListTooLarge,
            ErrorCode::CorruptMessage,
            ErrorCode::KafkaStorageError,
        ];
        if self.of_request || silent.contains(&self.code) {
            return self;
        }
        let log_start_offset = partition.offsets().map_or(-1, |(_, _, log_start_offset)| log_start_offset);
        Self { log_start_offset, ..self }
    }

    fn into_response(self, index: i32) -> PartitionProduceResponse {
        PartitionProduceResponse {
            index,
            error_code: self.code.code(),
            base_offset: -1,
            log_start_offset: self.log_start_offset,
            record_errors: self.record_errors,
            error_message: self.message,
            ..Default::default()
        }
    }
}

fn append_partition(
    broker: &Arc<Broker>,
    context: &RequestContext,
    acks: i16,
    topic: &str,
    data: PartitionProduceData,
    verified: &Verified,
    ticket: &mut Option<Ticket>,
) -> Result<PartitionProduceResponse, Rejected> {
    if !matches!(acks, ACKS_ALL | ACKS_NONE | 1) {
        return Err(Rejected::code(ErrorCode::InvalidRequiredAcks));
    }
    if taccola_base::topic::is_internal(topic) && context.client_id() != ADMIN_CLIENT_ID {
        return Err(Rejected::code(ErrorCode::InvalidTopicException));
    }
    let origin = verified.origin(broker, context, topic, &data).map_err(Rejected::code)?;
    let partition = broker
        .partitions
        .get(topic, data.index)
        .ok_or_else(|| Rejected::code(broker.missing_partition_error(topic, data.index)))?;
    let records = data.records.unwrap_or_default();
    if let Some(reason) = broker.disk_space.refuses(partition.log_dir(), records.len()) {
        return Err(Rejected { message: Some(reason), ..Rejected::code(ErrorCode::KafkaStorageError) });
    }
    let index = data.index;
    let appended = append_records(broker, context, acks, index, &partition, records, origin, ticket);
    appended.map_err(|rejected| match origin {
        // Kafka finds out before it asks the coordinator, and long before the log.
        AppendOrigin::ClientTransaction { .. } if rejected.code == ErrorCode::InvalidProducerEpoch => rejected,
        _ => rejected.with_log_start(&partition),
    })
}

#[allow(clippy::too_many_arguments, reason = "the locals of its one caller")]
fn append_records(
    broker: &Arc<Broker>,
    context: &RequestContext,
    acks: i16,
    index: i32,
    partition: &Arc<Partition>,
    records: Bytes,
    origin: AppendOrigin,
    ticket: &mut Option<Ticket>,
) -> Result<PartitionProduceResponse, Rejected> {
    let mut batch = validated(broker, partition, context.api_version, records)?;
    if acks == ACKS_ALL {
        partition.check_min_isr().map_err(|error| Rejected::code(error_map::append(&error)))?;
    }
    let durability = if acks == ACKS_ALL { broker.acks_all_durability() } else { Durability::PageCache };
    let now_ms = broker.now_ms();
    let outcome = partition
        .append(&broker.journal, &mut batch.records, origin, durability, now_ms)
        .inspect_err(|error| {
            if matches!(error, AppendRejected::Log(AppendError::Storage(LogError::NoSpace { .. }))) {
                broker.disk_space.met_no_space(partition.log_dir());
            }
        })
        .map_err(|error| Rejected { message: Some(error.to_string()), ..Rejected::code(error_map::append(&error)) })?;
    broker.metrics.produced(batch.records.len());
    *ticket = (*ticket).max(outcome.ticket);
    Ok(PartitionProduceResponse {
        index,
        base_offset: outcome.base_offset,
        log_append_time_ms: outcome.log_append_time_ms,
        log_start_offset: outcome.log_start_offset,
        ..Default::default()
    })
}

fn validated(broker: &Broker, partition: &Partition, version: i16, records: Bytes) -> Result<Validated, Rejected> {
    let verify_records = broker.config.taccola.produce_verify_records;
    let settings = partition.topic_config().validation(version, verify_records, broker.now_ms());
    validate(records, &settings).map_err(|failure| Rejected {
        code: failure.code,
        of_request: failure.of_request,
        message: Some(failure.message),
        record_errors: failure
            .record_errors
            .into_iter()
            .map(|(batch_index, message)| BatchIndexAndErrorMessage {
                batch_index,
                batch_index_error_message: Some(message),
            })
            .collect(),
        log_start_offset: -1,
    })
}

/// acks=0: silence, or the end of the connection if anything failed.
fn reply_to_no_acks(response: &ProduceResponse) -> Reply {
    let failed = response.responses.iter().flat_map(|t| &t.partition_responses).find(|p| p.error_code != 0);
    match failed {
        None => Reply::None,
        Some(partition) => Reply::Close(format!("Produce with acks=0 failed with error {}", partition.error_code)),
    }
}

/// KIP-951: who leads now, so that the client need not ask.
fn add_current_leaders(broker: &Broker, context: &RequestContext, response: &mut ProduceResponse) {
    if context.api_version < 10 {
        return;
    }
    let not_leader = [ErrorCode::NotLeaderOrFollower.code(), ErrorCode::FencedLeaderEpoch.code()];
    let mut leaders = Vec::new();
    for topic in &mut response.responses {
        let name = if topic.name.is_empty() {
            broker.partitions.topic_name(&topic.topic_id)
        } else {
            Some(topic.name.as_str().into())
        };
        for partition in &mut topic.partition_responses {
            if !not_leader.contains(&partition.error_code) {
                continue;
            }
            let Some((leader_id, leader_epoch)) = name.as_ref().and_then(|n| broker.current_leader(n, partition.index))
            else {
                continue;
            };
            partition.current_leader = LeaderIdAndEpoch { leader_id, leader_epoch };
            leaders.push(leader_id);
        }
    }
    response.node_endpoints = broker
        .endpoints(&context.connection, &leaders)
        .into_iter()
        .map(|e| NodeEndpoint { node_id: e.node_id, host: e.host, port: e.port, rack: e.rack })
        .collect();
}
