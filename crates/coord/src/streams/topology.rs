//! The topology of a streams application as its first member sent it: subtopologies, what they read, and the internal
//! topics that they need. Answers to Kafka's `StreamsTopology`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use taccola_wire::messages::StreamsGroupTopologyValue;
use taccola_wire::messages::streams_group_describe_response as describe;
use taccola_wire::messages::streams_group_heartbeat_request as request;
use taccola_wire::messages::streams_group_topology_value as value;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Topology {
    pub(crate) epoch: i32,
    pub(crate) subtopologies: BTreeMap<String, value::Subtopology>,
    /// Which subtopology reads a topic.
    source_topics: BTreeMap<String, String>,
}

impl Topology {
    pub(crate) fn from_record(record: &StreamsGroupTopologyValue) -> Self {
        let by_id = record.subtopologies.iter().map(|s| (s.subtopology_id.clone(), s.clone()));
        let subtopologies: BTreeMap<String, value::Subtopology> = by_id.collect();
        let mut source_topics = BTreeMap::new();
        for (id, subtopology) in &subtopologies {
            for topic in inputs(subtopology) {
                source_topics.insert(topic.to_owned(), id.clone());
            }
        }
        Self { epoch: record.epoch, subtopologies, source_topics }
    }

    /// The subtopology that reads the topic.
    pub(crate) fn reader_of(&self, topic: &str) -> Option<&str> {
        self.source_topics.get(topic).map(String::as_str)
    }

    /// Every topic that must exist, in order: sources, repartition topics and changelogs.
    pub(crate) fn required_topics(&self) -> BTreeSet<Arc<str>> {
        let topics = self
            .subtopologies
            .values()
            .flat_map(|s| inputs(s).chain(s.state_changelog_topics.iter().map(|t| t.name.as_str())));
        topics.map(Arc::from).collect()
    }

    /// As it was sent, before any number of partitions is known.
    pub(crate) fn describe(&self) -> describe::Topology {
        let subtopologies = self.subtopologies.iter().map(|(id, s)| describe::Subtopology {
            subtopology_id: id.clone(),
            source_topics: sorted(&s.source_topics),
            repartition_sink_topics: sorted(&s.repartition_sink_topics),
            state_changelog_topics: described(&s.state_changelog_topics),
            repartition_source_topics: described(&s.repartition_source_topics),
        });
        describe::Topology { epoch: self.epoch, subtopologies: Some(subtopologies.collect()) }
    }
}

/// What a subtopology reads: its sources and repartition topics.
pub(crate) fn inputs(subtopology: &value::Subtopology) -> impl Iterator<Item = &str> {
    let repartition = subtopology.repartition_source_topics.iter().map(|t| t.name.as_str());
    subtopology.source_topics.iter().map(String::as_str).chain(repartition)
}

pub(crate) fn sorted(topics: &[String]) -> Vec<String> {
    let mut topics = topics.to_vec();
    topics.sort();
    topics
}

fn described(topics: &[value::TopicInfo]) -> Vec<describe::TopicInfo> {
    let mut topics: Vec<describe::TopicInfo> = topics.iter().map(|t| describe_topic(t, t.partitions)).collect();
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    topics
}

pub(crate) fn describe_topic(topic: &value::TopicInfo, partitions: i32) -> describe::TopicInfo {
    let config = |c: &value::TopicConfig| describe::KeyValue { key: c.key.clone(), value: c.value.clone() };
    describe::TopicInfo {
        name: topic.name.clone(),
        partitions,
        replication_factor: topic.replication_factor,
        topic_configs: topic.topic_configs.iter().map(config).collect(),
    }
}

/// The record of a topology that a member sent.
pub(crate) fn record_of(topology: &request::Topology) -> StreamsGroupTopologyValue {
    let group = |g: &request::CopartitionGroup| value::CopartitionGroup {
        source_topics: g.source_topics.clone(),
        source_topic_regex: g.source_topic_regex.clone(),
        repartition_source_topics: g.repartition_source_topics.clone(),
    };
    let subtopologies = topology.subtopologies.iter().map(|s| value::Subtopology {
        subtopology_id: s.subtopology_id.clone(),
        source_topics: s.source_topics.clone(),
        source_topic_regex: s.source_topic_regex.clone(),
        state_changelog_topics: topic_infos(&s.state_changelog_topics),
        repartition_sink_topics: s.repartition_sink_topics.clone(),
        repartition_source_topics: topic_infos(&s.repartition_source_topics),
        copartition_groups: s.copartition_groups.iter().map(group).collect(),
    });
    StreamsGroupTopologyValue { epoch: topology.epoch, subtopologies: subtopologies.collect() }
}

fn topic_infos(topics: &[request::TopicInfo]) -> Vec<value::TopicInfo> {
    let config = |c: &request::KeyValue| value::TopicConfig { key: c.key.clone(), value: c.value.clone() };
    let info = |t: &request::TopicInfo| value::TopicInfo {
        name: t.name.clone(),
        partitions: t.partitions,
        replication_factor: t.replication_factor,
        topic_configs: t.topic_configs.iter().map(config).collect(),
    };
    topics.iter().map(info).collect()
}
