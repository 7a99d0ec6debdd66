//! Several log directories: where partitions go, and what becomes of them when a directory cannot be used, or fails.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use taccola_it::conn::Conn;
use taccola_it::requests::{batch, fetch, list_offset, new_topic, produce, produced, records_of};
use taccola_it::{Broker, eventually};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::metadata_request::MetadataRequestTopic;
use taccola_wire::messages::{DescribeLogDirsRequest, MetadataRequest};

const PARTITIONS: i32 = 6;

struct Jbod {
    broker: Broker,
    dirs: [PathBuf; 2],
}

impl Jbod {
    fn start() -> Self {
        let home = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        let dirs = ["one", "two"].map(|name| home.path().join(name));
        let line = format!("log.dirs={},{}", dirs[0].display(), dirs[1].display());
        Self { broker: Broker::start_in(home, &[&line]), dirs }
    }

    fn connect(&self) -> Conn {
        Conn::connect(self.broker.port).expect("a connection")
    }

    /// Error code and partitions of "t" by directory.
    fn described(&self) -> BTreeMap<PathBuf, (i16, Vec<i32>)> {
        let response = self.connect().ask(&DescribeLogDirsRequest { topics: None }, 4);
        let row = |row: taccola_wire::messages::describe_log_dirs_response::DescribeLogDirsResult| {
            let partitions = row.topics.iter().filter(|topic| topic.name == "t").flat_map(|topic| &topic.partitions);
            let mut partitions: Vec<_> = partitions.map(|partition| partition.partition_index).collect();
            partitions.sort_unstable();
            (PathBuf::from(row.log_dir), (row.error_code, partitions))
        };
        response.results.into_iter().map(row).collect()
    }

    fn offline_replicas(&self) -> Vec<i32> {
        let topic = MetadataRequestTopic { name: Some("t".to_owned()), ..Default::default() };
        let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
        let topic = self.connect().ask(&request, 12).topics.remove(0);
        let offline = topic.partitions.iter().filter(|partition| !partition.offline_replicas.is_empty());
        let mut offline: Vec<_> = offline.map(|partition| partition.partition_index).collect();
        offline.sort_unstable();
        offline
    }

    /// Where each partition's one record can be read; the others answer KAFKA_STORAGE_ERROR to reads and writes.
    fn readable(&self) -> Vec<i32> {
        let mut conn = self.connect();
        let mut readable = Vec::new();
        for partition in 0..PARTITIONS {
            let data = fetch(&mut conn, "t", partition, 0);
            if data.error_code == 0 {
                assert_eq!(records_of(&data, 0).len(), 1, "t-{partition}");
                readable.push(partition);
            } else {
                let storage = ErrorCode::KafkaStorageError.code();
                let written = produce(&mut conn, "t", partition, batch(&["lost"])).error_code;
                let listed = list_offset(&mut conn, "t", partition, -1).0;
                assert_eq!((data.error_code, written, listed), (storage, storage, storage), "t-{partition}");
            }
        }
        readable
    }
}

#[test]
fn one_of_two_directories_is_offline_and_comes_back() {
    let mut jbod = Jbod::start();
    let mut conn = jbod.connect();
    new_topic(&mut conn, "t", PARTITIONS, &[]);
    for partition in 0..PARTITIONS {
        produced(&mut conn, "t", partition, batch(&[&format!("of {partition}")]));
    }
    let before = jbod.described();
    let [one, two] = jbod.dirs.clone();
    assert_eq!((before[&one].1.len(), before[&two].1.len()), (3, 3), "the directory with the fewest takes the next");
    for (dir, (error, partitions)) in &before {
        assert_eq!(*error, 0);
        for partition in partitions {
            assert!(dir.join(format!("t-{partition}")).is_dir());
        }
    }
    jbod.broker.restart();
    assert_eq!(jbod.described(), before, "partitions stay where they are");

    jbod.broker.stop();
    let aside = two.with_extension("aside");
    fs::rename(&two, &aside).unwrap();
    fs::write(&two, "no directory").unwrap();
    jbod.broker.launch();
    let (there, gone) = (before[&one].1.clone(), before[&two].1.clone());
    assert_eq!(jbod.readable(), there);
    assert_eq!(jbod.offline_replicas(), gone);
    assert_eq!(jbod.described()[&two], (ErrorCode::KafkaStorageError.code(), Vec::new()));
    // New partitions go where they can, and a kill changes nothing.
    new_topic(&mut jbod.connect(), "new", 2, &[]);
    produced(&mut jbod.connect(), "new", 1, batch(&["written meanwhile"]));
    jbod.broker.kill();
    jbod.broker.launch();
    assert_eq!(jbod.readable(), there);

    jbod.broker.stop();
    fs::remove_file(&two).unwrap();
    fs::rename(&aside, &two).unwrap();
    jbod.broker.launch();
    assert_eq!(jbod.readable(), (0..PARTITIONS).collect::<Vec<_>>());
    assert!(jbod.offline_replicas().is_empty());
    assert_eq!(records_of(&fetch(&mut jbod.connect(), "new", 1, 0), 0).len(), 1);
}

