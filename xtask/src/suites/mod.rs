//! `cargo xtask suites`: test suites that others wrote, fetched from their registries when they run, against Apache Kafka and
//! against Taccola with the same properties. What they say goes to [docs/compatibility.md](../../../docs/compatibility.md).
//! A suite that hangs, is not to be had, or kills its broker leaves a row that says so, and the command fails.

mod cargo;
mod fetch;
mod go;
mod interrupt;
mod job;
mod kfake;
mod librdkafka;
mod node;
mod outcome;
mod python;
mod report;
mod streams;
mod table;
mod tools;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::{kafka_jars, shell};
use interrupt::Progress;
use node::{Node, Programs, Side};
use outcome::{Outcome, Results};
use table::{Kind, SUITES, Suite};

pub(crate) const USAGE: &str = "\
suites [NAME ...] [--quick] [--on kafka|taccola] [--only TEXT] [--again] [--within N] [--report] [--list]
    Runs test suites that others wrote on Kafka and on Taccola, and writes docs/compatibility.md.
    --quick        the parts that together take less than ten minutes, on Taccola alone, held against Kafka's results in
                   docs/compatibility; the document stays as it is
    --on SIDE      one of the brokers; the other's results are those of its last run
    --only TEXT    tests with TEXT in their names, where the suite can choose; the document stays as it is
    --again        what failed in the last run of the same version, alone, in its place; the whole where none is kept
    --within N     seconds after which a suite is cut short, where that is sooner than its own limit
    --report       runs nothing: the document anew from the last runs
    --list         the suites
    TACCOLA_BIN (the binary under test, of TACCOLA_COMMIT; else a release build of this tree) and KAFKA_JARS are used where they
    are set. Sources, logs and results lie in target/suites (SUITES_DIR).";

/// One suite's run on one side.
pub(crate) struct Run<'a> {
    suite: &'a Suite,
    side: Side,
    programs: &'a Programs,
    /// Sources and builds of the suite, kept between runs.
    home: PathBuf,
    /// Logs and data of this run.
    out: PathBuf,
    quick: bool,
    only: Option<&'a str>,
    /// Failed in a first run: these alone, one at a time. Empty in the first run.
    again: Vec<String>,
    /// The file of the results.
    kept: PathBuf,
    within: Duration,
    until: Instant,
}

impl Run<'_> {
    /// Whether a test or scenario takes part.
    fn wants(&self, name: &str, is_quick: bool) -> bool {
        let again = self.again.is_empty() || self.again.iter().any(|test| test == name);
        again
            && (!self.quick || is_quick)
            && self.only.is_none_or(|text| name.contains(text))
            && Instant::now() < self.until
    }

    /// What is left of the suite's time.
    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Plays scenarios, so many at the same time, each in a folder of its own that stays where it failed.
    fn play<T: Sync>(
        &self,
        jobs: usize,
        scenarios: &[(&str, T)],
        results: &mut Results,
        play: impl Fn(&T, &Path) -> Result<(), String> + Sync,
    ) {
        let jobs = if self.again.is_empty() { jobs } else { 1 };
        let next = AtomicUsize::new(0);
        let played = Mutex::new(results);
        let one_after_the_other = || {
            while let Some((name, scenario)) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
                // Time may have run out meanwhile.
                if self.left().is_zero() {
                    return;
                }
                let dir = self.out.join(name.replace(['/', ' ', ','], "-"));
                let made = fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()));
                let verdict = made.and_then(|()| play(scenario, &dir));
                if verdict.is_ok() {
                    let _ = fs::remove_dir_all(&dir);
                }
                let outcome = if verdict.is_ok() { Outcome::Passed } else { Outcome::Failed };
                self.say(name, outcome, verdict.err().as_deref());
                played.lock().unwrap_or_else(PoisonError::into_inner).add(name, outcome);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(one_after_the_other);
            }
        });
    }

    fn node(&self, dir: &Path, more: &[&str]) -> Result<Node, String> {
        Node::start(self.side, self.programs, dir, &[self.suite.settings, more].concat())
    }

    fn say(&self, test: &str, outcome: Outcome, why: Option<&str>) {
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        println!("{} on {}: {test} {}{why}", self.suite.name, self.side.name(), outcome.name());
    }
}

/// Of a run that was through, but for the second run of what failed.
const NOT_ALONE: &str = "ended before what failed had run once more, alone";

struct Arguments {
    suites: Vec<&'static Suite>,
    sides: Vec<Side>,
    quick: bool,
    only: Option<String>,
    again: bool,
    within: Duration,
    report: bool,
    list: bool,
}

impl Arguments {
    /// Whether only a part of the suites' tests is asked for, which says nothing for the document.
    fn partial(&self) -> bool {
        self.quick || self.only.is_some()
    }

    /// Where results are kept.
    fn folder(&self, base: &Path) -> PathBuf {
        base.join(if self.partial() { "partial" } else { "results" })
    }

