//! Snapshots of the metadata log: `<offset>-<epoch>.checkpoint` beside its segments, and `bootstrap.checkpoint`, which has
//! the same form.
//!
//! A file is a run of batches with offsets from 0: a control batch with SnapshotHeader (and, in a dynamic quorum,
//! KRaftVersion and Voters), the image's records, a control batch with SnapshotFooter. A file without its footer is not a
//! snapshot. It is written as `….checkpoint.part`, flushed, renamed, and the folder is flushed; only then may segments
//! before it go. Answers to `RecordsSnapshotWriter`, `RecordsSnapshotReader`, `Snapshots`.

use bytes::{Bytes, BytesMut};
use taccola_wire::batch::ControlType;
use taccola_wire::messages::{KRaftVersionRecord, SnapshotFooterRecord, SnapshotHeaderRecord};

use crate::batch::{
    AppendContext, BatchContent, DecodedBatch, EncodedBatch, control_batch, decode_batches, encode_batches,
};
use crate::delta::MetadataDelta;
use crate::error::MetaError;
use crate::feature::MetadataVersion;
use crate::image::{MetadataImage, Provenance};
use crate::loader::QuorumFacts;
use crate::quorum::{ControlContent, control_body, parse_control};
use crate::record::VersionedRecord;

pub const SUFFIX: &str = ".checkpoint";
/// While it is written.
pub const PARTIAL_SUFFIX: &str = ".checkpoint.part";
/// After it was replaced and before it is gone.
pub const DELETE_SUFFIX: &str = ".checkpoint.deleted";

/// Which state of the log a snapshot holds. Ordered by offset, then epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotId {
    /// Offset of the first record that is *not* in it.
    pub end_offset: i64,
    /// Epoch of the last record that is.
    pub epoch: i32,
}

impl SnapshotId {
    pub fn file_name(self) -> String {
        format!("{:020}-{:010}{SUFFIX}", self.end_offset, self.epoch)
    }

    /// The id that a file name stands for; `None` for any other file, also for one that is not complete.
    pub fn parse_file_name(name: &str) -> Option<Self> {
        let (offset, epoch) = name.strip_suffix(SUFFIX)?.split_once('-')?;
        let digits = |text: &str, len| text.len() == len && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(offset, 20) || !digits(epoch, 10) {
            return None;
        }
        Some(Self { end_offset: offset.parse().ok()?, epoch: epoch.parse().ok()? })
    }

    /// The snapshot that an image would make.
    pub fn of(image: &MetadataImage) -> Self {
        let at = image.provenance;
        Self { end_offset: at.last_contained_offset + 1, epoch: at.last_contained_epoch.max(0) }
    }
}

/// A snapshot's content.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    pub id: SnapshotId,
    /// Append time of the last record in it, milliseconds since the Unix epoch.
    pub last_contained_log_time_ms: i64,
    pub quorum: QuorumFacts,
    pub records: Vec<VersionedRecord>,
}

impl Snapshot {
    pub fn of(image: &MetadataImage, quorum: &QuorumFacts) -> Self {
        let id = SnapshotId::of(image);
        let only_in_first_snapshot = quorum.voters.is_some() && id.end_offset == 0;
        Self {
            id,
            last_contained_log_time_ms: image.provenance.last_contained_log_time_ms.max(0),
            quorum: QuorumFacts { only_in_first_snapshot, ..quorum.clone() },
            records: image.to_records(),
        }
    }

    /// The file's bytes. The batches carry the snapshot's epoch.
    pub fn encode(&self, now_ms: i64) -> Result<Bytes, MetaError> {
        let mut at = AppendContext { base_offset: 0, leader_epoch: self.id.epoch, now_ms };
        let header = SnapshotHeaderRecord { version: 0, last_contained_log_timestamp: self.last_contained_log_time_ms };
        let mut controls = vec![(ControlType::SnapshotHeader, control_body(&header, 0)?)];
        if self.quorum.kraft_version > 0 {
            let version = KRaftVersionRecord { version: 0, kraft_version: self.quorum.kraft_version };
            controls.push((ControlType::KraftVersion, control_body(&version, 0)?));
            if let Some(voters) = &self.quorum.voters {
                controls.push((ControlType::KraftVoters, control_body(voters, voters.version)?));
            }
        }
        let mut out = BytesMut::new();
        let mut put = |batch: &EncodedBatch, at: &mut AppendContext| {
            out.extend_from_slice(&batch.bytes);
            at.base_offset = batch.last_offset + 1;
        };
        put(&control_batch(&controls, at)?, &mut at);
        for batch in encode_batches(&self.records, false, MetadataVersion::LATEST, at)? {
            put(&batch, &mut at);
        }
        let footer = control_body(&SnapshotFooterRecord { version: 0 }, 0)?;
        put(&control_batch(&[(ControlType::SnapshotFooter, footer)], at)?, &mut at);
        Ok(out.freeze())
    }

