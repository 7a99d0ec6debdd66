//! What Apache Kafka's console tools print on this broker is what they print on Kafka 4.3.1: `it/transcripts/tools.commands`
//! run one after another (`it/java/Transcript.java`), compared with `it/transcripts/tools.kafka`, which Kafka gave.
//!
//! Not compared: ids, ports, times and folders; sizes of logs; the words of an error, which are the broker's own; stack
//! traces; the order in which groups and transactions are listed. `kafka-cluster unregister` of the broker itself is not
//! among the commands: Kafka does it and serves nothing any more, here it is refused. `UPDATE=1` starts a fresh Kafka and
//! writes the file anew.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use regex::Regex;
use taccola_it::clients::kafka_tool;
use taccola_it::differential::coverage::NOT_SERVED;
use taccola_it::kafka::Kafka;
use taccola_it::{Broker, run_with_input};

/// Files that commands name by the word in capitals.
const FILES: [(&str, &str); 5] = [
    ("DELETED", r#"{"partitions":[{"topic":"second","partition":0,"offset":1}],"version":1}"#),
    ("ELECTED", r#"{"partitions":[{"topic":"second","partition":0},{"topic":"nowhere","partition":1}]}"#),
    ("MOVED", r#"{"topics":[{"topic":"second"}],"version":1}"#),
    ("MISPLACED", r#"{"version":1,"partitions":[{"topic":"second","partition":0,"replicas":[9]}]}"#),
    ("PLACED", r#"{"version":1,"partitions":[{"topic":"second","partition":0,"replicas":[0]}]}"#),
];

fn transcripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts")
}

/// The tools' words on all commands, or `None` where they are not installed.
fn transcript(server: &str) -> Option<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("java/Transcript.java");
    let mut command = kafka_tool("the_tools_say_what_they_say_on_kafka", source.to_str().expect("UTF-8"))?;
    let files = tempfile::tempdir().expect("a folder");
    let mut commands = std::fs::read_to_string(transcripts().join("tools.commands")).expect("the commands");
    for (name, content) in FILES {
        let path = files.path().join(format!("{name}.json"));
        std::fs::write(&path, content).expect("written");
        commands = commands.replace(&format!("-file {name}\n"), &format!("-file {}\n", path.display()));
    }
    let said = run_with_input(command.arg(server), &commands);
    Some(said.replace(files.path().to_str().expect("UTF-8"), ""))
}

/// Without what may differ.
fn normal(said: &str) -> String {
    let rules = [
        // Ports, ids, times, folders, sequence numbers of metadata.
        (r"127\.0\.0\.1:\d+|localhost:\d+", "SERVER"),
        (r"(TopicId: |directoryId\W+|ClusterId:\s+|Cluster ID: )[A-Za-z0-9_-]{22}", "${1}ID"),
        (r"^(0\s+)[A-Za-z0-9_-]{22}\s+\d+\s+0\s+\d+\s+\d+", "${1}REPLICA"),
        (r"Epoch: \d+", "Epoch: N"),
        (r"(HighWatermark|LeaderEpoch):\s+\d+", "${1}: N"),
        (r#"("logDir":"|"log_dirs":\[")/[^"]*"#, "${1}DIR"),
        (r"^(0\s+\S+\s+)\d+(\s+null)", "${1}PORT${2}"),
        (r"-file \S*/", "-file "),
        // A record's timestamp takes a byte or two, as it is of the same millisecond as the batch's first or not.
        (r#""size":[1-9]\d*"#, "\"size\":N"),
        // Transactions: producer ids and times.
        (r"^(\w+\s+0\s+)\d+(\s+[A-Z]\w+\s*)$", "${1}ID${2}"),
        (r"^(0\s+\w+\s+)\d+(\s+\d+\s+[A-Z]\w+\s+60000\s+)\d+\s+\d+\s*", "${1}ID${2}TIMES "),
        (r"^\d+(\s+\d+\s+-?\d+\s+\d+\s+)\d{13}", "ID${1}TIME"),
        // The words of errors.
        (r"(Exception: ).*", "${1}…"),
        (r"(Error while executing (?:topic|client metrics) command : ).*", "${1}…"),
        (r"(Could not (?:up|down)grade \S+ to \S+?\.) .*", "${1} …"),
        (r"(Error: ).*", "${1}…"),
    ];
    let rules = rules.map(|(pattern, by)| (Regex::new(pattern).expect("a pattern"), by));
    let mut out = String::new();
    let mut section: Vec<String> = Vec::new();
    let mut sorted = false;
    let mut flush = |section: &mut Vec<String>, sorted: bool| {
        if sorted {
            section.sort();
        }
        for line in section.drain(..) {
            writeln!(out, "{}", line.trim_end()).expect("text");
        }
    };
    let told = |line: &str| {
        let line = line.trim_start();
        // An API that is not served has a line in kafka-broker-api-versions all the same.
        let absent = NOT_SERVED.iter().any(|key| line.starts_with(&format!("{key}({}): ", key.code())));
        !absent && !line.starts_with("at ") && !line.starts_with("... ")
    };
    for line in said.lines().filter(|line| told(line)) {
        let mut line = line.to_owned();
        for (pattern, by) in &rules {
            line = pattern.replace_all(&line, *by).into_owned();
        }
        if line.starts_with("$ ") {
            flush(&mut section, sorted);
            sorted = line.contains("-groups --") || line.contains("-transactions list");
            flush(&mut vec![line], false);
        } else {
            section.push(line);
        }
    }
    flush(&mut section, sorted);
    out
}

#[test]
fn the_tools_say_what_they_say_on_kafka() {
    let path = transcripts().join("tools.kafka");
    if std::env::var_os("UPDATE").is_some() {
        let home = tempfile::tempdir().expect("a folder");
        let test = "the_tools_say_what_they_say_on_kafka";
        // As a node that nobody has set anything for.
        let Some(kafka) = Kafka::start(test, home.path(), &["offsets.topic.num.partitions=50"], true) else { return };
        let said = transcript(&format!("127.0.0.1:{}", kafka.port)).expect("the tools");
        return std::fs::write(&path, normal(&said)).expect("written");
    }
    let broker = Broker::start(&[
        "transaction.state.log.replication.factor=1",
        "transaction.state.log.min.isr=1",
        "share.coordinator.state.topic.replication.factor=1",
        "share.coordinator.state.topic.min.isr=1",
    ]);
    let Some(said) = transcript(&broker.bootstrap()) else { return };
    let (said, expected) = (normal(&said), std::fs::read_to_string(&path).expect("a transcript"));
    let sections = |text: &str| text.split("\n$ ").map(str::to_owned).collect::<Vec<_>>();
    let mut different = String::new();
    for (ours, kafkas) in sections(&said).iter().zip(&sections(&expected)) {
        if ours != kafkas {
            write!(different, "--- Kafka\n{kafkas}\n--- here\n{ours}\n\n").expect("text");
        }
    }
    assert!(different.is_empty() && sections(&said).len() == sections(&expected).len(), "{different}");
}
