//! One random damage to one random file of a log directory, or of the object store of a tiered topic, then a start: no wrong byte is served, and nothing that was
//! acknowledged is missing without being named: by an error of the fetch, by the broker's log, or by its refusal to start.
//! `DAMAGE_CASES` (24 if unset; a campaign has 1,000) and `SEED` say how many and which; `DAMAGE_CASE` runs a single one.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use taccola_it::conn::Conn;
use taccola_it::crash::number;
use taccola_it::ledger::Rng;
use taccola_it::requests::{fetch_request, init_producer, list_offset, new_topic, now_ms, produce_request};
use taccola_it::{Broker, WITHIN, binary, eventually, group};
use taccola_wire::batch::{BatchBuilder, Compression, ControlRecord, RecordIter, batches, verify_crc};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::alter_share_group_offsets_request::{
    AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
};
use taccola_wire::messages::describe_share_group_offsets_request::{
    DescribeShareGroupOffsetsRequestGroup, DescribeShareGroupOffsetsRequestTopic,
};
use taccola_wire::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use taccola_wire::messages::{
    AlterShareGroupOffsetsRequest, DescribeShareGroupOffsetsRequest, EndTxnRequest, FindCoordinatorRequest,
    InitProducerIdRequest, OffsetFetchRequest,
};

const TOPIC: &str = "data";
const PARTITIONS: i32 = 2;
const GROUP: &str = "g";
const COMMITTED: i64 = 17;
const SHARE_GROUP: &str = "s";
const SHARE_START: i64 = 9;
const PROPERTIES: [&str; 6] = [
    "taccola.journal.bytes=1048576",
    "taccola.scrub.bytes.per.second=0",
    "offsets.topic.num.partitions=1",
    "transaction.state.log.num.partitions=1",
    "share.coordinator.state.topic.num.partitions=1",
    "metadata.log.max.record.bytes.between.snapshots=1000",
];

/// For a broker in a folder; its topic is tiered, or not.
fn properties(home: &Path, tiered: bool) -> Vec<String> {
    let mut lines: Vec<String> = PROPERTIES.map(str::to_owned).to_vec();
    if tiered {
        lines.push("remote.log.storage.system.enable=true".to_owned());
        lines.push(format!("taccola.remote.storage.url=file://{}", home.join("remote").display()));
        lines.push("rlmm.config.remote.log.metadata.topic.num.partitions=1".to_owned());
        lines.push("remote.log.manager.task.interval.ms=50".to_owned());
        lines.push("log.retention.check.interval.ms=50".to_owned());
        lines.push("log.segment.delete.delay.ms=100".to_owned());
    }
    lines
}

