//! The cut: what the cluster looks like at the moment that the backup stands for. Reads everything but records.
//!
//! The order is what makes it consistent:
//!
//! 1. committed offsets of groups;
//! 2. transactions whose end is being written;
//! 3. the ends of all partitions, one request per broker;
//! 4. the ends once more: if nothing moved, all of them held at one moment between the two readings;
//! 5. transactions whose end is being written, again.
//!
//! Offsets come before ends, so that whatever a group had produced before it committed is below the cut; an offset that is
//! beyond the cut nevertheless (of a reader of uncommitted records) is taken back to it. A transaction that was seen in step 2
//! or 5 may have its marker in one partition and not yet in another; then the ends are read again, a few times, and what
//! remains in doubt is named.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use taccola_base::TopicPartition;
use taccola_base::topic::is_internal;
use taccola_client::admin::{ConfigResource, ConfigSource, OffsetSpec, ResourceType, TransactionFilter};
use taccola_client::cluster::TopicMetadata;
use taccola_client::{Admin, Client, IsolationLevel};
use taccola_wire::error::ErrorCode;

use crate::contents::{Acl, Acls, BrokerConfigs, Cut, Group, GroupOffset, Isolation};
use crate::error::{Error, Result};
use crate::repository::now_ms;
use crate::selector::Selector;

/// How often the ends are read while transactions are in doubt.
const ATTEMPTS: usize = 10;
const PAUSE: Duration = Duration::from_millis(100);
/// Topics that Kafka does not count as internal, and that hold its own state all the same.
const OWN_TOPICS: [&str; 2] = [taccola_base::topic::CLUSTER_METADATA_TOPIC, "__remote_log_metadata"];

/// Everything but records.
pub(crate) struct Snapshot {
    pub(crate) cluster_id: Option<String>,
    pub(crate) cut: Cut,
    pub(crate) topics: Vec<TopicSnapshot>,
    pub(crate) groups: Vec<Group>,
    pub(crate) brokers: Vec<BrokerConfigs>,
    pub(crate) acls: Acls,
    pub(crate) notes: Vec<String>,
}

pub(crate) struct TopicSnapshot {
    pub(crate) metadata: Arc<TopicMetadata>,
    /// Set for the topic.
    pub(crate) configs: Vec<(String, String)>,
    /// In force, whatever it comes from.
    pub(crate) cleanup_policy: String,
    pub(crate) delete_retention_ms: i64,
    /// Start of the log and cut, by index.
    pub(crate) ranges: Vec<(i64, i64)>,
}

/// What is wanted.
pub(crate) struct Wanted<'a> {
    pub(crate) topics: &'a Selector,
    pub(crate) groups: &'a Selector,
    pub(crate) isolation: Isolation,
    pub(crate) with_groups: bool,
    pub(crate) with_cluster: bool,
}

pub(crate) fn level(isolation: Isolation) -> IsolationLevel {
    match isolation {
        Isolation::ReadCommitted => IsolationLevel::ReadCommitted,
        Isolation::ReadUncommitted => IsolationLevel::ReadUncommitted,
    }
}

pub(crate) async fn take(client: &Client, wanted: &Wanted<'_>) -> Result<Snapshot> {
    let admin = Admin::new(client.clone());
    let mut notes = Vec::new();
    let cluster = client.cluster().await?;
    let metadata = topics(client, wanted.topics).await?;
    let mut groups = match wanted.with_groups {
        true => groups(&admin, wanted.groups).await?,
        false => Vec::new(),
    };
    let (cut, ends) = ends(&admin, &metadata, wanted.isolation, &mut notes).await?;
    let starts = offsets(&admin, &metadata, OffsetSpec::Earliest, wanted.isolation).await?;
    clamp(&mut groups, &ends);

    let mut topics = Vec::with_capacity(metadata.len());
    for topic in metadata {
        topics.push(topic_snapshot(&admin, topic, &starts, &ends).await?);
    }
    let (brokers, acls) = match wanted.with_cluster {
        true => {
            let ids: Vec<i32> = cluster.brokers.iter().map(|broker| broker.id).collect();
            (broker_configs(&admin, &ids).await?, acls(&admin).await?)
        }
        false => (Vec::new(), Acls::default()),
    };
    if let Acls::NotTaken(reason) = &acls {
        notes.push(format!("no ACLs were taken: {reason}"));
    }
    Ok(Snapshot { cluster_id: cluster.cluster_id, cut, topics, groups, brokers, acls, notes })
}

