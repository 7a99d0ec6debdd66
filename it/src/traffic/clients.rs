//! The clients whose traffic is recorded, and what they do.

use std::path::Path;
use std::process::Command;

use taccola_wire::messages::{FindCoordinatorRequest, InitProducerIdRequest};

use crate::clients::{go, kafka_tool, kcat, python};
use crate::conn::Conn;
use crate::group::find_coordinator;
use crate::requests::{list_offset, new_topic};
use crate::{eventually, run, run_with_input};

/// A client, and its program: `None` where it is not installed.
pub struct Client {
    pub name: &'static str,
    pub run: fn(&str) -> Option<()>,
}

pub const CLIENTS: &[Client] = &[
    Client { name: "kcat", run: with_kcat },
    Client { name: "confluent-kafka", run: |bootstrap| with_python("confluent_kafka", bootstrap) },
    Client { name: "kafka-python", run: |bootstrap| with_python("kafka", bootstrap) },
    Client { name: "franz-go", run: with_go },
    Client { name: "console-tools", run: with_tools },
];

/// Before a recording and before its replay: coordinators, producer ids and the topics that nobody creates are there, so that a
/// client is not told to come again.
pub fn warm_up(port: u16) {
    let mut conn = Conn::connect(port).expect("a connection");
    find_coordinator(&mut conn, "warm-up");
    let key_type = 1;
    let find = FindCoordinatorRequest { key_type, coordinator_keys: vec!["warm-up".to_owned()], ..Default::default() };
    eventually("a coordinator", || (conn.ask(&find, 4).coordinators[0].error_code == 0).then_some(()));
    let init = InitProducerIdRequest {
        transactional_id: Some("warm-up".to_owned()),
        transaction_timeout_ms: 60_000,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    eventually("a producer id", || (conn.ask(&init, 5).error_code == 0).then_some(()));
    new_topic(&mut conn, "kcat", 1, &[]);
    eventually("a leader", || (list_offset(&mut conn, "kcat", 0, -1).0 == 0).then_some(()));
}

fn here(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).display().to_string()
}

/// Produces with each codec, reads as nobody and as a group's member, lists.
fn with_kcat(bootstrap: &str) -> Option<()> {
    let kcat = kcat("traffic")?;
    let tool = |arguments: &[&str], input: &str| {
        run_with_input(Command::new(kcat).args(["-b", bootstrap]).args(arguments), input);
    };
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        tool(&["-P", "-t", "kcat", "-p", "0", "-z", codec, "-K", ":"], "a:one\nb:two\nc:three\n");
    }
    tool(&["-P", "-t", "kcat", "-p", "0", "-X", "enable.idempotence=true"], "four\nfive\n");
    tool(&["-C", "-t", "kcat", "-p", "0", "-o", "beginning", "-e", "-q"], "");
    tool(&["-C", "-t", "kcat", "-p", "0", "-o", "-3", "-c", "3", "-q"], "");
    tool(&["-C", "-t", "kcat", "-p", "0", "-o", "s@1000", "-c", "2", "-q"], "");
    tool(&["-Q", "-t", "kcat:0:1000"], "");
    tool(&["-G", "kcats", "-c", "5", "-q", "-X", "auto.offset.reset=earliest", "kcat"], "");
    tool(&["-L"], "");
    Some(())
}

fn with_python(module: &str, bootstrap: &str) -> Option<()> {
    let python = python("traffic", module)?;
    run(Command::new(python).args([&here("python/traffic.py"), module, bootstrap]));
    Some(())
}

fn with_go(bootstrap: &str) -> Option<()> {
    let go = go("traffic")?;
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let program = temporary.path().join("franz");
    run(Command::new(go).args(["build", "-o"]).arg(&program).arg(".").current_dir(here("go")));
    run(Command::new(&program).args([bootstrap, "traffic"]));
    Some(())
}

/// Java's producer, consumers of three kinds and admin.
fn with_tools(bootstrap: &str) -> Option<()> {
    let mut command = kafka_tool("traffic", &here("java/Transcript.java"))?;
    run_with_input(command.arg(bootstrap), include_str!("../../transcripts/traffic.commands"));
    Some(())
}
