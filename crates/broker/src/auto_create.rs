//! Topics that are created because somebody asks for them: by Metadata where `auto.create.topics.enable` says so, and the
//! coordinators' own topics when they are first needed. Answers to Kafka's `AutoTopicCreationManager`.

use taccola_base::topic::{
    GROUP_METADATA_TOPIC, REMOTE_LOG_METADATA_TOPIC, SHARE_GROUP_STATE_TOPIC, TRANSACTION_STATE_TOPIC, is_internal,
    validate_topic_name,
};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};

use crate::broker::Broker;

impl Broker {
    /// Creates those of the topics that are missing and may be created. What cannot be created stays missing; the caller
    /// finds out by looking.
    pub async fn auto_create<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let image = self.image();
        let missing = names.filter(|name| image.topics.by_name(name).is_none() && validate_topic_name(name).is_ok());
        let topics: Vec<CreatableTopic> = missing.map(|name| self.new_topic(name)).collect();
        drop(image);
        if topics.is_empty() {
            return;
        }
        let request = CreateTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
        let created =
            self.command(|controller, image| controller.create_topics(image, &request, &mut crate::random::uuid)).await;
        match created {
            Ok(response) => {
                for topic in response.topics.iter().filter(|t| t.error_code != ErrorCode::None.code()) {
                    tracing::info!(topic = topic.name, reason = ?topic.error_message, "a topic was not created on demand");
                }
            }
            Err(error) => tracing::error!(%error, "topics cannot be created on demand"),
        }
    }

    /// The shape of a topic that nobody described.
    fn new_topic(&self, name: &str) -> CreatableTopic {
        let config = self.dynamic_config();
        let setting = |name: &str, value: String| CreatableTopicConfig { name: name.to_owned(), value: Some(value) };
        let (num_partitions, replication_factor, configs) = match name {
            GROUP_METADATA_TOPIC => (
                config.offsets.topic_num_partitions,
                config.offsets.topic_replication_factor,
                vec![
                    setting("cleanup.policy", "compact".into()),
                    setting("compression.type", "producer".into()),
                    setting("segment.bytes", config.offsets.topic_segment_bytes.to_string()),
                ],
            ),
            TRANSACTION_STATE_TOPIC => (
                config.transactions.topic_num_partitions,
                config.transactions.topic_replication_factor,
                vec![
                    setting("cleanup.policy", "compact".into()),
                    setting("compression.type", "uncompressed".into()),
                    setting("min.insync.replicas", config.transactions.topic_min_isr.to_string()),
                    setting("segment.bytes", config.transactions.topic_segment_bytes.to_string()),
                    setting("unclean.leader.election.enable", "false".into()),
                ],
            ),
            SHARE_GROUP_STATE_TOPIC => (
                config.share.topic_num_partitions,
                config.share.topic_replication_factor,
                vec![
                    setting("cleanup.policy", "delete".into()),
                    setting("compression.type", "producer".into()),
                    setting("min.insync.replicas", config.share.topic_min_isr.to_string()),
                    setting("retention.ms", "-1".into()),
                    setting("segment.bytes", config.share.topic_segment_bytes.to_string()),
                ],
            ),
            REMOTE_LOG_METADATA_TOPIC => (
                config.remote.metadata_partitions,
                1,
                vec![
                    setting("cleanup.policy", "delete".into()),
                    setting("remote.storage.enable", "false".into()),
                    setting("retention.ms", config.remote.metadata_retention_ms.to_string()),
                ],
            ),
            _ => (config.topics.num_partitions, config.topics.default_replication_factor, Vec::new()),
        };
        // A single node cannot hold three copies: internal topics get what there is, as a first start would otherwise
        // have no coordinator at all.
        let replication_factor = if is_internal(name) { 1 } else { replication_factor };
        CreatableTopic { name: name.to_owned(), num_partitions, replication_factor, configs, ..Default::default() }
    }
}
