//! Disks that fill up, fail, hang and rot under a broker that serves: nothing is acknowledged wrongly, what can be read is
//! served, and what went away comes back by itself.
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use fuser::BackgroundSession;
use taccola_it::conn::Conn;
use taccola_it::disk_faults::{Effect, Fault, Op};
use taccola_it::power::Disk;
use taccola_it::requests::{
    batch, create_topic, fetch, list_offset, new_topic, produce, produce_request, produced, read_all,
};
use taccola_it::{Broker, clients, eventually};
use taccola_wire::messages::delete_topics_request::DeleteTopicState;
use taccola_wire::messages::{DeleteTopicsRequest, ProduceRequest};

const KAFKA_STORAGE_ERROR: i16 = 56;
const CORRUPT_MESSAGE: i16 = 2;
/// What is lost must come back within this.
const RELIEF: Duration = Duration::from_secs(10);

/// A broker on a disk whose faults the test decides about.
struct Machine {
    broker: Broker,
    disk: Disk,
    mounted: Option<BackgroundSession>,
}

impl Machine {
    /// `None` where FUSE cannot be mounted.
    fn start(test: &str, properties: &[&str]) -> Option<Self> {
        Self::start_with_capacity(test, properties, None)
    }

    /// The same on a disk of so many bytes.
    fn start_with_capacity(test: &str, properties: &[&str], capacity: Option<u64>) -> Option<Self> {
        // Failures by the dozen are what these tests are about.
        let mut all = vec!["taccola.journal.bytes=4194304", "taccola.crash.loop.limit=0"];
        all.extend(properties);
        let disk = Disk::default();
        disk.read_uncached();
        disk.set_capacity(capacity);
        let mut machine = Self { broker: Broker::prepare(&all), disk, mounted: None };
        let at = machine.broker.data_dir();
        std::fs::create_dir_all(&at).expect("a folder");
        match machine.disk.mount(&at) {
            Ok(mounted) => machine.mounted = Some(mounted),
            Err(error) => {
                println!("{} {test}: FUSE cannot be mounted ({error})", clients::ABSENT);
                return None;
            }
        }
        machine.broker.launch();
        Some(machine)
    }

    fn connect(&self) -> Conn {
        Conn::connect(self.broker.port).expect("the broker accepts")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.broker.kill();
    }
}

fn delete_topic(conn: &mut Conn, name: &str) {
    let state = DeleteTopicState { name: Some(name.to_owned()), ..Default::default() };
    let request = DeleteTopicsRequest { topics: vec![state], timeout_ms: 10_000, ..Default::default() };
    assert_eq!(conn.ask(&request, 6).responses[0].error_code, 0);
}

/// Produces until the broker refuses; how many batches it acknowledged.
fn fill(conn: &mut Conn, topic: &str, value: &str) -> i64 {
    for count in 0..10_000 {
        let response = produce(conn, topic, 0, batch(&[value]));
        if response.error_code != 0 {
            assert_eq!(response.error_code, KAFKA_STORAGE_ERROR, "{response:?}");
            return count;
        }
        assert_eq!(response.base_offset, count);
    }
    panic!("the disk never filled up");
}

