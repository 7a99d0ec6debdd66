//! Fetch, key 1, v4–v18.
//!
//! Behaviour: finds out what to read (a whole request, or a session's partitions: `fetch::session`), reads, and when
//! that is less than `min_bytes` waits on all partitions at once for more to become visible, an error, or the end of
//! `max_wait_ms`. The first partition with data is answered even if its first batch is larger than every limit. Records
//! are not held while waiting for more, and what is read is reserved first, so that many fetches that wake at once share
//! the memory for replies: they get less, as if they had asked for less. Offsets that are in remote storage only are read
//! from there, all partitions at once, for `remote.fetch.max.wait.ms`; such a fetch does not wait for more.
//! Version notes: v7 sessions (KIP-227), v12 diverging epochs, v13 topic ids (KIP-516), v16 node endpoints (KIP-951).
//! A request with a replica id is refused until followers exist: nothing but a broker may claim to be one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use taccola_base::Uuid;
use taccola_base::limits::FETCH_BYTES_ALWAYS;
use taccola_log::ReadError;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::fetch_request::FetchRequest;
use taccola_wire::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchResponse, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint,
    PartitionData,
};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::error_map;
use crate::fetch::session::{
    Answer, FetchContext, FetchKey, FetchPosition, FetchRequestView, FetchTopicName, SharedSession,
};
use crate::fetch::waiter::FetchWaiter;
use crate::partition::{EpochCheck, FetchIsolation, Partition, PartitionRead, ReadRejected};

/// Topic ids came with this version; names went.
const TOPIC_IDS_SINCE: i16 = 13;

pub async fn handle(broker: &Arc<Broker>, context: &RequestContext, request: FetchRequest) -> FetchResponse {
    if request.replica_id >= 0 || request.replica_state.replica_id >= 0 {
        return FetchResponse { error_code: ErrorCode::ClusterAuthorizationFailed.code(), ..Default::default() };
    }
    let isolation = match request.isolation_level {
        0 => FetchIsolation::HighWatermark,
        1 => FetchIsolation::TxnCommitted,
        _ => return refused(context.api_version, request, ErrorCode::UnknownServerError),
    };
    let limits = Limits {
        max_bytes: usize::try_from(request.max_bytes.min(broker.config.fetch.max_bytes)).unwrap_or(0),
        min_bytes: i64::from(request.min_bytes.min(request.max_bytes).min(broker.config.fetch.max_bytes)),
        max_wait: Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)),
    };
    let fetch_context = broker.fetch_context(view(broker, context.api_version, request));
    let (partitions, scope) = match fetch_context {
        FetchContext::Error(error) => return FetchResponse { error_code: error.code(), ..Default::default() },
        FetchContext::Sessionless { partitions } => (partitions, Scope::All(None)),
        FetchContext::Full { session, partitions } => (partitions, Scope::All(session)),
        FetchContext::Incremental { session, partitions } => (partitions, Scope::News(session)),
    };
    let read = read_or_wait(broker, &partitions, isolation, limits).await;
    let mut response = build(read, scope);
    add_node_endpoints(broker, context, &mut response);
    response
}

/// The same error for all that was asked for. Clients of topic ids are told it once.
fn refused(version: i16, request: FetchRequest, error: ErrorCode) -> FetchResponse {
    let topics = if version < TOPIC_IDS_SINCE { request.topics } else { Vec::new() };
    let responses = topics.into_iter().map(|topic| FetchableTopicResponse {
        topic: topic.topic,
        topic_id: topic.topic_id,
        partitions: topic.partitions.iter().map(|partition| error_data(partition.partition, error)).collect(),
    });
    FetchResponse { error_code: error.code(), responses: responses.collect(), ..Default::default() }
}

#[derive(Clone, Copy)]
struct Limits {
    max_bytes: usize,
    min_bytes: i64,
    max_wait: Duration,
}

/// Which of the partitions that were read are answered.
enum Scope {
    All(Option<SharedSession>),
    News(SharedSession),
}

