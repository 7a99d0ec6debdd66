//! Configs of a restore. While records are written a topic has settings under which a broker takes every batch as it comes
//! and removes none; what the backup says comes into force at the end. A topic that was there before keeps its own.

use std::collections::BTreeSet;

use taccola_client::Admin;
use taccola_client::admin::{ConfigOp, ConfigResource, NewTopic, ResourceType};
use taccola_wire::error::ErrorCode;

use super::RestoreOptions;
use super::plan::{Action, Plan, TopicPlan, ranges};
use crate::contents::{BrokerConfigs, Contents};
use crate::error::{Error, Result};

/// Old timestamps are not refused, nothing is compacted, expired or compressed anew, no time is overwritten, no batch is too
/// large. Keys that a broker does not know are left out.
const WHILE_RESTORING: &[(&str, &str)] = &[
    ("cleanup.policy", "delete"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("message.timestamp.type", "CreateTime"),
    ("message.timestamp.before.max.ms", "9223372036854775807"),
    ("message.timestamp.after.max.ms", "9223372036854775807"),
    ("compression.type", "producer"),
    ("max.message.bytes", "2147483647"),
];

fn topic_resource(name: &str) -> ConfigResource {
    ConfigResource { kind: ResourceType::Topic, name: name.to_owned() }
}

/// Makes what is missing, and prepares what this restore may prepare.
pub(super) async fn make_topics(admin: &Admin, plan: &Plan, options: &RestoreOptions) -> Result<()> {
    for topic in &plan.topics {
        if topic.action == Action::Create {
            create(admin, topic, options).await?;
        }
        match topic.action {
            Action::Create => prepare(admin, &topic.target).await?,
            // What holds records has these settings from the run that broke off, or is not that run's at all.
            Action::Resume if is_empty(admin, &topic.target).await? => prepare(admin, &topic.target).await?,
            Action::Resume | Action::Fill | Action::Append => check_existing(admin, &topic.target).await?,
        }
    }
    Ok(())
}

async fn is_empty(admin: &Admin, target: &str) -> Result<bool> {
    let topic = admin.describe_topic(target).await?;
    Ok(ranges(admin.client(), &topic).await?.values().all(|(start, end)| start == end))
}

async fn create(admin: &Admin, topic: &TopicPlan, options: &RestoreOptions) -> Result<()> {
    let new = NewTopic {
        name: topic.target.clone(),
        partitions: i32::try_from(topic.partitions).ok(),
        replication_factor: options.replication_factor,
        configs: Vec::new(),
    };
    for (_, outcome) in admin.create_topics(&[new], false).await? {
        match outcome {
            Ok(_) => {}
            // A reply that was lost; the plan saw that it was not there.
            Err(error) if error.code() == Some(ErrorCode::TopicAlreadyExists) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // Until the leaders of all partitions are known.
    let patience = admin.client().config().operation_timeout;
    admin.client().topic_with(&topic.target, false, patience).await?;
    Ok(())
}

async fn prepare(admin: &Admin, target: &str) -> Result<()> {
    let resource = topic_resource(target);
    let known: BTreeSet<String> =
        admin.describe_configs(&resource, false).await?.into_iter().map(|entry| entry.name).collect();
    let wanted = WHILE_RESTORING.iter().filter(|(name, _)| known.contains(*name));
    let ops: Vec<_> = wanted.map(|(name, value)| ((*name).to_owned(), ConfigOp::Set((*value).to_owned()))).collect();
    Ok(admin.alter_configs(&resource, &ops, false).await?)
}

/// Whoever made the topic decides about its settings, as long as they leave the records alone.
async fn check_existing(admin: &Admin, target: &str) -> Result<()> {
    for entry in admin.describe_configs(&topic_resource(target), false).await? {
        let value = entry.value.unwrap_or_default();
        if entry.name == "message.timestamp.type" && value == "LogAppendTime" {
            return Err(Error::Refused(format!(
                "topic {target} has message.timestamp.type=LogAppendTime, which overwrites the timestamps of what is \
                 restored"
            )));
        }
    }
    Ok(())
}

/// Brings the backup's configs into force. Failures are told, not passed over.
pub(super) async fn finish_topics(admin: &Admin, contents: &Contents, plan: &Plan, failures: &mut Vec<String>) {
    for topic in plan.topics.iter().filter(|topic| matches!(topic.action, Action::Create | Action::Resume)) {
        let Some(source) = contents.topics.iter().find(|known| known.name == topic.source) else { continue };
        let resource = topic_resource(&topic.target);
        let reset = WHILE_RESTORING.iter().filter(|(name, _)| !source.configs.iter().any(|(set, _)| set == name));
        let reset: Vec<_> = reset.map(|(name, _)| ((*name).to_owned(), ConfigOp::Delete)).collect();
        if let Err(error) = delete_known(admin, &resource, reset).await {
            failures.push(format!("topic {}: {error}", topic.target));
        }
        set(admin, &resource, &source.configs, failures).await;
    }
}

async fn delete_known(admin: &Admin, resource: &ConfigResource, ops: Vec<(String, ConfigOp)>) -> Result<()> {
    let entries = admin.describe_configs(resource, false).await?;
    let ops: Vec<_> = ops.into_iter().filter(|(name, _)| entries.iter().any(|entry| entry.name == *name)).collect();
    Ok(admin.alter_configs(resource, &ops, false).await?)
}

/// All at once; one by one if that is refused, so that one key does not keep the others away.
pub(super) async fn set(
    admin: &Admin,
    resource: &ConfigResource,
    configs: &[(String, String)],
    failures: &mut Vec<String>,
) {
    let op = |(name, value): &(String, String)| (name.clone(), ConfigOp::Set(value.clone()));
    let ops: Vec<_> = configs.iter().map(op).collect();
    if ops.is_empty() || admin.alter_configs(resource, &ops, false).await.is_ok() {
        return;
    }
    for op in ops {
        let name = op.0.clone();
        if let Err(error) = admin.alter_configs(resource, &[op], false).await {
            failures.push(format!("config {name}: {error}"));
        }
    }
}

/// Dynamic configs of brokers, and of all brokers together.
pub(super) async fn brokers(admin: &Admin, brokers: &[BrokerConfigs], failures: &mut Vec<String>) {
    for broker in brokers {
        let name = broker.broker.map_or(String::new(), |id| id.to_string());
        set(admin, &ConfigResource { kind: ResourceType::Broker, name }, &broker.configs, failures).await;
    }
}
