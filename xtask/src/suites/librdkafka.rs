//! librdkafka's own tests (C and C++), as its npm package carries them: each number a process of its own. The default and the
//! `noautocreate` scenario; classic groups, or the consumer protocol for all consumers.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::Run;
use super::fetch::{once, script};
use super::job::Job;
use super::node::Node;
use super::outcome::{Outcome, Results};

/// Of the npm package, which holds librdkafka 2.15.1.
const PACKAGE: &str = "1.10.1";
pub(super) const SETTINGS: &[&str] = &[
    "num.partitions=4",
    "auto.create.topics.enable=true",
    // 0102, 0113 and 0118 count on two members in a group's first generation.
    "group.initial.rebalance.delay.ms=1000",
    // 0172, 0173 and 0176 set locks of three seconds.
    "group.share.min.record.lock.duration.ms=1000",
    "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found=true",
];
pub(super) const NO_AUTO_CREATE: &[&str] = &["num.partitions=4", "auto.create.topics.enable=false"];
pub(super) const CHANGES: &str = "topics that ask for three replicas get one";

/// One number; 0113 alone takes minutes.
const TEST_WITHIN: Duration = Duration::from_secs(1200);
/// How many numbers run at the same time: they wait more than they work.
const JOBS: usize = 10;
/// TLS, OIDC or SASL: 0097, 0126, 0135, 0142. Brokers in three racks: 0101.
const LEFT_OUT: [&str; 5] = ["0097", "0126", "0135", "0142", "0101"];
/// With `--quick`: producing, idempotence, transactions, groups, regex, admin, headers, share consumers.
const QUICK: [&str; 14] =
    ["0001", "0004", "0011", "0018", "0030", "0033", "0050", "0061", "0073", "0080", "0090", "0103", "0130", "0171"];

/// These take minutes each and begin first, so that the others pass beside them.
const LONG: [&str; 10] = ["0113", "0098", "0180", "0171", "0172", "0170", "0184", "0077", "0173", "0177"];

