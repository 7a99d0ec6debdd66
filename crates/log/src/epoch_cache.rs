//! Where each leader epoch begins in a log. Answers to Kafka's `LeaderEpochFileCache` (KIP-101, KIP-279).
//!
//! INVARIANT: epochs rise strictly from entry to entry, start offsets rise (two epochs may begin at one offset only
//! when nothing was written in the first; such an entry is dropped).
//!
//! The entries repeat what the batches' headers say, so the file is written with the log's flush, not with an append.

use taccola_base::planted::{Bug, planted};

use crate::partition_log::EpochEndOffset;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EpochCache {
    /// `(leader epoch, start offset)`.
    entries: Vec<(i32, i64)>,
    /// Differs from the checkpoint file.
    dirty: bool,
    /// The checkpoint file says the same, and may be in the page cache alone.
    unsynced: bool,
}

impl EpochCache {
    pub(crate) fn new(entries: Vec<(i32, i64)>) -> Self {
        Self { entries, dirty: false, unsynced: false }
    }

    pub(crate) fn entries(&self) -> &[(i32, i64)] {
        &self.entries
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty
    }

    pub(crate) fn set_clean(&mut self) {
        self.dirty = false;
        self.unsynced = false;
    }

    pub(crate) fn is_unsynced(&self) -> bool {
        self.unsynced
    }

    /// Recovery found what the file of a process that was killed says, `read`: nothing is to be written.
    pub(crate) fn confirm(&mut self, read: &[(i32, i64)]) {
        if self.entries == read {
            self.dirty = false;
            self.unsynced = true;
        }
    }

    pub(crate) fn set_dirty(&mut self) {
        self.dirty = true;
    }

    pub(crate) fn latest(&self) -> Option<i32> {
        self.entries.last().map(|(epoch, _)| *epoch)
    }

    /// Notes that `epoch` begins at `start`, if it is newer than all known; entries that contradict it go.
    pub(crate) fn assign(&mut self, epoch: i32, start: i64) {
        if epoch < 0 || self.entries.last().is_some_and(|(latest, from)| *latest == epoch && *from <= start) {
            return;
        }
        if self.entries.last().is_some_and(|(latest, _)| *latest > epoch) {
            // A batch of an older epoch behind a newer one: only the log's own history can be right.
            return;
        }
        self.entries.retain(|(known, from)| *known < epoch && *from < start);
        let start = start + i64::from(planted(Bug::LeaderEpochOffByOne));
        self.entries.push((epoch, start));
        self.dirty = true;
    }

    /// Adds what began before the first entry, as far as it reaches behind `floor`; nothing that is known changes but where the first
    /// epoch begins.
    pub(crate) fn prepend(&mut self, older: &[(i32, i64)], floor: i64) {
        let first = self.entries.first().copied().unwrap_or((i32::MAX, i64::MAX));
        let mut added: Vec<(i32, i64)> =
            older.iter().copied().filter(|(epoch, start)| *epoch <= first.0 && *start < first.1).collect();
        added.sort_unstable();
        // An epoch goes on from segment to segment: it began where it was seen first.
        added.dedup_by_key(|(epoch, _)| *epoch);
        if added.is_empty() || !added.is_sorted_by_key(|(_, start)| *start) {
            return;
        }
        self.entries.retain(|(epoch, _)| added.iter().all(|(known, _)| known != epoch));
        added.append(&mut self.entries);
        self.entries = added;
        self.dirty = true;
        self.truncate_from_start(floor);
    }

    pub(crate) fn for_offset(&self, offset: i64) -> Option<i32> {
        let after = self.entries.partition_point(|(_, start)| *start <= offset);
        after.checked_sub(1).and_then(|i| self.entries.get(i)).map(|(epoch, _)| *epoch)
    }

    /// See [`PartitionLog::epoch_end_offset`](crate::PartitionLog::epoch_end_offset).
    pub(crate) fn end_offset(&self, requested: i32, log_end_offset: i64) -> EpochEndOffset {
        let undefined = EpochEndOffset { leader_epoch: -1, end_offset: -1 };
        if requested < 0 {
            return undefined;
        }
        if self.latest() == Some(requested) {
            return EpochEndOffset { leader_epoch: requested, end_offset: log_end_offset };
        }
        let above = self.entries.partition_point(|(epoch, _)| *epoch <= requested);
        let Some((_, next_start)) = self.entries.get(above) else { return undefined };
        let leader_epoch =
            above.checked_sub(1).and_then(|i| self.entries.get(i)).map_or(requested, |(epoch, _)| *epoch);
        EpochEndOffset { leader_epoch, end_offset: *next_start }
    }

    /// Forgets epochs that begin at or behind `end`.
    pub(crate) fn truncate_from_end(&mut self, end: i64) {
        let keep = self.entries.partition_point(|(_, start)| *start < end);
        if keep < self.entries.len() {
            self.entries.truncate(keep);
            self.dirty = true;
        }
    }

    /// Forgets what lies before `start`; the epoch in force there now begins there.
    pub(crate) fn truncate_from_start(&mut self, start: i64) {
        let after = self.entries.partition_point(|(_, from)| *from <= start);
        let Some(current) = after.checked_sub(1) else { return };
        self.entries.drain(..current);
        if let Some(first) = self.entries.first_mut()
            && (current > 0 || first.1 != start)
        {
            first.1 = start;
            self.dirty = true;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.dirty |= !self.entries.is_empty();
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_offsets_are_kafkas() {
        let cache = EpochCache::new(vec![(2, 10), (4, 20), (7, 30)]);
        let end = |epoch| {
            let answer = cache.end_offset(epoch, 35);
            (answer.leader_epoch, answer.end_offset)
        };
        assert_eq!(end(-1), (-1, -1));
        assert_eq!(end(0), (0, 10));
        assert_eq!(end(2), (2, 20));
        assert_eq!(end(3), (2, 20));
        assert_eq!(end(4), (4, 30));
        assert_eq!(end(7), (7, 35));
        assert_eq!(end(8), (-1, -1));
        assert_eq!(EpochCache::default().end_offset(0, 5), EpochEndOffset { leader_epoch: -1, end_offset: -1 });
        assert_eq!([9, 10, 29, 99].map(|offset| cache.for_offset(offset)), [None, Some(2), Some(4), Some(7)]);
    }

    #[test]
    fn what_remote_segments_know_comes_first() {
        let mut cache = EpochCache::new(vec![(3, 50), (5, 70)]);
        cache.prepend(&[(1, 10), (1, 20), (3, 40), (3, 60), (7, 5)], 15);
        assert_eq!(cache.entries(), [(1, 15), (3, 40), (5, 70)]);
        cache.prepend(&[(1, 20), (5, 80)], 15);
        assert_eq!(cache.entries(), [(1, 15), (3, 40), (5, 70)]);
    }

    #[test]
    fn assign_and_truncate() {
        let mut cache = EpochCache::default();
        for (epoch, start) in [(0, 0), (0, 5), (1, 7), (0, 8), (3, 7)] {
            cache.assign(epoch, start);
        }
        assert_eq!(cache.entries(), [(0, 0), (3, 7)]);
        cache.assign(4, 20);
        cache.truncate_from_start(9);
        assert_eq!(cache.entries(), [(3, 9), (4, 20)]);
        cache.truncate_from_end(20);
        assert_eq!(cache.entries(), [(3, 9)]);
        cache.truncate_from_start(3);
        assert_eq!(cache.entries(), [(3, 9)]);
    }
}
