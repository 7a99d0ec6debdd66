//! Whole brokers in this process over a store in memory, with and without faults: what is served from both tiers is what was
//! written, wherever copying and deleting were interrupted, and nothing is left lying about.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use taccola_base::Uuid;
use taccola_base::config::{ServerConfig, Settings};
use taccola_log::{AbortedTxn, AppendOrigin, ReadError, TimestampQuery};
use taccola_remote::{Fault, FaultPlan, Faults, Store};
use taccola_wire::batch::{BatchBuilder, Compression, ControlRecord, batches, end_txn_marker};
use taccola_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};

use super::*;
use crate::broker::Broker;
use crate::partition::{Durability, FetchIsolation, Partition, PartitionRead, ReadRejected};
use crate::serve::RunningBroker;

/// Stores by URL, for brokers that are started here.
static PLANTED: LazyLock<Mutex<HashMap<String, Store>>> = LazyLock::new(Mutex::default);

pub(super) fn planted(url: &str) -> Option<Store> {
    PLANTED.lock().get(url).cloned()
}

const TOPIC: &str = "tiered";
const WITHIN: Duration = Duration::from_secs(60);

/// A directory and what lies remotely, over several lives of a broker.
struct Rig {
    dir: tempfile::TempDir,
    store: Store,
    url: String,
}

impl Rig {
    fn new() -> Self {
        let url = format!("memory:{}", Uuid::random());
        Self { dir: tempfile::tempdir().unwrap(), store: Store::memory(), url }
    }

    async fn start(&self, faults: Option<Faults>, more: &[(&str, &str)]) -> RunningBroker {
        let store = self.store.clone();
        PLANTED.lock().insert(self.url.clone(), faults.map_or(store.clone(), |faults| store.with_faults(faults)));
        let dir = self.dir.path().join("data").display().to_string();
        let fixed = [
            ("listeners", "PLAINTEXT://127.0.0.1:0"),
            ("log.dirs", dir.as_str()),
            ("remote.log.storage.system.enable", "true"),
            ("taccola.remote.storage.url", self.url.as_str()),
            ("taccola.acks.durability", "memory"),
            ("taccola.journal.bytes", "1048576"),
            ("rlmm.config.remote.log.metadata.topic.num.partitions", "3"),
            ("remote.log.manager.task.interval.ms", "10"),
            ("remote.log.manager.task.retry.backoff.ms", "10"),
            ("remote.log.manager.task.retry.backoff.max.ms", "50"),
            ("log.retention.check.interval.ms", "20"),
        ];
        let settings: Settings = fixed.into_iter().chain(more.iter().copied()).collect();
        let config = ServerConfig::load(&settings).unwrap().config;
        crate::serve::start(config, settings).await.unwrap()
    }

    async fn objects(&self) -> Vec<String> {
        let page = self.store.list("", None).await.unwrap();
        page.objects.into_iter().map(|object| object.key).collect()
    }
}

async fn create(broker: &Broker, configs: &[(&str, &str)]) -> Arc<Partition> {
    let configs = configs
        .iter()
        .map(|(name, value)| CreatableTopicConfig { name: (*name).to_owned(), value: Some((*value).to_owned()) });
    let topic = CreatableTopic {
        name: TOPIC.to_owned(),
        num_partitions: 1,
        replication_factor: 1,
        configs: configs.collect(),
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 10_000, ..Default::default() };
    let done = broker.command(|controller, image| controller.create_topics(image, &request, &mut Uuid::random)).await;
    assert_eq!(done.unwrap().topics[0].error_code, 0);
    partition(broker)
}

fn partition(broker: &Broker) -> Arc<Partition> {
    broker.partitions.get(TOPIC, 0).unwrap()
}

/// Segments of a MiB, of which none stays here once it is copied.
const TIERED: &[(&str, &str)] =
    &[("remote.storage.enable", "true"), ("segment.bytes", "1048576"), ("local.retention.bytes", "1")];

fn append(broker: &Broker, partition: &Arc<Partition>, batch: Bytes, origin: AppendOrigin) -> i64 {
    let mut batch = BytesMut::from(batch.as_ref());
    let done = partition.append(&broker.journal, &mut batch, origin, Durability::PageCache, crate::clock::now_ms());
    done.unwrap().last_offset
}

