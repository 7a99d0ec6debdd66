//! Tiered storage from outside: what foreign consumers read across both tiers, what the special timestamps of ListOffsets say, kill -9
//! in the middle of copying, an S3-compatible server, and what Kafka's own tool makes of `__remote_log_metadata`.
//!
//! `TIER_CYCLES` sets how often the broker is killed while it copies.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use taccola_it::clients::{kafka_tool, kcat, python};
use taccola_it::conn::Conn;
use taccola_it::crash::number;
use taccola_it::moto::Moto;
use taccola_it::requests::{batch, create_topic, fetch, list_offset, new_topic, produced, read_all, records_of};
use taccola_it::{Broker, eventually, run};
use tempfile::TempDir;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const OFFSET_OUT_OF_RANGE: i16 = 1;
const INVALID_CONFIG: i16 = 40;

const TOPIC: &str = "tiered";
const TIERED: &[(&str, &str)] =
    &[("remote.storage.enable", "true"), ("segment.bytes", "1048576"), ("local.retention.bytes", "1")];

fn properties(url: &str) -> Vec<String> {
    [
        "remote.log.storage.system.enable=true".to_owned(),
        format!("taccola.remote.storage.url={url}"),
        "rlmm.config.remote.log.metadata.topic.num.partitions=2".to_owned(),
        "remote.log.manager.task.interval.ms=50".to_owned(),
        // A busy machine's answer must not be taken for the log's end.
        "remote.fetch.max.wait.ms=20000".to_owned(),
        "log.retention.check.interval.ms=50".to_owned(),
        "log.segment.delete.delay.ms=100".to_owned(),
    ]
    .to_vec()
}

fn start(properties: &[String]) -> Broker {
    let lines: Vec<&str> = properties.iter().map(String::as_str).collect();
    Broker::start(&lines)
}

fn connect(broker: &Broker) -> Conn {
    eventually("a connection", || Conn::connect(broker.port).ok())
}

/// Appends `count` batches of ten records; the values are those that [`wanted`] has.
fn produce(conn: &mut Conn, from: usize, count: usize) {
    for n in from..from + count {
        let values: Vec<String> = (n * 10..n * 10 + 10).map(value).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        assert_eq!(produced(conn, TOPIC, 0, batch(&values)), n as i64 * 10);
    }
}

fn value(n: usize) -> String {
    let letters: String = (0..20_000_u32).map(|i| char::from(b'a' + ((i * 7 + n as u32 * 13) % 26) as u8)).collect();
    format!("{n:08}-{letters}")
}

fn wanted(records: usize) -> String {
    (0..records).map(|n| value(n) + "\n").collect()
}

fn assert_all(conn: &mut Conn, from: usize, to: usize) {
    let records = read_all(conn, TOPIC, 0, from as i64);
    assert_eq!(records.len(), to - from);
    for (n, record) in (from..to).zip(records) {
        assert_eq!(record.offset, n as i64);
        assert!(record.value.as_deref() == Some(value(n).as_bytes()), "offset {n}");
    }
}

/// Until only the active segment is local; answers where it begins.
fn all_tiered(conn: &mut Conn, broker: &Broker) -> i64 {
    eventually("all sealed segments are only remote", || {
        let logs = files(&broker.data_dir().join(format!("{TOPIC}-0")), ".log");
        let (_, local, _) = list_offset(conn, TOPIC, 0, EARLIEST_LOCAL);
        let (_, tiered, _) = list_offset(conn, TOPIC, 0, LATEST_TIERED);
        (logs.len() == 1 && local > 0 && tiered == local - 1).then_some(local)
    })
}

