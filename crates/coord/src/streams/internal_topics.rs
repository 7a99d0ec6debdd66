//! From a topology and the cluster's topics to numbers: how many tasks each subtopology has, how many partitions each
//! internal topic, which of them are missing, and what is wrong. Answers to Kafka's `InternalTopicManager`,
//! `RepartitionTopics`, `CopartitionedTopicsEnforcer`, `ChangelogTopics` and `ConfiguredTopology`.

use std::collections::{BTreeMap, BTreeSet};

use taccola_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use taccola_wire::messages::streams_group_describe_response as describe;
use taccola_wire::messages::streams_group_topology_value::{CopartitionGroup, Subtopology, TopicInfo};

use super::assignor::SubtopologySpec;
use super::topology::{Topology, describe_topic, inputs, sorted};
use crate::cluster_image::ClusterImage;

/// How many topics a message names before it only counts them.
const SUMMARY_MAX: usize = 3;

/// What members are told besides an assignment (`StreamsGroupHeartbeatResponse.Status`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    StaleTopology,
    MissingSourceTopics,
    IncorrectlyPartitionedTopics,
    MissingInternalTopics,
    ShutdownApplication,
    AssignmentDelayed,
}

impl Status {
    pub(crate) fn code(self) -> i8 {
        match self {
            Self::StaleTopology => 0,
            Self::MissingSourceTopics => 1,
            Self::IncorrectlyPartitionedTopics => 2,
            Self::MissingInternalTopics => 3,
            Self::ShutdownApplication => 4,
            Self::AssignmentDelayed => 5,
        }
    }
}

/// Why there is nothing to assign yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: Status,
    pub(crate) detail: String,
}

/// The topology cannot work with any topics.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidTopology {
    #[error("a repartition source topic is no sink of any subtopology, so its number of partitions is not known")]
    SourceWithoutSink,
    #[error("the numbers of partitions of the repartition topics depend on each other in a circle")]
    Loop,
    #[error("no topic of a copartition group has a known number of partitions: {0}")]
    UndefinedCopartitions(String),
    #[error("subtopology {0} has no source topics")]
    NoSources(String),
    #[error("a copartition group of subtopology {0} names a topic that the subtopology does not read")]
    CopartitionIndex(String),
    #[error("topic {0} has no partitions")]
    NoPartitions(String),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConfiguredSubtopology {
    pub(crate) tasks: i32,
    pub(crate) source_topics: BTreeSet<String>,
    pub(crate) repartition_sources: BTreeSet<String>,
    pub(crate) stateful: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConfiguredTopology {
    pub(crate) epoch: i32,
    /// `None` when topics are missing or do not fit.
    pub(crate) subtopologies: Option<BTreeMap<String, ConfiguredSubtopology>>,
    /// Partitions of every internal topic.
    partitions: BTreeMap<String, i32>,
    pub(crate) to_create: Vec<CreatableTopic>,
    pub(crate) problem: Option<Problem>,
}

/// Either the application or the cluster is wrong.
#[derive(Debug)]
enum Failure {
    Problem(Problem),
    Invalid(InvalidTopology),
}

impl From<InvalidTopology> for Failure {
    fn from(error: InvalidTopology) -> Self {
        Self::Invalid(error)
    }
}

fn mispartitioned(detail: String) -> Failure {
    Failure::Problem(Problem { status: Status::IncorrectlyPartitionedTopics, detail })
}

impl ConfiguredTopology {
    pub(crate) fn is_ready(&self) -> bool {
        self.problem.is_none()
    }

    /// For the assignor; empty unless ready.
    pub(crate) fn specs(&self) -> BTreeMap<String, SubtopologySpec> {
        let ready = self.subtopologies.iter().filter(|_| self.is_ready()).flatten();
        ready.map(|(id, s)| (id.clone(), SubtopologySpec { tasks: s.tasks, stateful: s.stateful })).collect()
    }

    /// With the numbers of partitions that were decided.
    pub(crate) fn describe(&self, topology: &Topology) -> describe::Topology {
        let infos = |topics: &[TopicInfo]| {
            let partitions = |t: &TopicInfo| self.partitions.get(&t.name).copied().unwrap_or(t.partitions);
            let mut infos: Vec<_> = topics.iter().map(|t| describe_topic(t, partitions(t))).collect();
            infos.sort_by(|a, b| a.name.cmp(&b.name));
            infos
        };
        let subtopologies = topology.subtopologies.iter().map(|(id, s)| describe::Subtopology {
            subtopology_id: id.clone(),
            source_topics: sorted(&s.source_topics),
            repartition_sink_topics: sorted(&s.repartition_sink_topics),
            state_changelog_topics: infos(&s.state_changelog_topics),
            repartition_source_topics: infos(&s.repartition_source_topics),
        });
        describe::Topology { epoch: self.epoch, subtopologies: Some(subtopologies.collect()) }
    }
}

pub(crate) fn configure(topology: &Topology, image: &dyn ClusterImage) -> Result<ConfiguredTopology, InvalidTopology> {
    match Configuration::new(topology, image).run() {
        Ok(configured) => Ok(configured),
        Err(Failure::Invalid(error)) => Err(error),
        Err(Failure::Problem(problem)) => Ok(ConfiguredTopology {
            epoch: topology.epoch,
            subtopologies: None,
            partitions: BTreeMap::new(),
            to_create: Vec::new(),
            problem: Some(problem),
        }),
    }
}

struct Configuration<'a> {
    topology: &'a Topology,
    image: &'a dyn ClusterImage,
    /// Partitions of internal topics, as decided so far.
    decided: BTreeMap<String, i32>,
}

