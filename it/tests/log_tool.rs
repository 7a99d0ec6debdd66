//! `taccola log verify`, `repair` and `dump`, and the scrubber: what is planted is found, named exactly, and put right where
//! it can be.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use taccola_it::conn::Conn;
use taccola_it::ledger::Rng;
use taccola_it::requests::{batch, fetch, new_topic, produced, read_all};
use taccola_it::{Broker, binary, eventually};

const CORRUPT_MESSAGE: i16 = 2;
const FOUND: i32 = 8;

fn log_command(arguments: &[&str]) -> Output {
    Command::new(binary()).arg("log").args(arguments).output().expect("the binary runs")
}

/// The JSON that a command prints, and its exit code.
fn json(arguments: &[&str]) -> (Value, i32) {
    let output = log_command(&[arguments, &["-o", "json"]].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}\n{}", String::from_utf8_lossy(&output.stderr)));
    (value, output.status.code().expect("it ended by itself"))
}

fn flip(path: &Path, byte: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("the file");
    let mut found = [0];
    file.read_exact_at(&mut found, byte).expect("the byte");
    file.write_all_at(&[found[0] ^ 0x10], byte).expect("written");
}

/// A broker with four segments of ten batches of 100 KB in one topic.
fn filled(properties: &[&str]) -> (Broker, Conn) {
    let broker = Broker::start(properties);
    let mut conn = Conn::connect(broker.port).expect("the broker accepts");
    new_topic(&mut conn, "t", 1, &[("segment.bytes", "1048576"), ("segment.index.bytes", "1048576")]);
    let value = "x".repeat(100_000);
    for _ in 0..40 {
        produced(&mut conn, "t", 0, batch(&[&value]));
    }
    (broker, conn)
}

/// The segments of a partition, oldest first.
fn segments(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder").flatten().map(|entry| entry.path());
    let mut found: Vec<_> = entries.filter(|path| path.extension().is_some_and(|suffix| suffix == "log")).collect();
    found.sort();
    found
}

#[test]
fn what_is_whole_is_said_to_be_and_what_is_not_is_named() {
    let (mut broker, _) = filled(&[]);
    let data = broker.data_dir();
    let dir = data.to_str().expect("a path");
    // While the broker runs.
    let (report, code) = json(&["verify", dir]);
    assert_eq!((code, report["running"].as_bool()), (0, Some(true)), "{report}");
    broker.stop();
    let (report, code) = json(&["verify", dir]);
    assert_eq!(
        (code, report["clean"].as_bool(), report["findings"].as_array().map(Vec::len)),
        (0, Some(true), Some(0))
    );
    let folder = data.join("t-0");
    let all = segments(&folder);
    flip(&all[1], 250_000);
    fs::remove_file(all[0].with_extension("index")).expect("removed");
    fs::write(all[2].with_extension("timeindex"), [0xff; 24]).expect("written");
    fs::write(folder.join("leader-epoch-checkpoint"), "junk").expect("written");
    let (report, code) = json(&["verify", folder.to_str().expect("a path")]);
    assert_eq!(
        (code, report["damage"].as_i64(), report["rebuildable"].as_i64()),
        (FOUND, Some(1), Some(3)),
        "{report}"
    );
    let findings = report["findings"].as_array().expect("findings");
    let damage = findings.iter().find(|finding| finding["level"] == "damage").expect("the flip");
    let base: i64 = all[1].file_stem().and_then(|name| name.to_str()?.parse().ok()).expect("a base offset");
    assert_eq!(damage["file"], all[1].to_str().expect("a path"));
    assert_eq!(
        (damage["offsets"]["start"].as_i64(), damage["offsets"]["end"].as_i64()),
        (Some(base + 2), Some(base + 3))
    );
    assert!(damage["positions"]["start"].as_i64() < Some(250_000), "{damage}");

    // Told, then done: only the batch that cannot be read is not served.
    let (report, code) = json(&["repair", dir]);
    assert_eq!((code, report["executed"].as_bool()), (0, Some(false)));
    assert!(!folder.join("taccola.quarantine").exists(), "a dry run changes nothing");
    let (report, code) = json(&["repair", dir, "--execute"]);
    assert_eq!(
        (code, report["partitions"][0]["done"]["quarantined"].as_array().map(Vec::len)),
        (0, Some(1)),
        "{report}"
    );
    let (report, code) = json(&["verify", dir]);
    assert_eq!(
        (code, report["damage"].as_i64(), report["rebuildable"].as_i64()),
        (FOUND, Some(1), Some(0)),
        "{report}"
    );
    broker.launch();
    let mut conn = Conn::connect(broker.port).expect("the broker accepts");
    assert_eq!(fetch(&mut conn, "t", 0, base + 2).error_code, CORRUPT_MESSAGE);
    let before = read_up_to(&mut conn, base + 2);
    assert_eq!(before, base + 2);
    assert_eq!(read_all(&mut conn, "t", 0, base + 3).len() as i64, 40 - base - 3);
    let running = log_command(&["repair", dir, "--execute"]);
    assert_eq!(running.status.code(), Some(1), "a running broker's directory is left alone");
}

