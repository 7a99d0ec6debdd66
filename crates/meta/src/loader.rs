//! From batches of the metadata log to published images. Answers to `MetadataLoader` and `MetadataBatchLoader`.
//!
//! Invariants: batches come in order without gaps; an image is published only at a batch's end and never inside a metadata
//! transaction (KIP-868); what an aborted transaction changed was never published.

use taccola_wire::messages::{KRaftVersionRecord, VotersRecord};

use crate::batch::{BatchContent, DecodedBatch};
use crate::delta::{MetadataChanges, MetadataDelta};
use crate::error::MetaError;
use crate::image::{MetadataImage, Provenance};
use crate::quorum::{ControlContent, parse_control};
use crate::record::{MetadataRecord, VersionedRecord};
use crate::snapshot::Snapshot;

/// A new image and what changed since the one published before.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    pub image: MetadataImage,
    pub changes: MetadataChanges,
}

/// What the log's control records say about the quorum.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QuorumFacts {
    /// 0 when no record says otherwise.
    pub kraft_version: i16,
    /// The dynamic voter set; `None` with a static one.
    pub voters: Option<VotersRecord>,
    /// Whether the voters stand only in the snapshot that the directory was formatted with ([`crate::bootstrap`]).
    pub only_in_first_snapshot: bool,
}

#[derive(Debug, Clone)]
struct Transaction {
    /// Where its BeginTransaction record stands.
    begin_offset: i64,
    name: Option<String>,
    /// What was not yet published when it began.
    before: MetadataDelta,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct MetadataLoader {
    published: MetadataImage,
    delta: MetadataDelta,
    /// What `delta` contains.
    reached: Provenance,
    transaction: Option<Transaction>,
    quorum: QuorumFacts,
}

impl Default for MetadataLoader {
    fn default() -> Self {
        Self::new(MetadataImage::default(), QuorumFacts::default())
    }
}

impl MetadataLoader {
    /// A loader that continues behind an image.
    pub fn new(image: MetadataImage, quorum: QuorumFacts) -> Self {
        let (delta, reached) = (MetadataDelta::new(&image), image.provenance);
        Self { published: image, delta, reached, transaction: None, quorum }
    }

    pub fn from_snapshot(snapshot: Snapshot) -> Result<Self, MetaError> {
        let quorum = snapshot.quorum.clone();
        Ok(Self::new(snapshot.into_image()?, quorum))
    }

    /// The image published last.
    pub fn image(&self) -> &MetadataImage {
        &self.published
    }

    pub fn quorum(&self) -> &QuorumFacts {
        &self.quorum
    }

    /// Offset of the next batch that is due.
    pub fn next_offset(&self) -> i64 {
        self.reached.last_contained_offset + 1
    }

    /// Where an unfinished metadata transaction began, and its name. Whoever becomes the leader must abort it before
    /// anything else ([`crate::quorum::activation_records`]).
    pub fn open_transaction(&self) -> Option<(i64, Option<&str>)> {
        self.transaction.as_ref().map(|t| (t.begin_offset, t.name.as_deref()))
    }

    /// Applies the next batch of the log; a batch that is contained already is passed over. Nothing is published yet.
    /// After an error the loader must be dropped.
    pub fn load(&mut self, batch: &DecodedBatch) -> Result<(), MetaError> {
        if batch.last_offset < self.next_offset() {
            return Ok(());
        }
        if batch.base_offset != self.next_offset() {
            let reason = format!("a batch starts at offset {}, due was {}", batch.base_offset, self.next_offset());
            return Err(MetaError::Replay { record: "batch", reason });
        }
        match &batch.content {
            BatchContent::Control(records) => {
                for record in records {
                    self.control(parse_control(record)?);
                }
            }
            BatchContent::Records(records) => {
                for (record, offset) in records.iter().zip(batch.base_offset..) {
                    self.record(record, offset).map_err(|e| e.at(offset))?;
                }
            }
        }
        self.reached = Provenance {
            last_contained_offset: batch.last_offset,
            last_contained_epoch: batch.leader_epoch,
            last_contained_log_time_ms: batch.append_time_ms,
        };
        Ok(())
    }

    fn control(&mut self, control: ControlContent) {
        match control {
            ControlContent::KRaftVersion(KRaftVersionRecord { kraft_version, .. }) => {
                self.quorum.kraft_version = kraft_version;
            }
            ControlContent::Voters(voters) => {
                self.quorum.voters = Some(voters);
                self.quorum.only_in_first_snapshot = false;
            }
            ControlContent::LeaderChange(_)
            | ControlContent::SnapshotHeader(_)
            | ControlContent::SnapshotFooter(_)
            | ControlContent::Other => {}
        }
    }

