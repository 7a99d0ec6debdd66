//! Keys and values of the internal topics, as text: Kafka's `OffsetsMessageParser`, `TransactionLogMessageParser`,
//! `ShareGroupStateMessageParser` and the metadata decoder of `DumpLogSegments`.

use bytes::Bytes;
use taccola_base::topic::CLUSTER_METADATA_TOPIC;
use taccola_meta::VersionedRecord;
use taccola_wire::codec::{Message, Reader};
use taccola_wire::messages as m;

/// How a topic's records read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoder {
    /// As bytes.
    None,
    /// `__consumer_offsets`
    Offsets,
    /// `__transaction_state`
    Transactions,
    /// `__share_group_state`
    ShareState,
    /// `__cluster_metadata`
    Metadata,
}

/// A record's key and value in words; `None` where there is nothing to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    pub key: Option<String>,
    pub value: Option<String>,
}

impl Decoder {
    /// The one for a topic.
    pub fn of(topic: &str) -> Self {
        match topic {
            "__consumer_offsets" => Self::Offsets,
            "__transaction_state" => Self::Transactions,
            "__share_group_state" => Self::ShareState,
            CLUSTER_METADATA_TOPIC => Self::Metadata,
            _ => Self::None,
        }
    }

    /// What a record says. What does not decode is told as such.
    pub fn decode(self, key: Option<&Bytes>, value: Option<&Bytes>) -> Decoded {
        match self {
            Self::None => Decoded::default(),
            Self::Metadata => {
                let told = value.map(|value| match VersionedRecord::decode(value.clone()) {
                    Ok(record) => format!("{:?} v{}", record.record, record.version),
                    Err(error) => format!("does not decode: {error}"),
                });
                Decoded { key: None, value: told }
            }
            Self::Offsets | Self::Transactions | Self::ShareState => self.coordinator(key, value),
        }
    }

    fn coordinator(self, key: Option<&Bytes>, value: Option<&Bytes>) -> Decoded {
        let Some((kind, body)) = key.and_then(prefixed) else {
            return Decoded { key: Some("has no type".to_owned()), value: None };
        };
        let known = match self {
            Self::Offsets => group_record(kind, &body, value),
            Self::Transactions => transaction_record(kind, &body, value),
            _ => share_record(kind, &body, value),
        };
        known.unwrap_or_else(|| Decoded { key: Some(format!("type {kind}, which is not known")), value: None })
    }
}

/// A number of two bytes in front, and what follows.
fn prefixed(bytes: &Bytes) -> Option<(i16, Bytes)> {
    let number = i16::from_be_bytes(*bytes.first_chunk()?);
    Some((number, bytes.slice(2..)))
}

fn text<M: Message + std::fmt::Debug>(body: Bytes, version: i16) -> String {
    if !(M::MIN_VERSION..=M::MAX_VERSION).contains(&version) {
        return format!("{} v{version}, which is not known", M::NAME);
    }
    match M::read(&mut Reader::new(body), version) {
        Ok(message) => format!("{message:?}"),
        Err(error) => format!("{} v{version} does not decode: {error}", M::NAME),
    }
}

fn pair<K: Message + std::fmt::Debug, V: Message + std::fmt::Debug>(key: &Bytes, value: Option<&Bytes>) -> Decoded {
    let value = value.map(|value| match prefixed(value) {
        Some((version, body)) => text::<V>(body, version),
        None => "has no version".to_owned(),
    });
    Decoded { key: Some(text::<K>(key.clone(), K::MIN_VERSION)), value }
}

/// `type => (Key, Value)` of one topic.
macro_rules! records {
    ($name:ident: $($key:ident => $value:ident,)+) => {
        fn $name(kind: i16, key: &Bytes, value: Option<&Bytes>) -> Option<Decoded> {
            $(if kind == m::$key::API_KEY {
                return Some(pair::<m::$key, m::$value>(key, value));
            })+
            None
        }
    };
}