/// The request in the terms of sessions. The same partition twice: the last one wins.
fn view(broker: &Broker, version: i16, request: FetchRequest) -> FetchRequestView {
    let uses_topic_ids = version >= TOPIC_IDS_SINCE;
    let topic_name = |name: &str, id: Uuid| match uses_topic_ids {
        true => FetchTopicName::Id(id),
        false => FetchTopicName::Name(name.into()),
    };
    let mut partitions: Vec<(FetchKey, FetchPosition)> = Vec::new();
    let mut seen: HashMap<FetchKey, usize> = HashMap::new();
    for topic in request.topics {
        let name = topic_name(&topic.topic, topic.topic_id);
        let name_of_id = if uses_topic_ids { broker.partitions.topic_name(&topic.topic_id) } else { None };
        for p in topic.partitions {
            let key = FetchKey { topic: name.clone(), partition: p.partition };
            let position = FetchPosition {
                topic_name: name_of_id.clone(),
                fetch_offset: p.fetch_offset,
                log_start_offset: p.log_start_offset,
                partition_max_bytes: p.partition_max_bytes,
                current_leader_epoch: p.current_leader_epoch,
                last_fetched_epoch: p.last_fetched_epoch,
            };
            match seen.get(&key).and_then(|at| partitions.get_mut(*at)) {
                Some(entry) => entry.1 = position,
                None => {
                    seen.insert(key.clone(), partitions.len());
                    partitions.push((key, position));
                }
            }
        }
    }
    let forgotten = request.forgotten_topics_data.into_iter().flat_map(|topic| {
        let name = topic_name(&topic.topic, topic.topic_id);
        topic.partitions.into_iter().map(move |partition| FetchKey { topic: name.clone(), partition })
    });
    FetchRequestView {
        session_id: request.session_id,
        session_epoch: request.session_epoch,
        uses_topic_ids,
        partitions,
        forgotten: forgotten.collect(),
    }
}

/// One partition's answer, and what a waiter needs to know of it.
struct Outcome {
    key: FetchKey,
    data: PartitionData,
    partition: Option<Arc<Partition>>,
    upper_bound: i64,
    /// Still to be read from remote storage.
    remote: Option<RemotePart>,
}

struct RemotePart {
    offset: i64,
    max_bytes: usize,
    min_one_batch: bool,
}

/// Reads all partitions; when that is too little, waits for more and reads once again.
async fn read_or_wait(
    broker: &Arc<Broker>,
    partitions: &[(FetchKey, FetchPosition)],
    isolation: FetchIsolation,
    limits: Limits,
) -> Vec<Outcome> {
    let (first, bytes, remote) = read_all(broker, partitions, isolation, limits.max_bytes).await;
    let at_once = bytes >= limits.min_bytes
        || limits.max_wait.is_zero()
        || partitions.is_empty()
        || remote
        || first.iter().any(|o| o.data.error_code != 0 || o.data.diverging_epoch.epoch >= 0);
    if at_once {
        return first;
    }
    let waiter = FetchWaiter::new(limits.min_bytes - bytes);
    for outcome in &first {
        if let Some(partition) = &outcome.partition {
            partition.register_waiter(&waiter, isolation, outcome.upper_bound);
        }
    }
    let unchanged = (bytes == 0).then_some(first);
    let woken = tokio::select! {
        result = tokio::time::timeout(limits.max_wait, waiter.woken()) => result.is_ok(),
        () = broker.stopping() => false,
    };
    waiter.finish();
    match unchanged {
        Some(first) if !woken => first,
        _ => read_all(broker, partitions, isolation, limits.max_bytes).await.0,
    }
}

fn records_len(outcome: &Outcome) -> i64 {
    outcome.data.records.as_ref().map_or(0, |records| records.len() as i64)
}

/// Reads all partitions in their order, and says how many bytes of records that gave, and whether remote storage was asked.
async fn read_all(
    broker: &Broker,
    partitions: &[(FetchKey, FetchPosition)],
    isolation: FetchIsolation,
    max_bytes: usize,
) -> (Vec<Outcome>, i64, bool) {
    // Held until all is read; the connection counts the reply from then on.
    let room = broker.replies.reserve(max_bytes, FETCH_BYTES_ALWAYS);
    let mut left = room.bytes();
    let mut first = true;
    let read_one = |(key, position): &(FetchKey, FetchPosition)| {
        let outcome = read_partition(broker, key, position, isolation, left, first);
        // What will be read remotely counts as read, so that all together keep the limit.
        let bytes = match &outcome.remote {
            Some(remote) => remote.max_bytes,
            None => outcome.data.records.as_ref().map_or(0, |records| records.len()),
        };
        left = left.saturating_sub(bytes);
        first &= bytes == 0;
        outcome
    };
    let mut outcomes: Vec<Outcome> = partitions.iter().map(read_one).collect();
    let remote = outcomes.iter_mut().filter(|outcome| outcome.remote.is_some());
    let remote: Vec<_> = remote.map(|outcome| read_remote(broker, outcome, isolation)).collect();
    let asked_remote = !futures_util::future::join_all(remote).await.is_empty();
    drop(room);
    let bytes = outcomes.iter().map(records_len).sum();
    (outcomes, bytes, asked_remote)
}

