//! `backup verify`: everything that a restore would read is read and checked, and nothing is written.
//!
//! Without a key: that every object of the chain is there with the length and the SHA-256 of its manifest. With the key (or
//! without encryption) also that every chunk opens where it belongs, every batch has its checksum and its place, and all
//! counts agree. What is damaged is named by object, and by the offsets that are lost with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest;
use taccola_remote::Store;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::chain::{CHAIN_MAX, Chain, Link, Piece};
use crate::crypto::{HEADER_BYTES, hex};
use crate::error::{Error, Result};
use crate::extent::ExtentWalker;
use crate::keys::Keyring;
use crate::manifest::{Manifest, Object};
use crate::object::{ObjectReader, lost};
use crate::progress::Progress;
use crate::repository::Repository;

/// Chunks that are fetched at once: 4 MiB.
const WINDOW: u64 = 64;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The object in the store.
    pub object: String,
    pub problem: String,
    /// Empty when nothing of this backup depends on it, or when nobody can tell without a key.
    pub lost: Vec<Lost>,
}

/// Offsets of a partition that cannot be restored, both ends inclusive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lost {
    pub topic: String,
    pub partition: i32,
    pub first: i64,
    pub last: i64,
    /// At most so many records; `None` when that is not known.
    pub records: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub struct Verification {
    pub backup: String,
    /// Backups of the chain that were looked at, newest first.
    pub chain: Vec<String>,
    pub objects: u64,
    pub bytes: u64,
    pub batches: u64,
    pub records: u64,
    /// Whether contents were opened, or checksums alone were compared.
    pub opened: bool,
    pub findings: Vec<Finding>,
}

