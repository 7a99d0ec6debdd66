//! What a restore will do, and whether it can: names, targets, what is in them already.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use taccola_base::TopicPartition;
use taccola_base::topic::{is_internal, validate_topic_name};
use taccola_client::admin::OffsetSpec;
use taccola_client::cluster::TopicMetadata;
use taccola_client::{Admin, Client, IsolationLevel};

use super::partition::Work;
use super::{Into, RestoreOptions};
use crate::contents::{Contents, Topic};
use crate::error::{Error, Result};

/// What happens to one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is made.
    Create,
    /// It is there and empty.
    Fill,
    /// It is there and holds, so it is said, the beginning of this restore.
    Resume,
    /// It is there, and records are added to it.
    Append,
}

impl Action {
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Fill => "fill",
            Self::Resume => "resume",
            Self::Append => "append",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPlan {
    pub source: String,
    pub target: String,
    pub partitions: usize,
    pub action: Action,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Sorted by source.
    pub topics: Vec<TopicPlan>,
    /// Groups that have offsets in these topics.
    pub groups: Vec<String>,
}

impl Plan {
    pub(super) fn target(&self, source: &str) -> Option<&TopicPlan> {
        self.topics.iter().find(|topic| topic.source == source)
    }
}

pub(super) type Ranges = HashMap<TopicPartition, (i64, i64)>;

pub(super) async fn plan(client: &Client, contents: &Contents, options: &RestoreOptions) -> Result<Plan> {
    let names: Vec<&str> = contents.topics.iter().map(|topic| topic.name.as_str()).collect();
    if let Some(pattern) = options.topics.useless(&names) {
        return Err(Error::Invalid(format!("no topic of the backup matches {pattern:?}")));
    }
    for (old, _) in &options.rename {
        if !names.contains(&old.as_str()) {
            return Err(Error::Invalid(format!("the backup has no topic {old} to rename")));
        }
    }
    let known: BTreeMap<Arc<str>, Arc<TopicMetadata>> =
        client.topics().await?.into_iter().map(|topic| (Arc::clone(&topic.name), topic)).collect();
    let mut targets = BTreeSet::new();
    let mut topics = Vec::new();
    for topic in contents.topics.iter().filter(|topic| options.topics.takes(&topic.name)) {
        let target = target_name(&topic.name, options)?;
        if !targets.insert(target.clone()) {
            return Err(Error::Invalid(format!("two topics would become {target}")));
        }
        let action = match known.get(target.as_str()) {
            None => Action::Create,
            Some(existing) => existing_action(client, topic, existing, options.into).await?,
        };
        topics.push(TopicPlan { source: topic.name.clone(), target, partitions: topic.partitions.len(), action });
    }
    let groups = match options.with_groups {
        true => groups(client, contents, &topics, options).await?,
        false => Vec::new(),
    };
    Ok(Plan { topics, groups })
}

fn target_name(source: &str, options: &RestoreOptions) -> Result<String> {
    let renamed = options.rename.iter().find(|(old, _)| old == source);
    let target = renamed.map_or_else(|| format!("{}{source}", options.prefix), |(_, new)| new.clone());
    validate_topic_name(&target).map_err(Error::Invalid)?;
    if is_internal(&target) {
        return Err(Error::Refused(format!("{target} belongs to the cluster itself")));
    }
    Ok(target)
}

async fn existing_action(client: &Client, topic: &Topic, existing: &Arc<TopicMetadata>, into: Into) -> Result<Action> {
    let name = &existing.name;
    if existing.partitions.len() != topic.partitions.len() {
        return Err(Error::Refused(format!(
            "topic {name} has {} partitions where the backup has {}; restore under another name",
            existing.partitions.len(),
            topic.partitions.len()
        )));
    }
    if into == Into::Append {
        return Ok(Action::Append);
    }
    let ranges = ranges(client, existing).await?;
    let empty = ranges.values().all(|(start, end)| start == end);
    match into {
        Into::Resume => Ok(Action::Resume),
        _ if empty => Ok(Action::Fill),
        _ => Err(Error::Refused(format!("topic {name} exists and holds records"))),
    }
}

/// Start and end of the logs of a topic.
pub(super) async fn ranges(client: &Client, topic: &Arc<TopicMetadata>) -> Result<Ranges> {
    let admin = Admin::new(client.clone());
    let ask = async |spec: OffsetSpec| {
        let partition = |index| (TopicPartition::new(Arc::clone(&topic.name), index), spec);
        let asked: Vec<_> = topic.partitions.iter().map(|p| partition(p.index)).collect();
        admin.list_offsets(&asked, IsolationLevel::ReadUncommitted).await
    };
    let (starts, ends) = (ask(OffsetSpec::Earliest).await?, ask(OffsetSpec::Latest).await?);
    let range = |(partition, end): (TopicPartition, taccola_client::admin::ListedOffset)| {
        let start = starts.get(&partition).and_then(|found| found.offset).unwrap_or(0);
        (partition, (start, end.offset.unwrap_or(0)))
    };
    Ok(ends.into_iter().map(range).collect())
}

/// Groups with offsets in what is restored; none of them may have members.
async fn groups(
    client: &Client,
    contents: &Contents,
    topics: &[TopicPlan],
    options: &RestoreOptions,
) -> Result<Vec<String>> {
    let restored = |topic: &str| topics.iter().any(|plan| plan.source == topic);
    let wanted = contents.groups.iter().filter(|group| options.groups.takes(&group.id));
    let wanted = wanted.filter(|group| group.offsets.iter().any(|offset| restored(&offset.topic)));
    let wanted: Vec<String> = wanted.map(|group| group.id.clone()).collect();
    if wanted.is_empty() {
        return Ok(wanted);
    }
    for group in Admin::new(client.clone()).list_groups().await? {
        let idle = matches!(group.state.as_str(), "" | "Empty" | "Dead");
        if !idle && wanted.contains(&group.id) {
            return Err(Error::Refused(format!("group {} has members; stop its consumers first", group.id)));
        }
    }
    Ok(wanted)
}

/// One piece of work per partition that has or may get records. The targets exist.
pub(super) async fn work(
    client: &Client,
    contents: &Contents,
    plan: &Plan,
    options: &RestoreOptions,
) -> Result<Vec<Work>> {
    let mut offsets: BTreeMap<(&str, i32), Vec<i64>> = BTreeMap::new();
    for group in contents.groups.iter().filter(|group| plan.groups.contains(&group.id)) {
        for offset in &group.offsets {
            offsets.entry((&offset.topic, offset.partition)).or_default().push(offset.offset);
        }
    }
    let admin = Admin::new(client.clone());
    let mut work = Vec::new();
    for topic in &plan.topics {
        let target = admin.describe_topic(&topic.target).await?;
        if target.partitions.len() != topic.partitions {
            return Err(Error::Refused(format!("topic {} changed while it was restored", topic.target)));
        }
        for (partition, (start, end)) in ranges(client, &target).await? {
            let base = if topic.action == Action::Resume { start } else { end };
            if options.into == Into::Empty && start != end {
                return Err(Error::Refused(format!("topic {} exists and holds records", topic.target)));
            }
            work.push(Work {
                topic: topic.source.clone(),
                offsets: offsets.remove(&(topic.source.as_str(), partition.partition)).unwrap_or_default(),
                topic_id: target.id,
                target: partition,
                base,
                end,
            });
        }
    }
    work.sort_by(|a, b| (&a.topic, a.target.partition).cmp(&(&b.topic, b.target.partition)));
    Ok(work)
}
