//! Acknowledgements, alone or with a fetch: what a request may say, and when it is answered.

use taccola_coord::share_partition::{AcknowledgeType, AcknowledgementBatch};
use taccola_wire::error::ErrorCode;

use super::leader::Fate;
use super::{ShareGroupSettings, ShareMember, SharePartitionId, find};
use crate::broker::Broker;

/// Acknowledge types exist up to this one; those of a version without renewals end before it.
const RENEW: i8 = 4;

/// One partition's acknowledgements under way.
pub struct Acknowledgement {
    pub id: SharePartitionId,
    begun: Result<Option<Fate>, ErrorCode>,
}

/// What became of one partition's acknowledgements.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    pub id: SharePartitionId,
    pub error: ErrorCode,
}

/// The batches of one partition in a request: first offset, last offset, types. No batch begins before the one before it
/// ends; a renewal stands only where the request says that it has some.
pub fn parse_batches<'a>(
    batches: impl Iterator<Item = (i64, i64, &'a [i8])>,
    renewals: bool,
) -> Result<Vec<AcknowledgementBatch>, ErrorCode> {
    let mut parsed: Vec<AcknowledgementBatch> = Vec::new();
    for (first_offset, last_offset, types) in batches {
        let type_of = |id: &i8| AcknowledgeType::of_id(*id).filter(|_| renewals || *id != RENEW);
        let types: Option<Vec<AcknowledgeType>> = types.iter().map(type_of).collect();
        let batch = AcknowledgementBatch { first_offset, last_offset, types: types.ok_or(ErrorCode::InvalidRequest)? };
        let overlaps = parsed.last().is_some_and(|before| before.last_offset > first_offset);
        if overlaps || !batch.is_valid() {
            return Err(ErrorCode::InvalidRequest);
        }
        parsed.push(batch);
    }
    Ok(parsed)
}

impl Acknowledgement {
    /// Begins a partition's acknowledgements: when this returns, nobody else gets the records.
    pub fn begin(
        broker: &Broker,
        member: &ShareMember,
        settings: &ShareGroupSettings,
        id: SharePartitionId,
        batches: Result<Vec<AcknowledgementBatch>, ErrorCode>,
    ) -> Self {
        let begun = batches.and_then(|batches| begin(broker, member, settings, id, &batches));
        Self { id, begun }
    }

    /// Waits until it is written.
    pub async fn end(self) -> Acknowledged {
        let result = match self.begun {
            Ok(Some(fate)) => fate.await.unwrap_or(Err(ErrorCode::UnknownServerError)),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        Acknowledged { id: self.id, error: result.err().unwrap_or(ErrorCode::None) }
    }
}

fn begin(
    broker: &Broker,
    member: &ShareMember,
    settings: &ShareGroupSettings,
    id: SharePartitionId,
    batches: &[AcknowledgementBatch],
) -> Result<Option<Fate>, ErrorCode> {
    let partition = find(broker, id)?;
    let leader = broker.share_fetch.known(&member.group, &partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    leader.acknowledge(&member.member, settings, batches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(batches: &[(i64, i64, &[i8])], renewals: bool) -> Result<usize, ErrorCode> {
        parse_batches(batches.iter().copied(), renewals).map(|parsed| parsed.len())
    }

    #[test]
    fn batches_ascend_and_name_types_that_exist() {
        assert_eq!(parse(&[(0, 9, &[1]), (10, 11, &[0, 3])], false), Ok(2));
        let bad: [&[(i64, i64, &[i8])]; 7] = [
            &[(5, 4, &[1])],
            &[(0, 9, &[])],
            &[(0, 9, &[1, 1])],
            &[(0, 0, &[5])],
            &[(0, 0, &[-1])],
            &[(0, 9, &[1]), (8, 12, &[1])],
            &[(i64::MIN, i64::MAX, &[1])],
        ];
        for batches in bad {
            assert_eq!(parse(batches, true), Err(ErrorCode::InvalidRequest), "{batches:?}");
        }
        assert_eq!(parse(&[(0, 0, &[4])], false), Err(ErrorCode::InvalidRequest));
        assert_eq!(parse(&[(0, 0, &[4])], true), Ok(1));
    }
}
