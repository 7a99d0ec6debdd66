//! `backup create`: a cut, then every partition up to it, then the manifest.
//!
//! Several partitions are read at a time, each worker with its own connections and its own object, into which it puts one
//! partition after the other. Memory: per worker one fetch, one chunk and one part of an upload.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use taccola_base::{TopicPartition, Uuid};
use taccola_client::Client;
use taccola_remote::Store;
use tokio::task::JoinSet;

use crate::chain::Link;
use crate::contents::{Contents, Extent, Isolation, Partition, Topic};
use crate::crypto::{Cipher, Kdf, Secret, new_data_key, seal_data_key};
use crate::cut::{self, Snapshot, TopicSnapshot, Wanted};
use crate::error::{Error, Result};
use crate::keys::Keyring;
use crate::manifest::{FORMAT, Identity, Manifest, Object, Parent};
use crate::object::{ObjectWriter, Sealing};
use crate::progress::Progress;
use crate::repository::{Repository, new_id, now_ms};
use crate::selector::Selector;
use crate::source::{Source, Step};

/// An object is closed when it has so many bytes, at the next batch.
pub const OBJECT_BYTES: u64 = 64 * 1024 * 1024;
/// Partitions read at a time.
pub const JOBS: usize = 4;
pub const JOBS_MAX: usize = 64;

/// What is backed up, and how.
pub struct CreateOptions {
    pub topics: Selector,
    pub groups: Selector,
    pub isolation: Isolation,
    /// Continue this backup.
    pub parent: Option<String>,
    /// [`Cipher::None`] only if that was said; a parent decides for its children.
    pub cipher: Cipher,
    /// How a passphrase becomes a key; a parent decides for its children.
    pub kdf: Kdf,
    pub with_groups: bool,
    /// Broker configs and ACLs.
    pub with_cluster: bool,
    pub jobs: usize,
    pub object_bytes: u64,
}

/// One partition to read.
#[derive(Clone)]
struct Work {
    topic: usize,
    partition: TopicPartition,
    topic_id: Uuid,
    from: i64,
    cut: i64,
}

/// What became of one.
struct Done {
    topic: usize,
    index: i32,
    extents: Vec<Extent>,
    outcome: Outcome,
}

enum Outcome {
    Whole,
    /// Records before this offset were removed while the backup ran.
    StartsAt(i64),
    Gone,
}

/// What workers share.
struct Shared {
    store: Store,
    client: Client,
    backup: String,
    cipher: Cipher,
    data_key: Option<Secret>,
    isolation: Isolation,
    object_bytes: u64,
    queue: Mutex<VecDeque<Work>>,
    next_object: AtomicU32,
    progress: Progress,
}

