//! Share groups' reads and acknowledgements (KIP-932): sessions, the share-partitions that this broker leads, and the long
//! poll over them. Answers to Kafka's `SharePartitionManager`, `SharePartitionCache` and `DelayedShareFetch`.
//!
//! A share-partition is loaded by the first fetch that needs it and lives until no member of its group has a session on
//! this broker, its topic is gone, or it is fenced. LIMIT: the sessions' partitions.

mod acknowledge;
mod fetch;
mod leader;
mod session;
mod settings;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use taccola_coord::share_state::SharePartitionKey;
use taccola_meta::feature::SHARE_VERSION;
use taccola_wire::error::ErrorCode;

use crate::broker::Broker;
use crate::partition::Partition;

pub use acknowledge::{Acknowledged, Acknowledgement, parse_batches};
pub use fetch::{Fetched, ShareFetchParams, fetch};
pub use leader::ShareLeader;
pub use session::{EPOCH_FINAL, EPOCH_INITIAL, ShareContext, ShareMember, SharePartitionId, ShareSessionView};
pub use settings::ShareGroupSettings;

/// Members' ids are no longer than this; Kafka's are UUIDs in 22 characters, those of clients may be in 36.
const MEMBER_ID_LEN_MAX: usize = 36;

type Leaders = HashMap<SharePartitionId, Arc<ShareLeader>>;

/// All sessions and share-partitions of this broker.
#[derive(Debug, Default)]
pub struct ShareFetchRuntime {
    sessions: Mutex<session::ShareSessionCache>,
    leaders: Mutex<HashMap<Arc<str>, Leaders>>,
}

impl ShareFetchRuntime {
    /// A connection ended: the sessions on it end with it.
    pub fn disconnected(&self, connection: u64) {
        let members = self.sessions.lock().disconnected(connection);
        for member in members {
            self.release(&member);
        }
    }

    /// Ends a session, and gives back what its member has.
    pub fn end_session(&self, member: &ShareMember) {
        self.sessions.lock().remove(member);
        self.release(member);
    }

    /// Gives back what a member without a session has anywhere.
    fn release(&self, member: &ShareMember) {
        let leaders: Vec<Arc<ShareLeader>> = match self.leaders.lock().get(&member.group) {
            Some(leaders) => leaders.values().cloned().collect(),
            None => return,
        };
        for leader in &leaders {
            leader.release(&member.member);
            self.retire(leader);
        }
    }

    /// Forgets a share-partition whose group has no session here, unless something is being written of it: then this comes
    /// again when it is written.
    fn retire(&self, leader: &Arc<ShareLeader>) {
        if !self.sessions.lock().has_group(&leader.key.group_id) && leader.retire() {
            self.forget(leader);
        }
    }

    /// The share-partition, if it is loaded or being loaded.
    fn known(&self, group: &str, partition: &Partition) -> Option<Arc<ShareLeader>> {
        let id = (partition.topic_id, partition.topic_partition.partition);
        self.leaders.lock().get(group)?.get(&id).cloned()
    }

    /// The share-partition; one that is not known is loaded. One that has ended is for a fetch that waited for it, which
    /// tells why; for one that `comes_now` it is loaded again.
    fn leader(
        &self,
        broker: &Arc<Broker>,
        group: &Arc<str>,
        partition: &Arc<Partition>,
        comes_now: bool,
    ) -> Arc<ShareLeader> {
        let id = (partition.topic_id, partition.topic_partition.partition);
        let leader_epoch = partition.leadership().leader_epoch;
        let mut leaders = self.leaders.lock();
        let leaders = leaders.entry(group.clone()).or_default();
        if let Some(leader) = leaders.get(&id) {
            let usable = !(comes_now && leader.is_ended());
            if usable && leader.leader_epoch == leader_epoch && Arc::ptr_eq(&leader.partition, partition) {
                return leader.clone();
            }
            leader.end(ErrorCode::NotLeaderOrFollower);
        }
        let key = SharePartitionKey { group_id: group.clone(), topic_id: id.0, partition: id.1 };
        let leader = ShareLeader::new(broker, key, partition.clone());
        leaders.insert(id, leader.clone());
        leader
    }

    /// Forgets an ended share-partition, so that the next request loads it anew.
    fn forget(&self, leader: &Arc<ShareLeader>) {
        let id = (leader.key.topic_id, leader.key.partition);
        let mut all = self.leaders.lock();
        let Some(leaders) = all.get_mut(&leader.key.group_id) else { return };
        if leaders.get(&id).is_some_and(|known| Arc::ptr_eq(known, leader)) {
            leaders.remove(&id);
        }
        if leaders.is_empty() {
            all.remove(&leader.key.group_id);
        }
    }

    pub fn session_context(
        &self,
        broker: &Broker,
        member: &ShareMember,
        view: &ShareSessionView<'_>,
    ) -> Result<ShareContext, ErrorCode> {
        let slots = broker.dynamic_config().groups.share.max_share_sessions;
        let slots = usize::try_from(slots).unwrap_or(0);
        // A session that is opened anew takes nothing from its member: what it has stays acquired.
        self.sessions.lock().fetch(member, view, slots)
    }

    /// Counts a ShareAcknowledge. True when it is the last request of the session.
    pub fn session_acknowledge(&self, member: &ShareMember, epoch: i32) -> Result<bool, ErrorCode> {
        self.sessions.lock().acknowledge(member, epoch)
    }
}

/// Who asks, or the error that answers the whole request.
pub fn member_of(
    broker: &Broker,
    group: Option<&str>,
    member: Option<&str>,
) -> Result<ShareMember, (ErrorCode, &'static str)> {
    if broker.image().features.level(SHARE_VERSION) < 1 {
        return Err((ErrorCode::UnsupportedVersion, ErrorCode::UnsupportedVersion.message()));
    }
    let group = group.ok_or((ErrorCode::InvalidRequest, "Invalid group id in the request."))?;
    let member = member.filter(|member| !member.is_empty() && member.len() <= MEMBER_ID_LEN_MAX);
    let member = member.ok_or((ErrorCode::InvalidRequest, "Invalid member id in the request."))?;
    Ok(ShareMember { group: group.into(), member: member.into() })
}

/// The partition behind an id that a request names.
fn find(broker: &Broker, id: SharePartitionId) -> Result<Arc<Partition>, ErrorCode> {
    let name = broker.partitions.topic_name(&id.0).ok_or(ErrorCode::UnknownTopicId)?;
    let partition = broker.partitions.get(&name, id.1).ok_or_else(|| broker.missing_partition_error(&name, id.1))?;
    if partition.topic_id == id.0 { Ok(partition) } else { Err(ErrorCode::UnknownTopicId) }
}