#[test]
fn an_empty_directory_in_place_of_a_lost_one_is_not_taken_for_it() {
    let mut jbod = Jbod::start();
    let mut conn = jbod.connect();
    new_topic(&mut conn, "t", PARTITIONS, &[]);
    for partition in 0..PARTITIONS {
        produced(&mut conn, "t", partition, batch(&["acknowledged"]));
    }
    let before = jbod.described();
    jbod.broker.stop();
    // A volume that was not mounted.
    let two = jbod.dirs[1].clone();
    fs::rename(&two, two.with_extension("aside")).unwrap();
    jbod.broker.launch();
    assert_eq!(jbod.readable(), before[&jbod.dirs[0]].1, "no partition comes back empty");
    assert_eq!(jbod.offline_replicas(), before[&two].1);
}

#[test]
fn a_killed_broker_finds_its_journal_in_the_first_directory() {
    let mut jbod = Jbod::start();
    let mut conn = jbod.connect();
    new_topic(&mut conn, "t", PARTITIONS, &[]);
    for partition in 0..PARTITIONS {
        produced(&mut conn, "t", partition, batch(&["acknowledged"]));
    }
    jbod.broker.kill();
    jbod.broker.launch();
    assert_eq!(jbod.readable(), (0..PARTITIONS).collect::<Vec<_>>());
    // The journal has records of both: without the second directory they would be lost.
    jbod.broker.kill();
    produce_and_kill(&mut jbod);
    let two = jbod.dirs[1].clone();
    let aside = two.with_extension("aside");
    fs::rename(&two, &aside).unwrap();
    fs::write(&two, "no directory").unwrap();
    let _ready = jbod.broker.spawn();
    eventually("a refusal that says why", || {
        jbod.broker.log().iter().any(|line| line.contains("bring the directory back")).then_some(())
    });
    jbod.broker.kill();
    fs::remove_file(&two).unwrap();
    fs::rename(&aside, &two).unwrap();
    jbod.broker.launch();
    let mut conn = jbod.connect();
    for partition in 0..PARTITIONS {
        assert_eq!(list_offset(&mut conn, "t", partition, -1).1, 2);
    }
}

/// One more record for each partition, which only the journal is sure to have.
fn produce_and_kill(jbod: &mut Jbod) {
    jbod.broker.launch();
    let mut conn = jbod.connect();
    for partition in 0..PARTITIONS {
        produced(&mut conn, "t", partition, batch(&["acknowledged"]));
    }
    jbod.broker.kill();
}

/// Two directories on a disk whose faults the test decides about.
#[cfg(target_os = "linux")]
mod failing {
    use fuser::BackgroundSession;
    use taccola_it::disk_faults::{Fault, Op};
    use taccola_it::ledger::Rng;
    use taccola_it::power::{Disk, Loss};
    use taccola_it::requests::produce_request;
    use taccola_it::{Broker, clients, eventually};

    use super::*;

    struct Machine {
        jbod: Jbod,
        disk: Disk,
        mounted: Option<BackgroundSession>,
    }

