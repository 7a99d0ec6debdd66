//! The one table of what this broker serves. ApiVersions, the refusal of everything else and the status table in the
//! README are derived from it: what has no row here is not advertised.
//!
//! A row is either `reply`, an async handler whose answer is whatever it returns, or `staged`, a handler that does what
//! must keep the connection's order before it returns and waits afterwards (Produce).
//!
//! Bytes of a request behind its last field are ignored, as Kafka ignores them: librdkafka sends three such bytes in every
//! Metadata request for all topics from version 9 on.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use taccola_net::server::{Call, ConnectionInfo, Reply, ReplyFrame, Service};
use taccola_wire::api::ApiKey;
use taccola_wire::codec::{DecodeError, Message, Reader};
use taccola_wire::frame::{self, HeaderError};

use crate::api;
use crate::broker::Broker;
use crate::clock;
use crate::context::RequestContext;
use crate::runtime::workers::Attendant;

type Start = fn(&Arc<Broker>, RequestContext, Reader) -> Result<Call, DecodeError>;

/// One API key: the versions that are advertised, and its handler.
pub struct Row {
    pub key: ApiKey,
    pub min_version: i16,
    pub max_version: i16,
    start: Start,
}

/// A row whose handler is `async fn handle(&Arc<Broker>, &RequestContext, Request) -> Response`.
macro_rules! reply {
    ($key:ident, $min:literal..=$max:literal, $module:ident) => {
        Row {
            key: ApiKey::$key,
            min_version: $min,
            max_version: $max,
            start: |broker, context, mut reader| {
                let request = Message::read(&mut reader, context.api_version)?;
                let broker = broker.clone();
                Ok(Call::Pending(Box::pin(async move {
                    let response = api::$module::handle(&broker, &context, request).await;
                    encode(&context, &response)
                })))
            },
        }
    };
}

/// A row whose handler is `fn start(&Arc<Broker>, RequestContext, Request) -> Call`.
macro_rules! staged {
    ($key:ident, $min:literal..=$max:literal, $module:ident) => {
        Row {
            key: ApiKey::$key,
            min_version: $min,
            max_version: $max,
            start: |broker, context, mut reader| {
                let request = Message::read(&mut reader, context.api_version)?;
                Ok(api::$module::start(broker, context, request))
            },
        }
    };
}

