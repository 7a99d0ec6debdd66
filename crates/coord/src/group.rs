//! What every group is to the code that does not care about its kind: offsets, lists, deletion, expiry. Answers to
//! Kafka's `Group`.

use std::fmt::Debug;

use taccola_base::Uuid;
use taccola_wire::error::ErrorCode;

use crate::offsets::OffsetAndMetadata;
use crate::outbox::Outbox;

/// The kinds of groups; a group has one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupKind {
    Classic,
    /// KIP-848.
    Consumer,
    /// KIP-932.
    Share,
    /// KIP-1071.
    Streams,
}

impl GroupKind {
    /// As in the list of groups.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Consumer => "consumer",
            Self::Share => "share",
            Self::Streams => "streams",
        }
    }
}

/// Who commits offsets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Committer<'a> {
    pub(crate) member_id: &'a str,
    pub(crate) instance_id: Option<&'a str>,
    /// Generation of a classic member, epoch of any other; negative: none.
    pub(crate) epoch: i32,
    /// By TxnOffsetCommit, which may leave out all of the above.
    pub(crate) transactional: bool,
    pub(crate) api_version: i16,
}

/// What a committer may commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitScope {
    Everything,
    /// Its epoch is an old one of the member's: only partitions that were the member's at that epoch already, which
    /// [`AnyGroup::assignment_epoch`] tells (KIP-1251).
    ByAssignmentEpoch,
}

/// One group of any kind, as its state is now.
pub(crate) trait AnyGroup: Debug {
    fn kind(&self) -> GroupKind;

    /// As ListGroups tells it.
    fn state_name(&self) -> &'static str;

    /// As ListGroups tells it.
    fn protocol_type(&self) -> &str;

    /// Nobody is a member.
    fn is_empty(&self) -> bool;

    /// Whether a member wants the topic, whose offsets can then neither be deleted nor expire.
    fn is_subscribed_to(&self, topic: &str) -> bool;

    fn validate_offset_commit(&self, committer: &Committer<'_>) -> Result<CommitScope, ErrorCode>;

    /// The epoch at which the partition became the member's; `None` when it is not.
    fn assignment_epoch(&self, _member_id: &str, _topic: &str, _topic_id: Uuid, _partition: i32) -> Option<i32> {
        None
    }

    /// What a committer with too old an epoch is told.
    fn stale_epoch_error(&self, _member_id: &str) -> ErrorCode {
        ErrorCode::StaleMemberEpoch
    }

    /// `member_id` is `None` and `epoch` negative for whoever is no member.
    fn validate_offset_fetch(&self, member_id: Option<&str>, epoch: i32) -> Result<(), ErrorCode>;

    /// OffsetDelete; topics that are subscribed to are refused one by one.
    fn validate_offset_delete(&self) -> Result<(), ErrorCode>;

    /// DeleteGroups.
    fn validate_delete(&self) -> Result<(), ErrorCode> {
        if self.is_empty() { Ok(()) } else { Err(ErrorCode::NonEmptyGroup) }
    }

    /// The tombstones of everything that the log has of the group besides offsets. Classic groups are not asked.
    fn write_tombstones(&self, out: &mut Outbox);

    /// From when on the retention of the group's offsets counts; `None`: nothing expires.
    fn expiration(&self) -> Option<ExpirationCondition>;

    /// Whether the group itself may go once no offset is left. Asked of empty groups alone.
    fn may_expire(&self) -> bool {
        true
    }
}

/// From when on the retention of a group's offsets counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExpirationCondition {
    /// Since the group has been empty, ms.
    Since(i64),
    /// Since the offset was committed.
    Commit,
}

impl ExpirationCondition {
    pub(crate) fn is_expired(self, offset: &OffsetAndMetadata, now_ms: i64, retention_ms: i64) -> bool {
        if let Some(expire_timestamp_ms) = offset.expire_timestamp_ms {
            return now_ms >= expire_timestamp_ms;
        }
        let since_ms = match self {
            Self::Since(ms) => ms,
            Self::Commit => offset.commit_timestamp_ms,
        };
        now_ms.saturating_sub(since_ms) >= retention_ms
    }
}
