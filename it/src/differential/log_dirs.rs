//! AlterReplicaLogDirs, and what DescribeLogDirs says of it: at a broker with two log directories, "first" and "second" in
//! the order of their paths.

use std::collections::BTreeSet;

use taccola_wire::batch::{BatchBuilder, Compression};
use taccola_wire::messages::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use taccola_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use taccola_wire::messages::*;

use super::Differential;
use crate::conn::Conn;
use crate::requests::{list_offset, produce_request};

/// The greatest length of a topic's name, and one more.
const NAME_MAX: usize = 249;

/// A directory by what it is called here, or a path as it stands; its topics and their partitions.
type Wanted<'a> = (&'a str, &'a [(&'a str, &'a [i32])]);

pub(super) fn run(d: &mut Differential) {
    prepare(d);
    settle(d);
    for version in 1..=2 {
        ordinary(d, version);
        nothing_asked(d, version);
        unknown(d, version);
        paths(d, version);
        twice(d, version);
    }
    described(d, "at the end");
}

/// Both directories of a broker, by path.
fn dirs(conn: &mut Conn) -> [String; 2] {
    let reply = conn.ask(&DescribeLogDirsRequest { topics: Some(Vec::new()) }, 4);
    let mut paths: Vec<String> = reply.results.into_iter().map(|row| row.log_dir).collect();
    paths.sort();
    paths.try_into().expect("two log directories")
}

