//! Control records: what stands in control batches and is never delivered to a consumer.
//!
//! Answers to `ControlRecordType`, `EndTransactionMarker`, `ControlRecordTypeSchema.json` (KIP-98, KIP-595, KIP-853).
//! The key is a version (i16, 0 today) and a type (i16); readers take any version ≥ 0 and look at these four bytes only.

use bytes::Bytes;

use super::{BatchBuilder, BatchError, Record};

/// The type in a control record's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ControlType {
    Abort,
    Commit,
    LeaderChange,
    SnapshotHeader,
    SnapshotFooter,
    KraftVersion,
    KraftVoters,
    /// A type from a later release; consumers skip it.
    Unknown(i16),
}

impl ControlType {
    pub fn id(self) -> i16 {
        match self {
            Self::Abort => 0,
            Self::Commit => 1,
            Self::LeaderChange => 2,
            Self::SnapshotHeader => 3,
            Self::SnapshotFooter => 4,
            Self::KraftVersion => 5,
            Self::KraftVoters => 6,
            Self::Unknown(id) => id,
        }
    }

    pub fn from_id(id: i16) -> Self {
        match id {
            0 => Self::Abort,
            1 => Self::Commit,
            2 => Self::LeaderChange,
            3 => Self::SnapshotHeader,
            4 => Self::SnapshotFooter,
            5 => Self::KraftVersion,
            6 => Self::KraftVoters,
            other => Self::Unknown(other),
        }
    }

    /// The key of a control record of this type: version 0 and the type.
    pub fn key(self) -> [u8; 4] {
        let [hi, lo] = self.id().to_be_bytes();
        [0, 0, hi, lo]
    }

    /// Reads a control record's key; bytes behind the first four belong to later versions.
    pub fn from_key(key: &[u8]) -> Result<Self, BatchError> {
        let [v0, v1, t0, t1] =
            *key.first_chunk::<4>().ok_or(BatchError::InvalidRecord("control record key is too short"))?;
        if i16::from_be_bytes([v0, v1]) < 0 {
            return Err(BatchError::InvalidRecord("control record key version is negative"));
        }
        Ok(Self::from_id(i16::from_be_bytes([t0, t1])))
    }
}

/// A control record. The values of the KRaft types are messages of their own, with their version (i16) in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlRecord {
    Abort { coordinator_epoch: i32 },
    Commit { coordinator_epoch: i32 },
    Other { control_type: ControlType, value: Bytes },
}

impl ControlRecord {
    pub fn control_type(&self) -> ControlType {
        match self {
            Self::Abort { .. } => ControlType::Abort,
            Self::Commit { .. } => ControlType::Commit,
            Self::Other { control_type, .. } => *control_type,
        }
    }

    pub fn key(&self) -> [u8; 4] {
        self.control_type().key()
    }

    pub fn value(&self) -> Bytes {
        match self {
            Self::Abort { coordinator_epoch } | Self::Commit { coordinator_epoch } => {
                let [a, b, c, d] = coordinator_epoch.to_be_bytes();
                Bytes::copy_from_slice(&[0, 0, a, b, c, d])
            }
            Self::Other { value, .. } => value.clone(),
        }
    }

    /// Reads a record of a control batch.
    pub fn decode(record: &Record) -> Result<Self, BatchError> {
        let key = record.key.as_ref().ok_or(BatchError::InvalidRecord("control record has no key"))?;
        let value = record.value.as_ref().ok_or(BatchError::InvalidRecord("control record has no value"))?;
        Ok(match ControlType::from_key(key)? {
            ControlType::Abort => Self::Abort { coordinator_epoch: coordinator_epoch(value)? },
            ControlType::Commit => Self::Commit { coordinator_epoch: coordinator_epoch(value)? },
            control_type => Self::Other { control_type, value: value.clone() },
        })
    }
}

fn coordinator_epoch(value: &[u8]) -> Result<i32, BatchError> {
    let [v0, v1, a, b, c, d] =
        *value.first_chunk::<6>().ok_or(BatchError::InvalidRecord("transaction marker is too short"))?;
    if i16::from_be_bytes([v0, v1]) < 0 {
        return Err(BatchError::InvalidRecord("transaction marker version is negative"));
    }
    Ok(i32::from_be_bytes([a, b, c, d]))
}

/// The batch that ends a transaction in one partition: one control record, transactional, without a sequence.
pub fn end_txn_marker(
    timestamp_ms: i64,
    producer_id: i64,
    producer_epoch: i16,
    marker: &ControlRecord,
) -> Result<Bytes, BatchError> {
    BatchBuilder::for_control(marker, timestamp_ms)
        .producer(producer_id, producer_epoch, super::NO_SEQUENCE)
        .transactional(true)
        .build()
}