/// The second half of a read whose offset is in remote storage only. What does not come in time is not there yet: the client asks
/// again, and the store's answer is kept for it.
async fn read_remote(broker: &Broker, outcome: &mut Outcome, isolation: FetchIsolation) {
    let (Some(storage), Some(partition)) = (&broker.remote, &outcome.partition) else { return };
    let Some(RemotePart { offset, max_bytes, min_one_batch }) = outcome.remote.take() else { return };
    let read = crate::tier::read_partition(storage, partition, offset, max_bytes, min_one_batch, isolation);
    let index = outcome.key.partition;
    let max_wait = broker.dynamic_config().remote.fetch_max_wait;
    outcome.data = match tokio::time::timeout(max_wait, read).await {
        Ok(Ok(read)) => {
            outcome.upper_bound = read.upper_bound;
            read_data(index, read, isolation)
        }
        Ok(Err(error)) => {
            tracing::warn!(partition = %partition.topic_partition, %error, "a read from remote storage");
            error_data(index, error_map::remote_read(&error))
        }
        Err(_) => PartitionData {
            records: Some(Default::default()),
            aborted_transactions: (isolation == FetchIsolation::TxnCommitted).then(Vec::new),
            ..offsets_data(index, partition)
        },
    };
}

fn read_data(partition_index: i32, read: PartitionRead, isolation: FetchIsolation) -> PartitionData {
    let aborted = read.aborted_txns.iter();
    let aborted = aborted.map(|t| AbortedTransaction { producer_id: t.producer_id, first_offset: t.first_offset });
    PartitionData {
        partition_index,
        high_watermark: read.high_watermark,
        last_stable_offset: read.last_stable_offset,
        log_start_offset: read.log_start_offset,
        aborted_transactions: (isolation == FetchIsolation::TxnCommitted).then(|| aborted.collect()),
        records: Some(read.records),
        ..Default::default()
    }
}

fn read_partition(
    broker: &Broker,
    key: &FetchKey,
    position: &FetchPosition,
    isolation: FetchIsolation,
    max_bytes: usize,
    min_one_batch: bool,
) -> Outcome {
    let failed = |error: ErrorCode, partition: Option<Arc<Partition>>| Outcome {
        key: key.clone(),
        data: error_data(key.partition, error),
        partition,
        upper_bound: -1,
        remote: None,
    };
    let partition = match find(broker, key, position) {
        Ok(partition) => partition,
        Err(error) => return failed(error, None),
    };
    match partition.check_leader_epoch(position.current_leader_epoch) {
        EpochCheck::Ok => {}
        EpochCheck::Fenced => return of_the_log(failed(ErrorCode::FencedLeaderEpoch, Some(partition))),
        EpochCheck::Unknown => return of_the_log(failed(ErrorCode::UnknownLeaderEpoch, Some(partition))),
    }
    if let Some(diverging) = diverging_epoch(&partition, position) {
        let data = PartitionData {
            diverging_epoch: diverging,
            records: Some(Default::default()),
            ..offsets_data(key.partition, &partition)
        };
        return Outcome { key: key.clone(), data, upper_bound: -1, partition: Some(partition), remote: None };
    }
    let partition_max_bytes = usize::try_from(position.partition_max_bytes).unwrap_or(0).min(max_bytes);
    match partition.read(position.fetch_offset, partition_max_bytes, min_one_batch, isolation) {
        Ok(read) => {
            let upper_bound = read.upper_bound;
            let data = read_data(key.partition, read, isolation);
            Outcome { key: key.clone(), data, upper_bound, partition: Some(partition), remote: None }
        }
        Err(ReadRejected::Log(ReadError::InRemoteStorage { offset, .. })) if broker.remote.is_some() => {
            let remote = Some(RemotePart { offset, max_bytes: partition_max_bytes, min_one_batch });
            Outcome { remote, ..failed(ErrorCode::OffsetMovedToTieredStorage, Some(partition)) }
        }
        Err(ReadRejected::Log(ReadError::OffsetOutOfRange { .. })) => {
            of_the_log(failed(ErrorCode::OffsetOutOfRange, Some(partition)))
        }
        Err(error) => failed(error_map::read(&error), Some(partition)),
    }
}

/// An error that Kafka learns of from the log names no aborted transactions, not even none, whatever the isolation.
fn of_the_log(outcome: Outcome) -> Outcome {
    Outcome { data: PartitionData { aborted_transactions: None, ..outcome.data }, ..outcome }
}

/// The partition that a request means. An id whose name is known is looked up by name, as in Kafka: a topic that was
/// deleted since is UNKNOWN_TOPIC_OR_PARTITION, one that was made anew INCONSISTENT_TOPIC_ID.
fn find(broker: &Broker, key: &FetchKey, position: &FetchPosition) -> Result<Arc<Partition>, ErrorCode> {
    let get = |name: &str| {
        broker.partitions.get(name, key.partition).ok_or_else(|| broker.missing_partition_error(name, key.partition))
    };
    match &key.topic {
        FetchTopicName::Name(name) => get(name),
        FetchTopicName::Id(id) => {
            let name = position.topic_name.clone().or_else(|| broker.partitions.topic_name(id));
            let partition = get(&name.ok_or(ErrorCode::UnknownTopicId)?)?;
            if partition.topic_id == *id { Ok(partition) } else { Err(ErrorCode::InconsistentTopicId) }
        }
    }
}