/// Reads from the beginning to `end` or to the first error; where it ended.
fn read_up_to(conn: &mut Conn, end: i64) -> i64 {
    let mut next = 0;
    while next < end {
        let data = fetch(conn, "t", 0, next);
        let records = taccola_it::requests::records_of(&data, next);
        match records.last() {
            Some(last) if data.error_code == 0 => next = last.offset + 1,
            _ => break,
        }
    }
    next
}

#[test]
fn records_and_indexes_are_shown() {
    let mut broker = Broker::start(&[]);
    let mut conn = Conn::connect(broker.port).expect("the broker accepts");
    new_topic(&mut conn, "t", 1, &[]);
    produced(&mut conn, "t", 0, batch(&["one", "two"]));
    produced(&mut conn, "t", 0, batch(&["three"]));
    let data = broker.data_dir();
    let path = |name: &str| data.join(name).to_str().expect("a path").to_owned();
    let lines = |arguments: &[&str]| {
        let output = log_command(&[arguments, &["-o", "json"]].concat());
        let code = output.status.code();
        assert_eq!(code, Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect::<Vec<Value>>()
    };
    let batches = lines(&["dump", &path("t-0")]);
    assert_eq!((batches.len(), batches[0]["last_offset"].as_i64()), (2, Some(1)));
    assert_eq!(batches[0]["records"][1]["value"], "two");
    let one = lines(&["dump", &path("t-0"), "--from", "1", "--num", "1"]);
    assert_eq!(
        (one.len(), &one[0]["records"][0]["value"], one[0]["records"].as_array().map(Vec::len)),
        (1, &"two".into(), Some(1))
    );
    let metadata = lines(&["dump", &path("__cluster_metadata-0")]);
    let told = metadata.iter().flat_map(|batch| batch["records"].as_array().expect("records").clone());
    assert!(told.into_iter().any(|record| record["value"].as_str().unwrap_or_default().contains("name: \"t\"")));
    let text = log_command(&["dump", &path("t-0/00000000000000000000.log")]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("value three"), "{text:?}");
    broker.stop();
    let index = log_command(&["dump", &path("t-0/partition.metadata")]);
    assert!(String::from_utf8_lossy(&index.stdout).contains("topic_id"));
    assert_eq!(log_command(&["dump", &path("nothing")]).status.code(), Some(3));
    assert_eq!(log_command(&["verify", "/"]).status.code(), Some(2));
}

/// Flips are planted in every sealed segment under a running broker; one pass finds them all.
#[test]
fn the_scrubber_finds_every_flip_that_was_planted() {
    let (broker, mut conn) = filled(&["taccola.scrub.bytes.per.second=1000000000", "taccola.scrub.interval.ms=200"]);
    let folder = broker.data_dir().join("t-0");
    let all = segments(&folder);
    let mut rng = Rng(7);
    let mut planted = Vec::new();
    for segment in &all[..all.len() - 1] {
        let base: i64 = segment.file_stem().and_then(|name| name.to_str()?.parse().ok()).expect("a base offset");
        let length = fs::metadata(segment).expect("the segment").len();
        for _ in 0..3 {
            let byte = rng.below(length);
            flip(segment, byte);
            planted.push((base, byte));
        }
    }
    let quarantine = folder.join("taccola.quarantine");
    let ranges = || -> Vec<(i64, u64, u64)> {
        let text = fs::read_to_string(&quarantine).unwrap_or_default();
        let words = |line: &str| {
            let mut words = line.split(' ');
            Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
        };
        text.lines().skip(1).filter_map(words).collect()
    };
    eventually("all flips to be found", || {
        let found = ranges();
        let is_found = |(base, byte): &(i64, u64)| {
            found.iter().any(|(segment, start, end)| segment == base && (start..end).contains(&byte))
        };
        planted.iter().all(is_found).then_some(())
    });
    let told = || broker.log().iter().filter(|line| line.contains("the scrubber found damaged records")).count();
    eventually("each to be told", || (told() >= ranges().len()).then_some(()));
    assert_eq!(told(), ranges().len(), "each is told once:\n{}", broker.log().join("\n"));
    // What is whole is served, and nothing else is.
    let mut served = 0;
    for offset in 0..40 {
        let data = fetch(&mut conn, "t", 0, offset);
        match data.error_code {
            0 => served += 1,
            code => assert_eq!(code, CORRUPT_MESSAGE),
        }
        taccola_it::requests::records_of(&data, offset);
    }
    assert!(served >= 40 - planted.len(), "{served}");
}
