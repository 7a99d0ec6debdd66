//! What goes into a shard with a request and what comes out of it. The caller owns the log, the clock and the sockets;
//! a shard names what it wants of them here.

use std::sync::Arc;

use bytes::Bytes;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::delete_groups_response::DeletableGroupResult;
use taccola_wire::messages::offset_fetch_response::OffsetFetchResponseGroup;
use taccola_wire::messages::{
    ConsumerGroupHeartbeatResponse, JoinGroupResponse, LeaveGroupResponse, OffsetCommitResponse, OffsetDeleteResponse,
    SyncGroupResponse, TxnOffsetCommitResponse,
};

use crate::share::ShareReply;
use crate::streams::StreamsHeartbeat;

/// The caller's name for a request whose reply may have to wait. Unique among the requests that a shard has not
/// answered yet; each is answered exactly once, by [`Reply::Now`] or by one [`Released`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestToken(pub u64);

/// The shard's name for the records of one [`Effects`]. Ascends in the order in which they must be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppendId(pub u64);

/// Who asks, and in which version.
#[derive(Clone, Copy, Debug)]
pub struct RequestContext<'a> {
    pub token: RequestToken,
    pub api_version: i16,
    pub client_id: &'a str,
    /// As Kafka stores and shows it: a slash and the address, `/127.0.0.1`.
    pub client_host: &'a str,
    /// Sixteen random bytes that no other request has: a new member's id is made of them.
    pub fresh_id: [u8; 16],
}

/// One record for `__consumer_offsets`, without a timestamp: the caller stamps it with the time of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoordinatorRecord {
    pub key: Bytes,
    /// `None` is a tombstone.
    pub value: Option<Bytes>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Reply<R> {
    Now(R),
    /// Comes later as a [`Released`] under the request's token.
    Parked,
}

/// What a step of a shard asks of its caller, in any order except that the records of one shard are appended in the
/// order of their [`AppendId`]s. `P` are the replies that can be parked, `K` the timers, `A` what else is to be done
/// outside of the shard; the defaults are those of [`GroupShard`](crate::GroupShard).
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Effects<R, P = Response, K = TimerKey, A = GroupAction> {
    /// To append, in this order; several batches will do.
    pub records: Vec<CoordinatorRecord>,
    /// As what the records are appended; an end marker has no records.
    pub batch: BatchKind,
    /// Under this id the caller reports the fate of the append. `None` exactly when there is nothing to append.
    pub append: Option<AppendId>,
    pub response: Reply<R>,
    pub released: Vec<Released<P>>,
    pub timers: Vec<TimerOp<K>>,
    pub actions: Vec<A>,
}

/// What a group shard asks for besides records, replies and timers. The broker does it after the step, in the order in
/// which it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupAction {}

/// What the batches of an append say about transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchKind {
    #[default]
    Plain,
    /// Part of a producer's open transaction; without sequence numbers.
    /// `verification`: the guard under which the transaction may begin in this partition (KIP-890).
    Transactional { producer_id: i64, producer_epoch: i16, verification: Option<u64> },
    /// The control record that ends the producer's transaction in this partition.
    EndMarker {
        producer_id: i64,
        producer_epoch: i16,
        commit: bool,
        coordinator_epoch: i32,
        /// 0, 1 or 2: from 2 on the marker must carry a higher epoch than the records (KIP-890).
        transaction_version: i16,
    },
}

/// A reply that was parked and goes out now.
#[derive(Clone, Debug, PartialEq)]
pub struct Released<P = Response> {
    pub token: RequestToken,
    pub response: P,
}

/// The replies that can be parked.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    JoinGroup(JoinGroupResponse),
    SyncGroup(SyncGroupResponse),
    LeaveGroup(LeaveGroupResponse),
    OffsetCommit(OffsetCommitResponse),
    TxnOffsetCommit(TxnOffsetCommitResponse),
    /// Of a transaction's end in this partition.
    EndMarker(ErrorCode),
    /// The share of one group in an OffsetFetch.
    OffsetFetch(OffsetFetchResponseGroup),
    OffsetDelete(OffsetDeleteResponse),
    /// The share of one shard in a DeleteGroups.
    DeleteGroups(Vec<DeletableGroupResult>),
    ConsumerGroupHeartbeat(ConsumerGroupHeartbeatResponse),
    Streams(Box<StreamsHeartbeat>),
    Share(ShareReply),
}

impl Response {
    /// The same reply after its records could not be written.
    pub(crate) fn into_failure(self, error: ErrorCode) -> Self {
        let code = error.code();
        match self {
            Response::JoinGroup(mut r) => {
                r.error_code = code;
                Response::JoinGroup(r)
            }
            Response::SyncGroup(mut r) => {
                r.error_code = code;
                Response::SyncGroup(r)
            }
            Response::LeaveGroup(_) => {
                Response::LeaveGroup(LeaveGroupResponse { error_code: code, ..Default::default() })
            }
            Response::OffsetCommit(mut r) => {
                r.topics.iter_mut().flat_map(|t| &mut t.partitions).for_each(|p| p.error_code = code);
                Response::OffsetCommit(r)
            }
            Response::TxnOffsetCommit(mut r) => {
                r.topics.iter_mut().flat_map(|t| &mut t.partitions).for_each(|p| p.error_code = code);
                Response::TxnOffsetCommit(r)
            }
            Response::EndMarker(_) => Response::EndMarker(error),
            Response::OffsetFetch(g) => Response::OffsetFetch(OffsetFetchResponseGroup {
                group_id: g.group_id,
                error_code: code,
                ..Default::default()
            }),
            Response::OffsetDelete(_) => {
                Response::OffsetDelete(OffsetDeleteResponse { error_code: code, ..Default::default() })
            }
            Response::DeleteGroups(mut results) => {
                results.iter_mut().for_each(|r| r.error_code = code);
                Response::DeleteGroups(results)
            }
            Response::Share(reply) => Response::Share(reply.into_failure(error)),
            Response::Streams(_) => Response::Streams(Box::new(StreamsHeartbeat::refused(error, None))),
            Response::ConsumerGroupHeartbeat(_) => Response::ConsumerGroupHeartbeat(ConsumerGroupHeartbeatResponse {
                error_code: code,
                ..Default::default()
            }),
        }
    }
}

/// A timer has one deadline at a time: setting it again moves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimerOp<K = TimerKey> {
    Set {
        key: K,
        /// Milliseconds on the clock of `now_ms`; may lie in the past.
        deadline_ms: i64,
    },
    Cancel {
        key: K,
    },
}

/// A timer that fires late, twice or after it was cancelled does no harm: the shard compares with what it waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimerKey {
    /// A member's session, or the time in which a member that was given an id must come back with it.
    Session { group: Arc<str>, member: Arc<str> },
    /// The time in which the members must rejoin, and the initial rebalance delay.
    Join { group: Arc<str> },
    /// The time in which the members must fetch their assignment.
    Sync { group: Arc<str> },
    /// A modern member's session (consumer, share and streams groups).
    ModernSession { group: Arc<str>, member: Arc<str> },
    /// The time in which a modern member must give back what it is asked to.
    ModernRebalance { group: Arc<str>, member: Arc<str> },
    /// What a modern group as a whole waits for: its next assignment, or a refresh.
    ModernGroup { group: Arc<str> },
    /// The next look for expired offsets and abandoned groups.
    Expiration,
}
