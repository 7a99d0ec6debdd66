//! `backup restore`: topics with their records, configs, groups; on demand broker configs and ACLs.
//!
//! Nothing is written before the plan is known to be possible. Topics are made with settings under which nothing that is
//! written can be refused, changed or removed (see `configs`); their own configs come last. A restore that broke off can be
//! begun again with [`Into::Resume`]: what is there is compared with what would be written, and the rest is written.

mod configs;
mod groups;
mod partition;
mod plan;
mod reader;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use taccola_client::admin::AclBinding;
use taccola_client::{Admin, Client};
use tokio::task::JoinSet;

pub use groups::RestoredGroup;
pub use plan::{Action, Plan, TopicPlan};

use crate::chain::Chain;
use crate::contents::{Acls, Contents};
use crate::create::JOBS_MAX;
use crate::error::{Error, Result};
use crate::keys::Keyring;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::selector::Selector;
use partition::{Restored, Shared, Work};

/// The protocol's code of a topic, and of a pattern that means one name.
const TOPIC_RESOURCE: i8 = 2;
const LITERAL: i8 = 3;

/// What may be in a target topic before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Into {
    /// Nothing.
    #[default]
    Empty,
    /// The beginning of the same restore.
    Resume,
    /// Anything: records are added behind it.
    Append,
}

#[derive(Clone, Debug, Default)]
pub struct RestoreOptions {
    pub topics: Selector,
    pub groups: Selector,
    /// Old name, new name.
    pub rename: Vec<(String, String)>,
    /// In front of the names that are not renamed.
    pub prefix: String,
    pub into: Into,
    pub with_groups: bool,
    pub with_broker_configs: bool,
    pub with_acls: bool,
    /// `None`: the broker's default.
    pub replication_factor: Option<i16>,
    /// Read the whole chain and check it before anything is written.
    pub verify_first: bool,
    /// Read everything back afterwards and compare.
    pub verify_after: bool,
    pub jobs: usize,
}

/// One topic after a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredTopic {
    pub source: String,
    pub target: String,
    pub partitions: usize,
    /// Records that were written now, and those that were there from an earlier run.
    pub written: i64,
    pub found: i64,
    /// Every record has the offset that it had.
    pub offsets_kept: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub topics: Vec<RestoredTopic>,
    pub groups: Vec<RestoredGroup>,
    /// Number of ACLs that were made.
    pub acls: usize,
    /// Read back and compared.
    pub verified: bool,
    /// What could not be restored. Empty: all of it was.
    pub failures: Vec<String>,
}

/// What a restore would do. Writes nothing.
pub async fn plan(client: &Client, chain: &Chain, options: &RestoreOptions) -> Result<Plan> {
    plan::plan(client, &chain.head()?.contents, options).await
}

/// Restores a backup.
pub async fn restore(
    client: &Client,
    repository: &Repository,
    chain: &Arc<Chain>,
    keys: &Keyring,
    options: &RestoreOptions,
    progress: &Progress,
) -> Result<Report> {
    let contents = &chain.head()?.contents;
    let plan = plan::plan(client, contents, options).await?;
    if options.verify_first {
        verify_first(repository, chain.head()?.id(), keys, options).await?;
    }
    let admin = Admin::new(client.clone());
    let producer = client.new_producer_id().await?;
    configs::make_topics(&admin, &plan, options).await?;
    let work = plan::work(client, contents, &plan, options).await?;
    let shared = Arc::new(Shared {
        store: repository.store().clone(),
        chain: Arc::clone(chain),
        producer,
        progress: progress.clone(),
    });
    progress.expect(work.len());
    let restored = run(&shared, client, work, options.jobs).await?;
    let mut report = Report { topics: topics(&plan, &restored), ..Default::default() };
    if options.verify_after {
        let again = restored.iter().map(|part| Work { end: part.end, ..part.work.clone() }).collect();
        run(&shared, client, again, options.jobs).await?;
        report.verified = true;
    }
    configs::finish_topics(&admin, contents, &plan, &mut report.failures).await;
    if options.with_groups {
        report.groups = groups::restore(&admin, contents, &plan, &restored, options, &mut report.failures).await;
    }
    if options.with_broker_configs {
        configs::brokers(&admin, &contents.brokers, &mut report.failures).await;
    }
    if options.with_acls {
        report.acls = acls(&admin, contents, &plan, &mut report.failures).await?;
    }
    Ok(report)
}