    impl Machine {
        /// With topic "t" of which every partition holds one record; `None` where FUSE cannot be mounted.
        fn start(test: &str) -> Option<Self> {
            Self::start_with(test, &["one", "two"])
        }

        fn start_with(test: &str, names: &[&str]) -> Option<Self> {
            let home = Arc::new(tempfile::tempdir().expect("a temporary folder"));
            let at = home.path().join("disk");
            fs::create_dir_all(&at).expect("a folder");
            let disk = Disk::default();
            let mounted = match disk.mount(&at) {
                Ok(mounted) => mounted,
                Err(error) => {
                    println!("{} {test}: FUSE cannot be mounted ({error})", clients::ABSENT);
                    return None;
                }
            };
            let dirs = ["one", "two"].map(|name| at.join(name));
            let all: Vec<String> = names.iter().map(|name| at.join(name).display().to_string()).collect();
            let line = format!("log.dirs={}", all.join(","));
            let properties = [&line, "taccola.journal.bytes=4194304", "log.flush.offset.checkpoint.interval.ms=200"];
            let jbod = Jbod { broker: Broker::start_in(home, &properties), dirs };
            let mut conn = jbod.connect();
            new_topic(&mut conn, "t", PARTITIONS, &[]);
            for partition in 0..PARTITIONS {
                produced(&mut conn, "t", partition, batch(&["acknowledged"]));
            }
            Some(Self { jbod, disk, mounted: Some(mounted) })
        }

        /// The second directory cannot be synced any more; what it held.
        fn fail_second(&self, op: Op) -> Vec<i32> {
            let held = self.jbod.described()[&self.jbod.dirs[1]].1.clone();
            self.disk.inject(Fault::eio(op, "two/"));
            let mut conn = self.jbod.connect();
            for partition in &held {
                // Whether it is acknowledged depends on who is first.
                produce(&mut conn, "t", *partition, batch(&["maybe"]));
            }
            let failed = (ErrorCode::KafkaStorageError.code(), Vec::new());
            eventually("the failure is noticed", || {
                let noticed = self.jbod.described()[&self.jbod.dirs[1]] == failed;
                (noticed && self.jbod.offline_replicas() == held).then_some(())
            });
            held
        }

        /// The power goes, and with it whatever was not synced; then the disk is well.
        fn power_cut(&mut self) {
            self.disk.cut();
            self.jbod.broker.kill();
            drop(self.mounted.take());
            self.disk.heal();
            self.disk.restore(Loss::Everything, &mut Rng(1));
            let at = self.jbod.dirs[0].parent().unwrap().to_path_buf();
            self.mounted = Some(self.disk.mount(&at).expect("mounted before"));
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            self.jbod.broker.kill();
        }
    }

    fn ends(conn: &mut Conn) -> Vec<i64> {
        (0..PARTITIONS).map(|partition| list_offset(conn, "t", partition, -1).1).collect()
    }

    #[test]
    fn a_directory_that_fails_to_sync_goes_alone() {
        let Some(mut machine) = Machine::start("a_directory_that_fails_to_sync_goes_alone") else { return };
        let gone = machine.fail_second(Op::Sync);
        assert_eq!(gone.len(), 3);
        let mut conn = machine.jbod.connect();
        for partition in (0..PARTITIONS).filter(|partition| !gone.contains(partition)) {
            assert_eq!(produced(&mut conn, "t", partition, batch(&["more"])), 1);
        }
        // More than the journal holds: what is kept for the directory is not in its way.
        let there = (0..PARTITIONS).find(|partition| !gone.contains(partition)).unwrap();
        let value = "x".repeat(500_000);
        for _ in 0..20 {
            produced(&mut conn, "t", there, batch(&[&value]));
        }
        new_topic(&mut conn, "new", 2, &[]);
        for partition in 0..2 {
            produced(&mut conn, "new", partition, batch(&["goes where it can"]));
        }
        let before: Vec<i64> = (0..PARTITIONS)
            .map(|p| if gone.contains(&p) { -1 } else { list_offset(&mut conn, "t", p, -1).1 })
            .collect();
        let kept = |jbod: &Jbod| {
            let mut names = fs::read_dir(&jbod.dirs[0]).unwrap().flatten().map(|entry| entry.file_name());
            names.any(|name| name.to_string_lossy().starts_with("taccola.journal.of-"))
        };
        machine.power_cut();
        assert!(kept(&machine.jbod));
        machine.jbod.broker.launch();
        assert!(machine.jbod.offline_replicas().is_empty());
        let mut conn = machine.jbod.connect();
        for (partition, (after, before)) in ends(&mut conn).into_iter().zip(before).enumerate() {
            let partition = partition as i32;
            if gone.contains(&partition) {
                assert!((1..=2).contains(&after), "t-{partition} ends at {after}");
                assert!(!records_of(&fetch(&mut conn, "t", partition, 0), 0).is_empty());
            } else {
                assert_eq!(after, before, "t-{partition}");
            }
        }
        assert!(!kept(&machine.jbod), "what was kept is replayed and gone");
    }

