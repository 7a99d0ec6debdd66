//! `cargo xtask planted`: a binary that has one bug at a time, and the campaigns of `it` run against it until one of them
//! notices. First all of them run without a bug: what fails then would notice anything.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use taccola_base::planted::Bug;

use crate::shell;

pub(crate) const USAGE: &str = "\
planted [BUG...]
    Plants every bug (or those named) in turn and runs the crash campaigns until one catches it; ends with a table. SEED (1)
    is the first seed, ROUNDS (3) how many are tried, CYCLES (10) the cycles of each, TACCOLA_BIN a binary that was built with
    `--features planted` before. Without FUSE the power campaigns pass.";

/// Longest time of one campaign: a broker that hangs is caught, too.
const TIME_MAX: Duration = Duration::from_secs(400);

/// A campaign: what the table calls it, test file, test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Campaign {
    name: &'static str,
    file: &'static str,
    test: &'static str,
}

const KILL: Campaign = Campaign { name: "kill -9", file: "crash", test: "nothing_acknowledged_is_lost_by_kill_9" };
const POWER: Campaign =
    Campaign { name: "power cut", file: "power_cut", test: "nothing_acknowledged_is_lost_by_a_power_cut" };
const TXN: Campaign = Campaign { name: "kill -9, transactions", file: "anomalies", test: "anomaly_" };
const TXN_POWER: Campaign =
    Campaign { name: "power cut, transactions", file: "power_cut", test: "transactions_survive_a_power_cut_whole" };
const FAULTS: Campaign = Campaign { name: "disk faults", file: "disk_faults", test: "" };

/// The campaign that is tried first; the others follow.
fn likely(bug: Bug) -> Campaign {
    match bug {
        Bug::SkipSegmentSync
        | Bug::SkipFolderSync
        | Bug::JournalNotSynced
        | Bug::AcknowledgeEarly
        | Bug::FrameReleasedEarly
        | Bug::ReplayStopsShort
        | Bug::RecoverySkipsChecksum
        | Bug::TornTailKept
        | Bug::HighWatermarkTooFar
        | Bug::SwapBeforeSync
        | Bug::CommitNotAwaited
        | Bug::MetadataNotAwaited => POWER,
        Bug::FlushErrorIgnored => FAULTS,
        Bug::LastStableOffsetOffByOne
        | Bug::AbortedTxnNotIndexed
        | Bug::MarkerNotReplayed
        | Bug::AbortedOffsetsCount
        | Bug::MarkersNotResumed
        | Bug::AbortCommits
        | Bug::HighWatermarkStuck => TXN,
        Bug::DecisionNotAwaited => TXN_POWER,
        _ => KILL,
    }
}

/// What a campaign said of a bug.
#[derive(Debug)]
struct Catch {
    campaign: Campaign,
    seed: u64,
    /// Counted from 0; `None` where the judgement comes at the end.
    cycle: Option<u64>,
    complaint: String,
}

pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<(), String> {
    let named = arguments.iter().map(|name| Bug::from_name(name).ok_or_else(|| format!("{name}: no such bug")));
    let named = named.collect::<Result<Vec<_>, _>>()?;
    let bugs = if named.is_empty() { Bug::ALL } else { &named[..] };
    let runner = Runner::build(root)?;
    for campaign in [KILL, POWER, TXN, TXN_POWER, FAULTS] {
        if let Some(catch) = runner.try_one(None, campaign, runner.seed)? {
            return Err(format!("without a bug, {} (seed {}): {}", campaign.name, catch.seed, catch.complaint));
        }
    }
    let (mut rows, mut missed) = (Vec::new(), Vec::new());
    for bug in bugs {
        match runner.hunt(*bug)? {
            Some(catch) => rows.push(row(*bug, &catch)),
            None => missed.push(bug.name()),
        }
    }
    println!("\n| Bug | What it does | Caught by | Seed, cycle | Complaint |\n| --- | --- | --- | --- | --- |");
    rows.iter().for_each(|row| println!("{row}"));
    if missed.is_empty() { Ok(()) } else { Err(format!("not caught: {}", missed.join(", "))) }
}

fn row(bug: Bug, catch: &Catch) -> String {
    let cycle = catch.cycle.map_or("at the end".to_owned(), |cycle| cycle.to_string());
    let complaint = catch.complaint.replace('|', "/");
    format!("| {} |{} | {} | {}, {cycle} | {complaint} |", bug.name(), bug.doc(), catch.campaign.name, catch.seed)
}

struct Runner {
    binary: PathBuf,
    /// Test file → its executable.
    tests: Vec<(String, PathBuf)>,
    it: PathBuf,
    seed: u64,
    rounds: u64,
    cycles: u64,
}

impl Runner {
    fn build(root: &Path) -> Result<Self, String> {
        Ok(Self {
            binary: planted_binary(root)?,
            tests: executables(root)?,
            it: root.join("it"),
            seed: number("SEED", 1)?,
            rounds: number("ROUNDS", 3)?,
            cycles: number("CYCLES", 10)?,
        })
    }

    fn hunt(&self, bug: Bug) -> Result<Option<Catch>, String> {
        let first = likely(bug);
        let others = [KILL, POWER, TXN, TXN_POWER, FAULTS].into_iter().filter(|campaign| *campaign != first);
        for campaign in std::iter::once(first).chain(others) {
            for seed in self.seed..self.seed + self.rounds {
                if let Some(catch) = self.try_one(Some(bug), campaign, seed)? {
                    println!("{}", row(bug, &catch));
                    return Ok(Some(catch));
                }
            }
        }
        println!("{}: not caught", bug.name());
        Ok(None)
    }

