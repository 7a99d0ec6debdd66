//! kafka-python's integration tests: a client in pure Python.

use std::process::Command;

use super::Run;
use super::fetch::{once, script};
use super::job::Job;
use super::outcome::{Outcome, Results};

pub(super) const VERSION: &str = "3.0.12";
pub(super) const SETTINGS: &[&str] = &[
    "num.partitions=4",
    "auto.create.topics.enable=true",
    "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found=true",
    // The group tests ask for sessions of less than three seconds.
    "group.min.session.timeout.ms=1000",
];
pub(super) const CHANGES: &str =
    "an empty `test/__init__.py`, and `test/service.py`, which the archive lacks, with a class for a broker that runs";

const FETCH: &str = "python3 -m venv venv
    venv/bin/pip install -q pytest pytest-mock pytest-timeout py lz4 python-snappy zstandard crc32c
    venv/bin/pip download -q --no-binary :all: --no-deps \"kafka-python==$1\"
    tar xzf kafka_python-*.tar.gz --strip-components=1
    touch test/__init__.py";
/// In the place of the module that would start brokers.
const SERVICE: &str = "\
class ExternalService:
    def __init__(self, host, port):
        self.host = host
        self.port = port
    def open(self):
        pass
    stop = dump_logs = open
class SpawnedService(ExternalService):
    def __init__(self, *_, **__):
        raise RuntimeError('a broker runs already')
";

pub(super) fn run(run: &Run<'_>, results: &mut Results) -> Result<(), String> {
    let home = run.home.join(VERSION);
    once(&home, |dir| {
        script(dir, "fetch", FETCH, &[VERSION])?;
        std::fs::write(dir.join("test/service.py"), SERVICE).map_err(|error| error.to_string())
    })?;
    let mut node = run.node(&run.out.join("node"), &[])?;
    let mut command = Command::new(home.join("venv/bin/python"));
    command.args(["-m", "pytest", "-p", "no:cacheprovider", "-o", "addopts=", "-v", "--color=no", "--timeout=120"]);
    // These two start brokers of their own.
    command.args(["ssl", "sasl"].map(|kind| format!("--ignore=test/integration/test_{kind}_integration.py")));
    let again: Vec<String> = run.again.iter().filter_map(|test| id(test)).collect();
    if again.is_empty() {
        command.arg("test/integration");
    }
    command.args(again).current_dir(&home);
    if let Some(text) = run.only {
        command.args(["-k", text]);
    }
    command.env("KAFKA_URI", format!("kafka://{}", node.address())).env("KAFKA_VERSION", "4.3.1");
    command.env("KAFKA_ROOT", &home);
    let mut job = Job::start("pytest", &mut command, &run.out.join("pytest.log"))?;
    let ended = job.wait(run.left(), || node.died());
    read(&job.output(), results);
    let ended = ended?;
    // 1 is its word for tests that failed.
    if !matches!(ended.code(), Some(0 | 1)) {
        return Err(format!("pytest: {ended}; see {}", run.out.join("pytest.log").display()));
    }
    node.stop()
}

/// What pytest calls a test of the results.
fn id(test: &str) -> Option<String> {
    let (file, name) = test.split_once("::")?;
    Some(format!("test/integration/{file}.py::{name}"))
}

/// Lines like `test/integration/test_x.py::test_y PASSED [ 5%]`.
fn read(output: &str, results: &mut Results) {
    for line in output.lines() {
        let Some((_, test)) = line.strip_prefix("test/").and_then(|line| line.split_once("/test_")) else { continue };
        let words = [
            (" PASSED", Outcome::Passed),
            (" FAILED", Outcome::Failed),
            (" ERROR", Outcome::Failed),
            (" SKIPPED", Outcome::Skipped),
            (" XFAIL", Outcome::Skipped),
        ];
        let found = words.iter().find_map(|(word, outcome)| Some((test.rsplit_once(word)?.0, *outcome)));
        if let Some((test, outcome)) = found.filter(|(test, _)| test.contains("::")) {
            results.add(&format!("test_{}", test.replace(".py::", "::")), outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_from_lines() {
        let output = "\
test/integration/test_admin.py::test_acls SKIPPED (no [x]) [  1%]
test/integration/test_admin.py::test_topics[a b] PASSED [  2%]
test/integration/test_admin.py::test_topics[a b] ERROR  [  2%]
noise PASSED
test/integration/test_consumer.py::test_x PASSED                 [100%]";
        let mut results = Results::default();
        read(output, &mut results);
        let expected = [
            ("test_admin::test_acls", Outcome::Skipped),
            ("test_admin::test_topics[a b]", Outcome::Failed),
            ("test_consumer::test_x", Outcome::Passed),
        ];
        assert_eq!(results.tests, expected.map(|(name, outcome)| (name.to_owned(), outcome)).into());
    }
}
