//! A program of a suite as a job: its output goes to a file that is watched while it grows, and its whole process group
//! ends with it. Every wait here has an end, and no job outlives this process, however that ends.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Reads which process groups run: `+ 12` and `- 12`. When its input ends, so has the process that wrote it, be it by
/// Ctrl-C or by SIGKILL; the groups that run by then get SIGKILL.
const GUARD: &str = r#"trap '' INT TERM HUP QUIT
    groups=' '
    while read -r sign group; do
        case $sign in
            +) groups="$groups$group " ;;
            -) groups="${groups%% $group *} ${groups#* $group }" ;;
        esac
    done
    [ "$groups" = ' ' ] && exit
    echo "suites: ended in mid-run: stopped what was running" >&2
    for group in $groups; do kill -s KILL -- "-$group"; done"#;

/// Tells the guard of a group; the first call starts it, in a group of its own.
fn tell_guard(sign: char, group: u32) -> std::io::Result<()> {
    static INPUT: Mutex<Option<ChildStdin>> = Mutex::new(None);
    let mut input = INPUT.lock().unwrap_or_else(PoisonError::into_inner);
    if input.is_none() {
        let mut command = Command::new("sh");
        command.args(["-c", GUARD]).stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        *input = command.spawn()?.stdin;
    }
    input.as_mut().map_or(Ok(()), |input| writeln!(input, "{sign} {group}"))
}

pub(super) struct Job {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Job {
    /// Starts the command in a process group of its own, both outputs appended to `log`.
    pub(super) fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("{name}: {error}");
        let output = File::options().create(true).append(true).open(log).map_err(failed)?;
        let errors = output.try_clone().map_err(failed)?;
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0).spawn();
        let child = child.map_err(|error| format!("{name}: {program}: {error}"))?;
        let job = Self { name: name.to_owned(), child, log: log.to_owned(), ended: None };
        tell_guard('+', job.child.id()).map_err(failed)?;
        Ok(job)
    }

    pub(super) fn output(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// How long the output is by now: a mark for [`Job::wait_for`].
    pub(super) fn mark(&self) -> usize {
        fs::metadata(&self.log).map_or(0, |data| usize::try_from(data.len()).unwrap_or(usize::MAX))
    }

    /// The exit status, if the program has ended.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Waits for a line with all of `words` in the output behind `mark`; answers the place behind that line.
    pub(super) fn wait_for(&mut self, words: &[&str], mark: usize, within: Duration) -> Result<usize, String> {
        let until = Instant::now() + within;
        loop {
            let over = self.ended().is_some();
            let bytes = fs::read(&self.log).unwrap_or_default();
            let mut at = mark.min(bytes.len());
            for line in bytes.get(at..).unwrap_or_default().split_inclusive(|byte| *byte == b'\n') {
                at += line.len();
                let text = String::from_utf8_lossy(line);
                if words.iter().all(|word| text.contains(word)) {
                    return Ok(at);
                }
            }
            let words = words.join(" … ");
            if over {
                return Err(format!("{} ended before it said '{words}'", self.name));
            }
            if Instant::now() > until {
                return Err(format!("{} did not say '{words}' within {} s", self.name, within.as_secs()));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits for the program's end, or until `alarm` has something to say.
    pub(super) fn wait(
        &mut self,
        within: Duration,
        mut alarm: impl FnMut() -> Option<String>,
    ) -> Result<ExitStatus, String> {
        let until = Instant::now() + within;
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if let Some(reason) = alarm() {
                self.kill();
                return Err(reason);
            }
            if Instant::now() > until {
                self.kill();
                return Err(format!("{} hung: stopped after {} s", self.name, within.as_secs()));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Asks the program to end (SIGTERM) and waits for it.
    pub(super) fn stop(&mut self, within: Duration) -> Result<(), String> {
        if self.ended().is_none() {
            signal("TERM", &self.child.id().to_string());
        }
        self.wait(within, || None).map(|_| ())
    }

    /// SIGKILL for the program and whatever it started.
    pub(super) fn kill(&mut self) {
        signal("KILL", &format!("-{}", self.child.id()));
        if self.ended.is_none() {
            self.ended = self.child.wait().ok();
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.kill();
        }
        let _ = tell_guard('-', self.child.id());
    }
}

/// Sends a signal to a process, or to a group where a minus stands before the number.
fn signal(name: &str, target: &str) {
    let _ = Command::new("kill").args(["-s", name, "--", target]).stderr(Stdio::null()).status();
}

/// Runs a command to its end with its output in `log`; the last lines of that are the error's text.
pub(super) fn must(name: &str, command: &mut Command, log: &Path, within: Duration) -> Result<(), String> {
    let mut job = Job::start(name, command, log)?;
    let status = job.wait(within, || None)?;
    if status.success() {
        return Ok(());
    }
    let output = job.output();
    let lines: Vec<&str> = output.lines().collect();
    let last = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n");
    Err(format!("{name}: {status}\n{last}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> (Job, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let job = Job::start("a script", Command::new("sh").args(["-c", script]), &dir.path().join("log")).unwrap();
        (job, dir)
    }

    #[test]
    fn a_job_is_watched_from_a_mark_on() {
        let (mut job, _dir) = shell("echo ready; echo working; sleep 60");
        let mark = job.wait_for(&["ready"], 0, SOON).unwrap();
        assert_eq!(job.wait_for(&["work", "ing"], mark, SOON).unwrap(), job.mark());
        let none = job.wait_for(&["ready"], mark, Duration::from_millis(1)).unwrap_err();
        assert_eq!(none, "a script did not say 'ready' within 0 s");
    }

    #[test]
    fn what_hangs_and_what_started_it_end() {
        let (mut job, _dir) = shell("sleep 60 & echo $!; wait");
        job.wait_for(&["\n"], 0, SOON).unwrap();
        let child = job.output().trim().to_owned();
        let error = job.wait(Duration::from_millis(1), || None).unwrap_err();
        assert_eq!(error, "a script hung: stopped after 0 s");
        let until = std::time::Instant::now() + SOON;
        loop {
            let state = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            if state.is_empty() || state.contains(") Z") {
                break;
            }
            assert!(std::time::Instant::now() < until, "{state}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn the_guard_ends_what_still_runs() {
        let (mut job, dir) = shell("sleep 60");
        let other = std::process::id().wrapping_add(1 << 24);
        let input = dir.path().join("groups");
        fs::write(&input, format!("+ {other}\n+ {}\n- {other}\n", job.child.id())).unwrap();
        let guard = Command::new("sh").args(["-c", GUARD]).stdin(File::open(&input).unwrap()).output().unwrap();
        assert!(String::from_utf8_lossy(&guard.stderr).starts_with("suites: ended in mid-run"), "{guard:?}");
        assert_eq!(job.wait(SOON, || None).unwrap().code(), None);
        fs::write(&input, format!("+ {other}\n- {other}\n")).unwrap();
        let guard = Command::new("sh").args(["-c", GUARD]).stdin(File::open(&input).unwrap()).output().unwrap();
        assert!(guard.stderr.is_empty(), "{guard:?}");
    }

    #[test]
    fn an_alarm_and_an_early_end_are_told() {
        let (mut job, _dir) = shell("sleep 60");
        assert_eq!(job.wait(SOON, || Some("the broker died".to_owned())), Err("the broker died".to_owned()));
        let (mut job, _dir) = shell("exit 3");
        assert_eq!(job.wait_for(&["x"], 0, SOON).unwrap_err(), "a script ended before it said 'x'");
        assert_eq!(job.wait(SOON, || None).unwrap().code(), Some(3));
    }
}
