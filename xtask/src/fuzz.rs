//! `cargo xtask fuzz`: every fuzz target in turn, each for a while. Needs cargo-fuzz; sanitizers and coverage come
//! from the stable compiler, which has them for those who say `RUSTC_BOOTSTRAP=1`.

use std::path::Path;
use std::process::Command;

use crate::shell;

pub(crate) const USAGE: &str = "\
fuzz SECONDS [TARGET...]
    Runs every fuzz target (or those named) for so long each, from the seeds in fuzz/corpus.";

pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<(), String> {
    let [seconds, targets @ ..] = arguments else { return Err(USAGE.to_owned()) };
    let seconds: u64 = seconds.parse().map_err(|_| USAGE.to_owned())?;
    let targets = if targets.is_empty() { all(root)? } else { targets.to_vec() };
    if !shell::answers("cargo", &["fuzz", "--version"]) {
        return Err("cargo-fuzz is not installed: cargo install cargo-fuzz".to_owned());
    }
    for target in &targets {
        println!("== {target}");
        let mut command = Command::new("cargo");
        command.current_dir(root.join("fuzz")).env("RUSTC_BOOTSTRAP", "1").args(["fuzz", "run", target, "--"]);
        command.args([format!("-max_total_time={seconds}"), "-timeout=10".to_owned(), "-rss_limit_mb=4096".to_owned()]);
        shell::must(&mut command)?;
    }
    Ok(())
}

/// Every target that has a file.
fn all(root: &Path) -> Result<Vec<String>, String> {
    let dir = root.join("fuzz/fuzz_targets");
    let entries = std::fs::read_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let names = entries.filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_string_lossy().into_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort();
    Ok(names)
}
