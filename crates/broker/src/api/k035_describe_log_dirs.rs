//! DescribeLogDirs, key 35, v1–v5. Answers to `ReplicaManager.describeLogDirs`.
//!
//! Behaviour: a row per log directory; `null` topics means all partitions, otherwise only those that are named, and what
//! is named but not here is left out. `__cluster_metadata` is no replica and has no row, as in Kafka. Sizes are those of
//! the segments; a copy that is made for AlterReplicaLogDirs has a row of its own, with what it lacks. A directory that
//! failed answers KAFKA_STORAGE_ERROR. Version notes: v4 carries the file system's sizes, v5 whether a directory is
//! cordoned.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use taccola_wire::error::ErrorCode;
use taccola_wire::messages::describe_log_dirs_request::DescribeLogDirsRequest;
use taccola_wire::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::runtime::log_dirs;

/// The file system does not say.
const UNKNOWN_BYTES: i64 = -1;

pub async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let broker = broker.clone();
    // Asking the file system touches the disk.
    let described = crate::runtime::blocking::spawn(move || describe(&broker, request)).await;
    let results = described.unwrap_or_else(|error| {
        tracing::error!(%error, "describing log directories");
        Vec::new()
    });
    DescribeLogDirsResponse { results, ..Default::default() }
}

fn describe(broker: &Broker, request: DescribeLogDirsRequest) -> Vec<DescribeLogDirsResult> {
    let asked = request.topics.map(|topics| {
        let mut asked: HashMap<String, HashSet<i32>> = HashMap::new();
        for topic in topics {
            asked.entry(topic.topic).or_default().extend(topic.partitions);
        }
        asked
    });
    let is_asked = |topic: &str, partition: i32| match &asked {
        None => true,
        Some(asked) => asked.get(topic).is_some_and(|partitions| partitions.contains(&partition)),
    };
    let mut dirs: Vec<BTreeMap<Arc<str>, Vec<DescribeLogDirsPartition>>> = Vec::new();
    dirs.resize_with(broker.log_dirs.len(), BTreeMap::new);
    for partition in broker.partitions.all() {
        let at = &partition.topic_partition;
        let Some(topics) = dirs.get_mut(partition.log_dir()).filter(|_| is_asked(&at.topic, at.partition)) else {
            continue;
        };
        let Some((size, end)) = partition.with_log(|log| (log.size_bytes(), log.log_end_offset())) else { continue };
        topics.entry(at.topic.clone()).or_default().push(DescribeLogDirsPartition {
            partition_index: at.partition,
            partition_size: i64::try_from(size).unwrap_or(i64::MAX),
            offset_lag: 0,
            is_future_key: false,
        });
        let Some(copy) = broker.moves.of(at) else { continue };
        let Some(topics) = dirs.get_mut(copy.to_dir) else { continue };
        topics.entry(at.topic.clone()).or_default().push(DescribeLogDirsPartition {
            partition_index: at.partition,
            partition_size: copy.bytes.load(Ordering::Relaxed),
            offset_lag: end.saturating_sub(copy.copied_to.load(Ordering::Relaxed)).max(0),
            is_future_key: true,
        });
    }
    let online = broker.log_dirs.iter().zip(dirs).map(|(dir, topics)| match dir.is_online() {
        true => result(&dir.path, topics),
        false => offline(&dir.path),
    });
    online.chain(broker.offline_dirs.iter().map(|path| offline(path))).collect()
}

fn offline(path: &Path) -> DescribeLogDirsResult {
    DescribeLogDirsResult {
        error_code: ErrorCode::KafkaStorageError.code(),
        log_dir: log_dirs::name_of(path),
        total_bytes: UNKNOWN_BYTES,
        usable_bytes: UNKNOWN_BYTES,
        ..Default::default()
    }
}

fn result(path: &Path, topics: BTreeMap<Arc<str>, Vec<DescribeLogDirsPartition>>) -> DescribeLogDirsResult {
    let topic = |(name, mut partitions): (Arc<str>, Vec<DescribeLogDirsPartition>)| {
        partitions.sort_unstable_by_key(|partition| partition.partition_index);
        DescribeLogDirsTopic { name: name.to_string(), partitions }
    };
    let (total_bytes, usable_bytes) = space(path);
    DescribeLogDirsResult {
        error_code: 0,
        log_dir: log_dirs::name_of(path),
        topics: topics.into_iter().map(topic).collect(),
        total_bytes,
        usable_bytes,
        is_cordoned: false,
    }
}

/// Bytes of the file system that holds the directory: all, and those that this process may still use.
fn space(path: &Path) -> (i64, i64) {
    match rustix::fs::statvfs(path) {
        Ok(stat) => {
            let bytes = |blocks: u64| i64::try_from(stat.f_frsize.saturating_mul(blocks)).unwrap_or(i64::MAX);
            (bytes(stat.f_blocks), bytes(stat.f_bavail))
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the file system does not tell its size");
            (UNKNOWN_BYTES, UNKNOWN_BYTES)
        }
    }
}
