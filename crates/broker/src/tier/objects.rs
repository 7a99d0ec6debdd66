//! Names of objects: `<topic>-<topic id>/<partition>/<base offset>-<segment id>.<kind>`. The id is new for each attempt to copy, so that an
//! object is written once and never changes.

use taccola_base::{TopicPartition, Uuid};
use taccola_log::remote::RemoteSegment;

/// What belongs to a remote segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ObjectKind {
    Log,
    OffsetIndex,
    TimeIndex,
    /// Only where a transaction was aborted.
    TxnIndex,
    ProducerSnapshot,
    LeaderEpochs,
}

impl ObjectKind {
    /// In the order in which they are deleted: the log last, as what tells that there is something.
    pub(super) const ALL: [Self; 6] =
        [Self::OffsetIndex, Self::TimeIndex, Self::TxnIndex, Self::ProducerSnapshot, Self::LeaderEpochs, Self::Log];

    fn suffix(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::OffsetIndex => "index",
            Self::TimeIndex => "timeindex",
            Self::TxnIndex => "txnindex",
            Self::ProducerSnapshot => "snapshot",
            Self::LeaderEpochs => "leader-epoch-checkpoint",
        }
    }
}

pub(super) fn object_key(at: &TopicPartition, topic_id: Uuid, segment: &RemoteSegment, kind: ObjectKind) -> String {
    format!("{}-{topic_id}/{}/{:020}-{}.{}", at.topic, at.partition, segment.start_offset, segment.id, kind.suffix())
}