    #[test]
    fn a_directory_that_takes_no_writes_is_found_out_by_them() {
        let Some(mut machine) = Machine::start("a_directory_that_takes_no_writes") else { return };
        let gone = machine.fail_second(Op::Write);
        // A clean stop without it, and a start with it.
        machine.jbod.broker.stop();
        assert!(machine.jbod.dirs[0].join(".kafka_cleanshutdown").exists());
        assert!(!machine.jbod.dirs[1].join(".kafka_cleanshutdown").exists());
        machine.disk.heal();
        machine.jbod.broker.launch();
        assert!(machine.jbod.offline_replicas().is_empty());
        let mut conn = machine.jbod.connect();
        for (partition, end) in ends(&mut conn).into_iter().enumerate() {
            let at_least_one = if gone.contains(&(partition as i32)) { 1..=2 } else { 1..=1 };
            assert!(at_least_one.contains(&end), "t-{partition} ends at {end}");
        }
    }

    /// What is kept for one of them has batches of the other's logs too, which must not be made anew in the wrong place.
    #[test]
    fn of_two_directories_that_failed_one_comes_back_first() {
        let names = ["one", "two", "three"];
        let Some(mut machine) = Machine::start_with("of_two_directories_that_failed", &names) else { return };
        let three = machine.jbod.dirs[0].with_file_name("three");
        let described = machine.jbod.described();
        let (of_two, of_three) = (described[&machine.jbod.dirs[1]].1.clone(), described[&three].1.clone());
        assert_eq!((of_two.len(), of_three.len()), (2, 2));
        machine.disk.inject(Fault::eio(Op::Sync, "three/"));
        let mut conn = machine.jbod.connect();
        of_three.iter().for_each(|partition| drop(produce(&mut conn, "t", *partition, batch(&["maybe"]))));
        eventually("the third is noticed", || (machine.jbod.offline_replicas() == of_three).then_some(()));
        machine.disk.inject(Fault::eio(Op::Sync, "two/"));
        of_two.iter().for_each(|partition| drop(produce(&mut conn, "t", *partition, batch(&["maybe"]))));
        let mut gone = [of_two.clone(), of_three.clone()].concat();
        gone.sort_unstable();
        eventually("the second is noticed", || (machine.jbod.offline_replicas() == gone).then_some(()));
        machine.power_cut();
        let aside = three.with_extension("aside");
        fs::rename(&three, &aside).unwrap();
        fs::write(&three, "no directory").unwrap();
        machine.jbod.broker.launch();
        assert_eq!(machine.jbod.offline_replicas(), of_three);
        let mut conn = machine.jbod.connect();
        for partition in 0..PARTITIONS {
            let code = fetch(&mut conn, "t", partition, 0).error_code;
            let expected = if of_three.contains(&partition) { ErrorCode::KafkaStorageError } else { ErrorCode::None };
            assert_eq!(code, expected.code(), "t-{partition}");
        }
        machine.jbod.broker.stop();
        fs::remove_file(&three).unwrap();
        fs::rename(&aside, &three).unwrap();
        machine.jbod.broker.launch();
        assert!(machine.jbod.offline_replicas().is_empty());
        let mut conn = machine.jbod.connect();
        for partition in 0..PARTITIONS {
            let records = records_of(&fetch(&mut conn, "t", partition, 0), 0);
            assert!(!records.is_empty(), "t-{partition}");
            assert_eq!(records[0].value.as_deref(), Some(&b"acknowledged"[..]));
        }
        let names = fs::read_dir(&machine.jbod.dirs[0]).unwrap().flatten().map(|entry| entry.file_name());
        let left: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with("taccola.journal.of-")).collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// It opens, and what is in it cannot be read: at start that is a failed directory like any other.
    #[test]
    fn a_directory_that_cannot_be_listed_at_start_goes_alone() {
        let Some(mut machine) = Machine::start("a_directory_that_cannot_be_listed_at_start") else { return };
        let held = machine.jbod.described()[&machine.jbod.dirs[1]].1.clone();
        let others: Vec<i32> = (0..PARTITIONS).filter(|partition| !held.contains(partition)).collect();
        for (op, path) in [(Op::List, "two"), (Op::Read, "two/meta.properties"), (Op::Write, "two/.lock")] {
            machine.jbod.broker.stop();
            machine.disk.inject(Fault::eio(op, path));
            machine.disk.read_uncached();
            machine.jbod.broker.launch();
            if path == "two/.lock" {
                // Nobody writes that one.
                assert_eq!(machine.jbod.readable().len(), PARTITIONS as usize);
            } else {
                assert_eq!(machine.jbod.readable(), others, "{op:?} of {path}");
                assert_eq!(machine.jbod.offline_replicas(), held);
            }
            machine.jbod.broker.stop();
            machine.disk.heal();
            machine.jbod.broker.launch();
            assert_eq!(machine.jbod.readable(), (0..PARTITIONS).collect::<Vec<_>>());
        }
        // The first one is needed.
        machine.jbod.broker.stop();
        machine.disk.inject(Fault::eio(Op::List, "one"));
        let _ready = machine.jbod.broker.spawn();
        eventually("the start is refused", || machine.jbod.broker.ended());
        assert!(machine.jbod.broker.log().iter().any(|line| line.contains("cannot list")));
    }

