//! A replica moves between two log directories; the process dies, or the power goes, at each operation on the disk of it, and
//! a bit of the log rots meanwhile. The log is then whole in one of the two, and what rotted below its recovery point is
//! damage that is named, not a tail that is cut off.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use taccola_base::config::{ServerConfig, Settings};
use taccola_log::{AppendOrigin, disk_watch};
use taccola_wire::batch::{BatchBuilder, Compression};
use taccola_wire::messages::CreateTopicsRequest;
use taccola_wire::messages::create_topics_request::CreatableTopic;

use super::disk::Disk;
use super::{memory, world};
use crate::broker::Broker;
use crate::partition::Durability;
use crate::runtime::{housekeeping, relocate};
use crate::startup;

/// On disk before the move.
const BATCHES: i64 = 8;

struct Machine {
    _dir: tempfile::TempDir,
    disk: Rc<Disk>,
    dirs: [PathBuf; 2],
}

impl Machine {
    fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir_in(memory()).unwrap();
        world::begin(seed);
        let disk = Rc::new(Disk::new(&dir.path().join("disk"), seed));
        let dirs = ["one", "two"].map(|name| disk.folder(name));
        disk_watch::install(Some(disk.clone()));
        Self { _dir: dir, disk, dirs }
    }

    fn settings(&self) -> Settings {
        let dirs = format!("{},{}", self.dirs[0].display(), self.dirs[1].display());
        super::workload::SETTINGS.iter().copied().chain([("log.dirs", dirs.as_str())]).collect()
    }

    /// A broker's life; with it go its tasks and what they hold.
    fn live<R>(&self, life: impl AsyncFnOnce(Arc<Broker>) -> R) -> R {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let config = ServerConfig::load(&self.settings()).unwrap().config;
        let result = runtime.block_on(async {
            let (broker, _) = startup::open(config, self.settings(), &[], 1_000).await.expect("the broker starts");
            life(broker).await
        });
        self.disk.stop();
        drop(runtime);
        world::take_storage_failure();
        result
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        disk_watch::install(None);
        world::end();
    }
}

async fn make_topic(broker: &Arc<Broker>) {
    let topic = CreatableTopic { name: "t".to_owned(), num_partitions: 1, replication_factor: 1, ..Default::default() };
    let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
    let create =
        broker.command(|controller, image| controller.create_topics(image, &request, &mut crate::random::uuid));
    assert_eq!(create.await.unwrap().topics[0].error_code, 0);
}

async fn append(broker: &Arc<Broker>) -> i64 {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.append(0, None, Some(&[7; 200]), &[]);
    let mut batch = BytesMut::from(builder.build().unwrap().as_ref());
    let partition = broker.partitions.get("t", 0).expect("the partition");
    let outcome = partition.append(&broker.journal, &mut batch, AppendOrigin::Client, Durability::Disk, 0).unwrap();
    if let Some(ticket) = outcome.ticket {
        broker.journal.wait_for(ticket, Duration::from_secs(60)).await.expect("the journal has it");
    }
    outcome.base_offset
}

fn log_of(dirs: &[PathBuf; 2]) -> PathBuf {
    let found: Vec<&PathBuf> = dirs.iter().filter(|dir| dir.join("t-0").is_dir()).collect();
    let copies = || dirs.iter().flat_map(|dir| std::fs::read_dir(dir).unwrap().flatten()).map(|entry| entry.path());
    let is_copy = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().ends_with("-future");
    match found.as_slice() {
        [one] => one.join("t-0"),
        // The next start gives the copy its name.
        [] => copies().find(is_copy).expect("the log, or its copy"),
        more => panic!("the log is in {more:?}"),
    }
}

/// A bit of the second batch.
fn rot(folder: &Path) {
    let path = folder.join("00000000000000000000.log");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 5;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// False: the move was over before anything happened.
fn dies_at(operation: u64, power: bool, rots: bool) -> bool {
    let machine = Machine::new(operation * 4 + u64::from(power) * 2 + u64::from(rots));
    let shown = format!("operation {operation}, power cut {power}, rot {rots}");
    let died = machine.live(async |broker| {
        make_topic(&broker).await;
        for offset in 0..BATCHES {
            assert_eq!(append(&broker).await, offset);
        }
        housekeeping::checkpoint(&broker);
        // The next frame says that the journal let go of the others: it mends nothing of them.
        assert_eq!(append(&broker).await, BATCHES);
        let from = broker.partitions.get("t", 0).unwrap().log_dir();
        let to = broker.log_dirs[1 - from].path.display().to_string();
        broker.alter_log_dir(&to, "t", 0).unwrap();
        machine.disk.die_in(operation);
        assert!(relocate::move_one(&broker).await);
        machine.disk.is_dead()
    });
    if power {
        machine.disk.cut_power();
    }
    machine.disk.revive();
    if rots {
        rot(&log_of(&machine.dirs));
    }
    machine.live(async |broker| {
        let partition = broker.partitions.get("t", 0).expect("the partition");
        let found = partition.with_log(|log| (log.log_end_offset(), log.quarantined().len())).expect("online");
        assert_eq!(found, (BATCHES + 1, usize::from(rots)), "{shown}");
        let registration = broker.image().topics.partition("t", 0).unwrap().clone();
        let place = broker.log_dirs[partition.log_dir()].id;
        assert_eq!(registration.directory(0), Some(place), "{shown}: what the metadata say");
        assert_eq!(append(&broker).await, BATCHES + 1, "{shown}");
    });
    died
}

#[test]
fn a_move_may_die_at_each_operation() {
    for (power, rots) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut operation = 0;
        while dies_at(operation, power, rots) {
            operation += 1;
        }
        assert!(operation > 20, "a move has more operations than {operation}");
        println!("{operation} operations, power cut {power}, rot {rots}");
    }
}