/// Makes a backup and returns its manifest with what is in it.
pub async fn create(
    client: &Client,
    repository: &Repository,
    options: CreateOptions,
    keys: &Keyring,
    progress: &Progress,
) -> Result<(Manifest, Contents)> {
    let parent = match &options.parent {
        Some(id) => Some(open_parent(repository, id, &options, keys).await?),
        None => None,
    };
    let id = new_id(now_ms())?;
    let cipher = parent.as_ref().map_or(options.cipher, |parent| parent.manifest.identity.cipher);
    // Before anything else is done: a key that is missing must not be found out at the end.
    let sealed = match cipher.encrypts() {
        true => Some(new_envelope(&id, cipher, parent.as_ref(), &options.kdf, keys)?),
        false => None,
    };
    let (data_key, envelope) = sealed.unzip();
    let wanted = Wanted {
        topics: &options.topics,
        groups: &options.groups,
        isolation: options.isolation,
        with_groups: options.with_groups,
        with_cluster: options.with_cluster,
    };
    let mut snapshot = cut::take(client, &wanted).await?;
    repository.begin(&id, TOOL).await?;
    let mut topics = plan(&mut snapshot, parent.as_ref());
    let shared = Arc::new(Shared {
        store: repository.store().clone(),
        client: client.clone(),
        backup: id.clone(),
        cipher,
        data_key: data_key.clone(),
        isolation: options.isolation,
        object_bytes: options.object_bytes.max(1),
        queue: Mutex::new(work(&snapshot, &topics)),
        next_object: AtomicU32::new(0),
        progress: progress.clone(),
    });
    progress.expect(shared.queue.lock().unwrap_or_else(PoisonError::into_inner).len());
    let (objects, done) = run(&shared, options.jobs.clamp(1, JOBS_MAX)).await?;
    let mut notes = snapshot.notes;
    gather(&mut topics, done, &mut notes);
    let identity = Identity {
        format: FORMAT,
        id,
        created_ms: snapshot.cut.begun_ms,
        tool: TOOL.to_owned(),
        parent: parent.map(|parent| Parent { id: parent.id().to_owned(), digest: parent.manifest.digest() }),
        cipher,
        objects,
        body_bytes: 0,
    };
    let contents = Contents {
        cluster_id: snapshot.cluster_id,
        cut: snapshot.cut,
        topics,
        groups: snapshot.groups,
        brokers: snapshot.brokers,
        acls: snapshot.acls,
        notes,
    };
    let manifest = Manifest::seal(identity, envelope, data_key.as_ref(), &contents)?;
    repository.publish(&manifest).await?;
    Ok((manifest, contents))
}

const TOOL: &str = concat!("taccola ", env!("CARGO_PKG_VERSION"));

async fn open_parent(repository: &Repository, id: &str, options: &CreateOptions, keys: &Keyring) -> Result<Link> {
    let parent = Link::open(repository.manifest(id).await?, keys)?;
    let cipher = parent.manifest.identity.cipher;
    if options.cipher != Cipher::None && cipher == Cipher::None {
        return Err(Error::Refused(format!("{id} is not encrypted, and what continues it would not be either")));
    }
    if parent.contents.cut.isolation != options.isolation {
        return Err(Error::Refused(format!("{id} was taken with {}", parent.contents.cut.isolation.name())));
    }
    Ok(parent)
}

/// A fresh data key, wrapped by the key that opens the parent, or by one derived anew.
fn new_envelope(
    id: &str,
    cipher: Cipher,
    parent: Option<&Link>,
    kdf: &Kdf,
    keys: &Keyring,
) -> Result<(Secret, crate::crypto::Envelope)> {
    let inherited = parent.and_then(|parent| parent.manifest.envelope.as_ref()).map(|envelope| &envelope.kdf);
    let master = keys.master(inherited.unwrap_or(kdf))?.ok_or_else(|| Error::KeyMissing("to be made".to_owned()))?;
    let data_key = new_data_key()?;
    let envelope = seal_data_key(&master, id, cipher, &data_key)?;
    Ok((data_key, envelope))
}

/// Decides for each topic whether it continues the parent's, and for each partition where it begins.
fn plan(snapshot: &mut Snapshot, parent: Option<&Link>) -> Vec<Topic> {
    let mut notes = Vec::new();
    let topics = snapshot.topics.iter().map(|topic| {
        let name = topic.metadata.name.to_string();
        let older = parent.and_then(|parent| parent.topic(&name));
        let age_ms = parent.map_or(0, |parent| snapshot.cut.ended_ms.saturating_sub(parent.contents.cut.begun_ms));
        let older = older.filter(|older| match in_full(topic, older, age_ms) {
            Some(why) => {
                notes.push(format!("topic {name} was taken in full: {why}"));
                false
            }
            None => true,
        });
        let partition = |(index, (log_start, cut)): (usize, &(i64, i64))| {
            let continued = older.and_then(|older| older.partitions.get(index)).map(|older| older.cut);
            if let Some(end) = continued.filter(|end| end < log_start) {
                notes.push(format!(
                    "{name}-{index}: offsets {end} to {} were removed from the log after the parent and before this \
                     backup; no backup has them",
                    log_start - 1
                ));
            }
            Partition {
                index: i32::try_from(index).unwrap_or(i32::MAX),
                log_start: *log_start,
                from: continued.unwrap_or(*log_start).max(*log_start),
                cut: *cut,
                leader_epoch: topic.metadata.partitions.get(index).map_or(-1, |p| p.leader_epoch),
                extents: Vec::new(),
            }
        };
        let partitions = topic.ranges.iter().enumerate().map(partition).collect();
        let replicas = topic.metadata.partitions.first().map_or(1, |p| p.replicas.len());
        Topic {
            id: topic.metadata.id.to_string(),
            replication_factor: i16::try_from(replicas).unwrap_or(i16::MAX),
            configs: topic.configs.clone(),
            incremental: older.is_some(),
            partitions,
            name,
        }
    });
    let topics = topics.collect();
    snapshot.notes.extend(notes);
    topics
}

