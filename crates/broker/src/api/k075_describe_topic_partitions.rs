//! DescribeTopicPartitions, key 75, v0 (KIP-966). Answers to `DescribeTopicPartitionsRequestHandler`; the page is made by
//! `taccola_meta::views`.
//!
//! Behaviour: topics in the order of their names from the cursor on, no more partitions than the request and
//! `max.request.partition.size.limit` allow (at least one), then the cursor to go on with. An empty list of topics means
//! all. Nothing is created. A cursor with a negative partition, or whose topic is not among those that are named, is
//! INVALID_REQUEST for each of them.

use std::sync::Arc;

use taccola_meta::views::{self, PageStart};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::describe_topic_partitions_request::DescribeTopicPartitionsRequest;
use taccola_wire::messages::describe_topic_partitions_response::DescribeTopicPartitionsResponse;

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::operations;

pub async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let names: Vec<&str> = request.topics.iter().map(|topic| topic.name.as_str()).collect();
    let start = match &request.cursor {
        Some(cursor) if cursor.partition_index < 0 || !may_start_at(&names, &cursor.topic_name) => {
            let refused = names.iter().map(|name| views::describe_topic_error(name, ErrorCode::InvalidRequest));
            return DescribeTopicPartitionsResponse { topics: refused.collect(), ..Default::default() };
        }
        Some(cursor) => PageStart { topic: &cursor.topic_name, partition: cursor.partition_index },
        None => PageStart::default(),
    };
    let limit = request.response_partition_limit.min(broker.dynamic_config().topics.max_request_partition_size_limit);
    let limit = usize::try_from(limit).unwrap_or(1);
    let asked = if names.is_empty() { None } else { Some(&*names) };
    let image = broker.image();
    let listener = &context.connection.listener;
    let mut page = views::describe_topic_partitions(&image, listener, asked, start, limit, |_| true);
    for topic in &mut page.topics {
        topic.topic_authorized_operations = operations::TOPIC;
    }
    DescribeTopicPartitionsResponse { topics: page.topics, next_cursor: page.next_cursor, ..Default::default() }
}

fn may_start_at(names: &[&str], topic: &str) -> bool {
    names.is_empty() || names.contains(&topic)
}