fn alter(conn: &mut Conn, wanted: &[Wanted<'_>]) -> AlterReplicaLogDirsRequest {
    let [first, second] = dirs(conn);
    let topic = |(name, partitions): &(&str, &[i32])| AlterReplicaLogDirTopic {
        name: (*name).to_owned(),
        partitions: partitions.to_vec(),
    };
    let dirs = wanted.iter().map(|(path, topics)| AlterReplicaLogDir {
        path: path.replace("FIRST", &first).replace("SECOND", &second),
        topics: topics.iter().map(topic).collect(),
    });
    AlterReplicaLogDirsRequest { dirs: dirs.collect() }
}

fn ask(d: &mut Differential, case: &str, version: i16, wanted: &[Wanted<'_>]) {
    d.per_broker(case, version, |conn| alter(conn, wanted), in_order);
}

fn in_order(response: &mut AlterReplicaLogDirsResponse) {
    response.results.sort_by(|a, b| a.topic_name.cmp(&b.topic_name));
    response.results.iter_mut().for_each(|topic| topic.partitions.sort_by_key(|row| row.partition_index));
}

/// What lies where, as soon as nothing moves.
fn described(d: &mut Differential, case: &str) {
    // A replica that has just moved may be in both for a moment.
    let still = |response: &DescribeLogDirsResponse| {
        let topics = response.results.iter().flat_map(|dir| &dir.topics);
        let rows = topics.flat_map(|topic| topic.partitions.iter().map(move |row| (&topic.name, row)));
        let mut seen = BTreeSet::new();
        rows.into_iter().all(|(topic, row)| !row.is_future_key && seen.insert((topic, row.partition_index)))
    };
    for version in [1, 5] {
        d.until(
            case,
            version,
            |_| DescribeLogDirsRequest { topics: None },
            still,
            |response| {
                response.results.sort_by(|a, b| a.log_dir.cmp(&b.log_dir));
                for dir in &mut response.results {
                    dir.total_bytes = dir.total_bytes.min(0);
                    dir.usable_bytes = dir.usable_bytes.min(0);
                    dir.topics.sort_by(|a, b| a.name.cmp(&b.name));
                    dir.topics.iter_mut().for_each(|topic| topic.partitions.sort_by_key(|row| row.partition_index));
                }
            },
        );
    }
}

/// `l-plain` of two partitions with records, `l-empty`, a compacted one, and `__consumer_offsets`.
fn prepare(d: &mut Differential) {
    let topic = |name: &str, partitions: i32, policy: &str| CreatableTopic {
        name: name.to_owned(),
        num_partitions: partitions,
        replication_factor: 1,
        configs: vec![CreatableTopicConfig { name: "cleanup.policy".to_owned(), value: Some(policy.to_owned()) }],
        ..Default::default()
    };
    let topics = [("l-plain", 2, "delete"), ("l-empty", 1, "delete"), ("l-compact", 1, "compact")];
    let mut topics: Vec<_> = topics.map(|(name, partitions, policy)| topic(name, partitions, policy)).into();
    topics.push(topic("__consumer_offsets", 1, "compact"));
    let request = CreateTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
    d.at("prepare", 7, &request, |response| response.topics.clear());
    for name in ["l-plain", "l-empty", "l-compact", "__consumer_offsets"] {
        d.prepare("a leader", |conn| list_offset(conn, name, 0, -1).0 == 0);
    }
    d.prepare("a leader", |conn| list_offset(conn, "l-plain", 1, -1).0 == 0);
    for (name, partition) in [("l-plain", 0), ("l-plain", 1), ("l-compact", 0)] {
        let mut batch = BatchBuilder::new(Compression::None).producer(5_000_000, 0, 0);
        for n in 0..10_i64 {
            batch.append(1_600_000_000_000 + n, Some(b"key"), Some(b"value"), &[]);
        }
        let request = produce_request(-1, name, partition, batch.build().expect("a batch"));
        d.at("prepare", 9, &request, |_| {});
    }
    d.call("FIRST", |conn| dirs(conn)[0].clone());
    d.call("SECOND", |conn| dirs(conn)[1].clone());
}

/// Everything into the first directory, wherever it was put when it was made.
fn settle(d: &mut Differential) {
    let all: &[(&str, &[i32])] =
        &[("l-plain", &[0, 1]), ("l-empty", &[0]), ("l-compact", &[0]), ("__consumer_offsets", &[0])];
    ask(d, "all into the first", 2, &[("FIRST", all)]);
    described(d, "all in the first");
}

fn ordinary(d: &mut Differential, version: i16) {
    ask(d, "where it is", version, &[("FIRST", &[("l-plain", &[0])])]);
    ask(d, "elsewhere", version, &[("SECOND", &[("l-plain", &[1])])]);
    described(d, &format!("one of two moved, by v{version}"));
    ask(d, "two swap", version, &[("SECOND", &[("l-plain", &[0])]), ("FIRST", &[("l-plain", &[1])])]);
    described(d, &format!("both moved, by v{version}"));
    ask(
        d,
        "empty, compacted, internal",
        version,
        &[("SECOND", &[("l-empty", &[0]), ("l-compact", &[0]), ("__consumer_offsets", &[0])])],
    );
    described(d, &format!("the others moved, by v{version}"));
    let all: &[(&str, &[i32])] =
        &[("l-plain", &[0, 1]), ("l-empty", &[0]), ("l-compact", &[0]), ("__consumer_offsets", &[0])];
    ask(d, "back", version, &[("FIRST", all)]);
    described(d, &format!("back, by v{version}"));
    ask(d, "there, and at once back", version, &[("SECOND", &[("l-plain", &[0])])]);
    ask(d, "there, and at once back", version, &[("FIRST", &[("l-plain", &[0])])]);
    described(d, &format!("there and back, by v{version}"));
}

fn nothing_asked(d: &mut Differential, version: i16) {
    ask(d, "nothing", version, &[]);
    ask(d, "a directory alone", version, &[("SECOND", &[])]);
    ask(d, "a topic alone", version, &[("SECOND", &[("l-plain", &[])])]);
    ask(d, "a topic alone that is unknown", version, &[("SECOND", &[("l-nowhere", &[])])]);
    ask(d, "an unknown directory alone", version, &[("/nowhere", &[])]);
}

fn unknown(d: &mut Differential, version: i16) {
    let long = ["a".repeat(NAME_MAX), "a".repeat(NAME_MAX + 1)];
    ask(d, "an unknown partition", version, &[("SECOND", &[("l-plain", &[2])])]);
    ask(d, "the least and the greatest partition", version, &[("SECOND", &[("l-plain", &[i32::MIN, -1, i32::MAX])])]);
    ask(d, "an unknown topic", version, &[("SECOND", &[("l-nowhere", &[0])])]);
    ask(d, "the cluster's metadata", version, &[("SECOND", &[("__cluster_metadata", &[0, 1])])]);
    ask(d, "no name", version, &[("SECOND", &[("", &[0])])]);
    ask(d, "a bad name", version, &[("SECOND", &[("a b/c", &[0])])]);
    ask(d, "the longest name", version, &[("SECOND", &[(&long[0], &[0])])]);
    ask(d, "a name that is too long", version, &[("SECOND", &[(&long[1], &[0])])]);
    ask(d, "a name that is too long, an unknown directory", version, &[("/nowhere", &[(&long[0], &[0])])]);
    ask(d, "an unknown directory", version, &[("/nowhere", &[("l-plain", &[0, 7]), ("l-nowhere", &[0])])]);
    ask(
        d,
        "known and unknown",
        version,
        &[("FIRST", &[("l-plain", &[0, 9])]), ("/nowhere", &[("l-plain", &[1]), ("l-empty", &[0])])],
    );
    described(d, &format!("as it was, behind the unknown at v{version}"));
}

fn paths(d: &mut Differential, version: i16) {
    for (case, path) in [
        ("no path", ""),
        ("a relative path", "data"),
        ("a slash behind", "FIRST/"),
        ("a dot behind", "FIRST/."),
        ("by way of the other", "SECOND/../data"),
        ("two slashes before", "/FIRST"),
        ("the root", "/"),
        ("a zero", "FIRST\0"),
    ] {
        ask(d, case, version, &[(path, &[("l-plain", &[0])])]);
    }
    let long = format!("/{}", "long/".repeat(1_000));
    ask(d, "a long path", version, &[(&long, &[("l-plain", &[0])])]);
    ask(d, "a path below", version, &[("FIRST/l-plain-0", &[("l-plain", &[0])])]);
}

/// A partition that stands more than once.
fn twice(d: &mut Differential, version: i16) {
    ask(d, "twice in a topic", version, &[("FIRST", &[("l-plain", &[0, 0, 9, 9])])]);
    ask(d, "a topic twice", version, &[("FIRST", &[("l-plain", &[0, 1]), ("l-plain", &[0])])]);
    ask(d, "a directory twice", version, &[("FIRST", &[("l-plain", &[0])]), ("FIRST", &[("l-plain", &[1])])]);
    ask(d, "both directories", version, &[("FIRST", &[("l-plain", &[0])]), ("SECOND", &[("l-plain", &[0])])]);
    described(d, &format!("where it was named last, by v{version}"));
    ask(d, "both directories, back", version, &[("SECOND", &[("l-plain", &[0])]), ("FIRST", &[("l-plain", &[0])])]);
    described(d, &format!("back again, by v{version}"));
    ask(d, "here and nowhere", version, &[("SECOND", &[("l-plain", &[0])]), ("/nowhere", &[("l-plain", &[0])])]);
    described(d, &format!("nowhere counts, by v{version}"));
    ask(d, "nowhere and here", version, &[("/nowhere", &[("l-plain", &[0])]), ("FIRST", &[("l-plain", &[0])])]);
    described(d, &format!("here counts, by v{version}"));
}
