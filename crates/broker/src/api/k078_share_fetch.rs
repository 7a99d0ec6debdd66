//! ShareFetch, key 78, v1–v2.
//!
//! Behaviour: begins the acknowledgements that the request carries, then fetches from the session's partitions
//! (`share_fetch`), long-polling as Fetch does; the answer waits for both, and names the partitions with records, errors
//! or acknowledgements. The last request of a session (epoch -1) fetches nothing and gives back what the member has.
//! Version notes: v2 share acquire modes (KIP-1206) and renewals (KIP-1222): a request with renewals must not fetch.

use std::sync::Arc;
use std::time::Duration;

use taccola_base::Uuid;
use taccola_base::limits::REQUEST_PARTITIONS_MAX;
use taccola_coord::share_partition::AcquireMode;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::share_fetch_request::ShareFetchRequest;
use taccola_wire::messages::share_fetch_response::{
    AcquiredRecords, LeaderIdAndEpoch, NodeEndpoint, PartitionData, ShareFetchResponse, ShareFetchableTopicResponse,
};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::share_fetch::{
    self, Acknowledged, Acknowledgement, Fetched, ShareContext, ShareFetchParams, ShareGroupSettings, ShareMember,
    SharePartitionId, ShareSessionView,
};

/// Renewals came with this version.
const RENEWALS_SINCE: i16 = 2;
const BATCH_OPTIMIZED: i8 = 0;
const RECORD_LIMIT: i8 = 1;

pub async fn handle(broker: &Arc<Broker>, context: &RequestContext, request: ShareFetchRequest) -> ShareFetchResponse {
    let member = match share_fetch::member_of(broker, request.group_id.as_deref(), request.member_id.as_deref()) {
        Ok(member) => member,
        Err((error, message)) => return refused(error, message),
    };
    let named = request.topics.iter().map(|topic| topic.partitions.len());
    let forgotten = request.forgotten_topics_data.iter().map(|topic| topic.partitions.len());
    if named.chain(forgotten).sum::<usize>() > REQUEST_PARTITIONS_MAX {
        return refused(ErrorCode::InvalidRequest, "The request names too many partitions.");
    }
    let renewals = context.api_version >= RENEWALS_SINCE && request.is_renew_ack;
    let fetches = [request.max_bytes, request.min_bytes, request.max_records, request.max_wait_ms];
    if renewals && fetches.iter().any(|limit| *limit != 0) {
        return refused(ErrorCode::InvalidRequest, "A request with renew acknowledgements must not fetch.");
    }
    if !(BATCH_OPTIMIZED..=RECORD_LIMIT).contains(&request.share_acquire_mode) {
        return refused(ErrorCode::UnknownServerError, "There is no such share acquire mode.");
    }
    let max_wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let session = match session(broker, context, &member, &request) {
        Ok(session) => session,
        Err(ErrorCode::ShareSessionLimitReached) => {
            // Whoever is refused for want of room comes again at once: let it wait as a fetch would.
            tokio::select! {
                () = tokio::time::sleep(max_wait) => {}
                () = broker.stopping() => {}
            }
            return refused(ErrorCode::ShareSessionLimitReached, ErrorCode::ShareSessionLimitReached.message());
        }
        Err(error) => return refused(error, error.message()),
    };
    let settings = ShareGroupSettings::of(broker, &member.group);
    let acknowledgements = acknowledge(broker, &member, &settings, &request, renewals);
    let partitions = match session {
        ShareContext::Final => {
            broker.share_fetch.end_session(&member);
            Vec::new()
        }
        ShareContext::Fetch { partitions } => partitions,
    };
    let params = params(broker, &request, max_wait);
    let ended = async {
        let mut ended = Vec::with_capacity(acknowledgements.len());
        for acknowledgement in acknowledgements {
            ended.push(acknowledgement.end().await);
        }
        ended
    };
    let (fetched, acknowledged) = tokio::join!(share_fetch::fetch(broker, &member, &partitions, &params), ended);
    let mut response = ShareFetchResponse {
        acquisition_lock_timeout_ms: settings.limits.record_lock_duration_ms,
        ..Default::default()
    };
    build(&mut response, fetched, &acknowledged);
    add_leaders(broker, context, &mut response);
    response
}

fn refused(error: ErrorCode, message: &str) -> ShareFetchResponse {
    ShareFetchResponse { error_code: error.code(), error_message: Some(message.to_owned()), ..Default::default() }
}

fn session(
    broker: &Broker,
    context: &RequestContext,
    member: &ShareMember,
    request: &ShareFetchRequest,
) -> Result<ShareContext, ErrorCode> {
    let partitions: Vec<SharePartitionId> = request
        .topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|partition| (topic.topic_id, partition.partition_index)))
        .collect();
    let forgotten: Vec<SharePartitionId> = request
        .forgotten_topics_data
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|partition| (topic.topic_id, *partition)))
        .collect();
    let mut all = request.topics.iter().flat_map(|topic| &topic.partitions);
    let view = ShareSessionView {
        epoch: request.share_session_epoch,
        connection: context.connection.id,
        partitions: &partitions,
        forgotten: &forgotten,
        acknowledges: all.any(|partition| !partition.acknowledgement_batches.is_empty()),
    };
    broker.share_fetch.session_context(broker, member, &view)
}

