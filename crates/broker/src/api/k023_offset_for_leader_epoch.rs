//! OffsetForLeaderEpoch, key 23, v2–v4. Answers to `Partition.lastOffsetForLeaderEpoch`.
//!
//! Behaviour: the largest epoch at or below the asked one that the log holds, and where it ends (exclusive), which is not
//! the end of the current epoch unless that one was asked for. Nothing known of it: -1/-1 and no error. Only the leader
//! answers, and only to a client whose view of the leader epoch is its own.

use std::sync::Arc;

use taccola_log::EpochEndOffset as Found;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::offset_for_leader_epoch_request::{OffsetForLeaderEpochRequest, OffsetForLeaderPartition};
use taccola_wire::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::partition::EpochCheck;

pub async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|asked| {
        let partitions = asked.partitions.iter().map(|wanted| match look_up(broker, &asked.topic, wanted) {
            Ok(Found { leader_epoch, end_offset }) => {
                EpochEndOffset { error_code: 0, partition: wanted.partition, leader_epoch, end_offset }
            }
            Err(error) => {
                EpochEndOffset { error_code: error.code(), partition: wanted.partition, ..Default::default() }
            }
        });
        OffsetForLeaderTopicResult { partitions: partitions.collect(), topic: asked.topic }
    });
    OffsetForLeaderEpochResponse { topics: topics.collect(), ..Default::default() }
}

fn look_up(broker: &Broker, topic: &str, wanted: &OffsetForLeaderPartition) -> Result<Found, ErrorCode> {
    let missing = || broker.missing_partition_error(topic, wanted.partition);
    let partition = broker.partitions.get(topic, wanted.partition).ok_or_else(missing)?;
    match partition.check_leader_epoch(wanted.current_leader_epoch) {
        EpochCheck::Ok => {}
        EpochCheck::Fenced => return Err(ErrorCode::FencedLeaderEpoch),
        EpochCheck::Unknown => return Err(ErrorCode::UnknownLeaderEpoch),
    }
    let leader_epoch = partition.leadership().leader_epoch;
    let found = partition.with_log(|log| match log.offline_reason() {
        Some(_) => Err(ErrorCode::KafkaStorageError),
        None => {
            let end = Found { leader_epoch, end_offset: log.log_end_offset() };
            let of_current = end_of_current(wanted.leader_epoch, end, log.latest_leader_epoch());
            Ok(of_current.unwrap_or_else(|| log.epoch_end_offset(wanted.leader_epoch)))
        }
    });
    found.ok_or(ErrorCode::NotLeaderOrFollower)?
}

/// What follows from the current epoch alone: the log hears of it with the first record, but it begins where the log ended
/// when this broker became the leader. `None`: the log knows.
fn end_of_current(asked: i32, current: Found, latest_in_log: Option<i32>) -> Option<Found> {
    if asked == current.leader_epoch {
        return Some(current);
    }
    let silent = latest_in_log.is_none_or(|latest| latest < current.leader_epoch);
    let last_before = asked >= latest_in_log.unwrap_or(0).max(0) && asked < current.leader_epoch;
    (silent && last_before).then(|| Found { leader_epoch: latest_in_log.unwrap_or(asked), ..current })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trap_45_an_epoch_ends_where_the_next_begins_also_if_that_has_no_record() {
        let current = Found { leader_epoch: 5, end_offset: 30 };
        let end = |asked, latest| end_of_current(asked, current, latest).map(|f| (f.leader_epoch, f.end_offset));
        assert_eq!(end(5, Some(3)), Some((5, 30)));
        assert_eq!(end(5, None), Some((5, 30)));
        assert_eq!(end(3, Some(3)), Some((3, 30)));
        assert_eq!(end(4, Some(3)), Some((3, 30)));
        assert_eq!(end(4, None), Some((4, 30)));
        assert_eq!(end(2, Some(3)), None);
        assert_eq!(end(4, Some(5)), None);
        assert_eq!(end(6, Some(3)), None);
        assert_eq!(end(-1, None), None);
    }
}