/// A batch with a value that nothing else has, `bytes` long.
fn value(n: usize, bytes: usize) -> Vec<u8> {
    let mut value: Vec<u8> = (0..bytes).map(|i| (i.wrapping_mul(31) ^ n.wrapping_mul(17)) as u8).collect();
    value[..8].copy_from_slice(&(n as u64).to_be_bytes());
    value
}

fn batch(n: usize, bytes: usize, timestamp: i64) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.append(timestamp, None, Some(&value(n, bytes)), &[]);
    builder.build().unwrap()
}

fn produce(broker: &Broker, count: usize) {
    let partition = partition(broker);
    let from = partition.with_log(|log| log.log_end_offset()).unwrap() as usize;
    for n in from..from + count {
        let timestamp = crate::clock::now_ms() + n as i64;
        append(broker, &partition, batch(n, 400_000, timestamp), AppendOrigin::Client);
    }
}

async fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + WITHIN;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < until, "waited for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// As a fetch does it.
async fn read(
    broker: &Broker,
    offset: i64,
    max: usize,
    isolation: FetchIsolation,
) -> Result<PartitionRead, RemoteReadError> {
    let partition = partition(broker);
    match partition.read(offset, max, true, isolation) {
        Err(ReadRejected::Log(ReadError::InRemoteStorage { .. })) => {
            let remote = broker.remote.as_ref().unwrap();
            read_partition(remote, &partition, offset, max, true, isolation).await
        }
        read => Ok(read?),
    }
}

/// Everything from `offset` on, with as many tries as the store wants.
async fn read_all(broker: &Broker, mut offset: i64, max: usize) -> Vec<u8> {
    let end = partition(broker).with_log(|log| log.log_end_offset()).unwrap();
    let mut all = Vec::new();
    let mut failures = 0;
    while offset < end {
        let read = match read(broker, offset, max, FetchIsolation::LogEnd).await {
            Ok(read) => read,
            Err(RemoteReadError::Unavailable(_)) if failures < 1_000 => {
                failures += 1;
                continue;
            }
            Err(error) => panic!("offset {offset}: {error}"),
        };
        assert!(!read.records.is_empty(), "nothing at {offset}");
        for batch in batches(&read.records) {
            let batch = batch.unwrap();
            assert!(batch.header.last_offset() >= offset, "{offset}");
            all.extend_from_slice(batch.bytes);
            offset = batch.header.next_offset();
        }
    }
    all
}

fn bounds(broker: &Broker) -> (i64, i64, i64) {
    partition(broker).with_log(|log| (log.log_start_offset(), log.local_log_start_offset(), log.copied_to())).unwrap()
}

/// Until all but the active segment is remote only.
async fn all_tiered(broker: &Broker) {
    let partition = partition(broker);
    eventually("one local segment", || {
        partition
            .with_log(|log| log.segment_count() == 1 && log.local_log_start_offset() > 0 && log.copied_to() > 0)
            .unwrap()
            .then_some(())
    })
    .await;
}