    /// What recovery has to write cannot be written.
    #[test]
    fn a_directory_that_fails_while_it_is_recovered_goes_alone() {
        let Some(mut machine) = Machine::start("a_directory_that_fails_while_it_is_recovered") else { return };
        let held = machine.jbod.described()[&machine.jbod.dirs[1]].1.clone();
        let others: Vec<i32> = (0..PARTITIONS).filter(|partition| !held.contains(partition)).collect();
        machine.jbod.broker.stop();
        fs::remove_file(machine.jbod.dirs[1].join(".kafka_cleanshutdown")).unwrap();
        machine.disk.inject(Fault::eio(Op::Sync, "two/"));
        machine.jbod.broker.launch();
        assert_eq!(machine.jbod.readable(), others);
        assert_eq!(machine.jbod.offline_replicas(), held);
        machine.jbod.broker.stop();
        machine.disk.heal();
        machine.jbod.broker.launch();
        assert_eq!(machine.jbod.readable(), (0..PARTITIONS).collect::<Vec<_>>());
    }

    #[test]
    fn the_first_directory_cannot_be_done_without() {
        let Some(mut machine) = Machine::start("the_first_directory_cannot_be_done_without") else { return };
        machine.disk.inject(Fault::eio(Op::Sync, "one/t-"));
        let mut conn = machine.jbod.connect();
        let held = machine.jbod.described()[&machine.jbod.dirs[0]].1.clone();
        // The broker may be gone before it answers.
        let _ = conn.send(&produce_request(-1, "t", held[0], batch(&["maybe"])), 12);
        eventually("the broker stops", || machine.jbod.broker.ended());
    }
}

/// Replicas that move from one directory to another (AlterReplicaLogDirs).
mod moves {
    use std::time::{Duration, Instant};