async fn topics(client: &Client, selector: &Selector) -> Result<Vec<Arc<TopicMetadata>>> {
    let mut topics = client.topics().await?;
    topics.retain(|topic| !topic.internal && !is_internal(&topic.name) && !OWN_TOPICS.contains(&&*topic.name));
    let names: Vec<&str> = topics.iter().map(|topic| &*topic.name).collect();
    if let Some(pattern) = selector.useless(&names) {
        return Err(Error::Invalid(format!("no topic matches {pattern:?}")));
    }
    topics.retain(|topic| selector.takes(&topic.name));
    Ok(topics)
}

type Offsets = HashMap<TopicPartition, i64>;

async fn offsets(
    admin: &Admin,
    topics: &[Arc<TopicMetadata>],
    spec: OffsetSpec,
    isolation: Isolation,
) -> Result<Offsets> {
    let of = |topic: &Arc<TopicMetadata>| -> Vec<_> {
        let name = &topic.name;
        topic.partitions.iter().map(|p| (TopicPartition::new(Arc::clone(name), p.index), spec)).collect()
    };
    let asked: Vec<_> = topics.iter().flat_map(of).collect();
    let found = admin.list_offsets(&asked, level(isolation)).await?;
    Ok(found.into_iter().map(|(partition, found)| (partition, found.offset.unwrap_or(0))).collect())
}

