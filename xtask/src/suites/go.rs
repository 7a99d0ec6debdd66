//! franz-go's tests of its client, package `kgo`, against one node: plain, transactional and share-group chains with every
//! balancer, and the cases of old issues. Tests of the client alone are left out: they would pass without a broker.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Run;
use super::fetch::go_module;
use super::job::Job;
use super::outcome::{Outcome, Results};

pub(super) const VERSION: &str = "1.22.2";
/// Fast rounds with the consumer protocol, which the tests' short waits count on.
pub(super) const SETTINGS: &[&str] =
    &["group.consumer.heartbeat.interval.ms=1000", "group.consumer.min.heartbeat.interval.ms=1000"];

/// Top-level tests that talk to a broker.
const TESTS: &str = "^(Test848RegexBrokerResolves|TestAddRemovePartitions|TestClient_Produce|TestClient_ProduceLargeMessages|\
    TestConsumeMaxDecompressBatchBytes|TestConsumeRegex|TestConsumeRegexShareSkipsInternal|TestDirectPartitionPurge|\
    TestGroupETL|TestGroupSimple|TestHookPollStart|TestIssue[0-9]+|TestIssueFetchLargerThanBrokerMaxReadBytes|\
    TestIssueProduce.*|TestPauseIssue.*|TestPing|TestPooling|TestShareGroup.*|TestTxnEtl)$";
const QUICK: &str =
    "^(TestGroupETL|TestTxnEtl|TestShareGroupETL|TestGroupSimple|TestConsumeRegex|TestIssue434|TestPing)$";

/// What CI runs.
pub(super) const LEAST: &str = "^(TestPing|TestGroupSimple|TestConsumeRegex|TestShareGroupAckOnClose|TestAddRemovePartitions|\
    TestIssue434|TestIssue648|TestIssue769|TestIssue810|TestIssue831)$";

/// The module, fetched once.
pub(super) fn source(home: &Path) -> Result<PathBuf, String> {
    go_module(&home.join(VERSION), &format!("github.com/twmb/franz-go@v{VERSION}"))
}

pub(super) fn run(run: &Run<'_>, results: &mut Results) -> Result<(), String> {
    let source = source(&run.home)?;
    let mut node = run.node(&run.out.join("node"), &[])?;
    let mut command = Command::new("go");
    let again = pattern(&run.again);
    let tests = again.as_deref().or(run.only).unwrap_or(if run.quick { QUICK } else { TESTS });
    let within = format!("{}s", run.left().as_secs());
    command.args(["test", "-json", "-vet=off", "-count=1", "-timeout", &within, "-run", tests, "."]);
    command.current_dir(source.join("pkg/kgo")).env("KGO_SEEDS", node.address()).env("KGO_TEST_RF", "1");
    command.env("KGO_TEST_RECORDS", if run.quick { "10000" } else { "50000" }).env("KGO_TEST_UNSAFE", "1");
    let mut job = Job::start("go test", &mut command, &run.out.join("log.json"))?;
    let ended = job.wait(run.left(), || node.died());
    read(&job.output(), results);
    let ended = ended?;
    if !ended.success() && results.count(Outcome::Failed) == 0 {
        return Err(format!("go test: {ended}; see {}", run.out.join("log.json").display()));
    }
    node.stop()
}

/// What `go test` picks these tests by, with all that is in them.
pub(super) fn pattern(tests: &[String]) -> Option<String> {
    let top = tests.iter().map(|test| test.split_once('/').map_or(test.as_str(), |(top, _)| top));
    let top: BTreeSet<&str> = top.collect();
    (!top.is_empty()).then(|| format!("^({})$", Vec::from_iter(top).join("|")))
}

/// The events of `go test -json`. A test that began and did not end has failed.
pub(super) fn read(output: &str, results: &mut Results) {
    let mut begun = std::collections::BTreeMap::new();
    for event in output.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()) {
        let text = |key: &str| event.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        let outcome = match text("Action").as_str() {
            "pass" => Outcome::Passed,
            "skip" => Outcome::Skipped,
            "run" | "fail" => Outcome::Failed,
            _ => continue,
        };
        let test = text("Test");
        if !test.is_empty() {
            begun.insert(test, outcome);
        }
    }
    for (test, outcome) in begun {
        results.add(&test, outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_picked_by_their_top() {
        assert_eq!(pattern(&[]), None);
        let tests = ["A", "B/c", "B"].map(str::to_owned);
        assert_eq!(pattern(&tests).as_deref(), Some("^(A|B)$"));
    }

    #[test]
    fn a_test_that_never_ended_has_failed() {
        let output = r#"
            # a line of the compiler
            {"Action":"run","Test":"A"}
            {"Action":"output","Test":"A","Output":"--- PASS"}
            {"Action":"pass","Test":"A","Elapsed":1}
            {"Action":"run","Test":"B"}
            {"Action":"run","Test":"C/c"}
            {"Action":"skip","Test":"C/c"}
            {"Action":"fail","Package":"p"}"#;
        let mut results = Results::default();
        read(output, &mut results);
        let expected = [("A", Outcome::Passed), ("B", Outcome::Failed), ("C/c", Outcome::Skipped)];
        assert_eq!(results.tests, expected.map(|(name, outcome)| (name.to_owned(), outcome)).into());
    }
}
