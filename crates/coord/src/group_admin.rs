//! DescribeGroups, ListGroups, DeleteGroups; and what the coordinator removes on its own: expired offsets, abandoned
//! groups, offsets of deleted topics. Answers to Kafka's `GroupCoordinatorShard`.

use std::collections::BTreeSet;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use taccola_base::Uuid;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::ListGroupsRequest;
use taccola_wire::messages::delete_groups_response::DeletableGroupResult;
use taccola_wire::messages::describe_groups_response::DescribedGroup;
use taccola_wire::messages::list_groups_response::ListedGroup;

use crate::classic::State;
use crate::effects::{Effects, Reply, RequestContext, Response, TimerKey};
use crate::group::GroupKind;
use crate::offset_commit::write_tombstone;
use crate::outbox::{Change, Done, Outbox};
use crate::records;
use crate::shard::{GroupShard, Pending};

/// From this version on DescribeGroups tells an unknown group by an error (KIP-1043).
const DESCRIBE_ERROR_FROM: i16 = 6;
/// Tombstones that one look for expired offsets may write; the next one follows soon.
const EXPIRED_PER_STEP_MAX: usize = 5_000;
const EXPIRATION_PAUSE_MS: i64 = 100;
/// What clients are told of a group that is not there, or of another kind.
const DEAD: &str = "Dead";

impl GroupShard {
    /// `authorized_operations` are the caller's to fill in.
    pub fn describe_groups(&self, api_version: i16, group_ids: &[String]) -> Vec<DescribedGroup> {
        group_ids.iter().map(|id| self.describe_group(api_version, id)).collect()
    }

