//! What a crash leaves behind: `kill -9` under mixed load, over and over. `CYCLES` (10 if unset; a campaign has 200) and `SEED` say how often and which.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use taccola_it::conn::Conn;
use taccola_it::crash::{Campaign, PROPERTIES, Process, number, run};
use taccola_it::requests::{batch, list_offset, new_topic, produced};
use taccola_it::{Broker, eventually};
use taccola_wire::messages::delete_topics_request::DeleteTopicState;
use taccola_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use taccola_wire::messages::{DeleteTopicsRequest, IncrementalAlterConfigsRequest};

fn campaign(durability: &str, seed: u64) {
    let durability = format!("taccola.acks.durability={durability}");
    let mut machine = Process(Broker::prepare(&[&PROPERTIES[..], &[&durability]].concat()));
    let campaign = Campaign {
        cycles: number("CYCLES", 10),
        seed: number("SEED", seed),
        load: Duration::from_millis(700),
        acks_1: true,
    };
    let report = run(&mut machine, campaign);
    println!("kill -9, {durability}: {report}");
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    campaign("disk", 1);
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9_in_memory_mode() {
    campaign("memory", 2);
}

/// Copies the files of a folder in which a broker may be at work: those that go away meanwhile are left out.
fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        match std::fs::copy(entry.path(), to.join(entry.file_name())) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            copied => _ = copied.expect("copied"),
        }
    }
}

/// Names in the log directory that begin with `prefix`.
fn folders(data: &Path, prefix: &str) -> Vec<String> {
    let entries = std::fs::read_dir(data).expect("the log directory").flatten();
    entries.filter_map(|e| e.file_name().into_string().ok()).filter(|name| name.starts_with(prefix)).collect()
}

/// The metadata log says that the topic is deleted, and its folder is still there: the crash came in between.
#[test]
fn folders_of_topics_that_were_deleted_do_not_stay() {
    let properties = ["log.segment.delete.delay.ms=1000", "log.retention.check.interval.ms=300"];
    let mut broker = Broker::start(&properties);
    let data = broker.data_dir();
    let mut conn = Conn::connect(broker.port).expect("the broker accepts");
    for topic in ["gone", "kept", "unknown"] {
        new_topic(&mut conn, topic, 1, &[]);
        produced(&mut conn, topic, 0, batch(&["a", "b"]));
        copy_folder(&data.join(format!("{topic}-0")), &data.join("..").join(topic));
    }
    let state = DeleteTopicState { name: Some("gone".to_owned()), ..Default::default() };
    let request = DeleteTopicsRequest { topics: vec![state], timeout_ms: 10_000, ..Default::default() };
    assert_eq!(conn.ask(&request, 6).responses[0].error_code, 0);
    broker.kill();
    copy_folder(&data.join("../gone"), &data.join("gone-0"));
    // Of a topic that this cluster never had.
    let foreign = data.join("foreign-0");
    copy_folder(&data.join("../unknown"), &foreign);
    std::fs::write(foreign.join("partition.metadata"), "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAQQ")
        .expect("written");
    broker.launch();
    eventually("the deleted topic's folder to go", || folders(&data, "gone").is_empty().then_some(()));
    let aside = folders(&data, "foreign");
    assert!(aside.len() == 1 && aside[0].ends_with("-stray"), "{aside:?}");
    let mut conn = Conn::connect(broker.port).expect("the broker accepts");
    assert_eq!(list_offset(&mut conn, "kept", 0, -1).1, 2);
    new_topic(&mut conn, "gone", 1, &[]);
    assert_eq!(produced(&mut conn, "gone", 0, batch(&["new"])), 0);
    broker.restart();
    assert_eq!(folders(&data, "foreign"), aside, "nobody deletes what nobody knows");
}

/// Bytes and files of the metadata log.
fn metadata_log(broker: &Broker) -> (u64, Vec<String>) {
    let entries =
        std::fs::read_dir(broker.data_dir().join("__cluster_metadata-0")).expect("the metadata log").flatten();
    let mut bytes = 0;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.file_name().into_string().expect("a name");
        if !name.ends_with(".index") && !name.ends_with(".timeindex") {
            bytes += entry.metadata().map_or(0, |metadata| metadata.len());
        }
        names.push(name);
    }
    names.sort();
    (bytes, names)
}

/// A record of about 30 KB in the metadata log.
fn write_metadata(conn: &mut Conn, topic: &str, round: usize) {
    let value = vec![format!("{}:0", round % 10); 7_500].join(",");
    let config = AlterableConfig {
        name: "leader.replication.throttled.replicas".to_owned(),
        config_operation: 0,
        value: Some(value),
        ..Default::default()
    };
    let resource = AlterConfigsResource {
        resource_type: 2,
        resource_name: topic.to_owned(),
        configs: vec![config],
        ..Default::default()
    };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    let response = conn.ask(&request, 1);
    assert_eq!(response.responses[0].error_code, 0, "{response:?}");
}

#[test]
fn the_metadata_log_stays_bounded_and_a_crash_leaves_it_loadable() {
    let mut broker = Broker::start(&[
        "metadata.log.segment.bytes=8388608",
        "metadata.log.max.record.bytes.between.snapshots=1000000",
        "metadata.max.retention.bytes=2000000",
    ]);
    let mut conn = Conn::connect(broker.port).expect("the broker accepts");
    new_topic(&mut conn, "t", 3, &[]);
    produced(&mut conn, "t", 2, batch(&["a"]));
    for round in 0..1_000 {
        write_metadata(&mut conn, "t", round);
        if round % 167 == 166 {
            broker.kill();
            broker.launch();
            conn = Conn::connect(broker.port).expect("the broker accepts");
            assert_eq!(list_offset(&mut conn, "t", 2, -1).1, 1);
        }
    }
    let (bytes, names) = metadata_log(&broker);
    // Thirty megabytes were written. A segment, the one before it until its delay has passed, and a few snapshots are left.
    assert!(!names.iter().any(|name| name == "00000000000000000000.log"), "{names:?}");
    let snapshots = names.iter().filter(|name| name.ends_with(".checkpoint")).count();
    assert!((1..=4).contains(&snapshots), "{names:?}");
    assert!(bytes < 22 << 20, "{bytes} bytes: {names:?}");
    broker.restart();
    let (bytes, names) = metadata_log(&broker);
    assert!(bytes < 12 << 20, "{bytes} bytes: {names:?}");
    let mut conn = Conn::connect(broker.port).expect("the broker accepts");
    assert_eq!(list_offset(&mut conn, "t", 2, -1).1, 1);
    write_metadata(&mut conn, "t", 1);
}