/// See the module.
async fn ends(
    admin: &Admin,
    topics: &[Arc<TopicMetadata>],
    isolation: Isolation,
    notes: &mut Vec<String>,
) -> Result<(Cut, Offsets)> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let before = ending_transactions(admin).await?;
        let begun_ms = now_ms();
        let ends = offsets(admin, topics, OffsetSpec::Latest, isolation).await?;
        let ended_ms = now_ms();
        let again = offsets(admin, topics, OffsetSpec::Latest, isolation).await?;
        let after = ending_transactions(admin).await?;
        let (Some(before), Some(after)) = (before, after) else {
            notes.push("the cluster does not list transactions: one that was ending may be torn".to_owned());
            let cut = Cut { isolation, begun_ms, ended_ms, instant: ends == again, transactions_in_doubt: Vec::new() };
            return Ok((cut, ends));
        };
        let mut in_doubt: Vec<String> = before.into_iter().chain(after).collect();
        in_doubt.sort();
        in_doubt.dedup();
        if in_doubt.is_empty() || attempt >= ATTEMPTS {
            if !in_doubt.is_empty() {
                notes.push(format!("transactions were ending at the cut and may be torn: {}", in_doubt.join(", ")));
            }
            let instant = ends == again;
            return Ok((Cut { isolation, begun_ms, ended_ms, instant, transactions_in_doubt: in_doubt }, ends));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// `None` when the cluster does not list them.
async fn ending_transactions(admin: &Admin) -> Result<Option<Vec<String>>> {
    let states = vec!["PrepareCommit".to_owned(), "PrepareAbort".to_owned()];
    let filter = TransactionFilter { states, ..Default::default() };
    match admin.list_transactions(&filter).await {
        Ok(found) => Ok(Some(found.into_iter().map(|transaction| transaction.transactional_id).collect())),
        Err(error) if is_refused(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether the cluster does not offer it or does not let this principal have it: an answer, not a failure.
fn is_refused(error: &taccola_client::Error) -> bool {
    let refusals = [
        ErrorCode::SecurityDisabled,
        ErrorCode::ClusterAuthorizationFailed,
        ErrorCode::TransactionalIdAuthorizationFailed,
        ErrorCode::UnsupportedVersion,
        ErrorCode::InvalidRequest,
    ];
    error.unsupported() || error.code().is_some_and(|code| refusals.contains(&code))
}

async fn groups(admin: &Admin, selector: &Selector) -> Result<Vec<Group>> {
    let mut groups = Vec::new();
    for listed in admin.list_groups().await?.into_iter().filter(|group| selector.takes(&group.id)) {
        let offsets = match listed.kind.as_str() {
            "share" => share_offsets(admin, &listed.id).await,
            _ => committed_offsets(admin, &listed.id).await,
        };
        let offsets = match offsets {
            Ok(offsets) => offsets,
            // It went between the two requests.
            Err(error) if error.code() == Some(ErrorCode::GroupIdNotFound) => continue,
            Err(error) => return Err(error.into()),
        };
        let configs = match listed.kind.as_str() {
            "" | "classic" => Vec::new(),
            _ => group_configs(admin, &listed.id).await?,
        };
        let (id, kind, protocol_type) = (listed.id, listed.kind, listed.protocol_type);
        groups.push(Group { id, kind, protocol_type, offsets, configs });
    }
    Ok(groups)
}

async fn committed_offsets(admin: &Admin, group: &str) -> taccola_client::error::Result<Vec<GroupOffset>> {
    let found = admin.group_offsets(group, None).await?;
    let offset = |(partition, committed): (TopicPartition, taccola_client::admin::CommittedOffset)| GroupOffset {
        topic: partition.topic.to_string(),
        partition: partition.partition,
        offset: committed.offset,
        metadata: committed.metadata,
        beyond: None,
    };
    Ok(found.into_iter().map(offset).collect())
}

async fn share_offsets(admin: &Admin, group: &str) -> taccola_client::error::Result<Vec<GroupOffset>> {
    let found = admin.share_group_offsets(group, None).await?;
    let offset = |(partition, share): (TopicPartition, taccola_client::admin::ShareOffset)| {
        Some(GroupOffset {
            topic: partition.topic.to_string(),
            partition: partition.partition,
            offset: share.start_offset?,
            metadata: String::new(),
            beyond: None,
        })
    };
    Ok(found.into_iter().filter_map(offset).collect())
}

async fn group_configs(admin: &Admin, group: &str) -> Result<Vec<(String, String)>> {
    let resource = ConfigResource { kind: ResourceType::Group, name: group.to_owned() };
    match admin.describe_configs(&resource, false).await {
        Ok(entries) => Ok(set_at(entries, &[ConfigSource::Group])),
        Err(error) if is_refused(&error) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// Entries with a source of these, as far as their values are shown.
fn set_at(entries: Vec<taccola_client::admin::ConfigEntry>, sources: &[ConfigSource]) -> Vec<(String, String)> {
    let set = entries.into_iter().filter(|entry| sources.contains(&entry.source));
    set.filter_map(|entry| Some((entry.name, entry.value?))).collect()
}

/// No offset points beyond the cut: what lies there is not in the backup.
fn clamp(groups: &mut [Group], ends: &Offsets) {
    for offset in groups.iter_mut().flat_map(|group| &mut group.offsets) {
        let partition = TopicPartition::new(offset.topic.as_str(), offset.partition);
        if let Some(end) = ends.get(&partition).filter(|end| **end < offset.offset) {
            offset.beyond = Some(offset.offset);
            offset.offset = *end;
        }
    }
}

async fn topic_snapshot(
    admin: &Admin,
    metadata: Arc<TopicMetadata>,
    starts: &Offsets,
    ends: &Offsets,
) -> Result<TopicSnapshot> {
    let resource = ConfigResource { kind: ResourceType::Topic, name: metadata.name.to_string() };
    let entries = admin.describe_configs(&resource, false).await?;
    let in_force: BTreeMap<&str, &str> =
        entries.iter().filter_map(|entry| Some((entry.name.as_str(), entry.value.as_deref()?))).collect();
    let cleanup_policy = in_force.get("cleanup.policy").map_or("delete", |policy| policy).to_owned();
    let delete_retention_ms = in_force.get("delete.retention.ms").and_then(|ms| ms.parse().ok()).unwrap_or(0);
    let range = |index: i32| {
        let partition = TopicPartition::new(Arc::clone(&metadata.name), index);
        let of = |offsets: &Offsets| offsets.get(&partition).copied().unwrap_or(0);
        let end = of(ends);
        // Records may have gone since the ends were read.
        (of(starts).min(end), end)
    };
    let ranges = metadata.partitions.iter().map(|p| range(p.index)).collect();
    let configs = set_at(entries, &[ConfigSource::Topic]);
    Ok(TopicSnapshot { configs, cleanup_policy, delete_retention_ms, ranges, metadata })
}

async fn broker_configs(admin: &Admin, ids: &[i32]) -> Result<Vec<BrokerConfigs>> {
    let sources = [ConfigSource::DynamicBroker];
    let mut brokers = Vec::new();
    for broker in ids.iter().copied().map(Some).chain([None]) {
        let name = broker.map_or(String::new(), |id| id.to_string());
        let resource = ConfigResource { kind: ResourceType::Broker, name };
        let entries = admin.describe_configs(&resource, false).await?;
        let sources = if broker.is_some() { &sources[..] } else { &[ConfigSource::DynamicDefaultBroker] };
        let configs = set_at(entries, sources);
        if !configs.is_empty() {
            brokers.push(BrokerConfigs { broker, configs });
        }
    }
    Ok(brokers)
}

async fn acls(admin: &Admin) -> Result<Acls> {
    let found = match admin.describe_acls().await {
        Ok(found) => found,
        Err(error) if is_refused(&error) => return Ok(Acls::NotTaken(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    let acl = |found: taccola_client::admin::AclBinding| Acl {
        resource_type: found.resource_type,
        resource_name: found.resource_name,
        pattern_type: found.pattern_type,
        principal: found.principal,
        host: found.host,
        operation: found.operation,
        permission: found.permission,
    };
    Ok(Acls::Taken(found.into_iter().map(acl).collect()))
}
