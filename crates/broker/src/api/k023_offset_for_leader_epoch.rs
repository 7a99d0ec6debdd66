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
            Err(error) => EpochEndOffset { error_code: error.code(), partition: wanted.partition, ..Default::default() },
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
    let found = partition.with_log(|log| match log.offline_reason() {
        Some(_) => Err(ErrorCode::KafkaStorageError),
        None => Ok(log.epoch_end_offset(wanted.leader_epoch)),
    });
    found.ok_or(ErrorCode::NotLeaderOrFollower)?
}
