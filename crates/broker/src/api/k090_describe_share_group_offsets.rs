//! DescribeShareGroupOffsets, key 90, v0–v1 (KIP-932). Where share groups are in their partitions, from the share
//! coordinator; without topics, all partitions whose state is set up. A partition without state has start offset -1.
//! Version notes: v1 has the lag (KIP-1226): records that are not delivered yet; -1 where nobody counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use taccola_base::Uuid;
use taccola_coord::share_state::{NO_DELIVERY_COMPLETE_COUNT, NO_START_OFFSET, SharePartitionKey, StateSummary};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::describe_share_group_offsets_request::{
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsRequestGroup, DescribeShareGroupOffsetsRequestTopic,
};
use taccola_wire::messages::describe_share_group_offsets_response::{
    DescribeShareGroupOffsetsResponse, DescribeShareGroupOffsetsResponseGroup,
    DescribeShareGroupOffsetsResponsePartition, DescribeShareGroupOffsetsResponseTopic,
};

use crate::broker::Broker;
use crate::context::RequestContext;

/// Share partitions that are asked about at a time for one topic.
const ASKED_AT_A_TIME: usize = 256;
/// The lag where it is not known.
const NO_LAG: i64 = -1;

pub async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: DescribeShareGroupOffsetsRequest,
) -> DescribeShareGroupOffsetsResponse {
    let mut groups = Vec::new();
    for group in request.groups {
        let group_id = group.group_id.clone();
        groups.push(describe(broker, group).await.unwrap_or_else(|error| DescribeShareGroupOffsetsResponseGroup {
            group_id,
            error_code: error.code(),
            error_message: Some(error.message().to_owned()),
            ..Default::default()
        }));
    }
    DescribeShareGroupOffsetsResponse { groups, ..Default::default() }
}

async fn describe(
    broker: &Arc<Broker>,
    group: DescribeShareGroupOffsetsRequestGroup,
) -> Result<DescribeShareGroupOffsetsResponseGroup, ErrorCode> {
    if !broker.share_groups_enabled() {
        return Err(ErrorCode::UnsupportedVersion);
    }
    let wanted = match group.topics {
        Some(topics) => topics,
        None => all_topics(broker, &group.group_id)?,
    };
    let group_id: Arc<str> = group.group_id.as_str().into();
    let mut topics = Vec::new();
    for topic in wanted {
        topics.push(describe_topic(broker, &group_id, topic).await);
    }
    Ok(DescribeShareGroupOffsetsResponseGroup { group_id: group.group_id, topics, ..Default::default() })
}

fn all_topics(broker: &Broker, group_id: &str) -> Result<Vec<DescribeShareGroupOffsetsRequestTopic>, ErrorCode> {
    let partition = broker.group_partition(group_id)?;
    let partitions = broker.groups.look(partition, |groups| groups.share_initialized_partitions(group_id))?;
    let image = broker.image();
    let named: BTreeMap<String, Vec<i32>> = partitions
        .into_iter()
        .filter_map(|(id, partitions)| {
            Some((image.topics.by_id(id)?.name.to_string(), partitions.into_iter().collect()))
        })
        .collect();
    let topic = |(topic_name, partitions)| DescribeShareGroupOffsetsRequestTopic { topic_name, partitions };
    Ok(named.into_iter().map(topic).collect())
}

async fn describe_topic(
    broker: &Broker,
    group_id: &Arc<str>,
    topic: DescribeShareGroupOffsetsRequestTopic,
) -> DescribeShareGroupOffsetsResponseTopic {
    let topic_id = broker.image().topics.by_name(&topic.topic_name).map_or(Uuid::ZERO, |topic| topic.id);
    let mut partitions = Vec::new();
    for some in topic.partitions.chunks(ASKED_AT_A_TIME) {
        let rows = some.iter().map(|partition| async {
            if topic_id.is_zero() {
                return row(*partition, NO_START_OFFSET, 0, NO_LAG);
            }
            let key = SharePartitionKey { group_id: group_id.clone(), topic_id, partition: *partition };
            match broker.share_state_summary(&key).await {
                Ok(summary) => {
                    let lag = lag(broker, &topic.topic_name, *partition, &summary);
                    row(*partition, summary.start_offset, summary.leader_epoch, lag)
                }
                Err(_) => row(*partition, NO_START_OFFSET, 0, NO_LAG),
            }
        });
        partitions.extend(join_all(rows).await);
    }
    DescribeShareGroupOffsetsResponseTopic { topic_name: topic.topic_name, topic_id, partitions }
}

fn lag(broker: &Broker, topic: &str, partition: i32, summary: &StateSummary) -> i64 {
    if summary.start_offset == NO_START_OFFSET || summary.delivery_complete_count == NO_DELIVERY_COMPLETE_COUNT {
        return NO_LAG;
    }
    let partition = broker.partitions.get(topic, partition);
    let Some(end) = partition.and_then(|partition| partition.with_log(|log| log.high_watermark())) else {
        return NO_LAG;
    };
    end.saturating_sub(summary.start_offset).saturating_sub(i64::from(summary.delivery_complete_count))
}

fn row(
    partition_index: i32,
    start_offset: i64,
    leader_epoch: i32,
    lag: i64,
) -> DescribeShareGroupOffsetsResponsePartition {
    DescribeShareGroupOffsetsResponsePartition {
        partition_index,
        start_offset,
        leader_epoch,
        lag,
        ..Default::default()
    }
}
