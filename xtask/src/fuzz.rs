//! `cargo xtask fuzz`: every fuzz target in turn, each for a while. Needs cargo-fuzz; sanitizers and coverage come
//! from the stable compiler, which has them for those who say `RUSTC_BOOTSTRAP=1`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell;

pub(crate) const USAGE: &str = "\
fuzz SECONDS [--keep] [TARGET...]
    Runs every fuzz target (or those named) for so long each, from the inputs in fuzz/seeds; --keep puts what the run found
    worth keeping there, cut down to the inputs that reach something of their own.";

pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<(), String> {
    let [seconds, rest @ ..] = arguments else { return Err(USAGE.to_owned()) };
    let seconds: u64 = seconds.parse().map_err(|_| USAGE.to_owned())?;
    let keep = rest.iter().any(|argument| argument == "--keep");
    let named: Vec<String> = rest.iter().filter(|argument| *argument != "--keep").cloned().collect();
    let targets = if named.is_empty() { all(root)? } else { named };
    if !shell::answers("cargo", &["fuzz", "--version"]) {
        return Err("cargo-fuzz is not installed: cargo install cargo-fuzz".to_owned());
    }
    for target in &targets {
        println!("== {target}");
        unpack(root, target)?;
        let mut command = fuzz(root, "run", target);
        command.arg("--");
        command.args([format!("-max_total_time={seconds}"), "-timeout=10".to_owned(), "-rss_limit_mb=4096".to_owned()]);
        shell::must(&mut command)?;
        if keep {
            shell::must(&mut fuzz(root, "cmin", target))?;
            pack(root, target)?;
        }
    }
    Ok(())
}

fn fuzz(root: &Path, action: &str, target: &str) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root.join("fuzz")).env("RUSTC_BOOTSTRAP", "1").args(["fuzz", action, target]);
    command
}

/// The inputs that were kept of a target join those that lie in its corpus.
fn unpack(root: &Path, target: &str) -> Result<(), String> {
    let (seeds, corpus) = (seeds(root, target), root.join("fuzz/corpus").join(target));
    std::fs::create_dir_all(&corpus).map_err(|error| format!("{}: {error}", corpus.display()))?;
    if !seeds.is_file() {
        return Ok(());
    }
    shell::must(Command::new("tar").arg("-xzf").arg(seeds).arg("-C").arg(corpus))
}

fn pack(root: &Path, target: &str) -> Result<(), String> {
    let mut command = Command::new("tar");
    // The same inputs give the same file.
    command.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "-czf"]);
    shell::must(command.arg(seeds(root, target)).arg("-C").arg(root.join("fuzz/corpus").join(target)).arg("."))
}

fn seeds(root: &Path, target: &str) -> PathBuf {
    root.join("fuzz/seeds").join(format!("{target}.tar.gz"))
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
