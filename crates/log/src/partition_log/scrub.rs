//! Looking for rot in sealed segments while the log is in use: a segment is read outside of the log's critical section, and
//! what is found is quarantined if the segment is still there. Kafka has nothing like it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::PartitionLog;
use super::types::{Offset, QuarantinedRange};
use crate::error::LogError;
use crate::salvage::Salvaged;
use crate::segment::Kind;
use crate::verify::{Damaged, SegmentBounds, UNREADABLE, walk_segment};

/// One sealed segment to be read.
#[derive(Debug)]
pub struct ScrubJob {
    file: Salvaged,
    bounds: SegmentBounds,
    /// Tells this segment from another one of the same name.
    identity: Arc<AtomicBool>,
    /// The log's count of what healed when the job began.
    healed: u64,
}

/// What reading a segment found.
#[derive(Debug)]
pub struct ScrubOutcome {
    base_offset: Offset,
    identity: Arc<AtomicBool>,
    healed: u64,
    damaged: Vec<Damaged>,
    pub bytes: u64,
    pub batches: u64,
    /// It was given up before the end.
    pub stopped: bool,
}

impl ScrubJob {
    /// The segment's first offset.
    pub fn base_offset(&self) -> Offset {
        self.bounds.base
    }

    /// Reads it all. `pace` hears of bytes read, takes its time, and answers whether to go on.
    pub fn run(self, pace: &mut dyn FnMut(u64) -> bool) -> Result<ScrubOutcome, LogError> {
        let mut batches = 0;
        let walked = walk_segment(&self.file, self.bounds, &mut |_, _, _| batches += 1, pace);
        let walked = walked.map_err(|e| LogError::io("read", format!("{:020}.log", self.bounds.base), e))?;
        let (base_offset, identity, healed) = (self.bounds.base, self.identity, self.healed);
        let (bytes, damaged, stopped) = (walked.end_position, walked.damaged, walked.stopped);
        Ok(ScrubOutcome { base_offset, identity, healed, damaged, bytes, batches, stopped })
    }
}

impl PartitionLog {
    /// The first sealed segment with records that begins at or behind `from`.
    pub fn begin_scrub(&self, from: Offset) -> Result<Option<ScrubJob>, LogError> {
        self.check_online()?;
        let sealed = self.segments.len().saturating_sub(1);
        let segments = self.segments.iter().enumerate().take(sealed);
        let Some((index, segment)) = segments.into_iter().find(|(_, s)| s.base_offset >= from && s.size > 0) else {
            return Ok(None);
        };
        let bounds = SegmentBounds {
            base: segment.base_offset,
            limit: self.segment_end(index),
            size: segment.size,
            is_last: false,
            may_have_gaps: self.may_have_gaps(),
        };
        // Opened beside the cache, so that scrubbing closes no handle that somebody uses.
        let path = segment.path(&self.dir, Kind::Log);
        let file = self.shared.open_once(&path, false).map_err(|e| LogError::io("open", path, e))?;
        let identity = Arc::clone(&segment.index_suspect);
        Ok(Some(ScrubJob { file: Salvaged::new(file), bounds, identity, healed: self.healed }))
    }

    /// First offsets of the segments of which the disk could not read something.
    pub fn unreadable_segments(&self) -> Vec<Offset> {
        let unreadable = self.quarantined.iter().filter(|range| range.reason.starts_with(UNREADABLE));
        let mut segments: Vec<_> = unreadable.map(|range| range.segment_base_offset).collect();
        segments.sort_unstable();
        segments.dedup();
        segments
    }

    /// Forgets damage of a segment that was just read and is whole there: the disk can read it again.
    fn forget_healed(&mut self, outcome: &ScrubOutcome) -> bool {
        let before = self.quarantined.len();
        self.quarantined.retain(|range| {
            // Bits do not flip back: only what was not readable at all can heal.
            let read = range.segment_base_offset == outcome.base_offset
                && range.reason.starts_with(UNREADABLE)
                && range.start_position < range.end_position
                && range.end_position <= outcome.bytes;
            let still = |damaged: &Damaged| {
                damaged.offsets.start < range.next_valid_offset && range.first_offset < damaged.offsets.end
            };
            let healed = read && !outcome.stopped && !outcome.damaged.iter().any(still);
            if healed {
                tracing::info!(?range, "damaged records can be read again");
            }
            !healed
        });
        before != self.quarantined.len()
    }

    /// Takes over what a job found; answers the ranges that were not known before. Readers of these offsets get
    /// [`CorruptRecord`](crate::ReadError::CorruptRecord) from now on without looking, and the next start knows of them.
    pub fn end_scrub(&mut self, outcome: &ScrubOutcome) -> Result<Vec<QuarantinedRange>, LogError> {
        self.check_online()?;
        let same = |segment: &crate::segment::Segment| {
            segment.base_offset == outcome.base_offset && Arc::ptr_eq(&segment.index_suspect, &outcome.identity)
        };
        if !self.segments.iter().any(same) {
            return Ok(Vec::new());
        }
        // A job that began before another one saw the disk come back may have read too early.
        let outdated = outcome.healed != self.healed;
        let healed = self.forget_healed(outcome);
        self.healed += u64::from(healed);
        let mut found = Vec::new();
        for damaged in outcome.damaged.iter().filter(|found| !(outdated && found.reason.starts_with(UNREADABLE))) {
            let known = self.quarantined.iter().any(|range| {
                range.segment_base_offset == outcome.base_offset
                    && range.first_offset < damaged.offsets.end
                    && damaged.offsets.start < range.next_valid_offset
            });
            if !known {
                found.push(QuarantinedRange {
                    segment_base_offset: outcome.base_offset,
                    start_position: damaged.positions.start,
                    end_position: damaged.positions.end,
                    first_offset: damaged.offsets.start,
                    next_valid_offset: damaged.offsets.end,
                    reason: damaged.reason.clone(),
                });
            }
        }
        if healed || !found.is_empty() {
            self.quarantined.extend(found.iter().cloned());
            self.save_quarantine()?;
        }
        Ok(found)
    }
}
