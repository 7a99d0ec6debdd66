//! ShareAcknowledge, key 79, v1–v2.
//!
//! Behaviour: the member's verdict on records that it was delivered; the answer waits until it is written. Each partition
//! is all or nothing. The last request of a session (epoch -1) gives back what the member still has.
//! Version notes: v2 renewals (KIP-1222), and the lock's duration in the answer.

use std::sync::Arc;

use taccola_base::limits::REQUEST_PARTITIONS_MAX;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::share_acknowledge_request::ShareAcknowledgeRequest;
use taccola_wire::messages::share_acknowledge_response::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionData, ShareAcknowledgeResponse, ShareAcknowledgeTopicResponse,
};

use super::k078_share_fetch::leader_to_tell;
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::share_fetch::{self, Acknowledgement, ShareGroupSettings};

/// Renewals came with this version.
const RENEWALS_SINCE: i16 = 2;

pub async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: ShareAcknowledgeRequest,
) -> ShareAcknowledgeResponse {
    let member = match share_fetch::member_of(broker, request.group_id.as_deref(), request.member_id.as_deref()) {
        Ok(member) => member,
        Err((error, message)) => return refused(error, message),
    };
    if request.topics.iter().map(|topic| topic.partitions.len()).sum::<usize>() > REQUEST_PARTITIONS_MAX {
        return refused(ErrorCode::InvalidRequest, "The request names too many partitions.");
    }
    let is_last = match broker.share_fetch.session_acknowledge(&member, request.share_session_epoch) {
        Ok(is_last) => is_last,
        Err(error) => return refused(error, error.message()),
    };
    let renewals = context.api_version >= RENEWALS_SINCE && request.is_renew_ack;
    let settings = ShareGroupSettings::of(broker, &member.group);
    let mut acknowledgements = Vec::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let batches = partition.acknowledgement_batches.iter();
            let batches = batches.map(|b| (b.first_offset, b.last_offset, b.acknowledge_types.as_slice()));
            let batches = share_fetch::parse_batches(batches, renewals);
            let id = (topic.topic_id, partition.partition_index);
            acknowledgements.push(Acknowledgement::begin(broker, &member, &settings, id, batches));
        }
    }
    if is_last {
        broker.share_fetch.end_session(&member);
    }
    let mut response = ShareAcknowledgeResponse {
        acquisition_lock_timeout_ms: settings.limits.record_lock_duration_ms,
        ..Default::default()
    };
    for acknowledgement in acknowledgements {
        let done = acknowledgement.end().await;
        let error_message = (done.error != ErrorCode::None).then(|| done.error.message().to_owned());
        let (topic_id, partition_index) = done.id;
        let data =
            PartitionData { partition_index, error_code: done.error.code(), error_message, ..Default::default() };
        match response.responses.iter_mut().find(|topic| topic.topic_id == topic_id) {
            Some(topic) => topic.partitions.push(data),
            None => response.responses.push(ShareAcknowledgeTopicResponse { topic_id, partitions: vec![data] }),
        }
    }
    add_leaders(broker, context, &mut response);
    response
}

fn refused(error: ErrorCode, message: &str) -> ShareAcknowledgeResponse {
    ShareAcknowledgeResponse { error_code: error.code(), error_message: Some(message.to_owned()), ..Default::default() }
}

/// The leaders of partitions that this broker does not lead, with their addresses.
fn add_leaders(broker: &Broker, context: &RequestContext, response: &mut ShareAcknowledgeResponse) {
    let mut leaders = Vec::new();
    for topic in &mut response.responses {
        for partition in &mut topic.partitions {
            let leader = leader_to_tell(broker, topic.topic_id, partition.partition_index, &[partition.error_code]);
            if let Some((leader_id, leader_epoch)) = leader {
                partition.current_leader = LeaderIdAndEpoch { leader_id, leader_epoch };
                leaders.push(leader_id);
            }
        }
    }
    if leaders.is_empty() {
        return;
    }
    let endpoints = broker.endpoints(&context.connection, &leaders).into_iter();
    response.node_endpoints =
        endpoints.map(|e| NodeEndpoint { node_id: e.node_id, host: e.host, port: e.port, rack: e.rack }).collect();
}
