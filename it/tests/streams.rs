//! A Kafka Streams application (`it/java/WordCount.java`) on the broker: streams groups (KIP-1071) and the classic protocol,
//! at least once and exactly once, with a second instance that comes and goes and a broker that is killed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use taccola_it::clients::kafka_tool;
use taccola_it::{Broker, run};

/// Longest wait for the application: a JVM starts, restores state, and shares the machine with other tests.
const APP_WITHIN: Duration = Duration::from_secs(180);
/// Short rounds, so that a rebalance takes no minutes.
const BROKER: [&str; 6] = [
    "group.streams.min.heartbeat.interval.ms=500",
    "group.streams.heartbeat.interval.ms=500",
    "group.streams.min.session.timeout.ms=10000",
    "group.streams.session.timeout.ms=10000",
    "group.streams.initial.rebalance.delay.ms=1000",
    "transaction.state.log.replication.factor=1",
];
const WORDS: [&str; 9] = ["all", "streams", "lead", "to", "kafka", "or", "to", "another", "broker"];

/// The Java program in one of its modes; `None` where Java or the jars are missing.
fn program(test: &str) -> Option<Command> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("java/WordCount.java");
    kafka_tool(test, source.to_str().expect("a path in UTF-8"))
}

/// One running instance of the application.
struct App {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl App {
    fn start(test: &str, broker: &Broker, state: &Path, settings: &[&str]) -> Self {
        let mut command = program(test).expect("it was there");
        command.arg("app").arg(broker.bootstrap()).arg(state).args(settings);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("java runs");
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let outputs: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().expect("piped")), Box::new(child.stderr.take().expect("piped"))];
        for output in outputs {
            let lines = lines.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    lines.lock().expect("no panic under this lock").push(line);
                }
            });
        }
        let stdin = child.stdin.take();
        Self { child, stdin, lines }
    }

    fn said(&self) -> Vec<String> {
        self.lines.lock().expect("no panic under this lock").clone()
    }

    fn wait_for(&self, what: &str, found: impl Fn(&[String]) -> bool) {
        let until = Instant::now() + APP_WITHIN;
        while !found(&self.said()) {
            assert!(Instant::now() < until, "the application never {what}:\n{}", self.said().join("\n"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn wait_until_running(&self) {
        self.wait_for("ran", |lines| lines.iter().any(|line| line == "STATE RUNNING"));
    }

    /// How many active tasks it has.
    fn tasks(&mut self) -> usize {
        let before = self.said().iter().filter(|line| line.starts_with("TASKS ")).count();
        self.stdin.as_mut().expect("it is open").write_all(b"\n").expect("it reads");
        self.wait_for("answered", |lines| lines.iter().filter(|l| l.starts_with("TASKS ")).count() > before);
        let said = self.said();
        let last = said.iter().rfind(|line| line.starts_with("TASKS ")).expect("it answered");
        last.trim_start_matches("TASKS ").parse().expect("a number")
    }

    fn close(mut self) {
        drop(self.stdin.take());
        self.wait_for("closed", |lines| lines.iter().any(|line| line.starts_with("CLOSED ")));
        assert!(self.said().iter().any(|line| line == "CLOSED true"), "{}", self.said().join("\n"));
        assert!(self.child.wait().expect("our child").success());
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- application ---\n{}", self.said().join("\n"));
        }
    }
}

/// What must come out of the first `lines` lines.
fn expected(lines: usize) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for i in 0..lines {
        for word in [WORDS[i % 9].to_owned(), WORDS[(i * 7) % 9].to_owned(), format!("word{}", i % 10)] {
            *counts.entry(word).or_insert(0) += 1;
        }
    }
    counts
}

/// Feeds more lines and compares what the application makes of all of them.
fn count(test: &str, broker: &Broker, from: usize, to: usize, isolation: &str) {
    let mut command = program(test).expect("it was there");
    let (from, lines) = (from.to_string(), to.to_string());
    command.args(["count", &broker.bootstrap(), &from, &lines, isolation]);
    let said = run(&mut command);
    let want = expected(to).iter().fold(String::new(), |mut text, (word, count)| {
        let _ = writeln!(text, "{word} {count}");
        text
    });
    assert_eq!(said, want, "after {to} lines");
}

/// The whole life of an application.
fn application(test: &str, settings: &[&str], isolation: &str) {
    let Some(mut topics) = program(test) else { return };
    let mut broker = Broker::start(&BROKER);
    run(topics.args(["topics", &broker.bootstrap()]));
    let states = tempfile::tempdir().expect("a temporary folder");
    let (first_dir, second_dir) = (states.path().join("1"), states.path().join("2"));
    let settings = [&["application.id=words"], settings].concat();

    let mut first = App::start(test, &broker, &first_dir, &settings);
    first.wait_until_running();
    count(test, &broker, 0, 200, isolation);
    assert_eq!(first.tasks(), 8, "two subtopologies of four partitions");

    let mut second = App::start(test, &broker, &second_dir, &settings);
    second.wait_until_running();
    let until = Instant::now() + APP_WITHIN;
    while (first.tasks(), second.tasks()) != (4, 4) {
        assert!(Instant::now() < until, "the tasks were not shared");
        std::thread::sleep(Duration::from_millis(500));
    }
    count(test, &broker, 200, 400, isolation);

    broker.kill();
    broker.launch();
    count(test, &broker, 400, 600, isolation);

    second.close();
    count(test, &broker, 600, 800, isolation);
    assert_eq!(first.tasks(), 8);
    first.close();
}

#[test]
fn a_streams_group_counts_words() {
    application("a_streams_group_counts_words", &["group.protocol=streams"], "read_uncommitted");
}

#[test]
fn a_classic_group_counts_words() {
    application(
        "a_classic_group_counts_words",
        &["group.protocol=classic", "session.timeout.ms=10000"],
        "read_uncommitted",
    );
}

#[test]
fn a_streams_group_counts_words_exactly_once() {
    let settings = ["group.protocol=streams", "processing.guarantee=exactly_once_v2"];
    application("a_streams_group_counts_words_exactly_once", &settings, "read_committed");
}

#[test]
fn a_classic_group_counts_words_exactly_once() {
    let settings = ["group.protocol=classic", "session.timeout.ms=10000", "processing.guarantee=exactly_once_v2"];
    application("a_classic_group_counts_words_exactly_once", &settings, "read_committed");
}
