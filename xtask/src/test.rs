//! `cargo xtask test`: every test there is. Foreign clients are used where they are installed; what could not run for want
//! of one is listed at the end with the reason.
//!
//! Most of the time goes into waiting for brokers and clients, so [`SIDE_BY_SIDE`] test programs run at once, those first
//! that took longest the last time ([`TIMES`]). What each says is shown when it ends, whole. A test that failed in that
//! crowd runs once more, alone: if it passes then, it counts as passed and is named at the end, as it must not stay so.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::{kafka_jars, shell};

pub(crate) const USAGE: &str = "\
test [CARGO-TEST-ARGUMENT...]
    Runs every test, several programs at a time; with arguments (`-p taccola-log`, `--test clients`) those that cargo test
    picks, one program after the other.
    KAFKA_JARS (folder of Kafka's jars), TACCOLA_PYTHON (an interpreter with the Python clients) and TACCOLA_BIN (the
    binary under test) are found or made where they are not set.";

/// Begins a line by which a test says that it did not run; `it/src/clients.rs` prints it.
pub(crate) const NOT_RUN: &str = "NOT RUN:";

/// Test programs at a time.
const SIDE_BY_SIDE: usize = 3;

/// In the target directory: seconds and name of each test program, as the last run saw them.
const TIMES: &str = "test-times";

/// What test programs said.
#[derive(Debug, Default, PartialEq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// Tests that returned early because what they need is absent → the reason.
    not_run: BTreeMap<String, String>,
    /// Names of tests that failed.
    failures: BTreeSet<String>,
    /// Names of tests that passed only when they ran alone.
    unsteady: BTreeSet<String>,
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
            let before = (self.passed, self.failed, self.ignored);
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
            return before != (self.passed, self.failed, self.ignored);
        }
        if line == "running 0 tests" {
            return false;
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
        if !self.unsteady.is_empty() {
            println!("\nFailed beside others, passed alone:");
            for test in &self.unsteady {
                println!("  {test}");
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
    let mut environment: Vec<(String, PathBuf)> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), value.into())).collect();
    environment.push(("TACCOLA_BIN".to_owned(), binary(root)?));
    match jars(root) {
        Ok(jars) => environment.push(("KAFKA_JARS".to_owned(), jars)),
        Err(reason) => println!("Kafka's own tools are left out: {reason}"),
    }
    if let Some(python) = python(root) {
        environment.push(("TACCOLA_PYTHON".to_owned(), python));
    }
    let mut tally = Tally::default();
    let succeeded = if arguments.is_empty() {
        everything(root, &environment, &mut tally)?
    } else {
        picked(root, arguments, &environment, &mut tally)?
    };
    tally.report();
    if succeeded { Ok(()) } else { Err("tests failed".to_owned()) }
}

/// What `cargo test` picks by these arguments, one program after the other; whether all of it succeeded.
fn picked(
    root: &Path,
    arguments: &[String],
    environment: &[(String, PathBuf)],
    tally: &mut Tally,
) -> Result<bool, String> {
    let mut command = shell::cargo(root);
    command.args(["test", "--no-fail-fast"]).envs(environment.iter().map(|(name, value)| (name, value)));
    let (cargo_arguments, test_arguments) = match arguments.iter().position(|argument| argument == "--") {
        Some(at) => (arguments.get(..at).unwrap_or_default(), arguments.get(at + 1..).unwrap_or_default()),
        None => (arguments, [].as_slice()),
    };
    // Without --show-output the lines that say "not run" stay captured.
    command.args(cargo_arguments).args(["--", "--show-output"]).args(test_arguments);
    stream(&mut command, tally)
}

/// A test program that cargo built.
#[derive(Debug, PartialEq)]
struct Program {
    /// Package and target: `taccola-it/crash`.
    name: String,
    executable: PathBuf,
    /// The package's folder, where cargo would start it.
    folder: PathBuf,
}

impl Program {
    /// From one of the messages that cargo prints as JSON, if it is about a test program.
    fn from_message(line: &str) -> Option<Program> {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        if message.get("reason")? != "compiler-artifact" || message.pointer("/profile/test")? != true {
            return None;
        }
        let executable = PathBuf::from(message.get("executable")?.as_str()?);
        let folder = Path::new(message.get("manifest_path")?.as_str()?).parent()?.to_owned();
        let target = message.pointer("/target/name")?.as_str()?;
        let package = folder.file_name()?.to_str()?;
        Some(Program { name: format!("{package}/{target}"), executable, folder })
    }

    /// Runs it to its end, or these tests of it one after the other: what it said, and whether it succeeded.
    fn run(&self, tests: &BTreeSet<String>, environment: &[(String, PathBuf)]) -> Result<(Vec<u8>, bool), String> {
        let mut command = Command::new(&self.executable);
        if !tests.is_empty() {
            command.args(["--exact", "--test-threads=1"]).args(tests);
        }
        command.arg("--show-output").current_dir(&self.folder).stdin(Stdio::null());
        command.env("CARGO_MANIFEST_DIR", &self.folder);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let output = command.output().map_err(|error| format!("{}: {error}", self.name))?;
        let mut said = output.stdout;
        if !output.status.success() {
            said.extend_from_slice(&output.stderr);
        }
        Ok((said, output.status.success()))
    }
}