/// Produces until it is acknowledged; the base offset.
fn produced_soon(conn: &mut Conn, topic: &str, value: &str) -> i64 {
    let since = Instant::now();
    loop {
        let response = produce(conn, topic, 0, batch(&[value]));
        if response.error_code == 0 {
            return response.base_offset;
        }
        assert_eq!(response.error_code, KAFKA_STORAGE_ERROR, "{response:?}");
        assert!(since.elapsed() < RELIEF, "still refused");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_full_disk_refuses_producers_and_resumes_when_there_is_room() {
    let properties = [
        "taccola.disk.reserve.bytes=8388608",
        "taccola.disk.reserve.percent=50",
        "log.segment.delete.delay.ms=100",
        "log.retention.check.interval.ms=300",
    ];
    let machine = Machine::start_with_capacity("a_full_disk_refuses_producers", &properties, Some(64 << 20));
    let Some(machine) = machine else { return };
    let mut conn = machine.connect();
    for topic in ["kept", "filler"] {
        new_topic(&mut conn, topic, 1, &[]);
    }
    let value = "x".repeat(500_000);
    for _ in 0..4 {
        produced(&mut conn, "kept", 0, batch(&[&value]));
    }
    let filled = fill(&mut conn, "filler", &value);
    assert!(filled > 20, "{filled}");
    // Everything but producing goes on, in what is kept back.
    assert_eq!(read_all(&mut conn, "filler", 0, 0).len() as i64, filled);
    assert_eq!(read_all(&mut conn, "kept", 0, 0).len(), 4);
    new_topic(&mut conn, "made-on-a-full-disk", 1, &[]);
    assert_eq!(produce(&mut conn, "kept", 0, batch(&["no"])).error_code, KAFKA_STORAGE_ERROR);
    delete_topic(&mut conn, "filler");
    assert_eq!(produced_soon(&mut conn, "kept", "yes"), 4);
    assert_eq!(produced_soon(&mut conn, "made-on-a-full-disk", "yes"), 0);
}

#[test]
fn a_disk_that_others_filled_fails_what_needs_room_and_nothing_else() {
    let Some(mut machine) = Machine::start("a_disk_that_others_filled", &["taccola.disk.reserve.bytes=0"]) else {
        return;
    };
    let mut conn = machine.connect();
    new_topic(&mut conn, "t", 1, &[("segment.bytes", "1048576")]);
    let value = "x".repeat(300_000);
    machine.disk.set_capacity(Some(machine.disk.used() + (5 << 20)));
    let filled = fill(&mut conn, "t", &value);
    machine.disk.set_capacity(Some(machine.disk.used()));
    assert_eq!(produce(&mut conn, "t", 0, batch(&["no room"])).error_code, KAFKA_STORAGE_ERROR);
    assert_eq!(read_all(&mut conn, "t", 0, 0).len() as i64, filled);
    assert_ne!(create_topic(&mut conn, "refused", 1, &[]).0, 0);
    machine.broker.assert_alive();
    machine.disk.set_capacity(None);
    assert_eq!(produced_soon(&mut conn, "t", "room"), filled);
    new_topic(&mut conn, "made", 1, &[]);
    machine.broker.kill();
    machine.broker.launch();
    let mut conn = machine.connect();
    assert_eq!(read_all(&mut conn, "t", 0, 0).len() as i64, filled + 1);
    assert_eq!(list_offset(&mut conn, "made", 0, -1).0, 0);
}

#[test]
fn what_the_disk_cannot_read_is_damage_of_that_range() {
    let Some(mut machine) = Machine::start("what_the_disk_cannot_read", &[]) else { return };
    let mut conn = machine.connect();
    new_topic(&mut conn, "t", 1, &[("segment.bytes", "1048576")]);
    let value = "x".repeat(50_000);
    for _ in 0..40 {
        produced(&mut conn, "t", 0, batch(&[&value]));
    }
    let fault = Fault::eio(Op::Read, "t-0/00000000000000000000.log").at(250_000..250_100);
    // Batches of 50 KB: this byte is in the fifth.
    let check = |conn: &mut Conn| {
        assert_eq!(fetch(conn, "t", 0, 4).error_code, CORRUPT_MESSAGE);
        for offset in [0, 3, 6, 39] {
            let data = fetch(conn, "t", 0, offset);
            assert_eq!(data.error_code, 0, "offset {offset}");
            assert!(!data.records.unwrap_or_default().is_empty(), "offset {offset}");
        }
    };
    machine.disk.inject(fault.clone());
    check(&mut conn);
    machine.broker.assert_alive();
    // It is no reason not to start either, whatever the stop was like.
    machine.broker.restart();
    check(&mut machine.connect());
    machine.broker.kill();
    machine.broker.launch();
    let mut conn = machine.connect();
    check(&mut conn);
    assert_eq!(produced(&mut conn, "t", 0, batch(&["on"])), 40);
    // What comes back is served again, once the scrubber has seen it.
    machine.disk.heal();
    eventually("the range to be read", || (fetch(&mut conn, "t", 0, 4).error_code == 0).then_some(()));
    assert_eq!(read_all(&mut conn, "t", 0, 0).len(), 41);
}

/// Sends one batch; true if it was acknowledged, false if it was refused or the broker went away.
fn is_acknowledged(conn: &mut Conn, request: &ProduceRequest) -> bool {
    let response = conn.call(request, 9);
    response.is_ok_and(|response| response.responses[0].partition_responses[0].error_code == 0)
}

#[test]
fn a_failed_sync_acknowledges_nothing_and_what_was_acknowledged_stays() {
    for path in ["taccola.journal", "t-0/00000000000000000000.log"] {
        let properties = ["log.flush.offset.checkpoint.interval.ms=300"];
        let Some(mut machine) = Machine::start("a_failed_sync_acknowledges_nothing", &properties) else { return };
        let mut conn = machine.connect();
        new_topic(&mut conn, "t", 1, &[]);
        let mut acknowledged = 0;
        for _ in 0..5 {
            acknowledged = produced(&mut conn, "t", 0, batch(&["a"])) + 1;
        }
        machine.disk.inject(Fault::eio(Op::Sync, path));
        eventually("the fault to be met", || {
            if is_acknowledged(&mut conn, &produce_request(-1, "t", 0, batch(&["b"]))) {
                acknowledged += 1;
            }
            (machine.disk.faults_met() > 0).then_some(())
        });
        eventually("the end of acknowledgements", || {
            let Ok(mut conn) = Conn::connect(machine.broker.port) else { return Some(()) };
            (!is_acknowledged(&mut conn, &produce_request(-1, "t", 0, batch(&["c"])))).then_some(())
        });
        let met = machine.disk.faults_met();
        machine.disk.heal();
        machine.broker.kill();
        machine.broker.launch();
        let mut conn = machine.connect();
        let end = list_offset(&mut conn, "t", 0, -1).1;
        assert!(end >= acknowledged, "{path}: {end} < {acknowledged}");
        assert_eq!(read_all(&mut conn, "t", 0, 0).len() as i64, end);
        assert_eq!(produced(&mut conn, "t", 0, batch(&["d"])), end);
        assert!((1..=2).contains(&met), "{path}: a failed sync was tried again: {met}");
    }
}

#[test]
fn a_disk_that_takes_seconds_to_sync_is_waited_for_and_holds_up_no_reader() {
    let Some(mut machine) = Machine::start("a_disk_that_takes_seconds", &[]) else { return };
    let mut conn = machine.connect();
    new_topic(&mut conn, "t", 1, &[]);
    produced(&mut conn, "t", 0, batch(&["a"]));
    machine.disk.inject(Fault::new(Op::Sync, "taccola.journal", Effect::Delay(Duration::from_secs(2))));
    let begun = Instant::now();
    let id = conn.send(&produce_request(-1, "t", 0, batch(&["b"])), 9).expect("sent");
    let mut reader = machine.connect();
    let read = fetch(&mut reader, "t", 0, 0);
    assert_eq!(read.high_watermark, 1, "what is not on disk is not seen, and nobody waits to be told so");
    assert!(begun.elapsed() < Duration::from_millis(1_900), "a reader waits for a writer's disk");
    let key = taccola_wire::api::ApiKey::Produce;
    let response: taccola_wire::messages::ProduceResponse = conn.reply(key, 9, id).expect("acknowledged");
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    assert!(begun.elapsed() >= Duration::from_secs(2), "acknowledged before the disk had it");
    machine.disk.heal();
    machine.broker.assert_alive();
    assert_eq!(fetch(&mut reader, "t", 0, 1).high_watermark, 2);
}

#[test]
fn bits_that_rot_under_a_running_broker_are_never_served() {
    let Some(machine) = Machine::start("bits_that_rot", &["taccola.scrub.bytes.per.second=0"]) else { return };
    let mut conn = machine.connect();
    new_topic(&mut conn, "t", 1, &[("segment.bytes", "1048576")]);
    let value = "x".repeat(50_000);
    for _ in 0..40 {
        produced(&mut conn, "t", 0, batch(&[&value]));
    }
    assert!(machine.disk.flip("t-0/00000000000000000000.log", 250_050, 3));
    assert_eq!(fetch(&mut conn, "t", 0, 4).error_code, CORRUPT_MESSAGE);
    assert_eq!(fetch(&mut conn, "t", 0, 5).error_code, 0);
}

#[test]
fn a_broker_that_keeps_failing_starts_in_recovery_mode() {
    let Some(mut machine) = Machine::start("a_broker_that_keeps_failing", &["taccola.crash.loop.limit=3"]) else {
        return;
    };
    let mut conn = machine.connect();
    new_topic(&mut conn, "t", 1, &[]);
    produced(&mut conn, "t", 0, batch(&["a"]));
    for _ in 0..3 {
        let mut conn = machine.connect();
        machine.disk.inject(Fault::eio(Op::Sync, "taccola.journal"));
        let _ = conn.call(&produce_request(-1, "t", 0, batch(&["lost"])), 9);
        eventually("the broker's end", || {
            conn.call(&produce_request(-1, "t", 0, batch(&["lost"])), 9).is_err().then_some(())
        });
        machine.disk.heal();
        machine.broker.kill();
        machine.broker.launch();
    }
    let broker = &mut machine.broker;
    eventually("the warning", || broker.log().join("\n").contains("RECOVERY MODE").then_some(()));
    let mut conn = Conn::connect(broker.port).expect("the broker accepts");
    let end = i64::try_from(read_all(&mut conn, "t", 0, 0).len()).expect("a count");
    assert_eq!(produce(&mut conn, "t", 0, batch(&["c"])).error_code, KAFKA_STORAGE_ERROR);
    assert_ne!(create_topic(&mut conn, "u", 1, &[]).0, 0);
    broker.restart();
    let mut conn = Conn::connect(broker.port).expect("the broker accepts");
    assert_eq!(produced(&mut conn, "t", 0, batch(&["d"])), end);
    new_topic(&mut conn, "u", 1, &[]);
}

#[test]
fn kills_from_outside_are_no_crash_loop() {
    let mut broker = Broker::start(&["taccola.crash.loop.limit=2"]);
    let mut conn = Conn::connect(broker.port).expect("the broker accepts");
    new_topic(&mut conn, "t", 1, &[]);
    for round in 0..4 {
        broker.kill();
        broker.launch();
        let mut conn = Conn::connect(broker.port).expect("the broker accepts");
        assert_eq!(produced(&mut conn, "t", 0, batch(&["a"])), round);
    }
}

#[test]
fn folders_of_partitions_that_were_swapped_are_refused() {
    let mut broker = Broker::start(&[]);
    let mut conn = Conn::connect(broker.port).expect("the broker accepts");
    for topic in ["a", "b"] {
        new_topic(&mut conn, topic, 1, &[]);
        produced(&mut conn, topic, 0, batch(&[topic]));
    }
    broker.stop();
    let data = broker.data_dir();
    let swap = || {
        for (from, to) in [("a-0", "c-0"), ("b-0", "a-0"), ("c-0", "b-0")] {
            std::fs::rename(data.join(from), data.join(to)).expect("renamed");
        }
    };
    swap();
    broker.spawn();
    eventually("the refusal", || broker.log().join("\n").contains("holds records of the topic").then_some(()));
    broker.kill();
    swap();
    broker.launch();
    let mut conn = Conn::connect(broker.port).expect("the broker accepts");
    for topic in ["a", "b"] {
        assert_eq!(read_all(&mut conn, topic, 0, 0)[0].value.as_deref(), Some(topic.as_bytes()));
    }
}
