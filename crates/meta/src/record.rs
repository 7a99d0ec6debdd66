//! The metadata record frame and all record types of Kafka 4.3.1.
//!
//! A record's value is: uvarint frame version (1), uvarint api key, uvarint record version, body. Answers to
//! `MetadataRecordSerde` and `AbstractApiMessageSerde`. A type or a version that is not known is an error, never skipped:
//! an image built without it would be wrong.

use bytes::{Bytes, BytesMut};
use taccola_wire::codec::{Message, Reader, Writer};
use taccola_wire::messages;

use crate::error::MetaError;

/// The only frame version that Kafka writes.
pub const FRAME_VERSION: u32 = 1;

macro_rules! metadata_records {
    ($($variant:ident($body:ident))+) => {
        /// One metadata record, whatever its type.
        #[derive(Debug, Clone, PartialEq)]
        pub enum MetadataRecord {
            $($variant(messages::$body),)+
        }

        impl MetadataRecord {
            /// All api keys with their names and version ranges (inclusive).
            pub const TYPES: &'static [(i16, &'static str, i16, i16)] = &[
                $((messages::$body::API_KEY, messages::$body::NAME, messages::$body::MIN_VERSION, messages::$body::MAX_VERSION),)+
            ];

            pub fn api_key(&self) -> i16 {
                match self {
                    $(Self::$variant(_) => messages::$body::API_KEY,)+
                }
            }

            /// The spec's name, e.g. `TopicRecord`.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => messages::$body::NAME,)+
                }
            }

            fn read_body(key: i16, version: u32, r: &mut Reader) -> Result<VersionedRecord, MetaError> {
                match key {
                    $(messages::$body::API_KEY => {
                        let version = checked_version::<messages::$body>(version)?;
                        let body = messages::$body::read(r, version)
                            .map_err(|source| MetaError::Decode { name: messages::$body::NAME, version, source })?;
                        if r.remaining() > 0 {
                            return Err(MetaError::Garbage { name: messages::$body::NAME, count: r.remaining() });
                        }
                        Ok(VersionedRecord { record: Self::$variant(body), version })
                    })+
                    other => Err(MetaError::UnknownRecord(u32::from(other.unsigned_abs()))),
                }
            }

            fn write_body(&self, w: &mut Writer, version: i16) -> Result<(), MetaError> {
                match self {
                    $(Self::$variant(body) => body.write(w, version)
                        .map_err(|source| MetaError::Encode { name: messages::$body::NAME, version, source }),)+
                }
            }
        }

        $(impl From<messages::$body> for MetadataRecord {
            fn from(body: messages::$body) -> Self {
                Self::$variant(body)
            }
        })+
    };
}

metadata_records! {
    RegisterBroker(RegisterBrokerRecord)
    UnregisterBroker(UnregisterBrokerRecord)
    Topic(TopicRecord)
    Partition(PartitionRecord)
    Config(ConfigRecord)
    PartitionChange(PartitionChangeRecord)
    FenceBroker(FenceBrokerRecord)
    UnfenceBroker(UnfenceBrokerRecord)
    RemoveTopic(RemoveTopicRecord)
    DelegationToken(DelegationTokenRecord)
    UserScramCredential(UserScramCredentialRecord)
    FeatureLevel(FeatureLevelRecord)
    ClientQuota(ClientQuotaRecord)
    ProducerIds(ProducerIdsRecord)
    BrokerRegistrationChange(BrokerRegistrationChangeRecord)
    AccessControlEntry(AccessControlEntryRecord)
    RemoveAccessControlEntry(RemoveAccessControlEntryRecord)
    NoOp(NoOpRecord)
    ZkMigrationState(ZkMigrationStateRecord)
    RemoveUserScramCredential(RemoveUserScramCredentialRecord)
    BeginTransaction(BeginTransactionRecord)
    EndTransaction(EndTransactionRecord)
    AbortTransaction(AbortTransactionRecord)
    RemoveDelegationToken(RemoveDelegationTokenRecord)
    RegisterController(RegisterControllerRecord)
    ClearElr(ClearElrRecord)
}

fn checked_version<M: Message>(version: u32) -> Result<i16, MetaError> {
    i16::try_from(version)
        .ok()
        .filter(|v| (M::MIN_VERSION..=M::MAX_VERSION).contains(v))
        .ok_or(MetaError::RecordVersion { name: M::NAME, version, min: M::MIN_VERSION, max: M::MAX_VERSION })
}

/// A record with the version that it is written at (`ApiMessageAndVersion`).
#[derive(Debug, Clone, PartialEq)]
pub struct VersionedRecord {
    pub record: MetadataRecord,
    pub version: i16,
}

impl VersionedRecord {
    pub fn new(record: impl Into<MetadataRecord>, version: i16) -> Self {
        Self { record: record.into(), version }
    }