    /// The sides whose results count.
    fn judged(&self) -> &[Side] {
        if self.partial() { &self.sides } else { &Side::BOTH }
    }
}

fn parse(arguments: &[String]) -> Result<Arguments, String> {
    let mut parsed = Arguments {
        suites: Vec::new(),
        sides: Side::BOTH.to_vec(),
        quick: false,
        only: None,
        again: false,
        within: Duration::MAX,
        report: false,
        list: false,
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => parsed.quick = true,
            "--again" => parsed.again = true,
            "--report" => parsed.report = true,
            "--list" => parsed.list = true,
            "--only" => parsed.only = Some(arguments.next().ok_or(USAGE)?.clone()),
            "--within" => {
                let seconds = arguments.next().and_then(|text| text.parse().ok());
                parsed.within = Duration::from_secs(seconds.ok_or(USAGE)?);
            }
            "--on" => {
                let side = arguments.next().and_then(|name| Side::BOTH.into_iter().find(|side| side.name() == name));
                parsed.sides = vec![side.ok_or(USAGE)?];
            }
            name => {
                let suite = SUITES.iter().find(|suite| suite.name == name);
                parsed.suites.push(suite.ok_or_else(|| format!("no suite is called {name}\n\n{USAGE}"))?);
            }
        }
    }
    if parsed.suites.is_empty() {
        parsed.suites = SUITES.iter().filter(|suite| !parsed.quick || suite.quick).collect();
    }
    if parsed.quick {
        parsed.sides = vec![Side::Taccola];
    }
    Ok(parsed)
}

pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<(), String> {
    if let [first, rest @ ..] = arguments
        && first == kfake::SERVE
    {
        return kfake::serve(root, rest);
    }
    let arguments = parse(arguments)?;
    if arguments.list {
        for suite in SUITES {
            println!("{:<22} {} {} ({})", suite.name, suite.title, suite.version, suite.source);
        }
        return Ok(());
    }
    let base = base(root);
    if !arguments.report {
        let programs = Programs::of(root, &arguments.sides);
        run_all(root, &base, &programs, &arguments)?;
    }
    report::conclude(root, &arguments.folder(&base), &arguments.suites, arguments.judged(), !arguments.partial())
}

/// What CI runs: the tests of one client that take less than a minute, on a build that is there already.
/// `Err` is a failure; `Ok` may be a reason why nothing ran.
pub(crate) fn least(root: &Path, taccola: PathBuf) -> Result<Option<String>, String> {
    if !shell::answers("go", &["version"]) {
        return Ok(Some("go is not installed".to_owned()));
    }
    let suite = SUITES.iter().find(|suite| suite.name == "kgo").ok_or("no suite kgo")?;
    let base = base(root);
    let home = base.join("sources").join(suite.name);
    if let Err(reason) = fs::create_dir_all(&home).map_err(|error| error.to_string()).and_then(|()| go::source(&home)) {
        return Ok(Some(format!("franz-go cannot be fetched: {reason}")));
    }
    let programs = Programs { taccola: Ok(taccola), jars: Err("Kafka does not take part".to_owned()) };
    let arguments = Arguments {
        suites: vec![suite],
        sides: vec![Side::Taccola],
        quick: true,
        only: Some(go::LEAST.to_owned()),
        again: false,
        within: Duration::from_secs(240),
        report: false,
        list: false,
    };
    run_all(root, &base, &programs, &arguments)?;
    report::conclude(root, &arguments.folder(&base), &arguments.suites, arguments.judged(), false).map(|()| None)
}

/// Where sources, logs and results lie.
fn base(root: &Path) -> PathBuf {
    std::env::var_os("SUITES_DIR").map_or_else(|| shell::target_dir(root).join("suites"), PathBuf::from)
}

/// Every suite on every side; what goes wrong is in the results.
fn run_all(root: &Path, base: &Path, programs: &Programs, arguments: &Arguments) -> Result<(), String> {
    let folder = arguments.folder(base);
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let progress = Progress::watched(root.to_owned(), folder.clone(), arguments)?;
    for suite in &arguments.suites {
        for side in &arguments.sides {
            let started = Instant::now();
            let within = suite.within.min(arguments.within);
            let mut run = Run {
                suite,
                side: *side,
                programs,
                home: base.join("sources").join(suite.name),
                out: base.join("runs").join(suite.name).join(side.name()),
                quick: arguments.quick,
                only: arguments.only.as_deref(),
                again: Vec::new(),
                kept: folder.join(format!("{}.{}.tsv", suite.name, side.name())),
                within,
                until: started + within,
            };
            let results = run_one(root, &mut run, arguments.again);
            println!(
                "{} on {}: {} passed, {} failed, {} skipped in {} s",
                suite.name,
                side.name(),
                results.count(Outcome::Passed),
                results.count(Outcome::Failed),
                results.count(Outcome::Skipped),
                started.elapsed().as_secs()
            );
            results.store(&run.kept)?;
        }
        // The document follows suite by suite, so that what ends the rest leaves it with what is known.
        if !arguments.partial() {
            report::write(root, &folder, &[suite])?;
        }
        progress.one_more();
    }
    Ok(())
}