fn prepare(dir: Arc<tempfile::TempDir>, tiered: bool) -> Broker {
    let lines = properties(dir.path(), tiered);
    Broker::prepare_in(dir, &lines.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What was acknowledged: offset → value, and whether a transaction took it back.
type Known = BTreeMap<i64, (Vec<u8>, bool)>;

#[derive(Default)]
struct Truth {
    partitions: Vec<Known>,
    ends: Vec<i64>,
    /// Of the idempotent producer, and of the transactional one with its epoch.
    plain_id: i64,
    transaction: (i64, i16),
}

fn value(rng: &mut Rng) -> Vec<u8> {
    let length = 20 + rng.below(900) as usize;
    (0..length).map(|_| b'a' + (rng.next() % 26) as u8).collect()
}

struct Loader<'a> {
    conn: &'a mut Conn,
    truth: Truth,
    rng: Rng,
    plain: (i64, i16),
    sequences: Vec<i32>,
    transaction: (i64, i16),
}

impl Loader<'_> {
    fn append(&mut self, partition: i32, aborted: Option<bool>) {
        let count = 1 + self.rng.below(4) as usize;
        let values: Vec<Vec<u8>> = (0..count).map(|_| value(&mut self.rng)).collect();
        let index = partition as usize;
        let codec = [Compression::None, Compression::Lz4, Compression::Zstd][self.rng.below(3) as usize];
        let builder = BatchBuilder::new(codec);
        let mut builder = match aborted {
            None => builder.producer(self.plain.0, self.plain.1, self.sequences[index]),
            Some(_) => builder.producer(self.transaction.0, self.transaction.1, 0).transactional(true),
        };
        for value in &values {
            builder.append(now_ms(), None, Some(value), &[]);
        }
        let mut request = produce_request(-1, TOPIC, partition, builder.build().expect("a batch"));
        request.transactional_id = aborted.map(|_| "x".to_owned());
        let response = eventually("Produce", || {
            let response = self.conn.ask(&request, 12);
            let first = response.responses[0].partition_responses[0].clone();
            let code = ErrorCode::from_code(first.error_code);
            (code != ErrorCode::ConcurrentTransactions).then_some(first)
        });
        assert_eq!(response.error_code, 0, "{response:?}");
        if aborted.is_none() {
            self.sequences[index] += count as i32;
        }
        for (i, value) in values.into_iter().enumerate() {
            self.truth.partitions[index].insert(response.base_offset + i as i64, (value, aborted == Some(true)));
        }
    }

    fn transaction(&mut self, commit: bool) {
        for partition in 0..PARTITIONS {
            self.append(partition, Some(!commit));
        }
        let request = EndTxnRequest {
            transactional_id: "x".to_owned(),
            producer_id: self.transaction.0,
            producer_epoch: self.transaction.1,
            committed: commit,
        };
        let response = eventually("EndTxn", || {
            let response = self.conn.ask(&request, 5);
            let code = ErrorCode::from_code(response.error_code);
            (code != ErrorCode::ConcurrentTransactions).then_some(response)
        });
        assert_eq!(response.error_code, 0);
        self.transaction = (response.producer_id, response.producer_epoch);
    }
}

fn init_transactions(conn: &mut Conn) -> (i64, i16) {
    let request = InitProducerIdRequest {
        transactional_id: Some("x".to_owned()),
        transaction_timeout_ms: 60_000,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    let find = FindCoordinatorRequest { key_type: 1, coordinator_keys: vec!["x".to_owned()], ..Default::default() };
    eventually("InitProducerId", || {
        conn.ask(&find, 4);
        let response = conn.ask(&request, 5);
        (response.error_code == 0).then_some((response.producer_id, response.producer_epoch))
    })
}

/// Puts records, transactions and a committed offset into a new broker.
fn load(broker: &Broker, seed: u64, tiered: bool) -> Truth {
    let mut conn = Conn::connect(broker.port).expect("the broker accepts");
    let mut small = vec![("internal.segment.bytes", "16384"), ("index.interval.bytes", "512")];
    if tiered {
        small.extend([("remote.storage.enable", "true"), ("local.retention.bytes", "1")]);
    }
    new_topic(&mut conn, TOPIC, PARTITIONS, &small);
    let plain = init_producer(&mut conn).expect("answered").expect("a producer id");
    let transaction = init_transactions(&mut conn);
    let partitions = vec![Known::new(); PARTITIONS as usize];
    let truth = Truth { partitions, plain_id: plain.0, ..Truth::default() };
    let sequences = vec![0; PARTITIONS as usize];
    let mut loader = Loader { conn: &mut conn, truth, rng: Rng(seed), plain, sequences, transaction };
    for round in 0..60 {
        for partition in 0..PARTITIONS {
            loader.append(partition, None);
        }
        if round % 9 == 4 {
            loader.transaction(round % 2 == 0);
        }
    }
    let (mut truth, transaction) = (loader.truth, loader.transaction);
    truth.transaction = transaction;
    group::find_coordinator(&mut conn, GROUP);
    eventually("OffsetCommit", || {
        let request = group::commit_request(GROUP, -1, "", TOPIC, COMMITTED);
        let response = conn.ask(&request, 8);
        (response.topics[0].partitions[0].error_code == 0).then_some(())
    });
    // Markers of the last transaction too.
    for partition in 0..PARTITIONS {
        let end = eventually("the end to be stable", || {
            let data = fetch(&mut conn, partition, 0, 1)?;
            (data.last_stable_offset == data.high_watermark).then_some(data.high_watermark)
        });
        truth.ends.push(end);
    }
    set_share_start(&mut conn);
    for partition in 0..PARTITIONS {
        // Only the active segment is left here.
        let local = || list_offset(&mut Conn::connect(broker.port).expect("it accepts"), TOPIC, partition, -4).1;
        eventually("segments to be copied", || (!tiered || local() > 100).then_some(()));
    }
    truth
}

fn set_share_start(conn: &mut Conn) {
    group::find_coordinator(conn, SHARE_GROUP);
    let partition = AlterShareGroupOffsetsRequestPartition { partition_index: 0, start_offset: SHARE_START };
    let topic = AlterShareGroupOffsetsRequestTopic { topic_name: TOPIC.to_owned(), partitions: vec![partition] };
    let request = AlterShareGroupOffsetsRequest { group_id: SHARE_GROUP.to_owned(), topics: vec![topic] };
    eventually("a share group's start offset", || {
        let response = conn.ask(&request, 0);
        let code = response.responses.first().and_then(|topic| topic.partitions.first()).map(|row| row.error_code);
        (response.error_code == 0 && code == Some(0)).then_some(())
    });
}

fn fetch(
    conn: &mut Conn,
    partition: i32,
    offset: i64,
    isolation: i8,
) -> Option<taccola_wire::messages::fetch_response::PartitionData> {
    let mut request = fetch_request(TOPIC, partition, offset);
    request.isolation_level = isolation;
    for topic in &mut request.topics {
        for partition in &mut topic.partitions {
            partition.partition_max_bytes = 4_000;
        }
    }
    let response = conn.call(&request, 12).ok()?;
    response.responses.into_iter().next()?.partitions.into_iter().next()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(dir).expect("a folder").flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, found);
        } else if path.file_name().is_some_and(|name| name != ".lock") {
            found.push(path);
        }
    }
}