impl<'a> Configuration<'a> {
    fn new(topology: &'a Topology, image: &'a dyn ClusterImage) -> Self {
        Self { topology, image, decided: BTreeMap::new() }
    }

    fn subtopologies(&self) -> impl Iterator<Item = (&'a String, &'a Subtopology)> + use<'a> {
        self.topology.subtopologies.iter()
    }

    fn run(mut self) -> Result<ConfiguredTopology, Failure> {
        self.check_sources()?;
        self.decide_repartition_topics()?;
        self.enforce_copartitions()?;
        self.decide_changelogs()?;
        let mut subtopologies = BTreeMap::new();
        for (id, subtopology) in self.subtopologies() {
            let configured = ConfiguredSubtopology {
                tasks: self.tasks_of(id, subtopology)?,
                source_topics: subtopology.source_topics.iter().cloned().collect(),
                repartition_sources: subtopology.repartition_source_topics.iter().map(|t| t.name.clone()).collect(),
                stateful: !subtopology.state_changelog_topics.is_empty(),
            };
            subtopologies.insert(id.clone(), configured);
        }
        let to_create = self.missing_topics()?;
        let problem = (!to_create.is_empty()).then(|| Problem {
            status: Status::MissingInternalTopics,
            detail: format!("Internal topics are missing: {}", summary(to_create.iter().map(|t| t.name.as_str()))),
        });
        Ok(ConfiguredTopology {
            epoch: self.topology.epoch,
            subtopologies: Some(subtopologies),
            partitions: self.decided,
            to_create,
            problem,
        })
    }

    /// Topics that exist count as they are, others as was decided.
    fn partitions(&self, topic: &str) -> Option<i32> {
        let existing = self.image.topic_by_name(topic).map(|t| t.partitions);
        existing.or_else(|| self.decided.get(topic).copied())
    }

    fn known_partitions(&self, topic: &str) -> Result<i32, InvalidTopology> {
        self.partitions(topic).ok_or_else(|| InvalidTopology::NoPartitions(topic.to_owned()))
    }

    fn check_sources(&self) -> Result<(), Failure> {
        let sources = self.subtopologies().flat_map(|(_, s)| &s.source_topics);
        let missing: BTreeSet<&str> =
            sources.map(String::as_str).filter(|topic| self.image.topic_by_name(topic).is_none()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let detail = format!("Source topics {} are missing.", summary(missing));
        Err(Failure::Problem(Problem { status: Status::MissingSourceTopics, detail }))
    }

    /// A repartition topic has as many partitions as it asks for, or as the widest input of the subtopology that writes
    /// it. One that is written from another has to wait for that one.
    fn decide_repartition_topics(&mut self) -> Result<(), InvalidTopology> {
        let mut counts: BTreeMap<&str, i32> = BTreeMap::new();
        let sources = || self.subtopologies().flat_map(|(_, s)| &s.repartition_source_topics);
        for topic in sources().filter(|t| t.partitions != 0) {
            counts.insert(&topic.name, topic.partitions);
        }
        loop {
            let (mut progress, mut open) = (false, false);
            for (_, subtopology) in self.subtopologies() {
                for sink in &subtopology.repartition_sink_topics {
                    if counts.contains_key(sink.as_str()) {
                        continue;
                    }
                    match self.widest_input(subtopology, &counts) {
                        Some(partitions) => {
                            counts.insert(sink, partitions);
                            progress = true;
                        }
                        None => open = true,
                    }
                }
            }
            match (open, progress) {
                (false, _) => break,
                (true, false) => return Err(InvalidTopology::Loop),
                (true, true) => {}
            }
        }
        if sources().any(|t| !counts.contains_key(t.name.as_str())) {
            return Err(InvalidTopology::SourceWithoutSink);
        }
        self.decided = counts.into_iter().map(|(topic, partitions)| (topic.to_owned(), partitions)).collect();
        Ok(())
    }

    fn widest_input(&self, subtopology: &Subtopology, counts: &BTreeMap<&str, i32>) -> Option<i32> {
        let repartition =
            subtopology.repartition_source_topics.iter().filter_map(|t| counts.get(t.name.as_str()).copied());
        let external = subtopology.source_topics.iter().filter_map(|t| self.partitions(t));
        repartition.chain(external).max()
    }

    fn enforce_copartitions(&mut self) -> Result<(), Failure> {
        let (mut fixed, mut flexible) = (BTreeSet::new(), BTreeSet::new());
        for topic in self.subtopologies().flat_map(|(_, s)| &s.repartition_source_topics) {
            let set = if topic.partitions != 0 { &mut fixed } else { &mut flexible };
            set.insert(topic.name.as_str());
        }
        for (id, subtopology) in self.subtopologies() {
            for group in &subtopology.copartition_groups {
                let topics =
                    copartitioned(subtopology, group).ok_or_else(|| InvalidTopology::CopartitionIndex(id.clone()))?;
                let counts = self.enforce(&topics, &fixed, &flexible)?;
                self.decided.extend(counts);
            }
        }
        Ok(())
    }

    /// Topics that are read together have the same number of partitions: that of the sources, or of the repartition
    /// topics whose number is fixed, or the largest.
    fn enforce(
        &self,
        group: &BTreeSet<&str>,
        fixed: &BTreeSet<&str>,
        flexible: &BTreeSet<&str>,
    ) -> Result<BTreeMap<String, i32>, Failure> {
        let (mut repartition, mut sources) = (BTreeMap::new(), BTreeMap::new());
        for topic in group {
            let partitions = self.known_partitions(topic)?;
            let internal = fixed.contains(topic) || flexible.contains(topic);
            if internal { &mut repartition } else { &mut sources }.insert(*topic, partitions);
        }
        let partitions = if !sources.is_empty() {
            same(&sources)?
        } else if repartition.is_empty() {
            return Ok(BTreeMap::new());
        } else {
            let fixed_here: BTreeMap<&str, i32> =
                repartition.iter().filter(|(t, _)| fixed.contains(*t)).map(|(t, p)| (*t, *p)).collect();
            if fixed_here.is_empty() { repartition.values().copied().max().unwrap_or(0) } else { same(&fixed_here)? }
        };
        if partitions <= 0 {
            let names = repartition.keys().copied().collect::<Vec<_>>().join(", ");
            return Err(InvalidTopology::UndefinedCopartitions(names).into());
        }
        for (topic, has) in repartition.iter().filter(|(t, _)| fixed.contains(*t)) {
            if *has != partitions {
                return Err(mispartitioned(format!(
                    "Number of partitions [{has}] of repartition topic [{topic}] doesn't match number of partitions [{partitions}] of the source topic."
                )));
            }
        }
        Ok(repartition.into_keys().map(|topic| (topic.to_owned(), partitions)).collect())
    }

    fn decide_changelogs(&mut self) -> Result<(), InvalidTopology> {
        let mut counts = Vec::new();
        for (id, subtopology) in self.subtopologies() {
            let tasks = self.tasks_of(id, subtopology)?;
            counts.extend(subtopology.state_changelog_topics.iter().map(|t| (t.name.clone(), tasks)));
        }
        self.decided.extend(counts);
        Ok(())
    }

    fn tasks_of(&self, id: &str, subtopology: &Subtopology) -> Result<i32, InvalidTopology> {
        let mut tasks = 0;
        for topic in inputs(subtopology) {
            tasks = tasks.max(self.known_partitions(topic)?);
        }
        if tasks > 0 { Ok(tasks) } else { Err(InvalidTopology::NoSources(id.to_owned())) }
    }

    /// Internal topics that do not exist, as they have to be created; those that do must have the decided width.
    fn missing_topics(&self) -> Result<Vec<CreatableTopic>, Failure> {
        let mut missing: BTreeMap<&str, CreatableTopic> = BTreeMap::new();
        for (_, subtopology) in self.subtopologies() {
            for topic in subtopology.repartition_source_topics.iter().chain(&subtopology.state_changelog_topics) {
                let partitions = self.decided.get(&topic.name).copied().unwrap_or(topic.partitions);
                match self.image.topic_by_name(&topic.name) {
                    None => {
                        missing.insert(&topic.name, creatable(topic, partitions));
                    }
                    Some(existing) if existing.partitions != partitions => {
                        return Err(mispartitioned(format!(
                            "Existing topic {} has different number of partitions: expected {partitions}, found {}",
                            topic.name, existing.partitions
                        )));
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(missing.into_values().collect())
    }
}

fn same(topics: &BTreeMap<&str, i32>) -> Result<i32, Failure> {
    let partitions = topics.values().copied().next().unwrap_or(0);
    if topics.values().all(|p| *p == partitions) {
        return Ok(partitions);
    }
    let rows: Vec<String> = topics.iter().map(|(topic, partitions)| format!("{topic}={partitions}")).collect();
    Err(mispartitioned(format!(
        "Following topics do not have the same number of partitions: [{{{}}}]",
        rows.join(", ")
    )))
}

/// `None`: an index points nowhere.
fn copartitioned<'a>(subtopology: &'a Subtopology, group: &CopartitionGroup) -> Option<BTreeSet<&'a str>> {
    let at = |index: &i16| usize::try_from(*index).ok();
    let sources =
        group.source_topics.iter().map(|i| at(i).and_then(|i| subtopology.source_topics.get(i)).map(String::as_str));
    let repartition = group
        .repartition_source_topics
        .iter()
        .map(|i| at(i).and_then(|i| subtopology.repartition_source_topics.get(i)).map(|t| t.name.as_str()));
    sources.chain(repartition).collect()
}

fn creatable(topic: &TopicInfo, partitions: i32) -> CreatableTopic {
    let config = |c: &taccola_wire::messages::streams_group_topology_value::TopicConfig| CreatableTopicConfig {
        name: c.key.clone(),
        value: Some(c.value.clone()),
    };
    CreatableTopic {
        name: topic.name.clone(),
        num_partitions: partitions,
        // 0 and -1 both mean the broker's default; Kafka passes any other number on.
        replication_factor: if topic.replication_factor == 0 { -1 } else { topic.replication_factor },
        configs: topic.topic_configs.iter().map(config).collect(),
        ..Default::default()
    }
}

fn summary<'a>(topics: impl IntoIterator<Item = &'a str>) -> String {
    let topics: Vec<&str> = topics.into_iter().collect();
    let named = topics.iter().take(SUMMARY_MAX).copied().collect::<Vec<_>>().join(", ");
    match topics.len().checked_sub(SUMMARY_MAX) {
        None | Some(0) => named,
        Some(more) => format!("{named} and {more} additional topics"),
    }
}