    fn record(&mut self, record: &VersionedRecord, offset: i64) -> Result<(), MetaError> {
        match (&record.record, self.transaction.take()) {
            (MetadataRecord::BeginTransaction(begin), None) => {
                let before = self.delta.clone();
                self.transaction = Some(Transaction { begin_offset: offset, name: begin.name.clone(), before });
                Ok(())
            }
            (MetadataRecord::BeginTransaction(_), Some(_)) => {
                Err(MetaError::replay("BeginTransactionRecord", "a metadata transaction is open already"))
            }
            (MetadataRecord::EndTransaction(_), Some(_)) => Ok(()),
            (MetadataRecord::AbortTransaction(_), Some(transaction)) => {
                self.delta = transaction.before;
                Ok(())
            }
            (MetadataRecord::EndTransaction(_) | MetadataRecord::AbortTransaction(_), None) => {
                Err(MetaError::replay(record.record.name(), "no metadata transaction is open"))
            }
            (other, transaction) => {
                self.transaction = transaction;
                self.delta.replay(other)
            }
        }
    }

    /// The image with everything loaded so far; `None` inside a transaction, or when nothing was loaded since the last
    /// call.
    pub fn publish(&mut self) -> Option<Published> {
        if self.transaction.is_some() || self.reached == self.published.provenance {
            return None;
        }
        let delta = std::mem::replace(&mut self.delta, MetadataDelta::new(&MetadataImage::default()));
        let (image, changes) = delta.finish(self.reached);
        self.delta = MetadataDelta::new(&image);
        self.published = image.clone();
        Some(Published { image, changes })
    }
}

#[cfg(test)]
mod tests {
    use taccola_base::Uuid;
    use taccola_wire::messages::{
        AbortTransactionRecord, BeginTransactionRecord, EndTransactionRecord, NoOpRecord, TopicRecord,
    };

    use super::*;

    fn batch(base_offset: i64, records: Vec<MetadataRecord>) -> DecodedBatch {
        let last_offset = base_offset + records.len() as i64 - 1;
        let records = records.into_iter().map(|record| VersionedRecord { record, version: 0 }).collect();
        let content = BatchContent::Records(records);
        DecodedBatch { base_offset, last_offset, leader_epoch: 1, append_time_ms: 5, content }
    }

    fn topic(name: &str, id: u128) -> MetadataRecord {
        TopicRecord { name: name.into(), topic_id: Uuid::from_u128(id) }.into()
    }

    #[test]
    fn a_transaction_is_published_as_a_whole_or_not_at_all() {
        let mut loader = MetadataLoader::default();
        loader
            .load(&batch(0, vec![topic("before", 100), BeginTransactionRecord::default().into(), topic("a", 101)]))
            .unwrap();
        assert!(loader.publish().is_none());
        assert_eq!(loader.open_transaction(), Some((1, None)));
        loader.load(&batch(3, vec![AbortTransactionRecord::default().into()])).unwrap();
        let published = loader.publish().unwrap();
        assert!(published.image.topics.by_name("before").is_some() && published.image.topics.by_name("a").is_none());
        assert_eq!(published.image.provenance.last_contained_offset, 3);

        loader.load(&batch(4, vec![BeginTransactionRecord::default().into(), topic("a", 101)])).unwrap();
        loader.load(&batch(6, vec![topic("b", 102), EndTransactionRecord::default().into()])).unwrap();
        let published = loader.publish().unwrap();
        assert_eq!(published.changes.created_topics.len(), 2);
        assert!(loader.publish().is_none());
    }

    #[test]
    fn order_is_checked() {
        let mut loader = MetadataLoader::default();
        loader.load(&batch(0, vec![NoOpRecord::default().into()])).unwrap();
        loader.load(&batch(0, vec![NoOpRecord::default().into()])).unwrap();
        assert_eq!(loader.next_offset(), 1);
        assert!(loader.load(&batch(2, vec![NoOpRecord::default().into()])).is_err());
        assert!(loader.load(&batch(1, vec![EndTransactionRecord::default().into()])).is_err());
    }

    #[test]
    fn contradictions_are_refused_with_their_offset() {
        let mut loader = MetadataLoader::default();
        let error = loader.load(&batch(0, vec![topic("a", 100), topic("a", 101)])).unwrap_err();
        assert!(matches!(error, MetaError::At { offset: 1, .. }), "{error}");
    }
}