    /// Reads a record's value, which must be one frame and nothing behind it.
    pub fn decode(value: Bytes) -> Result<Self, MetaError> {
        let mut r = Reader::new(value);
        let mut prefix = || r.uvarint().map_err(|_| MetaError::Frame("cut off before its body"));
        let (frame, key) = (prefix()?, prefix()?);
        if frame != FRAME_VERSION {
            return Err(MetaError::FrameVersion(frame));
        }
        let version = prefix()?;
        let known = i16::try_from(key).map_err(|_| MetaError::UnknownRecord(key))?;
        MetadataRecord::read_body(known, version, &mut r)
    }

    pub fn encode(&self) -> Result<BytesMut, MetaError> {
        let mut w = Writer::new();
        w.uvarint(FRAME_VERSION);
        // Keys and versions of this release are small and never negative.
        w.uvarint(u32::from(self.record.api_key().unsigned_abs()));
        w.uvarint(u32::from(self.version.unsigned_abs()));
        self.record.write_body(&mut w, self.version)?;
        Ok(w.into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_round_trips_at_every_version() {
        for (key, name, min, max) in MetadataRecord::TYPES {
            for version in *min..=*max {
                // A body of defaults, read from a type's own encoding: only the frame is under test here.
                let record = default_of(*key, version);
                assert_eq!(record.record.name(), *name);
                let bytes = record.encode().unwrap().freeze();
                assert_eq!(VersionedRecord::decode(bytes).unwrap(), record, "{name} v{version}");
            }
        }
        assert_eq!(MetadataRecord::TYPES.len(), 26);
    }

    fn default_of(key: i16, version: i16) -> VersionedRecord {
        let record: MetadataRecord = match key {
            0 => messages::RegisterBrokerRecord::default().into(),
            1 => messages::UnregisterBrokerRecord::default().into(),
            2 => messages::TopicRecord::default().into(),
            3 => messages::PartitionRecord::default().into(),
            4 => messages::ConfigRecord::default().into(),
            5 => messages::PartitionChangeRecord::default().into(),
            7 => messages::FenceBrokerRecord::default().into(),
            8 => messages::UnfenceBrokerRecord::default().into(),
            9 => messages::RemoveTopicRecord::default().into(),
            10 => messages::DelegationTokenRecord::default().into(),
            11 => messages::UserScramCredentialRecord::default().into(),
            12 => messages::FeatureLevelRecord::default().into(),
            14 => messages::ClientQuotaRecord::default().into(),
            15 => messages::ProducerIdsRecord::default().into(),
            17 => messages::BrokerRegistrationChangeRecord::default().into(),
            18 => messages::AccessControlEntryRecord::default().into(),
            19 => messages::RemoveAccessControlEntryRecord::default().into(),
            20 => messages::NoOpRecord::default().into(),
            21 => messages::ZkMigrationStateRecord::default().into(),
            22 => messages::RemoveUserScramCredentialRecord::default().into(),
            23 => messages::BeginTransactionRecord::default().into(),
            24 => messages::EndTransactionRecord::default().into(),
            25 => messages::AbortTransactionRecord::default().into(),
            26 => messages::RemoveDelegationTokenRecord::default().into(),
            27 => messages::RegisterControllerRecord::default().into(),
            28 => messages::ClearElrRecord::default().into(),
            other => panic!("no record type {other}"),
        };
        VersionedRecord { record, version }
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let refused = |bytes: &'static [u8]| VersionedRecord::decode(Bytes::from_static(bytes)).unwrap_err();
        assert_eq!(refused(&[0, 20, 0, 0]), MetaError::FrameVersion(0));
        assert_eq!(refused(&[2, 20, 0, 0]), MetaError::FrameVersion(2));
        assert_eq!(refused(&[1, 99, 0, 0]), MetaError::UnknownRecord(99));
        assert_eq!(refused(&[1, 6, 0, 0]), MetaError::UnknownRecord(6));
        assert_eq!(refused(&[1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0]), MetaError::UnknownRecord(u32::MAX));
        assert_eq!(
            refused(&[1, 20, 9, 0]),
            MetaError::RecordVersion { name: "NoOpRecord", version: 9, min: 0, max: 0 }
        );
        assert_eq!(refused(&[1, 20, 0, 0, 7]), MetaError::Garbage { name: "NoOpRecord", count: 1 });
        assert_eq!(refused(&[1, 20]), MetaError::Frame("cut off before its body"));
        assert_eq!(refused(&[]), MetaError::Frame("cut off before its body"));
        assert!(matches!(refused(&[1, 2, 0, 5]), MetaError::Decode { name: "TopicRecord", .. }));
        assert!(refused(&[1, 99, 0]).to_string().contains("type 99 is not known"));
    }
}