/// The log objects by base offset, after the leftovers are gone: each offset once, five objects to each segment.
async fn assert_tidy(rig: &Rig, segments: usize) {
    let mut found = Vec::new();
    let until = Instant::now() + WITHIN;
    loop {
        let objects = rig.objects().await;
        let logs: Vec<_> = objects.iter().filter(|key| key.ends_with(".log")).cloned().collect();
        if logs.len() == segments && objects.len() == segments * 5 {
            found.extend(logs);
            break;
        }
        assert!(Instant::now() < until, "{segments} segments expected: {objects:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut bases: Vec<_> = found.iter().map(|key| key.rsplit('/').next().unwrap()[..20].to_owned()).collect();
    bases.dedup();
    assert_eq!(bases.len(), segments);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stop_at_any_step_leaves_no_hole_and_nothing_behind() {
    let mut cases = tokio::task::JoinSet::new();
    // Two segments are copied with twelve requests each; beyond that nothing is interrupted.
    for (steps, fault) in
        (0..26).map(|steps| (steps, Fault::Error)).chain((0..26).step_by(3).map(|s| (s, Fault::LostReply)))
    {
        cases.spawn(async move {
            let rig = Rig::new();
            let asked = Arc::new(AtomicUsize::new(0));
            let count = asked.clone();
            let dies = Faults::decide(
                move |_, _| {
                    if count.fetch_add(1, Ordering::SeqCst) < steps { Fault::None } else { fault }
                },
            );
            let running = rig.start(Some(dies), &[]).await;
            create(&running.broker, TIERED).await;
            produce(&running.broker, 5);
            eventually("the store is asked", || {
                (asked.load(Ordering::SeqCst) > steps || bounds(&running.broker).2 == 4).then_some(())
            })
            .await;
            running.stop().await.unwrap();
            let running = rig.start(None, &[]).await;
            all_tiered(&running.broker).await;
            assert_eq!(bounds(&running.broker), (0, 4, 4), "after {steps} steps");
            let all = read_all(&running.broker, 0, 1_000_000).await;
            for n in 0..5 {
                let wanted = value(n, 400_000);
                assert!(all.windows(wanted.len().min(64)).any(|w| w == &wanted[..64]), "{n}");
            }
            assert_tidy(&rig, 2).await;
            running.stop().await.unwrap();
        });
    }
    while let Some(case) = cases.join_next().await {
        case.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_bad_store_costs_time_and_no_record() {
    let rig = Rig::new();
    let plan = FaultPlan {
        seed: 11,
        error: 150,
        lost_reply: 80,
        torn: 80,
        short: 60,
        delay: 50,
        delay_time: Duration::from_millis(20),
    };
    let small_cache = [("taccola.remote.fetch.cache.bytes", "16777216")];
    let running = rig.start(Some(Faults::seeded(plan)), &small_cache).await;
    create(&running.broker, TIERED).await;
    produce(&running.broker, 21);
    let before = read_all(&running.broker, 0, 300_000).await;
    all_tiered(&running.broker).await;
    for max in [1, 300_000, 1_000_000, 5_000_000] {
        assert!(read_all(&running.broker, 0, max).await == before, "in pieces of {max}");
    }
    running.stop().await.unwrap();
    let running = rig.start(None, &[]).await;
    assert!(read_all(&running.broker, 0, 1_000_000).await == before);
    assert_tidy(&rig, 10).await;
    running.stop().await.unwrap();
}

/// Transactions, committed, aborted and mixed, over many small segments.
fn transactions(broker: &Broker, partition: &Arc<Partition>) {
    let mut sequence = [0_i32; 3];
    for n in 0..60_usize {
        let producer = n % 3;
        let id = 100 + producer as i64;
        let mut builder = BatchBuilder::new(Compression::None).producer(id, 0, sequence[producer]).transactional(true);
        for k in 0..3 {
            builder.append(1_000_000 + (n as i64 * 7 % 50) * 10 + k, None, Some(&value(n, 30_000)), &[]);
        }
        let guard = partition.with_log(|log| log.start_verification(id, 0, sequence[producer], false)).unwrap();
        sequence[producer] += 3;
        append(broker, partition, builder.build().unwrap(), AppendOrigin::ClientTransaction { guard });
        if n % 7 == 6 || n >= 57 {
            let marker = match n % 2 {
                0 => ControlRecord::Abort { coordinator_epoch: 0 },
                _ => ControlRecord::Commit { coordinator_epoch: 0 },
            };
            let marker = end_txn_marker(crate::clock::now_ms(), id, 0, &marker).unwrap();
            append(broker, partition, marker, AppendOrigin::Coordinator { transaction_version: 0 });
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn both_tiers_answer_alike() {
    let rig = Rig::new();
    let running = rig.start(None, &[]).await;
    let broker = &running.broker;
    let partition = create(
        broker,
        &[
            ("remote.storage.enable", "true"),
            ("segment.bytes", "1048576"),
            ("index.interval.bytes", "1000"),
            ("retention.ms", "-1"),
        ],
    )
    .await;
    transactions(broker, &partition);
    let end = partition.with_log(|log| log.log_end_offset()).unwrap();
    let seen = |read: &PartitionRead| {
        let next = batches(&read.records).last().unwrap().unwrap().header.next_offset();
        let aborted: Vec<AbortedTxn> =
            read.aborted_txns.iter().filter(|txn| txn.first_offset < next).copied().collect();
        (read.records.clone(), aborted)
    };
    let mut local = BTreeMap::new();
    for offset in 0..end {
        // One batch at a time: both tiers end a read at the same place.
        local.insert(offset, seen(&read(broker, offset, 1, FetchIsolation::TxnCommitted).await.unwrap()));
    }
    let by_time = async |timestamp: i64| {
        let remote = broker.remote.as_ref().unwrap();
        let partition = crate::tier::tests::partition(broker);
        let found = find_by_timestamp(remote, &partition, timestamp).await.unwrap();
        match found {
            Some(found) => Some(found),
            None => partition.with_log(|log| log.offset_for_timestamp(TimestampQuery::At(timestamp))).unwrap().unwrap(),
        }
    };
    let times: Vec<i64> = (999_990..1_000_520).step_by(3).collect();
    let mut local_times = Vec::new();
    for time in &times {
        local_times.push(by_time(*time).await);
    }
    eventually("copies", || {
        let sealed =
            partition.with_log(|log| log.copy_candidate(log.copied_to()).unwrap().is_none() && log.copied_to() > 0);
        sealed.unwrap().then_some(())
    })
    .await;
    let mut config = partition.topic_config().log.as_ref().clone();
    config.local_retention_bytes = 1;
    partition.with_log(|log| log.set_config(Arc::new(config))).unwrap();
    all_tiered(broker).await;
    let (_, local_start, _) = bounds(broker);
    assert!(local_start > end / 2);
    for (offset, wanted) in &local {
        let found = seen(&read(broker, *offset, 1, FetchIsolation::TxnCommitted).await.unwrap());
        assert!(found.0 == wanted.0, "records at {offset}");
        assert_eq!(found.1, wanted.1, "aborted transactions at {offset}");
    }
    for (time, wanted) in times.iter().zip(local_times) {
        assert_eq!(by_time(*time).await, wanted, "{time}");
    }
    let remote_max = find_max_timestamp(broker.remote.as_ref().unwrap(), &partition).await.unwrap();
    let below = local.range(..local_start).flat_map(|(_, (records, _))| {
        batches(records).map(|batch| batch.unwrap().header.max_timestamp).collect::<Vec<_>>()
    });
    assert_eq!(remote_max.map(|found| found.timestamp_ms), below.max());
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_deleted_is_deleted_in_both_tiers() {
    let rig = Rig::new();
    let running = rig.start(None, &[]).await;
    let partition = create(&running.broker, TIERED).await;
    produce(&running.broker, 13);
    all_tiered(&running.broker).await;
    assert_tidy(&rig, 6).await;
    // DeleteRecords into the remote part.
    partition.with_log(|log| log.delete_records_before(5, 0)).unwrap().unwrap();
    assert_tidy(&rig, 4).await;
    let below = read(&running.broker, 4, 1, FetchIsolation::LogEnd).await;
    assert!(matches!(below, Err(RemoteReadError::Rejected(ReadRejected::Log(ReadError::OffsetOutOfRange { .. })))));
    assert!(read(&running.broker, 5, 1, FetchIsolation::LogEnd).await.is_ok());
    // A restart knows it.
    crate::runtime::housekeeping::write_log_start_offsets(&running.broker);
    running.stop().await.unwrap();
    let running = rig.start(None, &[]).await;
    assert_eq!(bounds(&running.broker).0, 5);
    read_all(&running.broker, 5, 1_000_000).await;
    // Size over both tiers.
    let partition = crate::tier::tests::partition(&running.broker);
    let shrink = |retention_bytes| {
        let topic = partition.topic_config();
        let values = taccola_base::config::LogConfigValues { retention_bytes, ..topic.values.clone() };
        partition.set_topic_config(crate::topic_config::TopicConfig::new(values, 86_400_000));
    };
    shrink(2_000_000);
    assert_tidy(&rig, 2).await;
    assert_eq!(bounds(&running.broker).0, 8);
    // The topic.
    let request = taccola_wire::messages::delete_topics_request::DeleteTopicsRequest {
        topics: vec![taccola_wire::messages::delete_topics_request::DeleteTopicState {
            name: Some(TOPIC.to_owned()),
            ..Default::default()
        }],
        timeout_ms: 10_000,
        ..Default::default()
    };
    let deleted = running.broker.command(|controller, image| controller.delete_topics(image, &request)).await;
    deleted.unwrap();
    assert_tidy(&rig, 0).await;
    let remote = running.broker.remote.clone().unwrap();
    eventually("nothing known", || remote.partitions.lock().is_empty().then_some(())).await;
    running.stop().await.unwrap();
}
