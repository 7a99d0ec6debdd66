//! A classic group as any group. Answers to `ClassicGroup.validate*` and `offsetExpirationCondition`.

use taccola_base::planted::{Bug, planted};
use taccola_wire::error::ErrorCode;

use super::group::{Group, State};
use crate::group::{AnyGroup, CommitScope, Committer, ExpirationCondition, GroupKind};
use crate::outbox::Outbox;

impl AnyGroup for Group {
    fn kind(&self) -> GroupKind {
        GroupKind::Classic
    }

    fn state_name(&self) -> &'static str {
        self.state.name()
    }

    fn protocol_type(&self) -> &str {
        self.protocol_type.as_deref().unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.state == State::Empty
    }

    fn is_subscribed_to(&self, topic: &str) -> bool {
        Group::is_subscribed_to(self, topic)
    }

    fn validate_offset_commit(&self, committer: &Committer<'_>) -> Result<CommitScope, ErrorCode> {
        let Committer { member_id, instance_id, epoch: generation, transactional, .. } = *committer;
        // An administrator, or a consumer that assigns itself: only as long as nobody else is there.
        if generation < 0 && self.state == State::Empty {
            return Ok(CommitScope::Everything);
        }
        if generation >= 0 || !member_id.is_empty() || instance_id.is_some() {
            self.validate_member(member_id, instance_id)?;
            if generation != self.generation && !planted(Bug::GenerationNotChecked) {
                return Err(ErrorCode::IllegalGeneration);
            }
        } else if !transactional {
            return Err(ErrorCode::UnknownMemberId);
        }
        // The member knows the new generation, but not its assignment in it.
        if !transactional && self.state == State::CompletingRebalance {
            return Err(ErrorCode::RebalanceInProgress);
        }
        Ok(CommitScope::Everything)
    }

    /// Whoever asks is told.
    fn validate_offset_fetch(&self, _member_id: Option<&str>, _epoch: i32) -> Result<(), ErrorCode> {
        Ok(())
    }

    fn validate_offset_delete(&self) -> Result<(), ErrorCode> {
        if self.state == State::Empty || self.uses_consumer_protocol() { Ok(()) } else { Err(ErrorCode::NonEmptyGroup) }
    }

    fn write_tombstones(&self, _out: &mut Outbox) {}

    fn expiration(&self) -> Option<ExpirationCondition> {
        match (&self.protocol_type, self.state) {
            (None, _) => Some(ExpirationCondition::Commit),
            (Some(_), State::Empty) => {
                Some(self.state_since_ms.map_or(ExpirationCondition::Commit, ExpirationCondition::Since))
            }
            (Some(_), State::Stable) if self.uses_consumer_protocol() && self.subscribed_topics.is_some() => {
                Some(ExpirationCondition::Commit)
            }
            _ => None,
        }
    }

    /// A member that was given an id may still come.
    fn may_expire(&self) -> bool {
        self.pending_joins.is_empty()
    }
}