/// Files below a folder whose name ends like this.
fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, suffix));
        } else if path.to_string_lossy().ends_with(suffix) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn a_topic_is_read_across_both_tiers() {
    let store = tempfile::tempdir().unwrap();
    let mut broker = start(&properties(&format!("file://{}/objects", store.path().display())));
    let mut conn = connect(&broker);
    new_topic(&mut conn, TOPIC, 1, TIERED);
    produce(&mut conn, 0, 32);
    let local = all_tiered(&mut conn, &broker);
    assert_eq!(list_offset(&mut conn, TOPIC, 0, EARLIEST), (0, 0, -1));
    assert_eq!(list_offset(&mut conn, TOPIC, 0, LATEST), (0, 320, -1));
    assert_eq!(list_offset(&mut conn, TOPIC, 0, 1).1, 0);
    assert!(list_offset(&mut conn, TOPIC, 0, MAX_TIMESTAMP).1 >= local - 10);
    assert_all(&mut conn, 0, 320);
    for offset in [3, 155, local - 1, local] {
        assert_all(&mut conn, usize::try_from(offset).unwrap(), 320);
    }
    let file = broker.dir.path().join("wanted");
    fs::write(&file, wanted(320)).unwrap();
    if let Some(kcat) = kcat("tiered") {
        let said = Command::new(kcat)
            .args(["-C", "-q", "-b", &broker.bootstrap(), "-t", TOPIC, "-p", "0", "-o", "beginning", "-e"])
            .output()
            .unwrap();
        assert!(said.stdout == wanted(320).into_bytes(), "{}", String::from_utf8_lossy(&said.stderr));
    }
    if let (Some(python), Some(_)) = (python("tiered", "confluent_kafka"), python("tiered", "kafka")) {
        let program = format!("{}/python/tiered.py", env!("CARGO_MANIFEST_DIR"));
        println!("{}", run(Command::new(python).arg(program).arg(broker.bootstrap()).arg(TOPIC).arg(&file)));
    }
    // A clean restart and a crash change nothing.
    broker.restart();
    let mut conn = connect(&broker);
    assert_eq!(list_offset(&mut conn, TOPIC, 0, EARLIEST).1, 0);
    assert_all(&mut conn, 0, 320);
    broker.kill();
    broker.launch();
    let mut conn = connect(&broker);
    assert_eq!(list_offset(&mut conn, TOPIC, 0, EARLIEST).1, 0);
    assert_all(&mut conn, 0, 320);
    all_tiered(&mut conn, &broker);
    broker.stop();
    dump_metadata(&broker);
}

/// Kafka's own tool reads every record of `__remote_log_metadata`.
fn dump_metadata(broker: &Broker) {
    let Some(mut tool) = kafka_tool("tiered", "org.apache.kafka.tools.DumpLogSegments") else { return };
    let logs: Vec<String> = (0..2)
        .flat_map(|n| files(&broker.data_dir().join(format!("__remote_log_metadata-{n}")), ".log"))
        .map(|path| path.display().to_string())
        .collect();
    let said = run(tool.args(["--remote-log-metadata-decoder", "--files", &logs.join(",")]));
    let count = |what: &str| said.matches(what).count();
    assert!(count("RemoteLogSegmentMetadata{") >= 5, "{said}");
    assert_eq!(count("RemoteLogSegmentMetadata{"), count("state=COPY_SEGMENT_STARTED"), "{said}");
    assert_eq!(count("state=COPY_SEGMENT_FINISHED"), count("RemoteLogSegmentMetadata{"), "{said}");
    assert!(!said.contains("Could not"), "{said}");
}

#[test]
fn deletes_reach_both_tiers() {
    let store = tempfile::tempdir().unwrap();
    let broker = start(&properties(&format!("file://{}", store.path().display())));
    let mut conn = connect(&broker);
    new_topic(&mut conn, TOPIC, 1, TIERED);
    produce(&mut conn, 0, 32);
    all_tiered(&mut conn, &broker);
    let before = files(store.path(), ".log").len();
    assert!(before >= 5);
    delete_records(&mut conn, 150);
    eventually("remote segments below are gone", || (files(store.path(), ".log").len() < before).then_some(()));
    assert_eq!(list_offset(&mut conn, TOPIC, 0, EARLIEST).1, 150);
    assert_eq!(fetch(&mut conn, TOPIC, 0, 149).error_code, OFFSET_OUT_OF_RANGE);
    assert_all(&mut conn, 150, 320);
    run(&mut taccola_it::taccola(&broker, &["topic", "delete", TOPIC]));
    eventually("no object is left", || files(store.path(), "").is_empty().then_some(()));
}