    /// Reads a whole file. Anything but header, records, footer in this order is an error.
    pub fn decode(id: SnapshotId, bytes: &Bytes) -> Result<Self, MetaError> {
        let mut reading = Reading::default();
        for batch in decode_batches(bytes) {
            reading.batch(batch?)?;
        }
        let bad = |reason: &str| MetaError::Snapshot(format!("{} {reason}", id.file_name()));
        let header = reading.header.ok_or_else(|| bad("has no header"))?;
        reading.quorum.only_in_first_snapshot = reading.quorum.voters.is_some() && id.end_offset == 0;
        if !reading.ended {
            return Err(bad("has no footer: it was not written to its end"));
        }
        Ok(Self {
            id,
            last_contained_log_time_ms: header.last_contained_log_timestamp,
            quorum: reading.quorum,
            records: reading.records,
        })
    }

    /// The image that the records build.
    pub fn into_image(self) -> Result<MetadataImage, MetaError> {
        let mut delta = MetadataDelta::new(&MetadataImage::default());
        for record in &self.records {
            delta.replay(&record.record)?;
        }
        let provenance = Provenance {
            last_contained_offset: self.id.end_offset - 1,
            last_contained_epoch: self.id.epoch,
            last_contained_log_time_ms: self.last_contained_log_time_ms,
        };
        Ok(delta.finish(provenance).0)
    }
}

#[derive(Default)]
struct Reading {
    next_offset: i64,
    header: Option<SnapshotHeaderRecord>,
    ended: bool,
    quorum: QuorumFacts,
    records: Vec<VersionedRecord>,
}

impl Reading {
    fn batch(&mut self, batch: DecodedBatch) -> Result<(), MetaError> {
        let bad = |reason: String| Err(MetaError::Snapshot(reason));
        if batch.base_offset != self.next_offset {
            return bad(format!("a batch starts at offset {}, due was {}", batch.base_offset, self.next_offset));
        }
        self.next_offset = batch.last_offset + 1;
        if self.ended {
            return bad("there are batches behind the footer".into());
        }
        match batch.content {
            BatchContent::Records(_) if self.header.is_none() => bad("it starts without a header".into()),
            BatchContent::Records(records) => {
                self.records.extend(records);
                Ok(())
            }
            BatchContent::Control(records) => records.iter().try_for_each(|r| self.control(parse_control(r)?)),
        }
    }

    fn control(&mut self, control: ControlContent) -> Result<(), MetaError> {
        match control {
            ControlContent::SnapshotHeader(header) if self.header.is_none() => self.header = Some(header),
            ControlContent::SnapshotHeader(_) => return Err(MetaError::Snapshot("it has two headers".into())),
            ControlContent::SnapshotFooter(_) => self.ended = true,
            ControlContent::KRaftVersion(version) => self.quorum.kraft_version = version.kraft_version,
            ControlContent::Voters(voters) => self.quorum.voters = Some(voters),
            ControlContent::LeaderChange(_) | ControlContent::Other => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_kafkas() {
        let id = SnapshotId { end_offset: 96, epoch: 3 };
        assert_eq!(id.file_name(), "00000000000000000096-0000000003.checkpoint");
        assert_eq!(SnapshotId::parse_file_name(&id.file_name()), Some(id));
        for other in [
            "bootstrap.checkpoint",
            "00000000000000000096-0000000003.checkpoint.part",
            "96-3.checkpoint",
            "+0000000000000000096-0000000003.checkpoint",
            "99999999999999999999-0000000003.checkpoint",
        ] {
            assert_eq!(SnapshotId::parse_file_name(other), None, "{other}");
        }
    }

    #[test]
    fn an_unfinished_file_is_refused() {
        let snapshot = Snapshot::of(&MetadataImage::default(), &QuorumFacts::default());
        let bytes = snapshot.encode(5).unwrap();
        assert_eq!(Snapshot::decode(snapshot.id, &bytes), Ok(snapshot.clone()));
        let footer = bytes.slice(..bytes.len() - 75);
        assert!(Snapshot::decode(snapshot.id, &footer).is_err());
        assert!(Snapshot::decode(snapshot.id, &Bytes::new()).is_err());
        let doubled = Bytes::from([bytes.to_vec(), bytes.to_vec()].concat());
        assert!(Snapshot::decode(snapshot.id, &doubled).is_err());
    }
}
