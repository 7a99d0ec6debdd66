//! Bugs on purpose, to see that the crash and power campaigns notice each of them (`cargo xtask planted`).
//!
//! Without the feature `planted`, which no release has, [`planted`] is the constant `false` and nothing of this is left in the
//! binary. With it one bug can be chosen, once, before the broker starts; the binary takes its name from
//! `TACCOLA_PLANTED_BUG`. A call site is one line at the place that the bug breaks.

macro_rules! bugs {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What can be broken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Bug {
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// What it breaks, in a sentence.
            pub const fn doc(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),+),)+
                }
            }
        }
    };
}

bugs! {
    /// Segments are not synced before the journal lets go of their batches.
    SkipSegmentSync,
    /// A partition's folder is not synced when its segments are.
    SkipFolderSync,
    /// The journal's writes are reported durable before they are.
    JournalNotSynced,
    /// Produce with acks=all is answered before the journal is flushed.
    AcknowledgeEarly,
    /// The journal lets go of frames whose segments were not synced.
    FrameReleasedEarly,
    /// The newest batch of each partition in the journal is not replayed.
    ReplayStopsShort,
    /// Recovery believes batches whatever their checksum says.
    RecoverySkipsChecksum,
    /// A torn tail is not cut off: what is appended next follows it.
    TornTailKept,
    /// A flush that failed counts as one that succeeded.
    FlushErrorIgnored,
    /// The high watermark is not raised when the journal has a batch.
    HighWatermarkStuck,
    /// The high watermark is raised over batches that wait for the journal.
    HighWatermarkTooFar,
    /// The last stable offset lies one behind the first record of an open transaction.
    LastStableOffsetOffByOne,
    /// Four batches are remembered per producer where there should be five.
    FourEntryWindow,
    /// A batch that is there already is written once more.
    DuplicateAccepted,
    /// A batch of a producer may skip sequence numbers.
    SequenceGapAccepted,
    /// Producer snapshots lack the last batch of each producer.
    SnapshotStale,
    /// Recovery does not see transaction markers.
    MarkerNotReplayed,
    /// Aborted transactions do not get into the transaction index.
    AbortedTxnNotIndexed,
    /// A leader epoch begins one offset behind where it does.
    LeaderEpochOffByOne,
    /// The offset index names the wrong offsets.
    OffsetIndexWrong,
    /// The time index names a time that is one millisecond early.
    TimeIndexOffByOne,
    /// A lookup by time passes over a record of exactly that time.
    TimeLookupOffByOne,
    /// Compaction drops the last record of a key.
    CompactionDropsLiveKey,
    /// Compaction keeps a record that was overwritten.
    CompactionKeepsOldValue,
    /// Tombstones are kept for ever.
    TombstoneKept,
    /// Cleaned segments take the old ones' place before they are synced.
    SwapBeforeSync,
    /// Where DeleteRecords moved the log start offset to is forgotten by a crash.
    LogStartForgotten,
    /// DeleteRecords deletes one record more than it was asked to.
    DeleteRecordsTooFar,
    /// Retention by size empties the log.
    RetentionTooMuch,
    /// An offset commit is answered and never written.
    CommitNotWritten,
    /// A group coordinator does not wait for the disk.
    CommitNotAwaited,
    /// The newest batch of a coordinator's partition is not loaded.
    LoadStopsShort,
    /// Offsets committed in a transaction that was aborted count after a restart.
    AbortedOffsetsCount,
    /// A commit of an older generation is taken.
    GenerationNotChecked,
    /// A transaction coordinator does not wait for the disk.
    DecisionNotAwaited,
    /// Decided transactions are not carried on with after a restart.
    MarkersNotResumed,
    /// The markers of a transaction that is to be aborted say that it is committed.
    AbortCommits,
    /// The same producer ids are given out again after a restart.
    ProducerIdReused,
    /// What the controller wrote is answered before it is durable.
    MetadataNotAwaited,
}

impl Bug {
    /// The name that chooses it.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|bug| bug.name() == name)
    }
}

/// Whether this bug was chosen.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn planted(_bug: Bug) -> bool {
    false
}

#[cfg(feature = "planted")]
static CHOSEN: std::sync::OnceLock<Bug> = std::sync::OnceLock::new();

/// Whether this bug was chosen.
#[cfg(feature = "planted")]
#[inline]
pub fn planted(bug: Bug) -> bool {
    CHOSEN.get() == Some(&bug)
}

/// From now on this bug is there; the first call counts.
#[cfg(feature = "planted")]
pub fn choose(bug: Bug) {
    let _ = CHOSEN.set(bug);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_choose_bugs_and_none_is_there_unless_chosen() {
        for bug in Bug::ALL {
            assert_eq!(Bug::from_name(&bug.name()), Some(*bug));
            assert!(!planted(*bug) && !bug.doc().is_empty());
        }
        assert_eq!(Bug::from_name("None"), None);
    }
}