    fn describe_group(&self, api_version: i16, group_id: &str) -> DescribedGroup {
        let Some(group) = self.groups.get(group_id) else {
            let mut row =
                DescribedGroup { group_id: group_id.to_owned(), group_state: DEAD.to_owned(), ..Default::default() };
            if api_version >= DESCRIBE_ERROR_FROM {
                let why = if self.kind_of(group_id).is_some() { "is not a classic group" } else { "not found" };
                row.error_code = ErrorCode::GroupIdNotFound.code();
                row.error_message = Some(format!("Group {group_id} {why}."));
            }
            return row;
        };
        let protocol_name = group.protocol_name.as_deref().filter(|_| group.state == State::Stable);
        DescribedGroup {
            group_id: group_id.to_owned(),
            group_state: group.state.name().to_owned(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            protocol_data: protocol_name.unwrap_or_default().to_owned(),
            members: group.members.values().map(|m| m.describe(protocol_name)).collect(),
            ..Default::default()
        }
    }

    /// The shard's share of a ListGroups. Filters do not mind the case; an empty one lets everything through.
    pub fn list_groups(&self, request: &ListGroupsRequest) -> Vec<ListedGroup> {
        let lower = |filter: &[String]| filter.iter().map(|f| f.trim().to_lowercase()).collect::<BTreeSet<_>>();
        let (states, types) = (lower(&request.states_filter), lower(&request.types_filter));
        let passes = |state: &str, kind: &str| {
            (states.is_empty() || states.contains(&state.to_lowercase())) && (types.is_empty() || types.contains(kind))
        };
        let row = |id: &str, protocol_type: &str, state: &str, kind: &str| ListedGroup {
            group_id: id.to_owned(),
            protocol_type: protocol_type.to_owned(),
            group_state: state.to_owned(),
            group_type: kind.to_owned(),
        };
        let served = self.all_groups().filter(|(_, g)| passes(g.state_name(), g.kind().name()));
        let served = served.map(|(id, g)| row(id, g.protocol_type(), g.state_name(), g.kind().name()));
        served.collect()
    }

    /// The shard's share of a DeleteGroups.
    pub fn handle_delete_groups(
        &mut self,
        _now_ms: i64,
        ctx: &RequestContext<'_>,
        group_ids: &[String],
    ) -> Effects<Vec<DeletableGroupResult>> {
        let mut out = Outbox::default();
        let mut results: Vec<DeletableGroupResult> = Vec::with_capacity(group_ids.len());
        let mut seen = BTreeSet::new();
        for id in group_ids.iter().filter(|id| seen.insert(id.as_str())) {
            let result = self.delete_group(id, &mut out);
            let error_code = result.err().map_or(0, |error| error.code());
            results.push(DeletableGroupResult { group_id: id.clone(), error_code });
        }
        self.finish_with_records(ctx.token, results, out, Response::DeleteGroups)
    }

    fn delete_group(&mut self, id: &str, out: &mut Outbox) -> Result<(), ErrorCode> {
        self.any_group(id).ok_or(ErrorCode::GroupIdNotFound)?.validate_delete()?;
        let group_id: Arc<str> = id.into();
        let mut partitions = self.offsets.partitions_of(id);
        partitions.extend(self.offsets_being_written(id));
        for (topic, partition) in partitions {
            write_tombstone(&group_id, &topic, partition, out);
        }
        self.write_group_tombstone(&group_id, out);
        Ok(())
    }

    /// A classic group is gone from here on: who joins makes a new one, whose records stand behind the tombstone. One of
    /// another kind is gone when its tombstones are in the log.
    fn write_group_tombstone(&mut self, id: &Arc<str>, out: &mut Outbox) {
        if let Some(group) = self.any_group(id).filter(|g| g.kind() != GroupKind::Classic) {
            return group.write_tombstones(out);
        }
        let Ok(record) = records::group_tombstone(id) else { return };
        let Some(mut group) = self.groups.remove(id) else { return };
        group.cancel_timers(out);
        group.pending_joins.clear();
        out.write(record, Change::Group);
        out.done.push(Done::Deleted { group: Box::new(group) });
    }

    pub(crate) fn schedule_expiration(&self, now_ms: i64, out: &mut Outbox) {
        let interval_ms = self.config.offsets_retention_check_interval_ms.max(1);
        out.set_timer(TimerKey::Expiration, now_ms.saturating_add(interval_ms));
    }

    /// Looks for expired offsets and for groups that nobody has a use for any more.
    pub(crate) fn expire(&mut self, now_ms: i64, out: &mut Outbox) {
        let from = self.expiration_cursor.take().map_or(Bound::Unbounded, Bound::Excluded);
        let range = (from, Bound::Unbounded);
        let mut ids: Vec<Arc<str>> =
            self.all_groups().map(|(id, _)| id).filter(|id| range.contains(*id)).cloned().collect();
        ids.sort_unstable();
        let being_written = self.groups_being_written();
        for id in ids {
            if being_written.contains(&id) {
                continue;
            }
            let all_expired = self.expire_offsets(now_ms, &id, out);
            let abandoned = self.any_group(&id).is_some_and(|g| g.is_empty() && g.may_expire());
            if all_expired && abandoned {
                self.write_group_tombstone(&id, out);
            }
            if out.records.len() >= EXPIRED_PER_STEP_MAX {
                self.expiration_cursor = Some(id);
                return out.set_timer(TimerKey::Expiration, now_ms.saturating_add(EXPIRATION_PAUSE_MS));
            }
        }
        self.schedule_expiration(now_ms, out);
    }

    /// Groups with records on their way: they are in use.
    fn groups_being_written(&self) -> BTreeSet<Arc<str>> {
        let changed = self.pending.values().flat_map(|p| &p.changes).filter_map(|change| match change {
            Change::Offset { group, .. } | Change::OffsetTombstone { group, .. } => Some(group.clone()),
            Change::Group | Change::EndTransaction { .. } => None,
            Change::ClassicGone { group } => Some(group.clone()),
            Change::ClassicBack(group) => Some(group.id.clone()),
            Change::Consumer(record) => Some(record.group().clone()),
            Change::Streams(record) => Some(record.group.clone()),
            Change::Share(record) => Some(record.group().clone()),
        });
        let changed = changed.chain(self.modern_appends.keys().cloned());
        changed.chain(self.pending.values().flat_map(Pending::groups)).collect()
    }

    /// Whether nothing of the group's offsets remains.
    fn expire_offsets(&self, now_ms: i64, id: &Arc<str>, out: &mut Outbox) -> bool {
        let (Some(group), Some(topics)) = (self.any_group(id), self.offsets.group(id)) else {
            return !self.offsets.has_open_transactions(id);
        };
        let Some(condition) = group.expiration() else { return false };
        let mut all = !self.offsets.has_open_transactions(id);
        for (topic, partitions) in topics {
            let subscribed = group.is_subscribed_to(topic);
            for (partition, offset) in partitions {
                let expired = !subscribed
                    && condition.is_expired(offset, now_ms, self.config.offsets_retention_ms)
                    && !self.offsets.is_pending(id, topic, *partition);
                if expired && out.records.len() < EXPIRED_PER_STEP_MAX {
                    write_tombstone(id, topic, *partition, out);
                } else {
                    all = false;
                }
            }
        }
        all
    }

    /// Topics were deleted, as name and id: nobody can want their offsets. Those of a topic that took over the name stay.
    pub fn on_topics_deleted(&mut self, _now_ms: i64, topics: &[(String, Uuid)]) -> Effects<()> {
        let mut out = Outbox::default();
        self.delete_topics(topics, &mut out);
        self.finish(Reply::Now(()), out)
    }

    pub(crate) fn delete_topics(&self, topics: &[(String, Uuid)], out: &mut Outbox) {
        for (name, id) in topics {
            let topic: Arc<str> = name.as_str().into();
            let mut keys = self.offsets.partitions_of_topic(name, *id);
            for change in self.pending.values().flat_map(|p| &p.changes) {
                if let Change::Offset { group, topic, partition, offset, .. } = change
                    && **topic == **name
                    && offset.is_of_topic(*id)
                {
                    keys.insert((group.clone(), *partition));
                }
            }
            for (group, partition) in keys {
                write_tombstone(&group, &topic, partition, out);
            }
        }
    }
}
