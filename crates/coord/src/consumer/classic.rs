//! Members of the classic protocol in a consumer group, and the way of a group from one protocol to the other.

use std::sync::Arc;

use taccola_wire::error::ErrorCode;

use super::group::ConsumerGroup;
use super::heartbeat::Refusal;
use crate::outbox::Outbox;
use crate::shard::GroupShard;

#[derive(Debug, Default)]
pub(crate) struct ClassicWaits {}

impl GroupShard {
    pub(super) fn upgraded(
        &mut self,
        _now_ms: i64,
        _group_id: &str,
        _out: &mut Outbox,
    ) -> Result<Option<Box<ConsumerGroup>>, Refusal> {
        Ok(None)
    }

    pub(super) fn downgrade_without(
        &mut self,
        _now_ms: i64,
        _group_id: &str,
        _members: &[Arc<str>],
        _out: &mut Outbox,
    ) -> Result<bool, ErrorCode> {
        Ok(false)
    }
}