async fn verify_first(repository: &Repository, id: &str, keys: &Keyring, options: &RestoreOptions) -> Result<()> {
    let report = crate::verify::verify(repository, id, keys, options.jobs, &Progress::default()).await?;
    match report.findings.into_iter().next() {
        Some(finding) => Err(Error::Damaged { object: finding.object, reason: finding.problem }),
        None => Ok(()),
    }
}

async fn run(shared: &Arc<Shared>, client: &Client, work: Vec<Work>, jobs: usize) -> Result<Vec<Restored>> {
    let queue = Arc::new(Mutex::new(VecDeque::from(work)));
    let mut workers = JoinSet::new();
    for _ in 0..jobs.clamp(1, JOBS_MAX) {
        let (shared, queue) = (Arc::clone(shared), Arc::clone(&queue));
        // Connections of its own: a broker works on one fetch of a connection at a time.
        let client = Client::new(client.config().clone());
        workers.spawn(async move {
            let mut done = Vec::new();
            loop {
                let work = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(work) = work else { return Ok::<_, Error>(done) };
                done.push(partition::restore(&shared, &client, work).await?);
                shared.progress.partition_done();
            }
        });
    }
    let mut restored = Vec::new();
    while let Some(worker) = workers.join_next().await {
        restored.extend(worker.map_err(|error| Error::Invalid(format!("a worker failed: {error}")))??);
    }
    Ok(restored)
}

fn topics(plan: &Plan, restored: &[Restored]) -> Vec<RestoredTopic> {
    let mut topics: BTreeMap<&str, RestoredTopic> = BTreeMap::new();
    for topic in &plan.topics {
        let entry = RestoredTopic {
            source: topic.source.clone(),
            target: topic.target.clone(),
            partitions: topic.partitions,
            written: 0,
            found: 0,
            offsets_kept: true,
        };
        topics.insert(&topic.source, entry);
    }
    for part in restored {
        if let Some(topic) = topics.get_mut(part.work.topic.as_str()) {
            topic.written += part.written;
            topic.found += part.found;
            topic.offsets_kept &= part.offsets_kept;
        }
    }
    topics.into_values().collect()
}

/// Makes the ACLs; those of a topic that got another name are for that name.
async fn acls(admin: &Admin, contents: &Contents, plan: &Plan, failures: &mut Vec<String>) -> Result<usize> {
    let acls = match &contents.acls {
        Acls::Taken(acls) => acls,
        Acls::NotTaken(reason) => {
            failures.push(format!("the backup has no ACLs: {reason}"));
            return Ok(0);
        }
    };
    let binding = |acl: &crate::contents::Acl| {
        let of_topic = acl.resource_type == TOPIC_RESOURCE && acl.pattern_type == LITERAL;
        let renamed = plan.topics.iter().find(|topic| of_topic && topic.source == acl.resource_name);
        AclBinding {
            resource_type: acl.resource_type,
            resource_name: renamed.map_or(&acl.resource_name, |topic| &topic.target).clone(),
            pattern_type: acl.pattern_type,
            principal: acl.principal.clone(),
            host: acl.host.clone(),
            operation: acl.operation,
            permission: acl.permission,
        }
    };
    let bindings: Vec<_> = acls.iter().map(binding).collect();
    let mut made = 0;
    for some in bindings.chunks(100) {
        match admin.create_acls(some).await {
            Ok(results) => {
                made += results.iter().filter(|result| result.is_ok()).count();
                failures.extend(results.into_iter().filter_map(Result::err).map(|error| error.to_string()));
            }
            Err(error) => {
                failures.push(format!("ACLs: {error}"));
                break;
            }
        }
    }
    Ok(made)
}
