//! StreamsGroupHeartbeat, key 88, v0 (KIP-1071).
//!
//! Behaviour: the group coordinator (`taccola_coord`) decides; the reply waits until what it says is durable. Internal topics
//! that the topology needs and the cluster lacks are created here, through the controller, before the reply goes out: why
//! one could not be created stands in the status MISSING_INTERNAL_TOPICS, and the next heartbeat tries again.
//! UNSUPPORTED_VERSION where the protocol is switched off: `group.coordinator.rebalance.protocols`, or `streams.version` 0.

use std::collections::BTreeSet;
use std::sync::Arc;

use taccola_base::topic::{is_internal, validate_topic_name};
use taccola_coord::{MISSING_INTERNAL_TOPICS, Response, StreamsHeartbeat};
use taccola_meta::feature::STREAMS_VERSION;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use taccola_wire::messages::streams_group_heartbeat_request::Topology;
use taccola_wire::messages::{StreamsGroupHeartbeatRequest, StreamsGroupHeartbeatResponse};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::error_map;

/// How long creating the internal topics may take, ms.
const CREATE_TIMEOUT_MS: i32 = 30_000;

pub async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: StreamsGroupHeartbeatRequest,
) -> StreamsGroupHeartbeatResponse {
    if !is_served(broker) {
        return failed(ErrorCode::UnsupportedVersion).response;
    }
    if let Err(message) = request.topology.as_ref().map_or(Ok(()), check_topic_names) {
        return StreamsHeartbeat::refused(ErrorCode::StreamsInvalidTopology, Some(message)).response;
    }
    let partition = match broker.group_partition(&request.group_id) {
        Ok(partition) => partition,
        Err(error) => return failed(error).response,
    };
    let called = broker.groups.call(
        partition,
        context,
        |groups, call| groups.handle_streams_group_heartbeat(call.now_ms, &call.context, &request),
        |response| match response {
            Response::Streams(reply) => Some(*reply),
            _ => None,
        },
    );
    let StreamsHeartbeat { mut response, create } = called.await.unwrap_or_else(failed);
    if !create.is_empty() {
        let failures = create_topics(broker, create).await;
        if !failures.is_empty() {
            tell(&mut response, &failures);
        }
    }
    response
}

/// Whether streams groups are served here.
pub(super) fn is_served(broker: &Broker) -> bool {
    broker.dynamic.load().groups.protocols.streams && broker.image().features.level(STREAMS_VERSION) >= 1
}

fn failed(error: ErrorCode) -> StreamsHeartbeat {
    StreamsHeartbeat::refused(error, None)
}

/// A topology reads and writes topics of clients alone.
fn check_topic_names(topology: &Topology) -> Result<(), String> {
    let names: BTreeSet<&str> = topology
        .subtopologies
        .iter()
        .flat_map(|s| {
            let infos = s.state_changelog_topics.iter().chain(&s.repartition_source_topics).map(|t| &t.name);
            s.source_topics.iter().chain(&s.repartition_sink_topics).chain(infos)
        })
        .map(String::as_str)
        .collect();
    let joined = |wrong: Vec<&str>| wrong.join(",");
    let internal: Vec<&str> = names.iter().copied().filter(|name| is_internal(name)).collect();
    if !internal.is_empty() {
        let names = joined(internal);
        return Err(format!("Use of Kafka internal topics {names} in a Kafka Streams topology is prohibited."));
    }
    let invalid: Vec<&str> = names.into_iter().filter(|name| validate_topic_name(name).is_err()).collect();
    if invalid.is_empty() { Ok(()) } else { Err(format!("Topic names {} are not valid topic names.", joined(invalid))) }
}

/// What could not be created, and why. Another member's heartbeat may have been faster: that is no failure.
async fn create_topics(broker: &Arc<Broker>, topics: Vec<CreatableTopic>) -> Vec<String> {
    let names: Vec<String> = topics.iter().map(|topic| topic.name.clone()).collect();
    let request = CreateTopicsRequest { topics, timeout_ms: CREATE_TIMEOUT_MS, validate_only: false };
    let created =
        broker.command(|controller, image| controller.create_topics(image, &request, &mut crate::random::uuid)).await;
    let results = match created {
        Ok(response) => response.topics,
        Err(error) => {
            let code = error_map::metadata_write(&error);
            return names.into_iter().map(|name| format!("{name} ({})", code.message())).collect();
        }
    };
    let harmless = [ErrorCode::None.code(), ErrorCode::TopicAlreadyExists.code()];
    let failures = results.into_iter().filter(|result| !harmless.contains(&result.error_code));
    let row = |name: String, why: Option<String>| format!("{name} ({})", why.unwrap_or_default());
    failures.map(|result| row(result.name, result.error_message)).collect()
}

fn tell(response: &mut StreamsGroupHeartbeatResponse, failures: &[String]) {
    let statuses = response.status.iter_mut().flatten();
    for status in statuses.filter(|status| status.status_code == MISSING_INTERNAL_TOPICS) {
        status.status_detail = format!("{}; Creation failed: {}.", status.status_detail, failures.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use taccola_wire::messages::streams_group_heartbeat_request::Subtopology;

    use super::*;

    #[test]
    fn topologies_name_topics_of_clients_alone() {
        let topology = |source: &str| Topology {
            epoch: 0,
            subtopologies: vec![Subtopology { source_topics: vec![source.to_owned()], ..Default::default() }],
        };
        assert_eq!(check_topic_names(&topology("words")), Ok(()));
        assert!(check_topic_names(&topology("__consumer_offsets")).unwrap_err().contains("prohibited"));
        assert!(check_topic_names(&topology("a b")).unwrap_err().contains("not valid"));
    }
}
