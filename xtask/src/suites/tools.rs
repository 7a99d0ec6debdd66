//! The programs of Kafka's system tests that come in its tools jar: VerifiableProducer, VerifiableConsumer,
//! VerifiableShareConsumer, TransactionalMessageCopier and ClientCompatibilityTest, each in scenarios in which clients and the
//! broker get SIGKILL. What was acknowledged must arrive; what was copied exactly once must be there exactly once.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Run;
use super::job::Job;
use super::node::{Node, Side, create_topics};
use super::outcome::Results;

pub(super) const SETTINGS: &[&str] = &[
    "group.min.session.timeout.ms=1000",
    "group.consumer.min.session.timeout.ms=5000",
    "group.consumer.session.timeout.ms=10000",
    "group.consumer.min.heartbeat.interval.ms=1000",
    "group.consumer.heartbeat.interval.ms=1000",
    "group.share.min.session.timeout.ms=5000",
    "group.share.session.timeout.ms=10000",
    "group.share.min.heartbeat.interval.ms=1000",
    "group.share.heartbeat.interval.ms=1000",
    "group.share.min.record.lock.duration.ms=1000",
    "group.share.record.lock.duration.ms=10000",
];

const SOON: Duration = Duration::from_secs(180);
const PARTITIONS: i32 = 4;
/// How many scenarios run at the same time.
const JOBS: usize = 2;

type Play = fn(&Stage<'_>, &mut Node) -> Result<(), String>;

/// ClientCompatibilityTest is told what the broker serves, and holds it to both: what it serves and what it does not. ACLs
/// are where the two sides differ.
pub(super) const WITH_ACLS: &str = "client-compatibility-test/ACLs on both sides";

/// Name, whether it belongs to `--quick`, what happens.
const SCENARIOS: &[(&str, bool, Play)] = &[
    ("verifiable-consumer/classic", true, |stage, node| {
        stage.verifiable(node, "VerifiableConsumer", &["--group-protocol", "classic", "--session-timeout", "6000"])
    }),
    ("verifiable-consumer/classic cooperative", false, |stage, node| {
        let assignor = "org.apache.kafka.clients.consumer.CooperativeStickyAssignor";
        let arguments = ["--group-protocol", "classic", "--session-timeout", "6000", "--assignment-strategy", assignor];
        stage.verifiable(node, "VerifiableConsumer", &arguments)
    }),
    ("verifiable-consumer/consumer", true, |stage, node| {
        stage.verifiable(node, "VerifiableConsumer", &["--group-protocol", "consumer"])
    }),
    ("verifiable-consumer/consumer range", false, |stage, node| {
        let arguments = ["--group-protocol", "consumer", "--group-remote-assignor", "range"];
        stage.verifiable(node, "VerifiableConsumer", &arguments)
    }),
    ("verifiable-share-consumer/auto", true, |stage, node| stage.share(node, "auto")),
    ("verifiable-share-consumer/sync", false, |stage, node| stage.share(node, "sync")),
    ("verifiable-share-consumer/async", false, |stage, node| stage.share(node, "async")),
    ("transactional-message-copier/clients killed", true, |stage, node| stage.copy(node, false, &[])),
    ("transactional-message-copier/clients killed, group metadata", false, |stage, node| {
        stage.copy(node, false, &["--use-group-metadata"])
    }),
    ("transactional-message-copier/broker killed", true, |stage, node| stage.copy(node, true, &[])),
    ("transactional-message-copier/broker killed, group mode", false, |stage, node| {
        stage.copy(node, true, &["--use-group-metadata", "--group-mode"])
    }),
    ("client-compatibility-test", true, |stage, node| stage.compatibility(node, stage.run.side == Side::Kafka)),
    (WITH_ACLS, false, |stage, node| stage.compatibility(node, true)),
];

pub(super) fn run(run: &Run<'_>, results: &mut Results) -> Result<(), String> {
    let chosen = SCENARIOS.iter().filter(|(name, quick, _)| run.wants(name, *quick));
    let chosen: Vec<(&str, Play)> = chosen.map(|(name, _, play)| (*name, *play)).collect();
    run.play(JOBS, &chosen, results, |play, dir| {
        let mut node = run.node(&dir.join("node"), &[])?;
        play(&Stage { run, dir: dir.to_owned() }, &mut node).and_then(|()| node.stop())
    });
    Ok(())
}

/// One scenario under way.
struct Stage<'a> {
    run: &'a Run<'a>,
    dir: PathBuf,
}

