//! Where the kinds of groups meet in a shard: which kind a group is, what may take its place, and what becomes of the
//! records of modern groups. How a kind hooks in is told at the head of `shard.rs`.

use std::sync::Arc;

use taccola_wire::error::ErrorCode;

use crate::classic::State;
use crate::cluster_image::TopicChanges;
use crate::effects::{AppendId, Effects, Reply, RequestToken, Response, TimerKey};
use crate::group::{AnyGroup, GroupKind};
use crate::outbox::{Change, Done, Outbox};
use crate::shard::GroupShard;

impl Change {
    /// The modern group that the record is about.
    pub(crate) fn modern_group(&self) -> Option<&Arc<str>> {
        match self {
            Change::Consumer(record) => Some(record.group()),
            Change::Streams(record) => Some(&record.group),
            Change::Share(record) => Some(record.group()),
            Change::Offset { .. }
            | Change::OffsetTombstone { .. }
            | Change::EndTransaction { .. }
            | Change::Group
            | Change::ClassicGone { .. }
            | Change::ClassicBack(_) => None,
        }
    }
}

impl GroupShard {
    /// The one answer to what kind a group is; `None`: there is no such group.
    pub(crate) fn kind_of(&self, id: &str) -> Option<GroupKind> {
        self.any_group(id).map(AnyGroup::kind)
    }

    /// The group, whatever its kind.
    pub(crate) fn any_group(&self, id: &str) -> Option<&dyn AnyGroup> {
        let classic = self.groups.get(id).map(|group| group as &dyn AnyGroup);
        classic
            .or_else(|| self.consumer.get(id).map(|group| group as &dyn AnyGroup))
            .or_else(|| self.streams.groups.get(id).map(|group| group as &dyn AnyGroup))
            .or_else(|| self.share.get(id).map(|group| group as &dyn AnyGroup))
    }

    /// All groups of the kinds that are served, each kind by id.
    pub(crate) fn all_groups(&self) -> impl Iterator<Item = (&Arc<str>, &dyn AnyGroup)> {
        let classic = self.groups.iter().map(|(id, group)| (id, group as &dyn AnyGroup));
        classic
            .chain(self.consumer.iter().map(|(id, group)| (id, group as &dyn AnyGroup)))
            .chain(self.share.iter().map(|(id, group)| (id, group as &dyn AnyGroup)))
            .chain(self.streams.groups.iter().map(|(id, group)| (id, group as &dyn AnyGroup)))
    }

    /// Whether a member of this kind may join the group. An empty classic group makes room: the tombstone of one that
    /// has a record is written, one that has offsets alone goes without.
    pub(crate) fn make_room_for(&mut self, id: &str, kind: GroupKind, out: &mut Outbox) -> Result<(), ErrorCode> {
        match self.kind_of(id) {
            None => Ok(()),
            Some(is) if is == kind => Ok(()),
            Some(GroupKind::Classic) => {
                let Some(group) = self.groups.get(id) else { return Ok(()) };
                if group.state != State::Empty || !group.pending_joins.is_empty() {
                    return Err(ErrorCode::GroupIdNotFound);
                }
                if group.protocol_type.is_some() || group.generation > 0 {
                    let record = crate::records::group_tombstone(id).map_err(|_| ErrorCode::InvalidGroupId)?;
                    out.write(record, Change::ClassicGone { group: group.id.clone() });
                }
                Ok(())
            }
            Some(_) => Err(ErrorCode::GroupIdNotFound),
        }
    }

    /// The reply to a member of a modern group. It says what is in the log, or in this step's records: it waits until
    /// all of that is committed.
    pub(crate) fn finish_modern<R>(
        &mut self,
        token: RequestToken,
        group_id: &str,
        response: R,
        out: Outbox,
        wrap: impl FnOnce(R) -> Response,
    ) -> Effects<R> {
        if out.writes() {
            return self.finish_with_records(token, response, out, wrap);
        }
        let append = self.modern_appends.get(group_id);
        match append.and_then(|append| self.pending.get_mut(append)) {
            None => self.finish(Reply::Now(response), out),
            Some(pending) => match pending.timed_out {
                None => {
                    pending.done.push(Done::Respond { token, response: wrap(response) });
                    self.finish(Reply::Parked, out)
                }
                Some(error) => {
                    let mut out = out;
                    out.release(token, wrap(response).into_failure(error));
                    self.finish(Reply::Parked, out)
                }
            },
        }
    }

    /// The records of a step are in the log: modern groups become what they say.
    pub(crate) fn apply_appended(&mut self, now_ms: i64, append: AppendId) {
        let Some(pending) = self.pending.get_mut(&append) else { return };
        let mut applied = Vec::new();
        for change in &mut pending.changes {
            if let Some(group) = change.modern_group() {
                if pending.modern_groups.last() != Some(group) {
                    pending.modern_groups.push(group.clone());
                }
                applied.push(std::mem::replace(change, Change::Group));
            } else if matches!(change, Change::ClassicGone { .. } | Change::ClassicBack(_)) {
                applied.push(std::mem::replace(change, Change::Group));
            }
        }
        for group in &pending.modern_groups {
            self.modern_appends.insert(group.clone(), append);
        }
        for change in applied {
            self.apply_modern(now_ms, change);
        }
    }

    fn apply_modern(&mut self, now_ms: i64, change: Change) {
        match change {
            Change::Consumer(record) => self.apply_consumer(&record),
            Change::Streams(record) => self.apply_streams(record),
            Change::Share(record) => self.apply_share(now_ms, record),
            Change::ClassicGone { group } => {
                self.groups.remove(&group);
            }
            Change::ClassicBack(group) => {
                self.groups.insert(group.id.clone(), *group);
            }
            Change::Offset { .. } | Change::OffsetTombstone { .. } | Change::EndTransaction { .. } | Change::Group => {}
        }
    }

    /// The fate of an append is known: replies about its groups need not wait for it any more.
    pub(crate) fn forget_append(&mut self, append: AppendId, modern_groups: &[Arc<str>]) {
        for group in modern_groups {
            if self.modern_appends.get(group) == Some(&append) {
                self.modern_appends.remove(group);
            }
        }
    }

    /// The log is replayed: sessions of modern members begin.
    pub(crate) fn modern_loaded(&mut self, now_ms: i64, out: &mut Outbox) {
        self.consumers_loaded(now_ms, out);
        self.streams_loaded(now_ms, out);
        self.share_loaded(now_ms, out);
    }

    /// The cluster's metadata changed; `self.image` is the new one already.
    pub(crate) fn modern_image(&mut self, _now_ms: i64, changes: &TopicChanges, out: &mut Outbox) {
        if changes.changed.is_empty() && changes.deleted.is_empty() {
            self.topic_hashes.forget_all();
        }
        self.topic_hashes.forget(changes);
        self.consumers_see(changes);
        self.streams.topics_changed(changes);
        self.share_image(changes, out);
    }

    /// A timer of a modern group fired.
    pub(crate) fn modern_timer_fired(&mut self, now_ms: i64, key: &TimerKey, out: &mut Outbox) {
        let (TimerKey::ModernSession { group, .. }
        | TimerKey::ModernRebalance { group, .. }
        | TimerKey::ModernGroup { group }) = key
        else {
            return;
        };
        match self.kind_of(group) {
            Some(GroupKind::Consumer) => self.consumer_timer_fired(now_ms, key, out),
            Some(GroupKind::Share) => self.share_timer_fired(now_ms, key, out),
            None | Some(GroupKind::Classic | GroupKind::Streams) => self.streams_timer_fired(now_ms, key, out),
        }
    }
}