/// Checks a backup with its chain. What cannot be reached is an error; what is damaged is a finding.
pub async fn verify(
    repository: &Repository,
    id: &str,
    keys: &Keyring,
    jobs: usize,
    progress: &Progress,
) -> Result<Verification> {
    let mut report = Verification { backup: id.to_owned(), ..Default::default() };
    let head = match repository.manifest(id).await {
        Ok(head) => head,
        Err(Error::Damaged { object, reason }) => {
            report.findings.push(Finding { object, problem: reason, lost: Vec::new() });
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    if head.envelope.is_some() && keys.is_empty() {
        let manifests = manifests(repository, head, &mut report).await?;
        let tasks = manifests.iter().flat_map(|manifest| {
            let id = manifest.identity.id.clone();
            manifest.identity.objects.iter().map(move |object| Task::closed(&id, object))
        });
        run(repository.store(), tasks.collect(), jobs, progress, &mut report).await?;
        return Ok(report);
    }
    report.opened = true;
    match Chain::open(repository, id, keys).await {
        Ok(chain) => {
            report.chain = chain.links().iter().map(|link| link.id().to_owned()).collect();
            let tasks = tasks(repository.store(), &chain)?;
            run(repository.store(), tasks, jobs, progress, &mut report).await?;
        }
        Err(Error::Damaged { object, reason }) => {
            let lost = lost_with_parents(Link::open(head, keys).ok().as_ref());
            report.findings.push(Finding { object, problem: reason, lost });
        }
        Err(error) => return Err(error),
    }
    Ok(report)
}

/// Without a key: who continues whom stands in the clear.
async fn manifests(repository: &Repository, head: Manifest, report: &mut Verification) -> Result<Vec<Manifest>> {
    let mut manifests = vec![head];
    report.chain = manifests.iter().map(|manifest| manifest.identity.id.clone()).collect();
    while let Some(parent) = manifests.last().and_then(|manifest| manifest.identity.parent.clone()) {
        let object = Repository::manifest_key(&parent.id);
        let problem = match repository.manifest(&parent.id).await {
            Ok(manifest) if manifest.digest() == parent.digest && manifests.len() < CHAIN_MAX => {
                report.chain.push(parent.id.clone());
                manifests.push(manifest);
                continue;
            }
            Ok(_) => "is not the backup that its child continues".to_owned(),
            Err(Error::NotFound(_)) => "is missing, and its child continues it".to_owned(),
            Err(Error::Damaged { reason, .. }) => reason,
            Err(error) => return Err(error),
        };
        report.findings.push(Finding { object, problem, lost: Vec::new() });
        break;
    }
    Ok(manifests)
}

/// What the head does not have itself.
fn lost_with_parents(head: Option<&Link>) -> Vec<Lost> {
    let topics = head.into_iter().flat_map(|head| &head.contents.topics).filter(|topic| topic.incremental);
    let partitions = topics.flat_map(|topic| topic.partitions.iter().map(move |partition| (topic, partition)));
    let older = partitions.filter(|(_, partition)| partition.log_start < partition.from);
    let lost = older.map(|(topic, partition)| Lost {
        topic: topic.name.clone(),
        partition: partition.index,
        first: partition.log_start,
        last: partition.from - 1,
        records: None,
    });
    lost.collect()
}

/// One object to read.
struct Task {
    name: String,
    bytes: u64,
    sha256: String,
    /// `None`: its contents stay closed.
    open: Option<Opening>,
}

struct Opening {
    reader: ObjectReader,
    /// In the order in which they lie in the object.
    parts: Vec<Part>,
}

/// An extent that the backup needs.
struct Part {
    topic: String,
    partition: i32,
    piece: Piece,
    walker: ExtentWalker,
    failed: Option<String>,
}

impl Task {
    fn closed(backup: &str, object: &Object) -> Self {
        let name = Repository::object_key(backup, &object.name);
        Self { name, bytes: object.bytes, sha256: object.sha256.clone(), open: None }
    }
}

fn tasks(store: &Store, chain: &Chain) -> Result<Vec<Task>> {
    let mut parts: BTreeMap<(usize, u32), Vec<Part>> = BTreeMap::new();
    for topic in &chain.head()?.contents.topics {
        for partition in &topic.partitions {
            for piece in chain.pieces(&topic.name, partition.index)? {
                let walker = ExtentWalker::new(&piece.extent);
                let (topic, partition) = (topic.name.clone(), partition.index);
                let place = (piece.link, piece.extent.object);
                parts.entry(place).or_default().push(Part { topic, partition, piece, walker, failed: None });
            }
        }
    }
    let mut tasks = Vec::new();
    for (number, link) in chain.links().iter().enumerate() {
        for (index, object) in (0_u32..).zip(&link.manifest.identity.objects) {
            let mut parts = parts.remove(&(number, index)).unwrap_or_default();
            parts.sort_by_key(|part| part.piece.extent.at);
            let mut task = Task::closed(link.id(), object);
            task.open = Some(Opening { reader: link.reader(store, index)?, parts });
            tasks.push(task);
        }
    }
    Ok(tasks)
}

async fn run(
    store: &Store,
    tasks: Vec<Task>,
    jobs: usize,
    progress: &Progress,
    report: &mut Verification,
) -> Result<()> {
    progress.expect(tasks.len());
    let slots = Arc::new(Semaphore::new(jobs.max(1)));
    let mut running = JoinSet::new();
    for task in tasks {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
        let (store, progress) = (store.clone(), progress.clone());
        running.spawn(async move {
            let checked = check(&store, task, &progress).await;
            drop(slot);
            checked
        });
        while let Some(checked) = running.try_join_next() {
            add(report, checked)?;
        }
    }
    while let Some(checked) = running.join_next().await {
        add(report, checked)?;
    }
    report.findings.sort_by(|a, b| a.object.cmp(&b.object));
    Ok(())
}

/// What one object came to.
struct Checked {
    bytes: u64,
    batches: u64,
    records: u64,
    finding: Option<Finding>,
}

fn add(report: &mut Verification, checked: Result<Result<Checked>, tokio::task::JoinError>) -> Result<()> {
    let checked = checked.map_err(|error| Error::Invalid(format!("a worker failed: {error}")))??;
    report.objects += 1;
    report.bytes += checked.bytes;
    report.batches += checked.batches;
    report.records += checked.records;
    report.findings.extend(checked.finding);
    Ok(())
}

async fn check(store: &Store, mut task: Task, progress: &Progress) -> Result<Checked> {
    let mut problem = read(store, &mut task, progress).await?;
    let (mut batches, mut records, mut losses) = (0, 0, Vec::new());
    for part in task.open.iter_mut().flat_map(|opening| &mut opening.parts) {
        if part.failed.is_none() {
            part.failed = part.walker.finish().err();
        }
        batches += part.walker.batches();
        records += part.walker.records();
        if let Some(reason) = &part.failed {
            problem.get_or_insert_with(|| format!("{}-{} {reason}", part.topic, part.partition));
            losses.extend(part.lost());
        }
    }
    progress.partition_done();
    let finding = problem.map(|problem| Finding { object: task.name, problem, lost: losses });
    Ok(Checked { bytes: task.bytes, batches, records, finding })
}

impl Part {
    /// From the first batch that could not be read to the end of the extent.
    fn lost(&self) -> Option<Lost> {
        let (extent, window) = (&self.piece.extent, &self.piece.window);
        let first = self.walker.good_until().max(window.start);
        let last = extent.last.min(window.end - 1);
        (first <= last).then(|| Lost {
            topic: self.topic.clone(),
            partition: self.partition,
            first,
            last,
            records: Some(extent.records.saturating_sub(self.walker.records())),
        })
    }

    /// Takes what of a chunk belongs to it.
    fn feed(&mut self, chunk: std::ops::Range<u64>, plain: Result<&[u8], &str>) {
        let extent = &self.piece.extent;
        let (start, end) = (chunk.start.max(extent.at), chunk.end.min(extent.at + extent.bytes));
        if self.failed.is_some() || start >= end {
            return;
        }
        let plain = match plain {
            Ok(plain) => plain,
            Err(reason) => {
                self.failed = Some(reason.to_owned());
                return;
            }
        };
        let within = |at: u64| usize::try_from(at - chunk.start).unwrap_or(usize::MAX);
        self.walker.feed(plain.get(within(start)..within(end)).unwrap_or_default());
        loop {
            match self.walker.next_batch() {
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(reason) => {
                    self.failed = Some(reason);
                    return;
                }
            }
        }
    }
}

/// Reads an object once, for its checksum and for its parts; answers what is wrong with it.
async fn read(store: &Store, task: &mut Task, progress: &Progress) -> Result<Option<String>> {
    let mut problem = None;
    match store.head(&task.name).await.map_err(|error| lost(&task.name, error)) {
        Ok(have) if have == task.bytes => {}
        Ok(have) => problem = Some(format!("has {have} bytes where {} were expected", task.bytes)),
        Err(Error::Damaged { reason, .. }) => {
            task.fail_all(&reason);
            return Ok(Some(reason));
        }
        Err(error) => return Err(error),
    }
    let mut hash = digest::Context::new(&digest::SHA256);
    let window = task.window();
    let mut at = 0;
    let mut index = 0;
    while at < task.bytes {
        let end = if at == 0 { HEADER_BYTES as u64 } else { at + window }.min(task.bytes);
        let stored = match store.get(&task.name, at..end).await.map_err(|error| lost(&task.name, error)) {
            Ok(stored) => stored,
            Err(Error::Damaged { reason, .. }) => {
                task.fail_all(&reason);
                return Ok(problem.or(Some(reason)));
            }
            Err(error) => return Err(error),
        };
        hash.update(&stored);
        progress.add(0, stored.len() as u64);
        if let Some(opening) = &mut task.open {
            let found = if at == 0 { opening.header(&stored) } else { opening.chunks(&mut index, &stored) };
            problem = problem.or(found);
        }
        at = end;
    }
    if hex(hash.finish().as_ref()) != task.sha256 {
        problem.get_or_insert_with(|| "its SHA-256 is not that of the manifest".to_owned());
    }
    Ok(problem)
}

impl Task {
    fn fail_all(&mut self, reason: &str) {
        for part in self.open.iter_mut().flat_map(|opening| &mut opening.parts) {
            part.failed.get_or_insert_with(|| reason.to_owned());
        }
    }

    fn window(&self) -> u64 {
        self.open.as_ref().map_or(4 << 20, |opening| opening.reader.sealed_chunk() * WINDOW)
    }
}

impl Opening {
    fn header(&self, stored: &[u8]) -> Option<String> {
        (stored != self.reader.header()).then(|| "its header is not that of an object of this backup".to_owned())
    }

    fn chunks(&mut self, index: &mut u64, stored: &[u8]) -> Option<String> {
        let mut problem = None;
        let size = usize::try_from(self.reader.sealed_chunk()).unwrap_or(usize::MAX);
        for sealed in stored.chunks(size) {
            let mut sealed = sealed.to_vec();
            let contents = self.reader.contents(*index);
            let opened = self.reader.open(*index, &mut sealed).map_err(|error| match error {
                Error::Damaged { reason, .. } => reason,
                error => error.to_string(),
            });
            for part in &mut self.parts {
                part.feed(contents.clone(), opened.as_deref().map_err(String::as_str));
            }
            problem = problem.or(opened.err());
            *index += 1;
        }
        problem
    }
}
