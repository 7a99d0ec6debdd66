//! The voters of a quorum of one: as a record, and as DescribeQuorum tells them (KIP-595, KIP-836, KIP-853). Answers to
//! `VoterSet` and `KafkaRaftClient.handleDescribeQuorumRequest`.

use taccola_base::Uuid;
use taccola_base::topic::CLUSTER_METADATA_TOPIC;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::describe_quorum_response::{Listener, Node, PartitionData, ReplicaState, TopicData};
use taccola_wire::messages::voters_record::{Endpoint, KRaftVersionFeature, Voter};
use taccola_wire::messages::{DescribeQuorumRequest, DescribeQuorumResponse, VotersRecord};

/// From this version on, nodes, directories and messages are told.
const NODES_SINCE: i16 = 2;

/// Where the only voter of a quorum listens as a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandaloneVoter {
    pub node_id: i32,
    /// Of the directory that holds the metadata log.
    pub directory_id: Uuid,
    /// Name of the controller listener, host, port.
    pub listeners: Vec<(String, String, u16)>,
}

impl StandaloneVoter {
    /// What stands in the log of a dynamic quorum.
    pub fn record(&self) -> VotersRecord {
        let endpoint = |(name, host, port): &(String, String, u16)| Endpoint {
            name: name.clone(),
            host: host.clone(),
            port: *port,
        };
        let voter = Voter {
            voter_id: self.node_id,
            voter_directory_id: self.directory_id,
            endpoints: self.listeners.iter().map(endpoint).collect(),
            kraft_version_feature: KRaftVersionFeature { min_supported_version: 0, max_supported_version: 1 },
        };
        VotersRecord { version: 0, voters: vec![voter] }
    }
}

/// What the leader of a quorum of one knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumStatus {
    pub epoch: i32,
    /// Exclusive: the first offset that is not committed.
    pub high_watermark: i64,
    /// Exclusive.
    pub log_end_offset: i64,
    /// The leader. Its directory is zero in a static quorum, which knows voters by their id alone.
    pub voter: StandaloneVoter,
}

/// The answer to DescribeQuorum by the leader. There is one partition to ask for.
pub fn describe_quorum(
    status: &QuorumStatus,
    request: &DescribeQuorumRequest,
    api_version: i16,
    now_ms: i64,
) -> DescribeQuorumResponse {
    let asks_for_the_log = matches!(request.topics.as_slice(), [topic]
        if topic.topic_name == CLUSTER_METADATA_TOPIC && matches!(topic.partitions.as_slice(), [p] if p.partition_index == 0));
    if !asks_for_the_log {
        return unknown_partitions(request);
    }
    let voter = &status.voter;
    let leader = ReplicaState {
        replica_id: voter.node_id,
        replica_directory_id: if api_version >= NODES_SINCE { voter.directory_id } else { Uuid::ZERO },
        log_end_offset: status.log_end_offset,
        last_fetch_timestamp: now_ms,
        last_caught_up_timestamp: now_ms,
    };
    let partition = PartitionData {
        leader_id: voter.node_id,
        leader_epoch: status.epoch,
        high_watermark: status.high_watermark,
        current_voters: vec![leader],
        ..Default::default()
    };
    let listener =
        |(name, host, port): &(String, String, u16)| Listener { name: name.clone(), host: host.clone(), port: *port };
    let node = Node { node_id: voter.node_id, listeners: voter.listeners.iter().map(listener).collect() };
    DescribeQuorumResponse {
        topics: vec![TopicData { topic_name: CLUSTER_METADATA_TOPIC.to_owned(), partitions: vec![partition] }],
        nodes: if api_version >= NODES_SINCE { vec![node] } else { Vec::new() },
        ..Default::default()
    }
}

fn unknown_partitions(request: &DescribeQuorumRequest) -> DescribeQuorumResponse {
    let code = ErrorCode::UnknownTopicOrPartition;
    let row = |partition_index: i32| PartitionData {
        partition_index,
        error_code: code.code(),
        error_message: Some(code.message().to_owned()),
        ..Default::default()
    };
    let topics = request.topics.iter().map(|topic| TopicData {
        topic_name: topic.topic_name.clone(),
        partitions: topic.partitions.iter().map(|asked| row(asked.partition_index)).collect(),
    });
    DescribeQuorumResponse { topics: topics.collect(), ..Default::default() }
}