/// What a file is, so that rare kinds have their turn: its name without numbers.
fn kind(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let internal = if folder.starts_with("__") { "internal " } else { "" };
    let tail = name.rsplit_once('.').map_or(&*name, |(_, tail)| tail);
    let is_named = name.starts_with(|first: char| first.is_alphabetic());
    format!("{internal}{}", if is_named { &*name } else { tail })
}

/// A file of any kind, or any file; and all that are like it.
fn choose(all: &[PathBuf], rng: &mut Rng) -> (PathBuf, Vec<PathBuf>) {
    let mut kinds: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    all.iter().for_each(|path| kinds.entry(kind(path)).or_default().push(path.clone()));
    let path = if rng.one_in(2) {
        let alike = kinds.values().nth(rng.below(kinds.len() as u64) as usize).expect("a kind");
        alike[rng.below(alike.len() as u64) as usize].clone()
    } else {
        all[rng.below(all.len() as u64) as usize].clone()
    };
    let alike = kinds.remove(&kind(&path)).unwrap_or_default();
    (path, alike)
}

/// What a compaction or a deletion that was interrupted may have left beside a segment, damaged itself.
fn leave_behind(all: &[PathBuf], rng: &mut Rng) -> (PathBuf, String) {
    let segments: Vec<&PathBuf> = all.iter().filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
    let segment = segments[rng.below(segments.len() as u64) as usize];
    let mut bytes = fs::read(segment).expect("a segment");
    let what = match rng.below(4) {
        0 => "whole",
        1 => {
            bytes.truncate(rng.below(bytes.len() as u64 + 1) as usize);
            "cut off"
        }
        2 if !bytes.is_empty() => {
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << rng.below(8);
            "with a bit flipped"
        }
        _ => {
            bytes.fill(0);
            "of zeros"
        }
    };
    let suffix = [".swap", ".cleaned", ".deleted"][rng.below(3) as usize];
    let path = PathBuf::from(format!("{}{suffix}", segment.display()));
    fs::write(&path, bytes).expect("written");
    (path, format!("a copy of the segment, {what}"))
}