    use taccola_it::clients::kafka_tool;
    use taccola_it::requests::read_all;
    use taccola_it::{crash, run};
    use taccola_wire::messages::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
    use taccola_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    use taccola_wire::messages::{AlterReplicaLogDirsRequest, DeleteTopicsRequest, IncrementalAlterConfigsRequest};

    use super::*;

    /// Error codes by partition.
    fn alter(conn: &mut Conn, dir: &str, topic: &str, partitions: &[i32]) -> Vec<(i32, i16)> {
        let topic = AlterReplicaLogDirTopic { name: topic.to_owned(), partitions: partitions.to_vec() };
        let dirs = vec![AlterReplicaLogDir { path: dir.to_owned(), topics: vec![topic] }];
        let results = conn.ask(&AlterReplicaLogDirsRequest { dirs }, 2).results;
        results.iter().flat_map(|topic| &topic.partitions).map(|p| (p.partition_index, p.error_code)).collect()
    }

    impl Jbod {
        fn path(&self, index: usize) -> String {
            self.dirs[index].display().to_string()
        }

        /// Index of the directory that holds the partition.
        fn holder(&self, partition: i32) -> usize {
            let described = self.described();
            self.dirs.iter().position(|dir| described[dir].1.contains(&partition)).expect("somewhere")
        }

        /// Waits until the partition is in one directory alone.
        fn wait_for(&self, partition: i32, index: usize) {
            eventually("the replica moves", || {
                let described = self.described();
                let of = |dir: &PathBuf| described[dir].1.iter().filter(|p| **p == partition).count();
                (of(&self.dirs[index]) == 1 && of(&self.dirs[1 - index]) == 0).then_some(())
            });
        }

        fn folders(&self, partition: i32, suffix: &str) -> Vec<PathBuf> {
            let prefix = format!("t-{partition}");
            let entries = self.dirs.iter().flat_map(|dir| fs::read_dir(dir).expect("a folder").flatten());
            let is_one = |name: &str| name.starts_with(&prefix) && name.ends_with(suffix) && name.len() >= prefix.len();
            entries
                .map(|entry| entry.path())
                .filter(|path| is_one(path.file_name().unwrap().to_str().unwrap()))
                .collect()
        }
    }

    #[test]
    fn a_replica_moves_while_it_is_written_to() {
        let mut jbod = Jbod::start();
        let mut conn = jbod.connect();
        new_topic(&mut conn, "t", PARTITIONS, &[("segment.bytes", "1048576")]);
        let value = "x".repeat(100_000);
        for _ in 0..50 {
            produced(&mut conn, "t", 0, batch(&[&value]));
        }
        let from = jbod.holder(0);
        assert_eq!(alter(&mut conn, &jbod.path(1 - from), "t", &[0]), [(0, 0)]);
        let mut written = 50;
        let since = Instant::now();
        while jbod.holder(0) == from && since.elapsed() < Duration::from_secs(30) {
            assert_eq!(produced(&mut conn, "t", 0, batch(&[&value])), written);
            written += 1;
        }
        jbod.wait_for(0, 1 - from);
        assert_eq!(produced(&mut conn, "t", 0, batch(&["at its new place"])), written);
        assert_eq!(read_all(&mut conn, "t", 0, 0).len() as i64, written + 1);
        // One without a record has nothing to copy.
        let empty = 1;
        let from_empty = jbod.holder(empty);
        assert_eq!(alter(&mut conn, &jbod.path(1 - from_empty), "t", &[empty]), [(empty, 0)]);
        jbod.wait_for(empty, 1 - from_empty);
        let before = jbod.described();
        for end in ["stop", "kill"] {
            match end {
                "stop" => jbod.broker.stop(),
                _ => jbod.broker.kill(),
            }
            jbod.broker.launch();
            assert_eq!(jbod.described(), before, "after a {end}");
            assert_eq!(read_all(&mut jbod.connect(), "t", 0, 0).len() as i64, written + 1);
        }
        assert!(jbod.folders(0, "-future").is_empty());
        assert!(jbod.offline_replicas().is_empty());
    }

