//! Members of consumer groups in processes of their own: `it/java/Members.java` (Apache Kafka's client) and
//! `it/python/members.py` (librdkafka). Both are told what to do line by line, and say line by line what they see.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::clients::{kafka_tool, python};

/// Longest wait for members: a JVM starts, sessions end, and the machine is shared with other tests.
const MEMBERS_WITHIN: Duration = Duration::from_secs(90);

/// Whose client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Java,
    Librdkafka,
}

/// One process with any number of members.
pub struct Members {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Arc<Mutex<Vec<String>>>,
}

/// A record as a member got it: its partition (`t-0`), offset and value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Got {
    pub partition: String,
    pub offset: i64,
    pub value: String,
}

impl Members {
    /// A process without members; `None`, and said so, where the client is not installed.
    pub fn new(test: &str, kind: Kind, bootstrap: &str) -> Option<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = match kind {
            Kind::Java => kafka_tool(test, folder.join("java/Members.java").to_str().expect("a path in UTF-8"))?,
            Kind::Librdkafka => {
                let mut command = Command::new(python(test, "confluent_kafka")?);
                command.arg(folder.join("python/members.py"));
                command
            }
        };
        command.arg(bootstrap);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
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
        Some(Self { child, stdin, lines })
    }

    fn tell(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("its input is open");
        writeln!(stdin, "{line}").expect("it reads");
    }

    /// A member joins with these settings of its client; `topics` and `pattern` say what it wants.
    pub fn start(&mut self, name: &str, settings: &[&str]) {
        self.tell(&format!("start {name} {}", settings.join(" ")));
    }

    /// A member leaves; returns when it has.
    pub fn close(&mut self, name: &str) {
        self.tell(&format!("close {name}"));
        self.wait_for(name, "CLOSED", |_| true);
    }

    /// SIGKILL to all of them.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn said(&self) -> Vec<String> {
        self.lines.lock().expect("no panic under this lock").clone()
    }

    /// What follows `NAME WORD ` in the lines of a member.
    fn lines_of(&self, name: &str, word: &str) -> Vec<String> {
        let lines = self.said();
        let rests = lines.iter().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.strip_prefix(word));
        rests.map(|rest| rest.trim_start().to_owned()).collect()
    }

    /// Waits for a line of a member; answers what stands behind the word.
    pub fn wait_for(&self, name: &str, word: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.wait(&format!("{name} {word}"), || self.lines_of(name, word).into_iter().find(|rest| wanted(rest)))
    }

    fn wait<T>(&self, what: &str, found: impl Fn() -> Option<T>) -> T {
        let until = Instant::now() + MEMBERS_WITHIN;
        loop {
            if let Some(found) = found() {
                return found;
            }
            assert!(Instant::now() < until, "members never came to {what}:\n{}", self.said().join("\n"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What a member has now.
    pub fn assigned(&self, name: &str) -> BTreeSet<String> {
        let last = self.lines_of(name, "ASSIGNED").pop().unwrap_or_default();
        last.split_whitespace().map(str::to_owned).collect()
    }

    /// How often a member's assignment changed.
    pub fn changes(&self, name: &str) -> usize {
        self.lines_of(name, "ASSIGNED").len()
    }

    pub fn errors(&self, name: &str) -> Vec<String> {
        self.lines_of(name, "ERROR")
    }

    /// All records of all members, in the order in which they came.
    pub fn got(&self) -> Vec<Got> {
        let row = |line: String| {
            let mut words = line.split(' ').skip_while(|word| *word != "GOT").skip(1);
            let partition = words.next()?.to_owned();
            Some(Got { partition, offset: words.next()?.parse().ok()?, value: words.next()?.to_owned() })
        };
        self.said().into_iter().filter_map(row).collect()
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- members ---\n{}", self.said().join("\n"));
        }
    }
}

/// Waits until these members have so many partitions each, none of them twice; answers who has what.
pub fn shared(members: &[(&Members, &str)], counts: &[usize]) -> BTreeMap<String, BTreeSet<String>> {
    let until = Instant::now() + MEMBERS_WITHIN;
    loop {
        let now: Vec<(String, BTreeSet<String>)> =
            members.iter().map(|(process, name)| ((*name).to_owned(), process.assigned(name))).collect();
        let all: BTreeSet<&String> = now.iter().flat_map(|(_, assigned)| assigned).collect();
        let found: Vec<usize> = now.iter().map(|(_, assigned)| assigned.len()).collect();
        if found == counts && all.len() == counts.iter().sum::<usize>() {
            return now.into_iter().collect();
        }
        assert!(Instant::now() < until, "not {counts:?}: {now:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the processes together got all these values.
pub fn read_all(processes: &[&Members], values: &BTreeSet<String>) {
    let until = Instant::now() + MEMBERS_WITHIN;
    loop {
        let got: BTreeSet<String> = processes.iter().flat_map(|p| p.got()).map(|got| got.value).collect();
        let missing: Vec<&String> = values.difference(&got).collect();
        if missing.is_empty() {
            return;
        }
        assert!(Instant::now() < until, "{} of {} are missing: {missing:?}", missing.len(), values.len());
        std::thread::sleep(Duration::from_millis(20));
    }
}