/// Why the records since the parent are not enough, if they are not.
fn in_full(topic: &TopicSnapshot, older: &Topic, age_ms: i64) -> Option<String> {
    if older.id != topic.metadata.id.to_string() {
        return Some("it was deleted and made anew since the parent".to_owned());
    }
    if older.partitions.len() > topic.ranges.len() {
        return Some("it has fewer partitions than in the parent".to_owned());
    }
    let behind = older.partitions.iter().zip(&topic.ranges).find(|(older, (_, end))| *end < older.cut);
    if let Some((older, (_, end))) = behind {
        let index = older.index;
        return Some(format!("partition {index} ends at {end}, before the parent's cut at {}", older.cut));
    }
    let was_compacted = older.configs.iter().any(|(name, value)| name == "cleanup.policy" && value.contains("compact"));
    if (was_compacted || topic.cleanup_policy.contains("compact")) && age_ms >= topic.delete_retention_ms {
        return Some(format!(
            "it is compacted, and the parent is older than delete.retention.ms={}: tombstones may be gone",
            topic.delete_retention_ms
        ));
    }
    None
}

fn work(snapshot: &Snapshot, topics: &[Topic]) -> VecDeque<Work> {
    let of_topic = |(at, (topic, found)): (usize, (&Topic, &TopicSnapshot))| -> Vec<Work> {
        let name = &found.metadata.name;
        let work = |partition: &Partition| Work {
            topic: at,
            partition: TopicPartition::new(Arc::clone(name), partition.index),
            topic_id: found.metadata.id,
            from: partition.from,
            cut: partition.cut,
        };
        topic.partitions.iter().filter(|partition| partition.from < partition.cut).map(work).collect()
    };
    topics.iter().zip(&snapshot.topics).enumerate().flat_map(of_topic).collect()
}

async fn run(shared: &Arc<Shared>, jobs: usize) -> Result<(Vec<Object>, Vec<Done>)> {
    let mut workers = JoinSet::new();
    for _ in 0..jobs {
        workers.spawn(worker(Arc::clone(shared)));
    }
    let (mut objects, mut done) = (Vec::new(), Vec::new());
    // The first failure drops the set, which ends the other workers.
    while let Some(worker) = workers.join_next().await {
        let (of_worker, parts) = worker.map_err(|error| Error::Invalid(format!("a worker failed: {error}")))??;
        objects.extend(of_worker);
        done.extend(parts);
    }
    // Numbers were given out in order and none was given up.
    objects.sort_by(|a, b| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));
    Ok((objects, done))
}

/// The object that a worker writes just now.
struct Current {
    number: u32,
    writer: ObjectWriter,
}