    /// All moves together keep to the rate, several at a time; it is raised while they wait.
    #[test]
    fn moves_keep_to_their_rate_and_go_side_by_side() {
        let jbod = Jbod::start();
        let mut conn = jbod.connect();
        new_topic(&mut conn, "t", PARTITIONS, &[]);
        let value = "x".repeat(200_000);
        for partition in 0..PARTITIONS {
            for _ in 0..5 {
                produced(&mut conn, "t", partition, batch(&[&value]));
            }
        }
        let rate = |bytes: &str| {
            let config = AlterableConfig {
                name: "replica.alter.log.dirs.io.max.bytes.per.second".to_owned(),
                value: Some(bytes.to_owned()),
                ..Default::default()
            };
            let resource = AlterConfigsResource { resource_type: 4, configs: vec![config], ..Default::default() };
            let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
            assert_eq!(jbod.connect().ask(&request, 1).responses[0].error_code, 0);
        };
        rate("100000");
        let moving: Vec<i32> = (0..PARTITIONS).filter(|partition| jbod.holder(*partition) == 0).collect();
        assert_eq!(moving.len(), 3);
        let begun = Instant::now();
        alter(&mut conn, &jbod.path(1), "t", &moving);
        // Two of them are under way, of as many directories, and neither ends soon.
        let copies = || {
            let response = jbod.connect().ask(&DescribeLogDirsRequest { topics: None }, 4);
            let all = response.results.into_iter().flat_map(|row| row.topics).flat_map(|topic| topic.partitions);
            all.filter(|row| row.is_future_key && row.partition_size > 0).count()
        };
        eventually("two moves are under way", || (copies() == 2).then_some(()));
        while begun.elapsed() < Duration::from_secs(3) {
            assert!(copies() <= 2);
            std::thread::sleep(Duration::from_millis(50));
        }
        let at_home = moving.iter().filter(|partition| jbod.described()[&jbod.dirs[0]].1.contains(partition)).count();
        assert_eq!(at_home, 3, "a megabyte each takes ten seconds at this rate");
        rate("100000000");
        for partition in &moving {
            jbod.wait_for(*partition, 1);
            assert_eq!(read_all(&mut conn, "t", *partition, 0).len(), 5);
        }
    }

    #[test]
    fn what_cannot_be_moved_is_told_as_kafka_does() {
        let jbod = Jbod::start();
        let mut conn = jbod.connect();
        new_topic(&mut conn, "t", 2, &[]);
        let (not_found, unknown) = (57, 3);
        let here = jbod.path(jbod.holder(0));
        assert_eq!(alter(&mut conn, &here, "t", &[0]), [(0, 0)], "it is there already");
        assert_eq!(alter(&mut conn, &here, "nowhere", &[0]), [(0, unknown)]);
        assert_eq!(alter(&mut conn, &here, "t", &[9]), [(9, unknown)]);
        assert_eq!(alter(&mut conn, "/nowhere", "t", &[0]), [(0, not_found)]);
        assert_eq!(alter(&mut conn, "one", "t", &[0]), [(0, not_found)], "paths are whole");
        assert_eq!(alter(&mut conn, "/nowhere", "nowhere", &[0]), [(0, not_found)]);
        assert_eq!(alter(&mut conn, &here, "__cluster_metadata", &[0]), [(0, unknown)]);
        assert!(alter(&mut conn, &here, "t", &[]).is_empty());
        let (fits, too_long) = ("f".repeat(213), "f".repeat(214));
        assert_eq!(alter(&mut conn, &here, &fits, &[0]), [(0, unknown)]);
        assert_eq!(alter(&mut conn, &here, &too_long, &[0]), [(0, 17)]);
        assert_eq!(alter(&mut conn, "/nowhere", &too_long, &[0]), [(0, 17)]);
    }