impl Stage<'_> {
    fn java(&self, name: &str, class: &str, arguments: &[&str]) -> Result<Job, String> {
        let log4j = self.dir.join("log4j2.yaml");
        let layout = "Configuration: {Appenders: {Console: {name: OUT, target: SYSTEM_ERR, \
                      PatternLayout: {pattern: \"%d %p %m (%c)%n%ex\"}}}, Loggers: {Root: {level: WARN, AppenderRef: {ref: OUT}}}}\n";
        fs::write(&log4j, layout).map_err(|error| error.to_string())?;
        let mut command = self.run.programs.java("256m")?;
        command.arg(format!("-Dlog4j2.configurationFile={}", log4j.display()));
        command.arg(format!("org.apache.kafka.tools.{class}")).args(arguments);
        Job::start(name, &mut command, &self.log(name))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    fn produce(&self, address: &str, topic: &str, count: usize, per_second: usize) -> Result<Job, String> {
        let (count, per_second) = (count.to_string(), per_second.to_string());
        let to = ["--bootstrap-server", address, "--topic", topic];
        // Keys spread over the partitions; without them a fast run may meet one alone.
        let how = ["--max-messages", &count, "--throughput", &per_second, "--repeating-keys", "1000"];
        self.java("producer", "VerifiableProducer", &[&to[..], &how[..]].concat())
    }

    /// A group that loses a member and the broker while records flow still gets every acknowledged record.
    fn verifiable(&self, node: &mut Node, class: &str, arguments: &[&str]) -> Result<(), String> {
        let address = node.address();
        create_topics(&address, &[("numbers", PARTITIONS)])?;
        let consumer = |name: &str| {
            let to = ["--bootstrap-server", &address, "--topic", "numbers", "--group-id", "g", "--verbose"];
            self.java(name, class, &[&to, arguments].concat())
        };
        let mut members = vec![("first", consumer("first")?), ("second", consumer("second")?)];
        for (_, member) in &mut members {
            member.wait_for(&["startup_complete"], 0, SOON)?;
        }
        let mut producer = self.produce(&address, "numbers", 20_000, 1000)?;
        let read = ["record_data"];
        for (_, member) in &mut members {
            member.wait_for(&read, 0, SOON)?;
        }
        node.kill_and_restart()?;
        let mut third = consumer("third")?;
        for (_, member) in &mut members {
            let mark = member.mark();
            member.wait_for(&read, mark, SOON)?;
        }
        if let Some((_, first)) = members.first_mut() {
            first.kill();
        }
        producer.wait(SOON, || node.died())?;
        let sent = values(&producer.output(), "producer_send_success");
        let all_is_there = || {
            let logs = ["first", "second", "third"].map(|name| fs::read_to_string(self.log(name)).unwrap_or_default());
            let got = logs.iter().fold(BTreeMap::new(), |mut all, log| {
                all.extend(values(log, "record_data"));
                all
            });
            sent.keys().filter(|value| !got.contains_key(*value)).count()
        };
        let missing = wait_until_zero(all_is_there);
        for (_, member) in members.iter_mut().skip(1) {
            member.stop(SOON)?;
        }
        third.stop(SOON)?;
        match (sent.len(), missing) {
            // The tool gives up a record that met the broker's end: its sends are not retried.
            (5_000.., 0) => Ok(()),
            (acknowledged, missing) => Err(format!("{acknowledged} acknowledged, {missing} of them never came")),
        }
    }

    fn share(&self, node: &mut Node, mode: &str) -> Result<(), String> {
        let arguments = ["--acknowledgement-mode", mode, "--offset-reset-strategy", "earliest"];
        self.verifiable(node, "VerifiableShareConsumer", &arguments)
    }

    /// Copiers with random aborts that are killed themselves, or whose broker is, copy every record exactly once.
    fn copy(&self, node: &mut Node, kill_the_broker: bool, arguments: &[&str]) -> Result<(), String> {
        const RECORDS: usize = 6000;
        let address = node.address();
        create_topics(&address, &[("input", 2), ("output", 2)])?;
        self.produce(&address, "input", RECORDS, 1_000_000)?.wait(SOON, || node.died())?;
        let copier = |partition: usize| {
            let (number, id) = (partition.to_string(), format!("copier-{partition}"));
            let from = ["--broker-list", &address, "--input-topic", "input", "--input-partition", &number];
            let to = ["--output-topic", "output", "--consumer-group", "copiers", "--transactional-id", &id];
            let how = ["--transaction-size", "50", "--transaction-timeout", "10000", "--enable-random-aborts"];
            self.java(&id, "TransactionalMessageCopier", &[&from[..], &to[..], &how[..], arguments].concat())
        };
        let mut copiers = [copier(0)?, copier(1)?];
        for round in 0..3 {
            for (partition, copier_job) in copiers.iter_mut().enumerate() {
                let mark = if round == 0 { 0 } else { copier_job.mark() };
                let works = copier_job.wait_for(&["totalProcessed"], mark, SOON);
                // With fewer records than the other, or while that took its time, one may be through before its turn comes.
                let is_through = copier_job.ended().is_some_and(|status| status.success());
                if !is_through {
                    works?;
                }
                if !kill_the_broker && !is_through {
                    copier_job.kill();
                    *copier_job = copier(partition)?;
                }
            }
            if kill_the_broker {
                node.kill_and_restart()?;
            }
        }
        for job in &mut copiers {
            let status = job.wait(SOON, || node.died())?;
            if !status.success() {
                return Err(format!("a copier ended with {status}"));
            }
        }
        let from = ["--bootstrap-server", &address, "--topic", "output", "--from-beginning"];
        let how = ["--isolation-level", "read_committed", "--timeout-ms", "15000"];
        let mut reader = self.java("reader", "consumer.ConsoleConsumer", &[&from[..], &how[..]].concat())?;
        reader.wait(SOON, || node.died())?;
        let mut copies = BTreeMap::<u64, usize>::new();
        for value in reader.output().lines().filter_map(|line| line.trim().parse().ok()) {
            *copies.entry(value).or_default() += 1;
        }
        let twice = copies.values().filter(|count| **count > 1).count();
        match (copies.len(), twice) {
            (RECORDS, 0) => Ok(()),
            (distinct, twice) => Err(format!("of {RECORDS} records {distinct} were copied, {twice} more than once")),
        }
    }

    fn compatibility(&self, node: &mut Node, acls: bool) -> Result<(), String> {
        let address = node.address();
        create_topics(&address, &[("compatibility", 1)])?;
        let supported = ["offsets-for-times", "cluster-id", "create-topics", "describe-configs", "idempotent-producer"];
        let mut arguments =
            vec!["--bootstrap-server".to_owned(), address, "--topic".to_owned(), "compatibility".to_owned()];
        let served = supported.map(|feature| (feature, true));
        for (feature, is_served) in served.into_iter().chain([("describe-acls", acls)]) {
            let answer = if is_served { "True" } else { "False" };
            arguments.extend([format!("--{feature}-supported"), answer.to_owned()]);
        }
        arguments
            .extend(["--expect-record-too-large-exception", "False", "--num-cluster-nodes", "1"].map(str::to_owned));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut job = self.java("test", "ClientCompatibilityTest", &arguments)?;
        let status = job.wait(SOON, || node.died())?;
        if status.success() { Ok(()) } else { Err(last_line(&self.log("test"))) }
    }
}

/// The values of events of one name, with how often each came.
fn values(log: &str, event: &str) -> BTreeMap<u64, usize> {
    let mut values = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains(event)) {
        let event: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        if let Some(value) = event.get("value").and_then(|value| value.as_str()?.parse().ok()) {
            *values.entry(value).or_default() += 1;
        }
    }
    values
}

/// Looks until nothing is missing; answers what still is when patience ends.
fn wait_until_zero(mut missing: impl FnMut() -> usize) -> usize {
    let until = std::time::Instant::now() + SOON;
    loop {
        match missing() {
            0 => return 0,
            left if std::time::Instant::now() > until => return left,
            _ => std::thread::sleep(Duration::from_secs(1)),
        }
    }
}

fn last_line(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().rfind(|line| !line.trim_start().starts_with("at ")).unwrap_or("no output").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_by_event() {
        let log = r#"
            {"name":"startup_complete"}
            {"timestamp":1,"name":"record_data","key":null,"value":"7","topic":"t"}
            {"timestamp":1,"name":"record_data","key":"1","value":"7","topic":"t"}
            {"name":"producer_send_success","value":"8"}
            half a line with record_data"#;
        assert_eq!(values(log, "record_data"), BTreeMap::from([(7, 2)]));
    }
}
