//! Share sessions (KIP-932): which partitions a member reads, and which request comes next. Answers to Kafka's
//! `ShareSession` and `ShareSessionCache`.
//!
//! A session belongs to a member of a group and to the connection on which it was opened: when that ends, the session
//! ends. Epochs count requests, from 1 on, and wrap from `i32::MAX` to 1. LIMIT: `group.share.max.share.sessions`
//! sessions; one more is refused, none gives way. [`REQUEST_PARTITIONS_MAX`] partitions in each: INVALID_REQUEST.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use taccola_base::Uuid;
use taccola_base::limits::REQUEST_PARTITIONS_MAX;
use taccola_wire::error::ErrorCode;

/// Session epochs with a meaning (`ShareRequestMetadata`).
pub const EPOCH_INITIAL: i32 = 0;
pub const EPOCH_FINAL: i32 = -1;

/// A partition of a topic, by the topic's id.
pub type SharePartitionId = (Uuid, i32);

/// A member of a share group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ShareMember {
    pub group: Arc<str>,
    pub member: Arc<str>,
}

#[derive(Debug)]
struct ShareSession {
    /// What the next request must carry.
    next_epoch: i32,
    connection: u64,
    /// In the order in which they came; each once.
    partitions: Vec<SharePartitionId>,
    members: HashSet<SharePartitionId>,
}

impl ShareSession {
    fn update(&mut self, added: &[SharePartitionId], forgotten: &[SharePartitionId]) -> Result<(), ErrorCode> {
        if self.members.len() + added.len() > REQUEST_PARTITIONS_MAX {
            return Err(ErrorCode::InvalidRequest);
        }
        for id in added {
            if self.members.insert(*id) {
                self.partitions.push(*id);
            }
        }
        let mut any = false;
        for id in forgotten {
            any |= self.members.remove(id);
        }
        if any {
            self.partitions.retain(|id| self.members.contains(id));
        }
        Ok(())
    }

    fn count(&mut self) {
        self.next_epoch = if self.next_epoch == i32::MAX { 1 } else { self.next_epoch + 1 };
    }
}

/// How a ShareFetch is to be served.
#[derive(Debug, PartialEq, Eq)]
pub enum ShareContext {
    /// The session's partitions, in the order in which they are read.
    Fetch { partitions: Vec<SharePartitionId> },
    /// The last request of a session: nothing is fetched.
    Final,
}

/// What a ShareFetch says about its session.
#[derive(Debug)]
pub struct ShareSessionView<'a> {
    pub epoch: i32,
    pub connection: u64,
    pub partitions: &'a [SharePartitionId],
    pub forgotten: &'a [SharePartitionId],
    pub acknowledges: bool,
}

#[derive(Debug, Default)]
pub(super) struct ShareSessionCache {
    sessions: HashMap<ShareMember, ShareSession>,
    /// The sessions of each connection that has any.
    by_connection: HashMap<u64, Vec<ShareMember>>,
}

impl ShareSessionCache {
    /// Finds out how to serve a ShareFetch and updates its session. `slots` is `group.share.max.share.sessions`.
    pub(super) fn fetch(
        &mut self,
        member: &ShareMember,
        view: &ShareSessionView<'_>,
        slots: usize,
    ) -> Result<ShareContext, ErrorCode> {
        match view.epoch {
            EPOCH_FINAL => match self.sessions.contains_key(member) {
                true => Ok(ShareContext::Final),
                false => Err(ErrorCode::ShareSessionNotFound),
            },
            EPOCH_INITIAL => self.open(member, view, slots),
            epoch => {
                let session = self.sessions.get_mut(member).ok_or(ErrorCode::ShareSessionNotFound)?;
                if session.next_epoch != epoch {
                    return Err(ErrorCode::InvalidShareSessionEpoch);
                }
                session.update(view.partitions, view.forgotten)?;
                session.count();
                let mut partitions = session.partitions.clone();
                rotate(&mut partitions, epoch);
                Ok(ShareContext::Fetch { partitions })
            }
        }
    }

    fn open(
        &mut self,
        member: &ShareMember,
        view: &ShareSessionView<'_>,
        slots: usize,
    ) -> Result<ShareContext, ErrorCode> {
        if view.acknowledges {
            return Err(ErrorCode::InvalidRequest);
        }
        self.remove(member);
        if self.sessions.len() >= slots {
            return Err(ErrorCode::ShareSessionLimitReached);
        }
        let mut session = ShareSession {
            next_epoch: 1,
            connection: view.connection,
            partitions: Vec::new(),
            members: HashSet::new(),
        };
        session.update(view.partitions, &[])?;
        let partitions = session.partitions.clone();
        self.sessions.insert(member.clone(), session);
        self.by_connection.entry(view.connection).or_default().push(member.clone());
        Ok(ShareContext::Fetch { partitions })
    }

    /// Counts a ShareAcknowledge. True when it is the last request of the session.
    pub(super) fn acknowledge(&mut self, member: &ShareMember, epoch: i32) -> Result<bool, ErrorCode> {
        if epoch == EPOCH_INITIAL {
            return Err(ErrorCode::InvalidShareSessionEpoch);
        }
        let session = self.sessions.get_mut(member).ok_or(ErrorCode::ShareSessionNotFound)?;
        if epoch == EPOCH_FINAL {
            return Ok(true);
        }
        if session.next_epoch != epoch {
            return Err(ErrorCode::InvalidShareSessionEpoch);
        }
        session.count();
        Ok(false)
    }