fn delete_records(conn: &mut Conn, offset: i64) {
    use taccola_wire::messages::delete_records_request::{
        DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
    };
    let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset }];
    let topics = vec![DeleteRecordsTopic { name: TOPIC.to_owned(), partitions }];
    let response = conn.ask(&DeleteRecordsRequest { topics, timeout_ms: 10_000, ..Default::default() }, 2);
    let result = &response.topics[0].partitions[0];
    assert_eq!((result.error_code, result.low_watermark), (0, offset));
}

#[test]
fn a_kill_while_copying_costs_nothing() {
    let store = tempfile::tempdir().unwrap();
    let mut lines = properties(&format!("file://{}", store.path().display()));
    // A segment takes half a second or so, so that a kill meets every part of it over time.
    lines.push("remote.log.manager.copy.max.bytes.per.second=2097152".to_owned());
    let mut broker = start(&lines);
    let mut conn = connect(&broker);
    new_topic(&mut conn, TOPIC, 1, TIERED);
    let cycles = usize::try_from(number("TIER_CYCLES", 3)).unwrap();
    for cycle in 0..cycles {
        produce(&mut conn, cycle * 12, 12);
        let known = files(store.path(), "").len();
        eventually("a copy goes on", || (files(store.path(), "").len() > known).then_some(()));
        std::thread::sleep(std::time::Duration::from_millis((cycle as u64 * 137) % 400));
        broker.kill();
        broker.launch();
        conn = connect(&broker);
        assert_eq!(list_offset(&mut conn, TOPIC, 0, EARLIEST).1, 0);
        assert_all(&mut conn, 0, (cycle + 1) * 120);
    }
    let local = all_tiered(&mut conn, &broker);
    assert_all(&mut conn, 0, cycles * 120);
    // Each offset lies remotely once, and nothing of an interrupted copy is left.
    eventually("leftovers are gone", || {
        let logs = files(store.path(), ".log");
        let mut bases: Vec<String> =
            logs.iter().map(|path| path.file_name().unwrap().to_string_lossy()[..20].to_owned()).collect();
        bases.dedup();
        let all = files(store.path(), "").len();
        (bases.len() == logs.len() && all == logs.len() * 5 && local > 0).then_some(())
    });
}

#[test]
fn what_takes_long_is_not_there_yet() {
    let store = tempfile::tempdir().unwrap();
    let mut lines = properties(&format!("file://{}", store.path().display()));
    lines.retain(|line| !line.starts_with("remote.fetch.max.wait.ms"));
    lines.push("remote.fetch.max.wait.ms=20".to_owned());
    lines.push("remote.log.manager.fetch.max.bytes.per.second=4194304".to_owned());
    let broker = start(&lines);
    let mut conn = connect(&broker);
    new_topic(&mut conn, TOPIC, 1, TIERED);
    produce(&mut conn, 0, 24);
    all_tiered(&mut conn, &broker);
    let (mut next, mut empty) = (0, 0);
    eventually("all records", || {
        let data = fetch(&mut conn, TOPIC, 0, next);
        assert_eq!(data.error_code, 0);
        let records = records_of(&data, next);
        empty += usize::from(records.is_empty());
        for record in records {
            assert_eq!(record.offset, next);
            assert!(record.value.as_deref() == Some(value(usize::try_from(next).unwrap()).as_bytes()), "{next}");
            next += 1;
        }
        (next == 240).then_some(())
    });
    assert!(empty > 0, "nothing was slow");
}