async fn worker(shared: Arc<Shared>) -> Result<(Vec<Object>, Vec<Done>)> {
    let mut objects = Vec::new();
    let mut done = Vec::new();
    let mut current = None;
    let client = Client::new(shared.client.config().clone());
    loop {
        let work = shared.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(work) = work else { break };
        match copy(&shared, &client, work, &mut current, &mut objects).await {
            Ok(part) => done.push(part),
            Err(error) => {
                if let Some(Current { writer, .. }) = current {
                    writer.abort().await;
                }
                return Err(error);
            }
        }
        shared.progress.partition_done();
    }
    if let Some(Current { writer, .. }) = current {
        objects.push(writer.finish().await?);
    }
    Ok((objects, done))
}

/// Copies one partition.
async fn copy(
    shared: &Shared,
    client: &Client,
    work: Work,
    current: &mut Option<Current>,
    objects: &mut Vec<Object>,
) -> Result<Done> {
    let isolation = cut::level(shared.isolation);
    let mut source = Source::new(client.clone(), work.partition.clone(), work.topic_id, isolation, work.from..work.cut);
    let mut extents: Vec<Extent> = Vec::new();
    let mut open = false;
    let mut outcome = Outcome::Whole;
    loop {
        let batches = match source.next().await? {
            Step::Batches(batches) => batches,
            Step::Removed(start) => {
                outcome = Outcome::StartsAt(start);
                continue;
            }
            Step::Gone => {
                outcome = Outcome::Gone;
                break;
            }
            Step::End => break,
        };
        for (header, batch) in batches {
            if current.as_ref().is_some_and(|current| current.writer.position() >= shared.object_bytes)
                && let Some(full) = current.take()
            {
                objects.push(full.writer.finish().await?);
                open = false;
            }
            let object = match current {
                Some(object) => object,
                None => current.insert(begin(shared).await?),
            };
            let records = u64::try_from(header.records_count).unwrap_or(0);
            let bytes = batch.len() as u64;
            match extents.last_mut().filter(|_| open) {
                Some(extent) => {
                    extent.bytes += bytes;
                    extent.last = header.last_offset();
                    extent.batches += 1;
                    extent.records += records;
                }
                None => extents.push(Extent {
                    object: object.number,
                    at: object.writer.position(),
                    bytes,
                    first: header.base_offset,
                    last: header.last_offset(),
                    batches: 1,
                    records,
                }),
            }
            open = true;
            object.writer.write(&batch).await?;
            shared.progress.add(records, bytes);
        }
    }
    Ok(Done { topic: work.topic, index: work.partition.partition, extents, outcome })
}

async fn begin(shared: &Shared) -> Result<Current> {
    let number = shared.next_object.fetch_add(1, Ordering::Relaxed);
    let sealing = Sealing { backup: &shared.backup, cipher: shared.cipher, data_key: shared.data_key.as_ref() };
    Ok(Current { number, writer: ObjectWriter::begin(&shared.store, sealing, number).await? })
}

/// Puts what the workers copied where it belongs, and says what is missing.
fn gather(topics: &mut Vec<Topic>, done: Vec<Done>, notes: &mut Vec<String>) {
    let mut gone = Vec::new();
    for part in done {
        let Some(topic) = topics.get_mut(part.topic) else { continue };
        let index = usize::try_from(part.index).unwrap_or(usize::MAX);
        let Some(partition) = topic.partitions.get_mut(index) else { continue };
        partition.extents = part.extents;
        match part.outcome {
            Outcome::Whole => {}
            Outcome::Gone => gone.push(topic.name.clone()),
            Outcome::StartsAt(start) => {
                notes.push(format!(
                    "{}-{}: offsets before {start} were removed from the log while the backup ran",
                    topic.name, part.index
                ));
                partition.log_start = start;
                partition.from = partition.from.max(start);
                partition.extents.retain(|extent| extent.last >= start);
            }
        }
    }
    gone.sort();
    gone.dedup();
    for name in gone {
        notes.push(format!("topic {name} was deleted while the backup ran, and is not part of it"));
        topics.retain(|topic| topic.name != name);
    }
}
