//! Running other programs: where build products lie, whether a program is there, and a step that must succeed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Cargo's target directory: `CARGO_TARGET_DIR`, else `target` of the workspace.
pub(crate) fn target_dir(root: &Path) -> PathBuf {
    // Relative to the workspace, as every task runs cargo there.
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}

/// The cargo that runs this task, in the workspace.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).stdin(Stdio::null());
    command
}

/// The release binary: `TACCOLA_BIN`, else built.
pub(crate) fn release_binary(root: &Path) -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("TACCOLA_BIN") {
        return Ok(path.into());
    }
    must(cargo(root).args(["build", "--release", "--package", "taccola"]))?;
    Ok(target_dir(root).join("release/taccola"))
}

/// Whether a program runs and answers with success.
pub(crate) fn answers(program: &str, arguments: &[&str]) -> bool {
    let status =
        Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// As [`must`], but not longer than this.
pub(crate) fn must_within(command: &mut Command, within: Duration) -> Result<(), String> {
    let shown = command.get_program().to_string_lossy().into_owned();
    let failed = |error: std::io::Error| format!("{shown}: {error}");
    let until = Instant::now() + within;
    let mut child = command.stdin(Stdio::null()).spawn().map_err(failed)?;
    loop {
        match child.try_wait().map_err(failed)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(format!("{shown}: {status}")),
            None if Instant::now() > until => {
                child.kill().and_then(|()| child.wait()).map_err(failed)?;
                return Err(format!("{shown}: not through after {} s", within.as_secs()));
            }
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Runs a command to its end; anything but success is an error that names it.
pub(crate) fn must(command: &mut Command) -> Result<(), String> {
    let shown = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|part| part.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ");
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{shown}: {status}")),
        Err(error) => Err(format!("{shown}: {error}")),
    }
}
