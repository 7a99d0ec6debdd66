//! `cargo xtask test`: every test there is. Foreign clients are used where they are installed; what could not run for want
//! of one is listed at the end with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{kafka_jars, shell};

pub(crate) const USAGE: &str = "\
test [CARGO-TEST-ARGUMENT...]
    Runs every test; with arguments (`-p taccola-log`, `--test clients`) those that cargo test picks.
    KAFKA_JARS (folder of Kafka's jars), TACCOLA_PYTHON (an interpreter with the Python clients) and TACCOLA_BIN (the
    binary under test) are found or made where they are not set.";

/// Begins a line by which a test says that it did not run; `it/src/clients.rs` prints it.
pub(crate) const NOT_RUN: &str = "NOT RUN:";

/// What a run of `cargo test` said.
#[derive(Debug, Default, PartialEq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// Tests that returned early because what they need is absent → the reason.
    not_run: BTreeMap<String, String>,
    /// Names of tests that failed.
    failures: BTreeSet<String>,
    /// Inside the captured output of tests that passed.
    muted: bool,
}

impl Tally {
    /// Takes one line of output; answers whether a person wants to see it.
    fn line(&mut self, line: &str) -> bool {
        if let Some(rest) = line.strip_prefix(NOT_RUN) {
            let (test, reason) = rest.trim().split_once(": ").unwrap_or((rest.trim(), "no reason given"));
            self.not_run.insert(test.to_owned(), reason.to_owned());
            return false;
        }
        if let Some(result) = line.strip_prefix("test result: ") {
            self.muted = false;
            for part in result.split([';', '.']) {
                let mut words = part.split_whitespace();
                let (count, what) = (words.next().and_then(|count| count.parse::<u64>().ok()), words.next());
                match (count, what) {
                    (Some(count), Some("passed")) => self.passed += count,
                    (Some(count), Some("failed")) => self.failed += count,
                    (Some(count), Some("ignored")) => self.ignored += count,
                    _ => {}
                }
            }
            return true;
        }
        match line {
            "successes:" => self.muted = true,
            "failures:" => self.muted = false,
            _ => {}
        }
        let verdict = line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... "));
        match verdict {
            Some((_, "ok")) => return false,
            Some((name, "FAILED")) => {
                self.failures.insert(name.to_owned());
            }
            _ => {}
        }
        !self.muted && !line.is_empty()
    }

    fn report(&self) {
        if !self.not_run.is_empty() {
            println!("\nNot run, for want of a client:");
            for (test, reason) in &self.not_run {
                println!("  {test}: {reason}");
            }
        }
        if !self.failures.is_empty() {
            println!("\nFailed:");
            for test in &self.failures {
                println!("  {test}");
            }
        }
        // libtest counts a test that returned early as passed; it did not run.
        let absent = self.not_run.len() as u64;
        let (passed, skipped) = (self.passed.saturating_sub(absent), self.ignored + absent);
        println!("\n{passed} passed, {} failed, {skipped} skipped", self.failed);
    }
}

pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<(), String> {
    run_with(root, arguments, &[])
}

/// The same with variables for the tests.
pub(crate) fn run_with(root: &Path, arguments: &[String], variables: &[(&str, &str)]) -> Result<(), String> {
    let mut command = shell::cargo(root);
    command.envs(variables.iter().copied());
    command.arg("test").arg("--no-fail-fast");
    if arguments.is_empty() {
        command.arg("--workspace");
    }
    let (cargo_arguments, test_arguments) = match arguments.iter().position(|argument| argument == "--") {
        Some(at) => (arguments.get(..at).unwrap_or_default(), arguments.get(at + 1..).unwrap_or_default()),
        None => (arguments, [].as_slice()),
    };
    // Without --show-output the lines that say "not run" stay captured.
    command.args(cargo_arguments).args(["--", "--show-output"]).args(test_arguments);
    command.env("TACCOLA_BIN", binary(root)?);
    match jars(root) {
        Ok(jars) => _ = command.env("KAFKA_JARS", jars),
        Err(reason) => println!("Kafka's own tools are left out: {reason}"),
    }
    if let Some(python) = python(root) {
        command.env("TACCOLA_PYTHON", python);
    }
    let mut tally = Tally::default();
    let succeeded = stream(&mut command, &mut tally)?;
    tally.report();
    if succeeded { Ok(()) } else { Err("cargo test failed".to_owned()) }
}

/// Runs the command, shows what a person wants to see as it comes, and answers whether it succeeded.
fn stream(command: &mut Command, tally: &mut Tally) -> Result<bool, String> {
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| format!("cargo test: {error}"))?;
    let output = child.stdout.take().ok_or("cargo test: no output")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.map_err(|error| format!("cargo test: {error}"))?;
        let line = String::from_utf8_lossy(&line);
        if tally.line(&line) {
            println!("{line}");
        }
    }
    child.wait().map(|status| status.success()).map_err(|error| format!("cargo test: {error}"))
}

/// The binary under test, built once for all tests.
pub(crate) fn binary(root: &Path) -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("TACCOLA_BIN") {
        return Ok(path.into());
    }
    shell::must(shell::cargo(root).args(["build", "--package", "taccola"]))?;
    Ok(shell::target_dir(root).join("debug/taccola"))
}

fn jars(root: &Path) -> Result<PathBuf, String> {
    if !shell::answers("java", &["-version"]) {
        return Err("Java is not installed".to_owned());
    }
    kafka_jars::dir(root)
}

/// The interpreter of the virtual environment that `.ci/run` makes.
fn python(root: &Path) -> Option<PathBuf> {
    let ours = shell::target_dir(root).join("python/bin/python");
    (std::env::var_os("TACCOLA_PYTHON").is_none() && ours.exists()).then_some(ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_reasons_are_read_from_cargos_output() {
        let mut tally = Tally::default();
        let shown: Vec<&str> = [
            "running 3 tests",
            "test a::b ... ok",
            "test a::c ... FAILED",
            "test a::d ... ok",
            "",
            "successes:",
            "",
            "---- a::d stdout ----",
            "NOT RUN: d: kcat is not installed",
            "noise",
            "failures:",
            "---- a::c stdout ----",
            "test result: FAILED. 2 passed; 1 failed; 4 ignored; 0 measured; 0 filtered out; finished in 0.07s",
            "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ]
        .into_iter()
        .filter(|line| tally.line(line))
        .collect();
        assert_eq!((tally.passed, tally.failed, tally.ignored), (7, 1, 4));
        assert_eq!(tally.not_run.get("d").map(String::as_str), Some("kcat is not installed"));
        assert!(tally.failures.contains("a::c"));
        assert!(shown.contains(&"---- a::c stdout ----") && !shown.contains(&"noise"), "{shown:?}");
    }
}