/// Damages one file; says what was done.
fn harm(data: &Path, rng: &mut Rng) -> (PathBuf, String) {
    let mut all = Vec::new();
    files(data, &mut all);
    if rng.one_in(12) {
        return leave_behind(&all, rng);
    }
    let (path, alike) = choose(&all, rng);
    let other = alike[rng.below(alike.len() as u64) as usize].clone();
    if rng.one_in(10) && other != path {
        let (one, two) = (fs::read(&path).expect("a file"), fs::read(&other).expect("a file"));
        fs::write(&path, two).expect("written");
        fs::write(&other, one).expect("written");
        return (path, format!("swapped with {}", other.display()));
    }
    let file = OpenOptions::new().read(true).write(true).open(&path).expect("the file");
    let length = file.metadata().expect("the file").len();
    let within = |rng: &mut Rng| if length == 0 { 0 } else { rng.below(length) };
    let what = match rng.below(6) {
        0 if length > 0 => {
            let (byte, bit) = (within(rng), rng.below(8));
            let mut found = [0];
            file.read_exact_at(&mut found, byte).expect("the byte");
            file.write_all_at(&[found[0] ^ (1 << bit)], byte).expect("written");
            format!("bit {bit} of byte {byte} flipped")
        }
        1 if length > 0 => {
            let from = within(rng);
            let count = (1 + rng.below(4096)).min(length - from);
            file.write_all_at(&vec![0; count as usize], from).expect("written");
            format!("{count} bytes from {from} zeroed")
        }
        2 if length > 0 => {
            let to = within(rng);
            file.set_len(to).expect("cut off");
            format!("cut off at {to} of {length}")
        }
        3 => {
            let bytes: Vec<u8> = (0..1 + rng.below(300)).map(|_| rng.next() as u8).collect();
            file.write_all_at(&bytes, length).expect("written");
            format!("{} bytes of garbage behind the end", bytes.len())
        }
        4 if length > 0 => {
            // A chunk of another file, at any place.
            let other = &all[rng.below(all.len() as u64) as usize];
            let bytes = fs::read(other).expect("the other file");
            let from = rng.below(bytes.len() as u64 + 1) as usize;
            let chunk = &bytes[from..bytes.len().min(from + 1 + rng.below(4096) as usize)];
            let at = within(rng);
            file.write_all_at(chunk, at).expect("written");
            format!("{} bytes from {from} of {} written to {at}", chunk.len(), other.display())
        }
        _ => {
            fs::remove_file(&path).expect("removed");
            "deleted".to_owned()
        }
    };
    (path, what)
}

#[derive(Debug, Default)]
struct Tally {
    whole: u64,
    named: u64,
    refused: u64,
}

struct Case<'a> {
    truth: &'a Truth,
    broker: Broker,
    shown: String,
}

/// What a partition lacks.
struct Gone {
    records: u64,
    /// The last offset that answers an error; -1: none does.
    last: i64,
}

impl Gone {
    fn note(&mut self, known: &Known, offset: i64) {
        self.records += u64::from(known.contains_key(&offset));
        self.last = offset;
    }
}

enum Outcome {
    Whole,
    Named,
    Refused,
}

