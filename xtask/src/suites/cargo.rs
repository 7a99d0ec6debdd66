//! rust-rdkafka's tests: a Rust client on librdkafka. The crate comes with cargo; each test runs as a process of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::Run;
use super::fetch::{once, script};
use super::job::Job;
use super::outcome::{Outcome, Results};

pub(super) const VERSION: &str = "0.39.0";
pub(super) const SETTINGS: &[&str] = &["num.partitions=3", "auto.create.topics.enable=true"];
pub(super) const CHANGES: &str = "two places that name port 9092 use the given address";

const TEST_WITHIN: Duration = Duration::from_secs(180);
/// The crate out of cargo's own cache, its tests compiled; one line per test file: name and program.
const BUILD: &str = r#"mkdir fetch fetch/src && touch fetch/src/lib.rs
    printf '[package]\nname = "fetch"\nedition = "2021"\n[workspace]\n[dependencies]\nrdkafka = "=%s"\n' "$1" >fetch/Cargo.toml
    cargo fetch --manifest-path fetch/Cargo.toml
    cp -r "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/rdkafka-"$1" crate && cd crate
    printf '\n[workspace]\n' >>Cargo.toml
    sed -i 's/"bootstrap.servers", "localhost")/"bootstrap.servers", get_bootstrap_server())/' tests/test_high_producers.rs
    sed -i "s/port(), 9092)/port().to_string(), get_bootstrap_server().rsplit_once(':').unwrap().1)/" tests/test_metadata.rs
    cargo test --locked --no-run --test 'test_*' --target-dir ../target --message-format=json >../build.json"#;

pub(super) fn run(run: &Run<'_>, results: &mut Results) -> Result<(), String> {
    let home = run.home.join(VERSION);
    once(&home, |dir| script(dir, "build", BUILD, &[VERSION]))?;
    let mut node = run.node(&run.out.join("node"), &[])?;
    for (file, program) in programs(&home)? {
        for test in list(&program)? {
            let name = format!("{file}::{test}");
            if !run.wants(&name, true) {
                continue;
            }
            let mut command = Command::new(&program);
            command.args(["--exact", &test, "--nocapture"]).current_dir(home.join("crate"));
            command.env("KAFKA_HOST", node.address()).env("KAFKA_VERSION", "4.3.1");
            let log = run.out.join(format!("{name}.log"));
            let ended = Job::start(&name, &mut command, &log)?.wait(TEST_WITHIN, || node.died());
            node.alive()?;
            let outcome = match &ended {
                Ok(status) if status.success() => Outcome::Passed,
                _ => Outcome::Failed,
            };
            if outcome == Outcome::Failed {
                run.say(&name, outcome, ended.err().as_deref());
            }
            results.add(&name, outcome);
        }
    }
    node.stop()
}

/// Test files and their programs, as cargo named them.
fn programs(home: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let build = fs::read_to_string(home.join("build.json")).map_err(|error| error.to_string())?;
    let messages = build.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let named = messages.filter_map(|message| {
        let program = message.get("executable")?.as_str()?.to_owned();
        Some((message.get("target")?.get("name")?.as_str()?.to_owned(), PathBuf::from(program)))
    });
    Ok(named.collect())
}

/// The tests in a program.
fn list(program: &Path) -> Result<Vec<String>, String> {
    let output = Command::new(program).args(["--list", "--format", "terse"]).output();
    let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}