/// Everything that is served, in key order.
pub static TABLE: &[Row] = &[
    staged!(Produce, 0..=13, k000_produce),
    reply!(Fetch, 4..=18, k001_fetch),
    reply!(ListOffsets, 1..=11, k002_list_offsets),
    reply!(Metadata, 0..=13, k003_metadata),
    reply!(OffsetCommit, 2..=10, k008_offset_commit),
    reply!(OffsetFetch, 1..=10, k009_offset_fetch),
    reply!(FindCoordinator, 0..=6, k010_find_coordinator),
    reply!(JoinGroup, 0..=9, k011_join_group),
    reply!(Heartbeat, 0..=4, k012_heartbeat),
    reply!(LeaveGroup, 0..=5, k013_leave_group),
    reply!(SyncGroup, 0..=5, k014_sync_group),
    reply!(DescribeGroups, 0..=6, k015_describe_groups),
    reply!(ListGroups, 0..=5, k016_list_groups),
    reply!(ApiVersions, 0..=4, k018_api_versions),
    reply!(CreateTopics, 2..=7, k019_create_topics),
    reply!(DeleteTopics, 1..=6, k020_delete_topics),
    reply!(DeleteRecords, 0..=2, k021_delete_records),
    reply!(InitProducerId, 0..=5, k022_init_producer_id),
    reply!(OffsetForLeaderEpoch, 2..=4, k023_offset_for_leader_epoch),
    reply!(AddPartitionsToTxn, 0..=5, k024_add_partitions_to_txn),
    reply!(AddOffsetsToTxn, 0..=4, k025_add_offsets_to_txn),
    reply!(EndTxn, 0..=5, k026_end_txn),
    reply!(WriteTxnMarkers, 1..=2, k027_write_txn_markers),
    reply!(TxnOffsetCommit, 0..=5, k028_txn_offset_commit),
    reply!(DescribeConfigs, 1..=4, k032_describe_configs),
    reply!(AlterConfigs, 0..=2, k033_alter_configs),
    reply!(AlterReplicaLogDirs, 1..=2, k034_alter_replica_log_dirs),
    reply!(DescribeLogDirs, 1..=5, k035_describe_log_dirs),
    reply!(CreatePartitions, 0..=3, k037_create_partitions),
    reply!(DeleteGroups, 0..=2, k042_delete_groups),
    reply!(ElectLeaders, 0..=2, k043_elect_leaders),
    reply!(IncrementalAlterConfigs, 0..=1, k044_incremental_alter_configs),
    reply!(AlterPartitionReassignments, 0..=1, k045_alter_partition_reassignments),
    reply!(ListPartitionReassignments, 0..=0, k046_list_partition_reassignments),
    reply!(OffsetDelete, 0..=0, k047_offset_delete),
    reply!(DescribeQuorum, 0..=2, k055_describe_quorum),
    reply!(UpdateFeatures, 0..=2, k057_update_features),
    reply!(DescribeCluster, 0..=2, k060_describe_cluster),
    reply!(DescribeProducers, 0..=0, k061_describe_producers),
    reply!(UnregisterBroker, 0..=0, k064_unregister_broker),
    reply!(DescribeTransactions, 0..=0, k065_describe_transactions),
    reply!(ListTransactions, 0..=2, k066_list_transactions),
    reply!(ConsumerGroupHeartbeat, 0..=1, k068_consumer_group_heartbeat),
    reply!(ConsumerGroupDescribe, 0..=1, k069_consumer_group_describe),
    reply!(ListConfigResources, 0..=1, k074_list_config_resources),
    reply!(DescribeTopicPartitions, 0..=0, k075_describe_topic_partitions),
    reply!(ShareGroupHeartbeat, 1..=1, k076_share_group_heartbeat),
    reply!(ShareGroupDescribe, 1..=1, k077_share_group_describe),
    reply!(ShareFetch, 1..=2, k078_share_fetch),
    reply!(ShareAcknowledge, 1..=2, k079_share_acknowledge),
    reply!(InitializeShareGroupState, 0..=0, k083_initialize_share_group_state),
    reply!(ReadShareGroupState, 0..=0, k084_read_share_group_state),
    reply!(WriteShareGroupState, 0..=1, k085_write_share_group_state),
    reply!(DeleteShareGroupState, 0..=0, k086_delete_share_group_state),
    reply!(ReadShareGroupStateSummary, 0..=1, k087_read_share_group_state_summary),
    reply!(StreamsGroupHeartbeat, 0..=0, k088_streams_group_heartbeat),
    reply!(StreamsGroupDescribe, 0..=0, k089_streams_group_describe),
    reply!(DescribeShareGroupOffsets, 0..=1, k090_describe_share_group_offsets),
    reply!(AlterShareGroupOffsets, 0..=0, k091_alter_share_group_offsets),
    reply!(DeleteShareGroupOffsets, 0..=0, k092_delete_share_group_offsets),
];

/// The row of a key, if it is served.
pub fn row(key: i16) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.key as i16 == key)
}

/// Serves one connection's requests from the table.
pub struct Dispatcher {
    pub broker: Arc<Broker>,
    attendant: Attendant,
    refusals: Refusals,
}

impl Dispatcher {
    pub fn new(broker: Arc<Broker>, attendant: Attendant) -> Self {
        Self { broker, attendant, refusals: Refusals::default() }
    }
}

/// Lets one line in each [`REFUSALS_TOLD_EVERY_MS`] into the log: whoever floods the port does not flood the log.
#[derive(Debug, Default)]
struct Refusals {
    told_at_ms: AtomicI64,
}

/// Milliseconds between two lines about requests that are not understood.
const REFUSALS_TOLD_EVERY_MS: i64 = 1_000;