fn run_one(root: &Path, run: &mut Run<'_>, again: bool) -> Results {
    let of = commit(root, run.side);
    let first = if again { Results::load(&run.kept) } else { None };
    let first = first.filter(|results| results.of == of && results.cut_short.iter().all(|reason| reason == NOT_ALONE));
    let had_first = first.is_some();
    let mut results = first.unwrap_or(Results { of, ..Results::default() });
    results.cut_short.clear();
    let missing = run.suite.needs.iter().find(|(program, argument)| !shell::answers(program, &[argument]));
    let ended = match missing {
        Some((program, _)) => Err(format!("{program} is not on this machine")),
        None if had_first => once_more(run, &mut results),
        None => {
            prepare(run).and_then(|()| (run.suite.run)(run, &mut results)).and_then(|()| once_more(run, &mut results))
        }
    };
    if let Err(reason) = ended {
        println!("{} on {}: CUT SHORT: {reason}", run.suite.name, run.side.name());
        results.cut_short.push(reason);
    } else if results.tests.is_empty() {
        results.cut_short.push("no test ran".to_owned());
    } else if Instant::now() > run.until {
        results.cut_short.push(format!("not through after {} s", run.within.as_secs()));
    }
    results
}

/// Suites count on latencies that a machine with others at work does not have: what failed runs once more, alone, on a new
/// node. That it failed at first stays in the results.
fn once_more(run: &mut Run<'_>, results: &mut Results) -> Result<(), String> {
    let is_served =
        |test: &str| !run.suite.notes.iter().any(|note| note.kind == Kind::OutOfScope && note.is_about(test));
    let failed = results
        .tests
        .iter()
        .filter(|(test, outcome)| **outcome == Outcome::Failed && (run.side == Side::Kafka || is_served(test)));
    run.again = failed.map(|(test, _)| test.clone()).collect();
    if run.again.is_empty() || run.left().is_zero() {
        return Ok(());
    }
    println!("{} on {}: {} once more, alone", run.suite.name, run.side.name(), run.again.join(", "));
    run.out = run.out.join("again");
    prepare(run)?;
    // Kept as it stands: the second run may take long, and be ended.
    let mut first = results.clone();
    first.cut_short.push(NOT_ALONE.to_owned());
    first.store(&run.kept)?;
    let mut alone = Results::default();
    let ended = (run.suite.run)(run, &mut alone);
    for test in run.again.drain(..) {
        if alone.tests.get(&test) == Some(&Outcome::Passed) {
            results.tests.insert(test.clone(), Outcome::Passed);
            results.alone.insert(test);
        }
    }
    ended
}

/// The folders of a run; what an earlier run left in them goes.
fn prepare(run: &Run<'_>) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", run.out.display());
    if run.out.exists() {
        fs::remove_dir_all(&run.out).map_err(failed)?;
    }
    fs::create_dir_all(&run.out).map_err(failed)?;
    fs::create_dir_all(&run.home).map_err(failed)
}

/// What is under test: Kafka's version, or the commit of this tree. A binary that somebody gave is of the commit that they
/// name.
fn commit(root: &Path, side: Side) -> String {
    match std::env::var_os("TACCOLA_BIN") {
        _ if side == Side::Kafka => return kafka_jars::KAFKA_VERSION.to_owned(),
        Some(_) => return std::env::var("TACCOLA_COMMIT").unwrap_or_else(|_| "a given binary".to_owned()),
        None => {}
    }
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=10", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    let changed = git(&["status", "--porcelain", "--", "crates", "Cargo.lock"]).is_some_and(|text| !text.is_empty());
    if changed { format!("{commit} with changes") } else { commit }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn arguments_choose_suites_and_sides() {
        let all = parse(&[]).unwrap();
        assert_eq!((all.suites.len(), all.sides.as_slice()), (SUITES.len(), Side::BOTH.as_slice()));
        let one = parse(&words("streams --on kafka --only smoke")).unwrap();
        assert_eq!((one.suites.len(), one.sides, one.only.as_deref()), (1, vec![Side::Kafka], Some("smoke")));
        assert_eq!(parse(&words("--quick")).unwrap().sides, [Side::Taccola]);
        for wrong in ["nobody", "--on both", "--only", "--within soon"] {
            assert!(parse(&words(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn suites_have_names_of_their_own() {
        let names: std::collections::BTreeSet<&str> = SUITES.iter().map(|suite| suite.name).collect();
        assert_eq!(names.len(), SUITES.len());
    }
}