#[test]
fn s3_is_a_tier() {
    let Some(python) = python("tiered_s3", "moto.server") else { return };
    let moto = Moto::start(&python);
    moto.make_bucket("kafka");
    let mut lines = properties("s3://kafka/some/prefix");
    lines.extend([
        format!("rsm.config.endpoint=http://127.0.0.1:{}", moto.port),
        "rsm.config.allow.http=true".to_owned(),
        "rsm.config.region=us-east-1".to_owned(),
        "rsm.config.aws_access_key_id=test".to_owned(),
        "rsm.config.aws_secret_access_key=test".to_owned(),
    ]);
    let mut broker = start(&lines);
    let mut conn = connect(&broker);
    // One segment is larger than a part: it goes in several requests.
    let mut configs = TIERED.to_vec();
    configs.retain(|(name, _)| *name != "segment.bytes");
    configs.push(("segment.bytes", "9437184"));
    new_topic(&mut conn, TOPIC, 1, &configs);
    produce(&mut conn, 0, 100);
    all_tiered(&mut conn, &broker);
    assert_all(&mut conn, 0, 1_000);
    broker.restart();
    let mut conn = connect(&broker);
    assert_all(&mut conn, 0, 1_000);
    // Without the store its part is not there, and says so; the local part is.
    drop(moto);
    broker.restart();
    let mut conn = connect(&broker);
    let (_, local, _) = list_offset(&mut conn, TOPIC, 0, EARLIEST_LOCAL);
    assert_all(&mut conn, usize::try_from(local).unwrap(), 1_000);
    let data = fetch(&mut conn, TOPIC, 0, 0);
    assert!(data.records.unwrap_or_default().is_empty());
    assert_ne!(data.error_code, OFFSET_OUT_OF_RANGE);
}

#[test]
fn topics_are_tiered_by_kafkas_rules() {
    let store: TempDir = tempfile::tempdir().unwrap();
    let broker = start(&properties(&format!("file://{}", store.path().display())));
    let mut conn = connect(&broker);
    let refused = [
        &[("remote.storage.enable", "true"), ("cleanup.policy", "compact")][..],
        &[("remote.storage.enable", "true"), ("retention.ms", "1000"), ("local.retention.ms", "2000")],
        &[("remote.storage.enable", "true"), ("retention.bytes", "1000"), ("local.retention.bytes", "-1")],
        &[("remote.storage.enable", "true"), ("remote.log.copy.disable", "true"), ("local.retention.ms", "2000")],
    ];
    for configs in refused {
        assert_eq!(create_topic(&mut conn, "bad", 1, configs).0, INVALID_CONFIG, "{configs:?}");
    }
    new_topic(&mut conn, TOPIC, 1, TIERED);
    let alter = |line: &str| {
        let mut command = taccola_it::taccola(&broker, &["topic", "alter", TOPIC]);
        line.split(' ').for_each(|pair| {
            command.args(["--config", pair]);
        });
        command.output().unwrap()
    };
    assert!(!alter("remote.storage.enable=false").status.success());
    produce(&mut conn, 0, 12);
    all_tiered(&mut conn, &broker);
    let off = alter("remote.storage.enable=false remote.log.delete.on.disable=true");
    assert!(off.status.success(), "{off:?}");
    eventually("no object is left", || files(store.path(), "").is_empty().then_some(()));
    let (_, start, _) = list_offset(&mut conn, TOPIC, 0, EARLIEST);
    assert!(start > 0);
    assert_all(&mut conn, usize::try_from(start).unwrap(), 120);
    drop(broker);
    let plain = Broker::start(&[]);
    let mut conn = connect(&plain);
    assert_eq!(create_topic(&mut conn, "no", 1, &[("remote.storage.enable", "true")]).0, INVALID_CONFIG);
}
