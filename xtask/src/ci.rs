//! `cargo xtask ci`: what must hold before anything lands, in the order in which it fails fastest. `.ci/run` installs what a
//! bare machine lacks and calls this.

use std::path::Path;
use std::time::Instant;

use crate::{codegen, kafka_jars, shell, status, suites, test, tidy};

pub(crate) const USAGE: &str = "\
ci
    Formatting, lints, tidy, generated code, documentation, a minute of another client's tests, every test. Debug profile only.";

/// Property tests run the same cases each time here, so that what lands does not hang on luck; `cargo xtask test` and
/// campaigns take new ones.
const PROPTEST_SEED: &str = "4301";

type Step = fn(&Path) -> Result<(), String>;

const STEPS: &[(&str, Step)] = &[
    ("fmt", |root| shell::must(shell::cargo(root).args(["fmt", "--all", "--check"]))),
    ("tidy", tidy::run),
    ("status", |root| status::run(root, &["--check".to_owned()])),
    ("clippy", |root| {
        let arguments = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
        shell::must(shell::cargo(root).args(arguments))
    }),
    ("fuzz targets", |root| {
        // A workspace of its own, for the sake of sanitizers; what it needs of the others is checked once.
        let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| root.join("target").into());
        let mut command = shell::cargo(root);
        command.args(["check", "--quiet", "--locked", "--manifest-path", "fuzz/Cargo.toml", "--bins"]);
        shell::must(command.env("CARGO_TARGET_DIR", target))
    }),
    ("codegen", generated),
    ("doc", |root| {
        let mut command = shell::cargo(root);
        command.env("RUSTDOCFLAGS", "-D warnings").args(["doc", "--workspace", "--no-deps", "--quiet"]);
        shell::must(&mut command)
    }),
    ("suites", of_others),
    ("test", |root| test::run_with(root, &[], &[("PROPTEST_RNG_SEED", PROPTEST_SEED)])),
];

pub(crate) fn run(root: &Path, _: &[String]) -> Result<(), String> {
    let mut timings = Vec::new();
    let mut failed = Vec::new();
    for (name, step) in STEPS {
        println!("== {name}");
        let started = Instant::now();
        // Later steps run all the same: one run tells everything that is wrong. Tests come last, for their closing lines.
        if let Err(error) = step(root) {
            eprintln!("{error}");
            failed.push(*name);
        }
        timings.push(format!("{name} {:.0} s", started.elapsed().as_secs_f64()));
    }
    println!("steps: {}", timings.join(", "));
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}

/// A minute of another client's own tests.
fn of_others(root: &Path) -> Result<(), String> {
    if let Some(reason) = suites::least(root, test::binary(root)?)? {
        println!("{} suites: {reason}", test::NOT_RUN);
    }
    Ok(())
}

/// The generated code against Kafka's specs where the jars are there. Without them a test of the wire crate still holds
/// every file against its fingerprint.
fn generated(root: &Path) -> Result<(), String> {
    if !shell::answers("java", &["-version"]) || !shell::answers("unzip", &["-v"]) {
        println!("Java or unzip is not installed: files are held against their fingerprints only");
        return Ok(());
    }
    match kafka_jars::dir(root) {
        Ok(jars) => codegen::run(&["--jars".to_owned(), jars.display().to_string(), "--check".to_owned()]),
        Err(reason) => {
            println!("{reason}: files are held against their fingerprints only");
            Ok(())
        }
    }
}
