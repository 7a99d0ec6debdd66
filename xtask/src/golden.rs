//! `cargo xtask golden`: the golden samples of the wire crate's tests, made by Kafka's own classes. Needs Java 17 or later
//! and Kafka's jars; the tests that use the samples need neither.

use std::path::PathBuf;
use std::process::Command;

use crate::codegen;

pub(crate) const USAGE: &str = "\
golden [--jars DIR]
    Writes crates/wire/tests/golden/messages.tsv.gz with Kafka's own classes.
    --jars DIR    Kafka's jars and their dependencies (default: $KAFKA_JARS)";

pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let jars = match args {
        [] => std::env::var_os("KAFKA_JARS").map(PathBuf::from).ok_or(USAGE)?,
        [flag, dir] if flag == "--jars" => PathBuf::from(dir),
        _ => return Err(USAGE.into()),
    };
    let root = codegen::root()?;
    let specs = codegen::unpack(&jars)?;
    let out = root.join("crates/wire/tests/golden/messages.tsv.gz");
    let status = Command::new("java")
        .arg("-cp")
        .arg(jars.join("*"))
        .arg(root.join("xtask/golden/Golden.java"))
        .args([&specs, &out])
        .status()
        .map_err(|e| format!("java: {e}"))?;
    std::fs::remove_dir_all(&specs).map_err(|e| format!("{}: {e}", specs.display()))?;
    if status.success() { Ok(()) } else { Err(format!("java: {status}")) }
}