/// Every test of the workspace, documentation's included; whether all of it succeeded.
fn everything(root: &Path, environment: &[(String, PathBuf)], tally: &mut Tally) -> Result<bool, String> {
    let times = shell::target_dir(root).join(TIMES);
    let mut programs = build(root)?;
    let known = seconds(&std::fs::read_to_string(&times).unwrap_or_default());
    // Ascending, as they are taken from the end; those that are not known are taken first.
    programs.sort_by_key(|program| known.get(&program.name).copied().unwrap_or(u64::MAX));
    let state = Mutex::new((programs, Crowd { tally: &mut *tally, took: BTreeMap::new(), failed: Vec::new() }));
    let worker = || {
        loop {
            let Some(program) = state.lock().unwrap_or_else(PoisonError::into_inner).0.pop() else { return };
            let started = Instant::now();
            let result = program.run(&BTreeSet::new(), environment);
            let took = started.elapsed().as_secs();
            state.lock().unwrap_or_else(PoisonError::into_inner).1.ended(program, took, result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(worker);
        }
    });
    let (_, Crowd { took, failed, .. }) = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    let lines: String = took.iter().map(|(name, seconds)| format!("{seconds} {name}\n")).collect();
    // Only the order of the next run hangs on it.
    if let Err(error) = std::fs::write(&times, lines) {
        eprintln!("{}: {error}", times.display());
    }
    let mut succeeded = true;
    for (program, tests) in failed {
        succeeded &= !tests.is_empty() && again(&program, &tests, environment, tally)?;
    }
    let mut documentation = shell::cargo(root);
    documentation.args(["test", "--doc", "--workspace", "--quiet"]);
    Ok(succeeded & stream(&mut documentation, tally)?)
}

/// What came of programs that ran side by side.
struct Crowd<'t> {
    tally: &'t mut Tally,
    took: BTreeMap<String, u64>,
    /// Which of a program's tests failed; none if it ended in another way.
    failed: Vec<(Program, BTreeSet<String>)>,
}

impl Crowd<'_> {
    /// Takes what a program said, and shows what a person wants to see of it.
    fn ended(&mut self, program: Program, took: u64, result: Result<(Vec<u8>, bool), String>) {
        println!("== {} ({took} s)", program.name);
        self.took.insert(program.name.clone(), took);
        let before = std::mem::take(&mut self.tally.failures);
        let succeeded = match result {
            Ok((said, succeeded)) => {
                for line in String::from_utf8_lossy(&said).lines().filter(|line| self.tally.line(line)) {
                    println!("{line}");
                }
                succeeded
            }
            Err(error) => {
                println!("{error}");
                false
            }
        };
        let failures = std::mem::replace(&mut self.tally.failures, before);
        self.tally.failures.extend(failures.iter().cloned());
        if !succeeded {
            self.failed.push((program, failures));
        }
    }
}

/// Runs the tests that failed in the crowd once more, alone; whether all of them pass now.
fn again(
    program: &Program,
    tests: &BTreeSet<String>,
    environment: &[(String, PathBuf)],
    tally: &mut Tally,
) -> Result<bool, String> {
    println!("== {}, alone: {}", program.name, tests.iter().map(String::as_str).collect::<Vec<_>>().join(", "));
    let (said, succeeded) = program.run(tests, environment)?;
    let mut second = Tally::default();
    for line in String::from_utf8_lossy(&said).lines().filter(|line| second.line(line)) {
        println!("{line}");
    }
    for test in tests.difference(&second.failures).filter(|_| succeeded || second.failed > 0) {
        tally.failures.remove(test);
        tally.unsteady.insert(test.clone());
        tally.failed = tally.failed.saturating_sub(1);
        tally.passed += 1;
    }
    Ok(succeeded)
}

/// Builds all test programs.
fn build(root: &Path) -> Result<Vec<Program>, String> {
    let failed = |error: std::io::Error| format!("cargo test --no-run: {error}");
    let mut command = shell::cargo(root);
    command.args(["test", "--no-run", "--workspace", "--message-format=json-render-diagnostics"]);
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(failed)?;
    let output = child.stdout.take().ok_or("cargo test: no output")?;
    let mut programs = Vec::new();
    for line in BufReader::new(output).lines() {
        programs.extend(Program::from_message(&line.map_err(failed)?));
    }
    let status = child.wait().map_err(failed)?;
    if status.success() { Ok(programs) } else { Err(format!("cargo test --no-run: {status}")) }
}

/// Program → seconds, as [`everything`] wrote them down; what cannot be read is left out.
fn seconds(times: &str) -> BTreeMap<String, u64> {
    let pairs = times.lines().filter_map(|line| line.split_once(' '));
    pairs.filter_map(|(seconds, name)| Some((name.to_owned(), seconds.parse().ok()?))).collect()
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

    #[test]
    fn programs_are_read_from_cargos_messages() {
        let built = r#"{"reason":"compiler-artifact","manifest_path":"/w/it/Cargo.toml","target":{"name":"crash"},
            "profile":{"test":true},"executable":"/w/target/debug/deps/crash-1"}"#;
        let program = Program {
            name: "it/crash".to_owned(),
            executable: "/w/target/debug/deps/crash-1".into(),
            folder: "/w/it".into(),
        };
        assert_eq!(Program::from_message(built), Some(program));
        assert_eq!(Program::from_message(&built.replace(r#""test":true"#, r#""test":false"#)), None);
        assert_eq!(Program::from_message(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(Program::from_message("warning: text"), None);
        assert_eq!(seconds("12 it/crash\nnonsense\nx y\n"), BTreeMap::from([("it/crash".to_owned(), 12)]));
    }
}