impl Case<'_> {
    fn run(mut self) -> Outcome {
        let ready = self.broker.spawn();
        let until = Instant::now() + WITHIN;
        loop {
            if ready.recv_timeout(Duration::from_millis(20)).is_ok() {
                break;
            }
            let log = self.broker.log().join("\n");
            if let Some(code) = self.broker.ended() {
                // A refusal says why.
                assert!(log.contains("error:") && code == Some(1), "{}: ended with {code:?}:\n{log}", self.shown);
                assert!(!log.contains("panicked"), "{}:\n{log}", self.shown);
                return Outcome::Refused;
            }
            assert!(Instant::now() < until, "{}: neither ready nor refused:\n{log}", self.shown);
        }
        let mut conn = Conn::connect(self.broker.port).expect("the broker accepts");
        let mut lost = 0;
        for partition in 0..PARTITIONS {
            let gone = self.read_uncommitted(&mut conn, partition);
            lost += gone.records;
            self.read_committed(&mut conn, partition, gone.last);
        }
        lost += self.committed_offset(&mut conn);
        lost += self.share_start(&mut conn);
        lost += self.producer_ids(&mut conn);
        self.broker.assert_alive();
        let log = self.broker.log().join("\n");
        assert!(!log.contains("panicked"), "{}:\n{log}", self.shown);
        if lost == 0 { Outcome::Whole } else { Outcome::Named }
    }

    /// Every acknowledged record is there as it was, or its offset answers an error.
    fn read_uncommitted(&self, conn: &mut Conn, partition: i32) -> Gone {
        let known = &self.truth.partitions[partition as usize];
        let (mut next, end, mut gone) = (0, self.truth.ends[partition as usize], Gone { records: 0, last: -1 });
        while next < end {
            let shown = format!("{}: {TOPIC}-{partition} at {next} of {end}", self.shown);
            let data = fetch(conn, partition, next, 0).unwrap_or_else(|| panic!("{shown}: no answer"));
            match ErrorCode::from_code(data.error_code) {
                ErrorCode::None => {}
                ErrorCode::CorruptMessage | ErrorCode::KafkaStorageError => {
                    gone.note(known, next);
                    next += 1;
                    continue;
                }
                // The range itself is gone; then the broker's log must say so.
                ErrorCode::OffsetOutOfRange | ErrorCode::UnknownTopicOrPartition => {
                    let log = self.broker.log();
                    let name = format!("{TOPIC}-{partition}");
                    let named = log
                        .iter()
                        .any(|line| (line.contains("ERROR") || line.contains("WARN")) && line.contains(&name));
                    assert!(named, "{shown}: error {} and nothing in the log:\n{}", data.error_code, log.join("\n"));
                    gone.note(known, next);
                    next += 1;
                    continue;
                }
                error => panic!("{shown}: {error:?}"),
            }
            let bytes = data.records.unwrap_or_default();
            let before = next;
            for batch in batches(&bytes) {
                let batch = batch.unwrap_or_else(|error| panic!("{shown}: {error}"));
                verify_crc(batch.bytes).unwrap_or_else(|error| panic!("{shown}: {error}"));
                if !batch.header.is_control() {
                    self.check_batch(known, &bytes.slice_ref(batch.bytes), &mut next, &shown);
                }
                next = next.max(batch.header.next_offset());
            }
            assert!(next > before, "{shown}: nothing, and no error");
        }
        gone
    }

    fn check_batch(&self, known: &Known, batch: &bytes::Bytes, next: &mut i64, shown: &str) {
        for record in RecordIter::new(batch).expect("records") {
            let record = record.expect("a record");
            if record.offset < *next {
                continue;
            }
            let missed = known.range(*next..record.offset).next();
            assert!(missed.is_none(), "{shown}: {missed:?} is passed over");
            let expected = known.get(&record.offset).map(|(value, _)| value.as_slice());
            assert_eq!(record.value.as_deref(), expected, "{shown}: offset {}", record.offset);
            *next = record.offset + 1;
        }
    }

    /// A reader of committed records sees nothing that was taken back. Nobody knows how a transaction ended whose marker is
    /// among the lost offsets, which go up to `last_lost`.
    fn read_committed(&self, conn: &mut Conn, partition: i32, last_lost: i64) {
        let known = &self.truth.partitions[partition as usize];
        let (mut next, end) = (0, self.truth.ends[partition as usize]);
        while next < end {
            let shown = format!("{}: committed {TOPIC}-{partition} at {next} of {end}", self.shown);
            let data = fetch(conn, partition, next, 1).unwrap_or_else(|| panic!("{shown}: no answer"));
            let bytes = data.records.unwrap_or_default();
            if data.error_code != 0 || bytes.is_empty() {
                next += 1;
                continue;
            }
            let mut open: Vec<(i64, i64)> = data
                .aborted_transactions
                .unwrap_or_default()
                .iter()
                .map(|txn| (txn.first_offset, txn.producer_id))
                .collect();
            for batch in batches(&bytes).map(|batch| batch.expect("a batch")) {
                let header = batch.header;
                let whole = bytes.slice_ref(batch.bytes);
                next = next.max(header.next_offset());
                if header.is_control() {
                    let record = RecordIter::new(&whole).expect("records").next().expect("a marker").expect("a marker");
                    if matches!(ControlRecord::decode(&record), Ok(ControlRecord::Abort { .. })) {
                        open.retain(|(first, id)| *id != header.producer_id || *first > header.base_offset);
                    }
                    continue;
                }
                let hidden = header.is_transactional()
                    && open.iter().any(|(first, id)| *id == header.producer_id && *first <= header.last_offset());
                for record in RecordIter::new(&whole).expect("records").map(|record| record.expect("a record")) {
                    if header.is_transactional() && header.last_offset() < last_lost {
                        continue;
                    }
                    let aborted = known.get(&record.offset).is_some_and(|(_, aborted)| *aborted);
                    assert!(hidden || !aborted, "{shown}: offset {} was aborted and is seen", record.offset);
                    assert!(!hidden || aborted, "{shown}: offset {} was committed and is hidden", record.offset);
                }
            }
        }
    }

    /// Whether the broker said something about a partition that people must know of.
    fn is_named(&self, partition: &str) -> bool {
        let log = self.broker.log();
        log.iter().any(|line| (line.contains("ERROR") || line.contains("WARN")) && line.contains(partition))
    }

    /// The share group begins where it was told to, or the loss is named. Answers 1 if it is lost.
    fn share_start(&self, conn: &mut Conn) -> u64 {
        let topics = vec![DescribeShareGroupOffsetsRequestTopic { topic_name: TOPIC.to_owned(), partitions: vec![0] }];
        let group = DescribeShareGroupOffsetsRequestGroup { group_id: SHARE_GROUP.to_owned(), topics: Some(topics) };
        let request = DescribeShareGroupOffsetsRequest { groups: vec![group] };
        let find = FindCoordinatorRequest { coordinator_keys: vec![SHARE_GROUP.to_owned()], ..Default::default() };
        let until = Instant::now() + Duration::from_secs(3);
        loop {
            conn.ask(&find, 4);
            let response = conn.ask(&request, 0);
            let group = &response.groups[0];
            let row = group.topics.first().and_then(|topic| topic.partitions.first());
            let code = if group.error_code != 0 { group.error_code } else { row.map_or(0, |row| row.error_code) };
            match (ErrorCode::from_code(code), row.map(|row| row.start_offset)) {
                (ErrorCode::None, Some(SHARE_START)) => return 0,
                (ErrorCode::None | ErrorCode::GroupIdNotFound, found) => {
                    let is_named = self.is_named("__share_group_state-0") || self.is_named("__consumer_offsets-0");
                    let log = self.broker.log().join("\n");
                    assert!(is_named, "{}: start offset {found:?} and nothing in the log:\n{log}", self.shown);
                    return 1;
                }
                _ if Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
                _ => return 1,
            }
        }
    }

    /// No producer id is given out twice, and the transactional id goes on where it was, or its loss is named. Answers 1 if
    /// it is lost.
    fn producer_ids(&self, conn: &mut Conn) -> u64 {
        let known = self.truth.transaction;
        let until = Instant::now() + Duration::from_secs(3);
        let mut lost = 0;
        for transactional in [false, true] {
            let id = transactional.then(|| "x".to_owned());
            let find =
                FindCoordinatorRequest { key_type: 1, coordinator_keys: vec!["x".to_owned()], ..Default::default() };
            let request = InitProducerIdRequest {
                transactional_id: id,
                transaction_timeout_ms: 60_000,
                producer_id: -1,
                producer_epoch: -1,
                ..Default::default()
            };
            lost += loop {
                conn.ask(&find, 4);
                let response = conn.ask(&request, 5);
                let (id, epoch) = (response.producer_id, response.producer_epoch);
                match response.error_code {
                    0 if transactional && id == known.0 => {
                        assert!(epoch > known.1, "{}: epoch {epoch} behind {}", self.shown, known.1);
                        break 0;
                    }
                    0 => {
                        let used = [self.truth.plain_id, known.0].contains(&id);
                        assert!(!used, "{}: producer id {id} is given out twice", self.shown);
                        let is_lost = transactional;
                        let log = self.broker.log().join("\n");
                        assert!(
                            !is_lost || self.is_named("__transaction_state-0"),
                            "{}: the transactional id is new, and nothing in the log:\n{log}",
                            self.shown
                        );
                        break u64::from(is_lost);
                    }
                    _ if Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
                    _ => break 1,
                }
            };
        }
        lost
    }

    /// The committed offset is what it was, or an error. Answers 1 if it is lost.
    fn committed_offset(&self, conn: &mut Conn) -> u64 {
        let topics =
            vec![OffsetFetchRequestTopics { name: TOPIC.to_owned(), partition_indexes: vec![0], ..Default::default() }];
        let group = OffsetFetchRequestGroup { group_id: GROUP.to_owned(), topics: Some(topics), ..Default::default() };
        let request = OffsetFetchRequest { groups: vec![group], ..Default::default() };
        let find = FindCoordinatorRequest { coordinator_keys: vec![GROUP.to_owned()], ..Default::default() };
        let until = Instant::now() + Duration::from_secs(3);
        loop {
            conn.ask(&find, 4);
            let response = conn.ask(&request, 9);
            let group = &response.groups[0];
            let partition = group.topics.first().and_then(|topic| topic.partitions.first());
            let code = if group.error_code != 0 { group.error_code } else { partition.map_or(0, |p| p.error_code) };
            match (ErrorCode::from_code(code), partition) {
                (ErrorCode::None, Some(partition)) if partition.committed_offset == COMMITTED => return 0,
                (ErrorCode::None, found) => {
                    // Cut off before it: named in the log.
                    let log = self.broker.log();
                    let named = log.iter().any(|line| {
                        (line.contains("ERROR") || line.contains("WARN")) && line.contains("__consumer_offsets-0")
                    });
                    assert!(named, "{}: committed {found:?} and nothing in the log:\n{}", self.shown, log.join("\n"));
                    return 1;
                }
                _ if Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
                _ => return 1,
            }
        }
    }
}

