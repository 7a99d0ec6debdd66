//! Sources of suites, each out of its registry by that registry's own client, once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::job::must;

/// For a download, and for a build.
const FETCHED_WITHIN: Duration = Duration::from_secs(600);
pub(super) const BUILT_WITHIN: Duration = Duration::from_secs(3600);

/// Runs `steps` in the empty folder `dir` unless an earlier run did, to the end.
pub(super) fn once(dir: &Path, steps: impl FnOnce(&Path) -> Result<(), String>) -> Result<(), String> {
    let complete = dir.join(".complete");
    if complete.exists() {
        return Ok(());
    }
    let failed = |error: std::io::Error| format!("{}: {error}", dir.display());
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(failed)?;
    }
    fs::create_dir_all(dir).map_err(failed)?;
    steps(dir)?;
    fs::write(complete, "").map_err(failed)
}

/// A shell script in `dir`, with its output beside it and its arguments as `$1`, `$2`, ….
pub(super) fn script(dir: &Path, name: &str, text: &str, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new("sh");
    command.args(["-euc", text, name]).args(arguments).current_dir(dir);
    let within = if name == "fetch" { FETCHED_WITHIN } else { BUILT_WITHIN };
    must(name, &mut command, &dir.join(format!("{name}.log")), within)
}

/// A module of the Go proxy, copied out of Go's cache into `dir/src`.
pub(super) fn go_module(dir: &Path, module: &str) -> Result<PathBuf, String> {
    let source = dir.join("src");
    once(dir, |dir| {
        // Its answer also says why there is no folder; it is all that is kept of how the program ended.
        script(dir, "fetch", "go mod download -json \"$1\" >answer.json || test -s answer.json", &[module])?;
        let answer = fs::read(dir.join("answer.json")).map_err(|error| format!("{module}: {error}"))?;
        let answer: serde_json::Value =
            serde_json::from_slice(&answer).map_err(|error| format!("{module}: {error}"))?;
        let cached = answer.get("Dir").and_then(|dir| dir.as_str()).ok_or_else(|| {
            format!("{module}: {}", answer.get("Error").and_then(|error| error.as_str()).unwrap_or("no folder"))
        })?;
        script(dir, "fetch", "cp -r \"$1\" src && chmod -R u+w src", &[cached])
    })?;
    Ok(source)
}