records! { group_record:
    LegacyOffsetCommitKey => LegacyOffsetCommitValue,
    OffsetCommitKey => OffsetCommitValue,
    GroupMetadataKey => GroupMetadataValue,
    ConsumerGroupMetadataKey => ConsumerGroupMetadataValue,
    ConsumerGroupPartitionMetadataKey => ConsumerGroupPartitionMetadataValue,
    ConsumerGroupMemberMetadataKey => ConsumerGroupMemberMetadataValue,
    ConsumerGroupTargetAssignmentMetadataKey => ConsumerGroupTargetAssignmentMetadataValue,
    ConsumerGroupTargetAssignmentMemberKey => ConsumerGroupTargetAssignmentMemberValue,
    ConsumerGroupCurrentMemberAssignmentKey => ConsumerGroupCurrentMemberAssignmentValue,
    ConsumerGroupRegularExpressionKey => ConsumerGroupRegularExpressionValue,
    ShareGroupMetadataKey => ShareGroupMetadataValue,
    ShareGroupMemberMetadataKey => ShareGroupMemberMetadataValue,
    ShareGroupTargetAssignmentMetadataKey => ShareGroupTargetAssignmentMetadataValue,
    ShareGroupTargetAssignmentMemberKey => ShareGroupTargetAssignmentMemberValue,
    ShareGroupCurrentMemberAssignmentKey => ShareGroupCurrentMemberAssignmentValue,
    ShareGroupStatePartitionMetadataKey => ShareGroupStatePartitionMetadataValue,
    StreamsGroupMetadataKey => StreamsGroupMetadataValue,
    StreamsGroupMemberMetadataKey => StreamsGroupMemberMetadataValue,
    StreamsGroupTopologyKey => StreamsGroupTopologyValue,
    StreamsGroupTargetAssignmentMetadataKey => StreamsGroupTargetAssignmentMetadataValue,
    StreamsGroupTargetAssignmentMemberKey => StreamsGroupTargetAssignmentMemberValue,
    StreamsGroupCurrentMemberAssignmentKey => StreamsGroupCurrentMemberAssignmentValue,
}

records! { transaction_record:
    TransactionLogKey => TransactionLogValue,
}

records! { share_record:
    ShareSnapshotKey => ShareSnapshotValue,
    ShareUpdateKey => ShareUpdateValue,
}

#[cfg(test)]
mod tests {
    use taccola_wire::codec::Writer;

    use super::*;

    fn encoded<M: Message>(prefix: i16, message: &M, version: i16) -> Bytes {
        let mut writer = Writer::new();
        message.write(&mut writer, version).unwrap();
        [&prefix.to_be_bytes(), writer.into_bytes().as_ref()].concat().into()
    }

    #[test]
    fn records_of_internal_topics_are_put_into_words() {
        let key = m::OffsetCommitKey { group: "g".into(), topic: "t".into(), partition: 3 };
        let value = m::OffsetCommitValue { offset: 42, ..Default::default() };
        let key = encoded(m::OffsetCommitKey::API_KEY, &key, 0);
        let value = encoded(3, &value, 3);
        let decoded = Decoder::of("__consumer_offsets").decode(Some(&key), Some(&value));
        assert!(decoded.key.unwrap().contains("partition: 3") && decoded.value.unwrap().contains("offset: 42"));
        assert_eq!(Decoder::Offsets.decode(Some(&key), None).value, None, "a tombstone");
        for (key, value) in [(&b"\0"[..], &b""[..]), (b"\x7f\0", b""), (b"\0\x01\xff", b"\0\x63"), (b"\0\0", b"x")] {
            for decoder in [Decoder::Offsets, Decoder::Transactions, Decoder::ShareState, Decoder::Metadata] {
                let (key, value) = (Bytes::from(key), Bytes::from(value));
                let told = decoder.decode(Some(&key), Some(&value));
                assert!(told.key.is_some() || told.value.is_some());
            }
        }
    }
}