/// A loaded directory, stopped cleanly or killed.
fn template(clean: bool, tiered: bool, seed: u64) -> (Arc<tempfile::TempDir>, Truth) {
    let mut broker = prepare(Arc::new(tempfile::tempdir().expect("a temporary folder")), tiered);
    broker.launch();
    let truth = load(&broker, seed, tiered);
    if clean {
        broker.stop();
    } else {
        broker.kill();
    }
    (broker.dir.clone(), truth)
}

#[test]
fn damage_to_any_file_is_never_served_and_never_silent() {
    let seed = number("SEED", 11);
    let cases = number("DAMAGE_CASES", 24);
    let only = std::env::var("DAMAGE_CASE").ok().map(|_| number("DAMAGE_CASE", 0));
    let templates = [(true, false), (false, false), (true, true), (false, true)];
    let templates = templates.map(|(clean, tiered)| template(clean, tiered, seed + u64::from(!clean)));
    let mut tally = Tally::default();
    for case in only.map_or(0..cases, |case| case..case + 1) {
        let mut rng = Rng(seed.wrapping_mul(1_000_003).wrapping_add(case));
        let clean = rng.one_in(2);
        let tiered = rng.one_in(3);
        let (source, truth) = &templates[usize::from(!clean) + 2 * usize::from(tiered)];
        let dir = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        copy(&source.path().join("data"), &dir.path().join("data"));
        if tiered {
            copy(&source.path().join("remote"), &dir.path().join("remote"));
        }
        let place = if tiered && rng.one_in(3) { "remote" } else { "data" };
        let (path, what) = harm(&dir.path().join(place), &mut rng);
        let name = path.strip_prefix(dir.path()).unwrap_or(&path).display().to_string();
        let stop = if clean { "clean stop" } else { "kill" };
        let tier = if tiered { ", tiered" } else { "" };
        let shown = format!("SEED={seed} DAMAGE_CASE={case}, {stop}{tier}, {name}: {what}");
        if case % 50 == 0 {
            eprintln!("{shown}");
        }
        // The check must never fail, whatever it reads.
        let data = dir.path().join("data");
        let verified = Command::new(binary()).args(["log", "verify", "-o", "json"]).arg(&data).output();
        let code = verified.expect("it runs").status.code();
        assert!(matches!(code, Some(0 | 2 | 8)), "{shown}: verify ended with {code:?}");
        let broker = prepare(dir, tiered);
        match (Case { truth, broker, shown }).run() {
            Outcome::Whole => tally.whole += 1,
            Outcome::Named => tally.named += 1,
            Outcome::Refused => tally.refused += 1,
        }
    }
    println!("{cases} cases, seed {seed}: {tally:?}");
}