impl Refusals {
    fn may_tell(&self) -> bool {
        let (now_ms, told_at_ms) = (clock::now_ms(), self.told_at_ms.load(Ordering::Relaxed));
        now_ms.saturating_sub(told_at_ms).saturating_abs() >= REFUSALS_TOLD_EVERY_MS
            && self.told_at_ms.compare_exchange(told_at_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl Service for Dispatcher {
    fn serves(&self, api_key: i16, api_version: i16) -> bool {
        row(api_key).is_some_and(|row| (row.min_version..=row.max_version).contains(&api_version))
    }

    fn replies_at_length(&self, frame: &[u8]) -> bool {
        let key = frame.first_chunk::<2>().map(|key| i16::from_be_bytes(*key));
        [ApiKey::Fetch, ApiKey::ShareFetch].into_iter().any(|long| key == Some(long.code()))
    }

    fn overlaps(&self, frame: &[u8]) -> bool {
        frame.first_chunk::<2>().is_some_and(|key| i16::from_be_bytes(*key) == ApiKey::Produce as i16)
    }

    fn call(&self, connection: &Arc<ConnectionInfo>, frame: Bytes) -> Call {
        self.attendant.notice();
        start(&self.broker, connection, frame).unwrap_or_else(|reason| {
            if self.refusals.may_tell() {
                tracing::warn!(client = %connection.peer, reason, "closing a connection whose request is not understood");
            }
            Call::Done(Reply::Close(reason))
        })
    }

    fn disconnected(&self, connection: &ConnectionInfo) {
        self.broker.share_fetch.disconnected(connection.id);
    }
}

/// Decodes the header, finds the row, starts the handler. An error is the reason to close the connection: as in Kafka
/// there is no reply that a client could understand to a request whose schema is unknown.
fn start(broker: &Arc<Broker>, connection: &Arc<ConnectionInfo>, frame: Bytes) -> Result<Call, String> {
    let (key, header, reader) = match frame::decode_request_header(frame) {
        Ok(decoded) => decoded,
        Err(HeaderError::Unsupported { api_key, version, correlation_id }) => {
            return unsupported_version(api_key, version, correlation_id);
        }
        Err(error) => return Err(format!("malformed request header: {error}")),
    };
    let version = header.request_api_version;
    let row = row(key.code()).ok_or_else(|| format!("{key} is not served"))?;
    if !(row.min_version..=row.max_version).contains(&version) {
        return unsupported_version(key.code(), version, header.correlation_id);
    }
    let context = RequestContext {
        connection: connection.clone(),
        api_key: key,
        api_version: version,
        correlation_id: header.correlation_id,
        client_id: header.client_id,
    };
    (row.start)(broker, context, reader).map_err(|error| format!("malformed {key} v{version}: {error}"))
}

/// KIP-511: a too new ApiVersions is answered with version 0 and the range that is supported; anything else is refused.
fn unsupported_version(api_key: i16, api_version: i16, correlation_id: i32) -> Result<Call, String> {
    if api_key != ApiKey::ApiVersions.code() {
        return Err(format!("API key {api_key} v{api_version} is not served"));
    }
    let response = api::k018_api_versions::unsupported_version();
    frame::encode_response(correlation_id, ApiKey::ApiVersions, 0, &response)
        .map(|bytes| Call::Done(Reply::Frame(bytes.into())))
        .map_err(|error| error.to_string())
}

/// Encodes a handler's response. A response that its version cannot carry is a defect of ours: the connection is closed
/// rather than a wrong answer sent.
pub fn encode(context: &RequestContext, response: &impl Message) -> Reply {
    match frame::encode_response_chunks(context.correlation_id, context.api_key, context.api_version, response) {
        Ok(chunks) => Reply::Frame(ReplyFrame(chunks)),
        Err(error) => {
            tracing::error!(key = %context.api_key, version = context.api_version, %error, "cannot encode a response");
            Reply::Close(error.to_string())
        }
    }
}