    /// `None`: the campaign noticed nothing.
    fn try_one(&self, bug: Option<Bug>, campaign: Campaign, seed: u64) -> Result<Option<Catch>, String> {
        let executable = self.tests.iter().find(|(file, _)| file == campaign.file).map(|(_, path)| path);
        let executable = executable.ok_or_else(|| format!("{}: not built", campaign.file))?;
        let cycles = self.cycles.to_string();
        let output = tempfile()?;
        let writer = |file: &std::fs::File| file.try_clone().map(Stdio::from).map_err(|error| error.to_string());
        let mut child = Command::new(executable)
            .current_dir(&self.it)
            .args(["--nocapture", campaign.test])
            .args((!campaign.test.is_empty() && !campaign.test.ends_with('_')).then_some("--exact"))
            .env("TACCOLA_BIN", &self.binary)
            .env("TACCOLA_PLANTED_BUG", bug.map(Bug::name).unwrap_or_default())
            .env("RUST_BACKTRACE", "0")
            .envs([("CYCLES", &cycles), ("POWER_CYCLES", &cycles), ("TXN_CYCLES", &cycles)])
            .env("SEED", seed.to_string())
            .stdin(Stdio::null())
            .stdout(writer(&output.1)?)
            .stderr(writer(&output.1)?)
            .spawn()
            .map_err(|error| format!("{}: {error}", executable.display()))?;
        let until = Instant::now() + TIME_MAX;
        let status = loop {
            match child.try_wait().map_err(|error| error.to_string())? {
                Some(status) => break Some(status),
                None if Instant::now() > until => {
                    let _ = child.kill().and_then(|()| child.wait());
                    break None;
                }
                None => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        let said = std::fs::read(&output.0).map_err(|error| error.to_string())?;
        let _ = std::fs::remove_file(&output.0);
        let said = String::from_utf8_lossy(&said);
        Ok(match status {
            Some(status) if status.success() => None,
            Some(_) => Some(Catch { campaign, seed, cycle: cycle_of(&said), complaint: complaint_of(&said) }),
            None => Some(Catch { campaign, seed, cycle: None, complaint: format!("does not end within {TIME_MAX:?}") }),
        })
    }
}

/// In a target directory of its own, so that nobody takes it for another.
fn planted_binary(root: &Path) -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("TACCOLA_BIN") {
        return Ok(path.into());
    }
    let target = shell::target_dir(root).join("planted");
    let mut build = shell::cargo(root);
    build.args(["build", "--package", "taccola", "--features", "planted", "--target-dir"]).arg(&target);
    shell::must(&mut build)?;
    Ok(target.join("debug/taccola"))
}

/// A file for what a campaign says.
fn tempfile() -> Result<(PathBuf, std::fs::File), String> {
    let path = std::env::temp_dir().join(format!("taccola-planted-{}", std::process::id()));
    let file = std::fs::File::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((path, file))
}

fn number(name: &str, otherwise: u64) -> Result<u64, String> {
    std::env::var(name).ok().map_or(Ok(otherwise), |text| text.parse().map_err(|_| format!("{name}={text}")))
}

/// Builds the campaigns; cargo says where they lie.
fn executables(root: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let mut command = shell::cargo(root);
    command.args(["test", "--package", "taccola-it", "--no-run"]);
    command.args([KILL, POWER, TXN, FAULTS].iter().flat_map(|campaign| ["--test", campaign.file]));
    let output = command.stderr(Stdio::piped()).output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("the campaigns cannot be built:\n{said}"));
    }
    Ok(said.lines().filter_map(|line| executable(root, line)).collect())
}

/// `Executable tests/crash.rs (target/debug/deps/crash-1234)`.
fn executable(root: &Path, line: &str) -> Option<(String, PathBuf)> {
    let (file, path) = line.trim().strip_prefix("Executable tests/")?.split_once(".rs (")?;
    Some((file.to_owned(), root.join(path.strip_suffix(')')?)))
}

fn cycle_of(said: &str) -> Option<u64> {
    let after = said.split("campaign stopped in cycle ").nth(1)?;
    after.split(' ').next()?.parse().ok()
}

/// The anomalies that were found, if the campaign came to its end; else the first line of the first panic, cut short.
fn complaint_of(said: &str) -> String {
    let names = said.lines().filter_map(|line| line.strip_prefix("    anomaly_")?.get(..2));
    let anomalies: std::collections::BTreeSet<&str> = names.collect();
    if !anomalies.is_empty() && cycle_of(said).is_none() {
        return format!("anomalies {}", anomalies.into_iter().collect::<Vec<_>>().join(", "));
    }
    let mut lines = said.lines().skip_while(|line| !line.contains(" panicked at "));
    let complaint = lines.nth(1).unwrap_or("failed").trim();
    complaint.chars().take(160).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_and_campaigns_say_is_understood() {
        let line = "  Executable tests/power_cut.rs (target/debug/deps/power_cut-97)";
        let found = executable(Path::new("/r"), line).unwrap();
        assert_eq!(found, ("power_cut".to_owned(), PathBuf::from("/r/target/debug/deps/power_cut-97")));
        assert_eq!(executable(Path::new("/r"), "  Executable unittests src/lib.rs (x)"), None);
        let said = "cycle 0 of 9\n\nthread 'x' (7) panicked at it/src/a.rs:1:2:\nt-0: a gap\ncampaign stopped in cycle 4 (seed 1)\n";
        assert_eq!((cycle_of(said), complaint_of(said)), (Some(4), "t-0: a gap".to_owned()));
        let said = "panicked at x\n9 found\n\nfailures:\n    anomaly_12_nobody\n    anomaly_01_no\n";
        assert_eq!(complaint_of(said), "anomalies 01, 12");
        assert_eq!((cycle_of("nothing"), complaint_of("nothing")), (None, "failed".to_owned()));
    }
}