const FETCH: &str = r#"npm pack --silent "@confluentinc/kafka-javascript@$1"
    tar xzf ./*.tgz --strip-components=3 package/deps/librdkafka && rm ./*.tgz
    sed -i 's/rd_kafka_NewTopic_new(topicname, partition_cnt, replication_factor,/rd_kafka_NewTopic_new(topicname, partition_cnt, RD_MIN(replication_factor, 1),/' tests/test.c"#;
const BUILD: &str = "./configure && make -j2 libs && make -j2 -C tests build";

pub(super) fn classic(run: &Run<'_>, results: &mut Results) -> Result<(), String> {
    all(run, results, "default", "")
}

/// Without the share consumers, whose protocol is their own.
pub(super) fn consumer(run: &Run<'_>, results: &mut Results) -> Result<(), String> {
    all(run, results, "default", "consumer")
}

pub(super) fn no_auto_create(run: &Run<'_>, results: &mut Results) -> Result<(), String> {
    all(run, results, "noautocreate", "")
}

fn all(run: &Run<'_>, results: &mut Results, scenario: &str, protocol: &str) -> Result<(), String> {
    // The three suites share one build.
    let home = run.home.with_file_name("librdkafka").join(PACKAGE);
    once(&home, |dir| script(dir, "fetch", FETCH, &[PACKAGE]).and_then(|()| script(dir, "build", BUILD, &[])))?;
    let source = fs::read_to_string(home.join("tests/test.c")).map_err(|error| error.to_string())?;
    let tests: Vec<String> = names(&source, scenario)
        .into_iter()
        .filter(|name| !LEFT_OUT.iter().any(|number| name.starts_with(number)))
        .filter(|name| protocol.is_empty() || !(name.starts_with("017") || name.starts_with("018")))
        .filter(|name| run.wants(name, QUICK.iter().any(|number| name.starts_with(number))))
        .collect();
    let mut node = run.node(&run.out.join("node"), &[])?;
    kafka_path(run)?;
    let configuration = format!("metadata.broker.list={}\ntest.timeout.multiplier=4\n", node.address());
    fs::write(run.out.join("test.conf"), configuration).map_err(|error| error.to_string())?;
    let numbers: BTreeSet<&str> = tests.iter().filter_map(|name| name.get(..4)).collect();
    let jobs = if run.again.is_empty() { JOBS } else { 1 };
    let mut waiting: Vec<&str> = numbers.into_iter().collect();
    // Taken from the end: the long ones, then the rest by number.
    waiting.sort_by_key(|number| (!LONG.contains(number), *number));
    waiting.reverse();
    let mut running: Vec<Number> = Vec::new();
    while !waiting.is_empty() || !running.is_empty() {
        while running.len() < jobs
            && let Some(number) = waiting.pop()
        {
            running.push(Number::start(run, &home, &node, scenario, protocol, number)?);
        }
        node.alive()?;
        if run.left().is_zero() {
            return Err(format!("not through after {} s", run.within.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(200));
        let mut going = Vec::new();
        for mut number in running {
            if number.has_ended() { number.read(run, &tests, results) } else { going.push(number) }
        }
        running = going;
    }
    node.stop()
}

/// The tests of one number, as a process.
struct Number {
    number: String,
    report: PathBuf,
    job: Job,
    until: Instant,
}

impl Number {
    fn start(
        run: &Run<'_>,
        home: &Path,
        node: &Node,
        scenario: &str,
        protocol: &str,
        number: &str,
    ) -> Result<Self, String> {
        let report = run.out.join(format!("{number}.json"));
        let mut command = Command::new("./test-runner");
        if run.quick {
            command.arg("-Q");
        }
        command.args(["-p1", "-L", "-s", scenario]).current_dir(home.join("tests"));
        command.env("TESTS", number).env("TEST_REPORT", &report).env("LD_LIBRARY_PATH", "../src:../src-cpp");
        command.env("RDKAFKA_TEST_CONF", run.out.join("test.conf")).env("TEST_KAFKA_VERSION", "4.3.1");
        command.env("KAFKA_PATH", run.out.join("kafka")).env("BROKERS", node.address());
        if !protocol.is_empty() {
            command.env("TEST_CONSUMER_GROUP_PROTOCOL", protocol);
        }
        let job = Job::start(number, &mut command, &run.out.join(format!("{number}.log")))?;
        Ok(Self { number: number.to_owned(), report, job, until: Instant::now() + TEST_WITHIN })
    }

    fn has_ended(&mut self) -> bool {
        if Instant::now() > self.until {
            self.job.kill();
        }
        self.job.ended().is_some()
    }

    /// What the number's report says of its tests; one that is not in it crashed or hung.
    fn read(self, run: &Run<'_>, tests: &[String], results: &mut Results) {
        // The report has control characters in its strings.
        let text = fs::read_to_string(&self.report).unwrap_or_default().replace(char::is_control, " ");
        let report: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        for name in tests.iter().filter(|name| name.starts_with(&self.number)) {
            let state = report.get("tests").and_then(|tests| tests.get(name)).and_then(|test| test.get("state"));
            let outcome = match state.and_then(|state| state.as_str()) {
                Some("PASSED") => Outcome::Passed,
                Some("SKIPPED") => Outcome::Skipped,
                _ => Outcome::Failed,
            };
            if outcome == Outcome::Failed {
                run.say(name, outcome, state.is_none().then_some("it crashed or hung"));
            }
            results.add(name, outcome);
        }
    }
}

/// The tests of a scenario in librdkafka's table that need a broker and nobody at the keyboard.
fn names(source: &str, scenario: &str) -> Vec<String> {
    let table = source.split_once("struct test tests[]").map_or("", |(_, rest)| rest);
    let table = table.split_once("{NULL}").map_or(table, |(table, _)| table);
    let mut names = Vec::new();
    for entry in table.split("_TEST(").skip(1) {
        let name: String = entry.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let of = entry
            .split_once(".scenario = \"")
            .and_then(|(_, rest)| rest.split_once('"'))
            .map_or("default", |(of, _)| of);
        let alone = entry.contains("TEST_F_LOCAL") || entry.contains("TEST_F_MANUAL") || name.ends_with("_mock");
        if !alone && of.split(',').any(|of| of == scenario) {
            names.push(name);
        }
    }
    names
}

/// A Kafka installation as the tests look for it in `KAFKA_PATH`: a few tools, out of the jars.
fn kafka_path(run: &Run<'_>) -> Result<(), String> {
    let bin = run.out.join("kafka/bin");
    let script = "mkdir -p \"$1\" && ln -s \"$2\" \"$1/../libs\"
        tool() { printf '#!/bin/sh\\nexec java -Xmx256m -cp \"$CLASSPATH:%s/*\" %s \"$@\"\\n' \"$1\" \"$2\" >\"$3\"; chmod +x \"$3\"; }
        tool \"$2\" org.apache.kafka.tools.TopicCommand \"$1/kafka-topics.sh\"
        tool \"$2\" org.apache.kafka.tools.AclCommand \"$1/kafka-acls.sh\"
        tool \"$2\" '' \"$1/kafka-run-class.sh\"";
    let (bin, jars) = (bin.display().to_string(), run.programs.jars()?.display().to_string());
    super::fetch::script(&run.out, "tools", script, &[&bin, &jars])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_tests_is_read() {
        let source = r#"
            _TEST_DECL(0001_multiobj);
            struct test tests[] = {
                _TEST(0000_unittests, TEST_F_LOCAL),
                _TEST(0001_multiobj, 0),
                _TEST(0030_offset_commit, 0, TEST_BRKVER(0, 9, 0, 0), .scenario = "default,cooperative"),
                _TEST(0107_topic_recreate, 0, .scenario = "noautocreate"),
                _TEST(0009_mock, TEST_F_KNOWN_ISSUE),
                {NULL}};
            _TEST(0999_behind, 0)"#;
        assert_eq!(names(source, "default"), ["0001_multiobj", "0030_offset_commit"]);
        assert_eq!(names(source, "noautocreate"), ["0107_topic_recreate"]);
    }
}