    /// What a JVM Kafka answered and did: the answer is an error, and the topic goes where it was asked to be all the same.
    #[test]
    fn a_partition_that_is_not_here_yet_is_made_where_it_was_asked_for() {
        let jbod = Jbod::start();
        let mut conn = jbod.connect();
        let unknown = 3;
        let two = jbod.path(1);
        assert_eq!(alter(&mut conn, &two, "t", &[0, 1, 2, 3]), [0, 1, 2, 3].map(|partition| (partition, unknown)));
        assert_eq!(alter(&mut conn, &jbod.path(0), "t", &[3]), [(3, unknown)], "the last word counts");
        new_topic(&mut conn, "t", PARTITIONS, &[]);
        let described = jbod.described();
        assert_eq!((&described[&jbod.dirs[0]].1, &described[&jbod.dirs[1]].1), (&vec![3, 4, 5], &vec![0, 1, 2]));
        // It is forgotten with that: a topic that is made anew goes where there is room.
        let request =
            DeleteTopicsRequest { topic_names: vec!["t".to_owned()], timeout_ms: 10_000, ..Default::default() };
        assert_eq!(conn.ask(&request, 5).responses[0].error_code, 0);
        new_topic(&mut conn, "t", 2, &[]);
        assert_eq!((jbod.holder(0), jbod.holder(1)), (0, 1));
    }

    /// `CYCLES` kills in the middle of moves.
    #[test]
    fn a_kill_in_the_middle_of_a_move_loses_nothing() {
        let mut jbod = Jbod::start();
        let mut conn = jbod.connect();
        new_topic(&mut conn, "t", PARTITIONS, &[("segment.bytes", "1048576")]);
        let value = "x".repeat(200_000);
        for _ in 0..60 {
            produced(&mut conn, "t", 0, batch(&[&value]));
        }
        let mut written = 60;
        for cycle in 0..crash::number("CYCLES", 4) {
            let mut conn = jbod.connect();
            let to = 1 - jbod.holder(0);
            assert_eq!(alter(&mut conn, &jbod.path(to), "t", &[0]), [(0, 0)]);
            let since = Instant::now();
            while since.elapsed() < Duration::from_millis(cycle * 17 % 140) {
                assert_eq!(produced(&mut conn, "t", 0, batch(&["meanwhile"])), written);
                written += 1;
            }
            jbod.broker.kill();
            jbod.broker.launch();
            // The start goes on with the move, if the kill came before its end.
            let mut conn = jbod.connect();
            assert_eq!(produced(&mut conn, "t", 0, batch(&["after"])), written);
            written += 1;
            eventually("no copy is left", || jbod.folders(0, "-future").is_empty().then_some(()));
            let records = read_all(&mut conn, "t", 0, 0);
            assert_eq!(records.len() as i64, written, "cycle {cycle}");
        }
        let folders = jbod.dirs.iter().filter(|dir| dir.join("t-0").is_dir()).count();
        assert_eq!(folders, 1);
    }

    #[test]
    fn kafkas_tool_moves_a_replica() {
        let jbod = Jbod::start();
        let mut conn = jbod.connect();
        new_topic(&mut conn, "t", 1, &[]);
        produced(&mut conn, "t", 0, batch(&["moved by a tool"]));
        let to = 1 - jbod.holder(0);
        let plan = jbod.dirs[0].with_extension("json");
        let node = conn.ask(&MetadataRequest { topics: None, ..Default::default() }, 12).brokers[0].node_id;
        let text = format!(
            r#"{{"version":1,"partitions":[{{"topic":"t","partition":0,"replicas":[{node}],"log_dirs":["{}"]}}]}}"#,
            jbod.path(to)
        );
        fs::write(&plan, text).unwrap();
        let tool = |what: &str| {
            let class = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand";
            let mut command = kafka_tool("kafkas_tool_moves_a_replica", class)?;
            command.args(["--bootstrap-server", &jbod.broker.bootstrap(), "--reassignment-json-file"]);
            Some(run(command.arg(&plan).arg(what)))
        };
        let Some(said) = tool("--execute") else { return };
        assert!(said.contains("Successfully started moving log directory to"), "{said}");
        jbod.wait_for(0, to);
        let said = tool("--verify").expect("it is there");
        assert!(said.contains(&format!("Reassignment of replica t-0-{node} completed successfully.")), "{said}");
        assert_eq!(read_all(&mut conn, "t", 0, 0).len(), 1);
    }
}
