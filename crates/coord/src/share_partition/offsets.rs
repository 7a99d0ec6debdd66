//! How the start offset moves: behind records that are done, and with the log's start. Answers to
//! `maybeUpdateCachedStateAndOffsets`, `updateCacheAndOffsets` and `archiveRecords` of Kafka's `SharePartition`.

use super::in_flight::{InFlightBatch, Slot};
use super::{RecordState, SharePartition};

impl SharePartition {
    /// The log begins at a later offset now. What was available before it is archived; what is acquired stays so until
    /// its member says something or its lock runs out. Nothing is written: the next write tells the start offset. True
    /// when the start offset moved.
    pub fn log_start_moved(&mut self, log_start_offset: i64) -> bool {
        if log_start_offset <= self.start_offset {
            return false;
        }
        if self.archive_available(self.start_offset, log_start_offset - 1) {
            self.find_next = true;
        }
        self.start_offset = log_start_offset;
        self.end_offset = self.end_offset.max(log_start_offset);
        self.advance_start();
        true
    }

    /// Archives what is available from `first` to `last`.
    pub(super) fn archive_available(&mut self, first: i64, last: i64) -> bool {
        let from = self.key_at_or_after(first);
        let mut any = false;
        for (_, batch) in self.batches.range_mut(from..=last.max(from)) {
            batch.change(first, last, |_, _, slot| {
                if slot.is_available() {
                    *slot = Slot::new(RecordState::Archived, slot.delivery_count);
                    any = true;
                }
            });
        }
        any
    }

    /// Moves the start offset behind what is done, and forgets it. True when the start offset moved.
    pub(super) fn advance_start(&mut self) -> bool {
        let before = self.start_offset;
        self.close_gaps();
        self.start_offset = self.first_undone();
        if self.end_offset < self.start_offset {
            self.end_offset = self.start_offset;
        }
        let start_offset = self.start_offset;
        let done = |batch: &InFlightBatch| batch.last < start_offset && batch.runs().all(|(_, _, slot)| slot.is_done());
        // Batches before the start offset that are acquired still stay, wherever they are; they are few.
        while self.batches.first_key_value().is_some_and(|(_, batch)| done(batch)) {
            self.batches.pop_first();
        }
        if self.batches.first_key_value().is_some_and(|(_, batch)| batch.last < start_offset) {
            self.batches.retain(|_, batch| !done(batch));
        }
        self.start_offset > before
    }

    /// The first offset from the start offset on that is not done.
    fn first_undone(&self) -> i64 {
        let gap = self.active_gap();
        let mut start = self.start_offset;
        for batch in self.batches.values() {
            if batch.last < start {
                continue;
            }
            if let Some(gap_start) = gap.filter(|gap_start| batch.last >= *gap_start) {
                return start.max(gap_start.min(batch.first));
            }
            if let Some((first, ..)) = batch.runs_within(start, i64::MAX).find(|(_, _, slot)| !slot.is_done()) {
                return start.max(first);
            }
            start = start.max(batch.last + 1);
        }
        start
    }
}