/// KIP-595: where the client's log parts from ours, if it fetched in an epoch that ended before its offset.
fn diverging_epoch(partition: &Partition, position: &FetchPosition) -> Option<EpochEndOffset> {
    if position.last_fetched_epoch < 0 {
        return None;
    }
    let end = partition.with_log(|log| log.epoch_end_offset(position.last_fetched_epoch))?;
    let diverges = end.leader_epoch < position.last_fetched_epoch || end.end_offset < position.fetch_offset;
    diverges.then_some(EpochEndOffset { epoch: end.leader_epoch, end_offset: end.end_offset })
}

fn offsets_data(partition_index: i32, partition: &Partition) -> PartitionData {
    let (high_watermark, last_stable_offset, log_start_offset) = partition.offsets().unwrap_or((-1, -1, -1));
    PartitionData { partition_index, high_watermark, last_stable_offset, log_start_offset, ..Default::default() }
}

fn error_data(partition_index: i32, error: ErrorCode) -> PartitionData {
    PartitionData {
        partition_index,
        error_code: error.code(),
        high_watermark: -1,
        last_stable_offset: -1,
        log_start_offset: -1,
        aborted_transactions: Some(Vec::new()),
        records: Some(Default::default()),
        ..Default::default()
    }
}

/// Puts the answers that the client shall see under their topics, in the order in which they were read.
fn build(outcomes: Vec<Outcome>, scope: Scope) -> FetchResponse {
    let (session, always) = match &scope {
        Scope::All(session) => (session.as_ref(), true),
        Scope::News(session) => (Some(session), false),
    };
    let mut locked = session.map(|session| session.lock());
    let mut response = FetchResponse { session_id: locked.as_ref().map_or(0, |s| s.id), ..Default::default() };
    for outcome in outcomes {
        let answer = Answer {
            high_watermark: outcome.data.high_watermark,
            log_start_offset: outcome.data.log_start_offset,
            has_records: records_len(&outcome) > 0,
            must_tell: outcome.data.error_code != 0 || outcome.data.diverging_epoch.epoch >= 0,
        };
        let told = locked.as_mut().is_none_or(|session| session.tell(&outcome.key, answer, always));
        if told {
            topic_entry(&mut response.responses, &outcome.key.topic).partitions.push(outcome.data);
        }
    }
    response
}

/// The last topic of the response if it is this one, else a new entry: partitions of one topic come one after another.
fn topic_entry<'a>(
    topics: &'a mut Vec<FetchableTopicResponse>,
    topic: &FetchTopicName,
) -> &'a mut FetchableTopicResponse {
    let (name, id) = match topic {
        FetchTopicName::Name(name) => (name.as_ref(), Uuid::ZERO),
        FetchTopicName::Id(id) => ("", *id),
    };
    let at = topics.iter().position(|t| t.topic == name && t.topic_id == id);
    let at = at.unwrap_or_else(|| {
        topics.push(FetchableTopicResponse { topic: name.to_owned(), topic_id: id, partitions: Vec::new() });
        topics.len() - 1
    });
    // `at` was found or pushed just now.
    #[allow(clippy::indexing_slicing)]
    &mut topics[at]
}

/// KIP-951: the leaders of partitions that this broker does not lead, with their addresses.
fn add_node_endpoints(broker: &Broker, context: &RequestContext, response: &mut FetchResponse) {
    if context.api_version < 16 {
        return;
    }
    let not_leader = [ErrorCode::NotLeaderOrFollower.code(), ErrorCode::FencedLeaderEpoch.code()];
    let mut leaders = Vec::new();
    for topic in &mut response.responses {
        let Some(name) = broker.partitions.topic_name(&topic.topic_id) else { continue };
        for partition in topic.partitions.iter_mut().filter(|p| not_leader.contains(&p.error_code)) {
            if let Some((leader_id, leader_epoch)) = broker.current_leader(&name, partition.partition_index) {
                partition.current_leader = LeaderIdAndEpoch { leader_id, leader_epoch };
                leaders.push(leader_id);
            }
        }
    }
    let endpoints = broker.endpoints(&context.connection, &leaders).into_iter();
    response.node_endpoints =
        endpoints.map(|e| NodeEndpoint { node_id: e.node_id, host: e.host, port: e.port, rack: e.rack }).collect();
}