    /// Ends a session. True when there was one.
    pub(super) fn remove(&mut self, member: &ShareMember) -> bool {
        let Some(session) = self.sessions.remove(member) else { return false };
        if let Some(members) = self.by_connection.get_mut(&session.connection) {
            members.retain(|other| other != member);
            if members.is_empty() {
                self.by_connection.remove(&session.connection);
            }
        }
        true
    }

    /// Whether some member of the group has a session.
    pub(super) fn has_group(&self, group: &str) -> bool {
        self.sessions.keys().any(|member| *member.group == *group)
    }

    /// Ends the sessions of a connection, and says whose they were.
    pub(super) fn disconnected(&mut self, connection: u64) -> Vec<ShareMember> {
        let members = self.by_connection.remove(&connection).unwrap_or_default();
        for member in &members {
            self.sessions.remove(member);
        }
        members
    }
}

/// Another partition comes first with each request, so that none starves.
fn rotate(partitions: &mut [SharePartitionId], epoch: i32) {
    if let Some(by) = usize::try_from(epoch).ok().and_then(|epoch| epoch.checked_rem(partitions.len())) {
        partitions.rotate_left(by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str) -> ShareMember {
        ShareMember { group: "g".into(), member: name.into() }
    }

    fn id(partition: i32) -> SharePartitionId {
        (Uuid::ZERO, partition)
    }

    fn view<'a>(epoch: i32, added: &'a [SharePartitionId], forgotten: &'a [SharePartitionId]) -> ShareSessionView<'a> {
        ShareSessionView { epoch, connection: 7, partitions: added, forgotten, acknowledges: false }
    }

    #[test]
    fn a_session_counts_its_requests_and_rotates_its_partitions() {
        let mut cache = ShareSessionCache::default();
        let m = member("m");
        assert_eq!(cache.fetch(&m, &view(1, &[], &[]), 9), Err(ErrorCode::ShareSessionNotFound));
        let both = [id(0), id(1), id(1)];
        let first = ShareContext::Fetch { partitions: vec![id(0), id(1)] };
        assert_eq!(cache.fetch(&m, &view(0, &both, &[]), 9), Ok(first));
        assert_eq!(cache.fetch(&m, &view(2, &[], &[]), 9), Err(ErrorCode::InvalidShareSessionEpoch));
        let second = ShareContext::Fetch { partitions: vec![id(1), id(0)] };
        assert_eq!(cache.fetch(&m, &view(1, &[], &[]), 9), Ok(second));
        assert_eq!(cache.acknowledge(&m, 1), Err(ErrorCode::InvalidShareSessionEpoch));
        assert_eq!(cache.acknowledge(&m, 2), Ok(false));
        let third = ShareContext::Fetch { partitions: vec![id(1)] };
        assert_eq!(cache.fetch(&m, &view(3, &[id(2)], &[id(0), id(2)]), 9), Ok(third));
        assert_eq!(cache.acknowledge(&m, 0), Err(ErrorCode::InvalidShareSessionEpoch));
        assert_eq!(cache.acknowledge(&m, -1), Ok(true));
        assert_eq!(cache.fetch(&m, &view(-1, &[], &[]), 9), Ok(ShareContext::Final));
        assert!(cache.remove(&m));
        assert_eq!(cache.fetch(&m, &view(-1, &[], &[]), 9), Err(ErrorCode::ShareSessionNotFound));
        assert!(cache.by_connection.is_empty());
    }

    #[test]
    fn epochs_wrap_to_one() {
        let mut cache = ShareSessionCache::default();
        let m = member("m");
        cache.fetch(&m, &view(0, &[], &[]), 9).unwrap();
        cache.sessions.get_mut(&m).unwrap().next_epoch = i32::MAX;
        assert_eq!(cache.acknowledge(&m, i32::MAX), Ok(false));
        assert_eq!(cache.acknowledge(&m, 1), Ok(false));
    }

    #[test]
    fn a_first_request_acknowledges_nothing_and_a_full_cache_refuses() {
        let mut cache = ShareSessionCache::default();
        let with_acks = ShareSessionView { acknowledges: true, ..view(0, &[], &[]) };
        assert_eq!(cache.fetch(&member("a"), &with_acks, 1), Err(ErrorCode::InvalidRequest));
        assert!(cache.fetch(&member("a"), &view(0, &[], &[]), 1).is_ok());
        assert_eq!(cache.fetch(&member("b"), &view(0, &[], &[]), 1), Err(ErrorCode::ShareSessionLimitReached));
        assert!(cache.fetch(&member("a"), &view(0, &[], &[]), 1).is_ok(), "it replaces its own");
        assert_eq!(cache.disconnected(7), [member("a")]);
        assert!(cache.sessions.is_empty());
        assert!(cache.fetch(&member("b"), &view(0, &[], &[]), 1).is_ok());
    }
}