fn acknowledge(
    broker: &Broker,
    member: &ShareMember,
    settings: &ShareGroupSettings,
    request: &ShareFetchRequest,
    renewals: bool,
) -> Vec<Acknowledgement> {
    let mut acknowledgements = Vec::new();
    for topic in &request.topics {
        for partition in topic.partitions.iter().filter(|partition| !partition.acknowledgement_batches.is_empty()) {
            let batches = partition.acknowledgement_batches.iter();
            let batches = batches.map(|b| (b.first_offset, b.last_offset, b.acknowledge_types.as_slice()));
            let batches = share_fetch::parse_batches(batches, renewals);
            let id = (topic.topic_id, partition.partition_index);
            acknowledgements.push(Acknowledgement::begin(broker, member, settings, id, batches));
        }
    }
    acknowledgements
}

fn params(broker: &Broker, request: &ShareFetchRequest, max_wait: Duration) -> ShareFetchParams {
    let max_bytes = request.max_bytes.min(broker.config.fetch.max_bytes);
    let mode = match request.share_acquire_mode {
        RECORD_LIMIT => AcquireMode::RecordLimit,
        _ => AcquireMode::BatchOptimized,
    };
    // Nothing can be acquired: nothing to wait for.
    let max_wait = if request.max_records <= 0 || max_bytes <= 0 { Duration::ZERO } else { max_wait };
    ShareFetchParams {
        max_wait,
        min_bytes: i64::from(request.min_bytes.min(max_bytes)),
        max_bytes: usize::try_from(max_bytes).unwrap_or(0),
        max_records: if max_bytes <= 0 { 0 } else { request.max_records },
        batch_size: request.batch_size,
        mode,
    }
}

fn build(response: &mut ShareFetchResponse, fetched: Vec<Fetched>, acknowledged: &[Acknowledged]) {
    for Fetched { id, error, records, acquired } in fetched {
        let acquired = acquired.iter().map(|range| AcquiredRecords {
            first_offset: range.first_offset,
            last_offset: range.last_offset,
            delivery_count: range.delivery_count,
        });
        let data = entry(response, id);
        (data.error_code, data.error_message) = error_fields(error);
        data.records = records;
        data.acquired_records = acquired.collect();
    }
    for Acknowledged { id, error } in acknowledged {
        let data = entry(response, *id);
        (data.acknowledge_error_code, data.acknowledge_error_message) = error_fields(*error);
    }
}

fn error_fields(error: ErrorCode) -> (i16, Option<String>) {
    (error.code(), (error != ErrorCode::None).then(|| error.message().to_owned()))
}

/// The partition's place in the answer, made where there is none.
fn entry(response: &mut ShareFetchResponse, (topic_id, partition_index): SharePartitionId) -> &mut PartitionData {
    let topics = &mut response.responses;
    let at = topics.iter().position(|topic| topic.topic_id == topic_id).unwrap_or_else(|| {
        topics.push(ShareFetchableTopicResponse { topic_id, partitions: Vec::new() });
        topics.len() - 1
    });
    // `at` was found or pushed just now, here and below.
    #[allow(clippy::indexing_slicing)]
    let partitions = &mut topics[at].partitions;
    let at = partitions.iter().position(|p| p.partition_index == partition_index).unwrap_or_else(|| {
        partitions.push(PartitionData { partition_index, ..Default::default() });
        partitions.len() - 1
    });
    #[allow(clippy::indexing_slicing)]
    &mut partitions[at]
}

/// The leaders of partitions that this broker does not lead, with their addresses.
fn add_leaders(broker: &Broker, context: &RequestContext, response: &mut ShareFetchResponse) {
    let mut leaders = Vec::new();
    for topic in &mut response.responses {
        for partition in &mut topic.partitions {
            let codes = [partition.error_code, partition.acknowledge_error_code];
            if let Some((leader_id, leader_epoch)) =
                leader_to_tell(broker, topic.topic_id, partition.partition_index, &codes)
            {
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

/// Leader and leader epoch, where the errors say that the client looks for them in the wrong place.
pub(super) fn leader_to_tell(broker: &Broker, topic_id: Uuid, partition: i32, codes: &[i16]) -> Option<(i32, i32)> {
    let wrong = [ErrorCode::NotLeaderOrFollower.code(), ErrorCode::FencedLeaderEpoch.code()];
    if !codes.iter().any(|code| wrong.contains(code)) {
        return None;
    }
    broker.current_leader(&broker.partitions.topic_name(&topic_id)?, partition)
}
