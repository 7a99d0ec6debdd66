//! The next target assignment of a consumer group. Answers to Kafka's `TargetAssignmentBuilder`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use taccola_base::Uuid;

use super::group::ConsumerGroup;
use super::heartbeat::Env;
use super::member::Subscription;
use super::records::ResolvedRegex;
use super::regex::RegexStep;
use crate::cluster_image::ClusterImage;
use crate::modern::assignment::Assignment;
use crate::modern::assignor::{AssignorInput, AssignorMember, range, uniform};

pub(crate) const RANGE: &str = "range";
pub(crate) const UNIFORM: &str = "uniform";

/// The assignor's name for the name of its class, which Kafka's settings take as well.
pub(crate) fn short_name(assignor: &str) -> &str {
    match assignor {
        "org.apache.kafka.coordinator.group.assignor.RangeAssignor" => RANGE,
        "org.apache.kafka.coordinator.group.assignor.UniformAssignor" => UNIFORM,
        other => other,
    }
}

/// Ids and partition counts of topics, looked up once each.
struct Topics<'a> {
    image: &'a dyn ClusterImage,
    ids: BTreeMap<&'a str, Option<Uuid>>,
    partitions: BTreeMap<Uuid, i32>,
}

impl<'a> Topics<'a> {
    fn id(&mut self, name: &'a str) -> Option<Uuid> {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let topic = self.image.topic_by_name(name);
        if let Some(topic) = &topic {
            self.partitions.insert(topic.id, topic.partitions);
        }
        let id = topic.map(|t| t.id);
        self.ids.insert(name, id);
        id
    }
}

/// The ids of what a member subscribes to and exists.
pub(super) fn subscribed_ids(
    image: &dyn ClusterImage,
    subscription: &Subscription,
    regex: Option<&Arc<ResolvedRegex>>,
) -> BTreeSet<Uuid> {
    let names = subscription.topics.iter().chain(regex.iter().flat_map(|r| &r.topics));
    names.filter_map(|name| image.topic_by_name(name)).map(|topic| topic.id).collect()
}

/// A member as it is after this step.
pub(super) struct Updated<'a> {
    pub(super) id: &'a Arc<str>,
    pub(super) subscription: &'a Subscription,
    /// The static member whose place it takes.
    pub(super) replaces: Option<&'a Arc<str>>,
}

/// The target of each member, by id.
pub(super) fn compute(
    env: &Env<'_>,
    group: &ConsumerGroup,
    updated: &Updated<'_>,
    regexes: &RegexStep,
) -> Vec<(Arc<str>, Assignment)> {
    let mut members: BTreeMap<&Arc<str>, &Subscription> = group
        .members
        .iter()
        .filter(|(id, _)| updated.replaces != Some(*id))
        .map(|(id, member)| (id, &*member.subscription))
        .collect();
    members.insert(updated.id, updated.subscription);

    let mut topics = Topics { image: env.image, ids: BTreeMap::new(), partitions: BTreeMap::new() };
    // By subscription: names and regex.
    type Sets<'a> = BTreeMap<(&'a [Arc<str>], &'a str), Arc<BTreeSet<Uuid>>>;
    let mut sets = Sets::new();
    let mut specs = Vec::with_capacity(members.len());
    for (id, subscription) in &members {
        let set = match sets.get(&(subscription.topics.as_slice(), &*subscription.regex)) {
            Some(set) => set.clone(),
            None => {
                let regex = regexes.resolved(group, &subscription.regex);
                let names = subscription.topics.iter().chain(regex.into_iter().flat_map(|r| &r.topics));
                let set: Arc<BTreeSet<Uuid>> = Arc::new(names.filter_map(|name| topics.id(name)).collect());
                sets.insert((subscription.topics.as_slice(), &*subscription.regex), set.clone());
                set
            }
        };
        let instance_id = subscription.instance_id.as_deref();
        let before = group.target_of(id, instance_id).map(|a| &**a);
        specs.push(AssignorMember { id, instance_id, topics: set, before });
    }
    let input = AssignorInput { members: specs, partitions: &topics.partitions };
    let leaving = group.members.get(updated.replaces.unwrap_or(updated.id)).map(|m| &*m.subscription);
    let preferred = group.preferred_assignor(leaving, Some(updated.subscription));
    let default = || env.config.assignors.first().map_or(UNIFORM, |name| short_name(name)).to_owned();
    let assigned = match preferred.unwrap_or_else(default).as_str() {
        RANGE => range(&input),
        _ => uniform(&input),
    };
    members.into_keys().cloned().zip(assigned).collect()
}
