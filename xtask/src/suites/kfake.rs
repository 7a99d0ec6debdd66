//! kfake's `kafka_tests`, which derive from Kafka's own client integration tests. They run a fake broker inside the test; a
//! package of the same name (`kfake_shim.go`) puts a real node in the place of each cluster, behind a proxy that shows requests
//! to the tests' control functions and answers those that a function answers itself.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use super::Run;
use super::fetch::{BUILT_WITHIN, go_module, once, script};
use super::go;
use super::job::{Job, must};
use super::node::{Node, Programs, Side};
use super::outcome::{Outcome, Results};

pub(super) const VERSION: &str = "0.0.0-20260918054303-01f206a7e32c";
/// Sessions and heartbeats may be as short as the tests want them.
pub(super) const SETTINGS: &[&str] = &[
    "group.min.session.timeout.ms=1",
    "group.consumer.min.session.timeout.ms=1",
    "group.consumer.min.heartbeat.interval.ms=1",
    "group.share.min.session.timeout.ms=1",
    "group.share.min.heartbeat.interval.ms=1",
];
pub(super) const CHANGES: &str = "`xtask/src/suites/kfake_shim.go` is the package `kfake` that they use";

/// The argument by which the shim starts a node: `SERVE SIDE DIR KEY=VALUE ...`.
pub(super) const SERVE: &str = "--serve";
const SHIM: &str = include_str!("kfake_shim.go");
/// Needs three brokers.
const LEFT_OUT: &str = "^TestCreateTopicsReplicaAssignment$";

pub(super) fn run(run: &Run<'_>, results: &mut Results) -> Result<(), String> {
    let original = go_module(&run.home.join(VERSION), &format!("github.com/twmb/franz-go/pkg/kfake@v{VERSION}"))?;
    let shim = run.out.join("kfake.go");
    fs::write(&shim, SHIM).map_err(|error| error.to_string())?;
    let source = run.home.join("shimmed");
    once(&source, |dir| {
        // The tests go with the client of their own repository, not with the older one of their go.mod.
        let steps = "cp -r \"$1/kafka_tests\" \"$1/go.mod\" \"$1/go.sum\" . && cp \"$2\" kfake.go && go get \"$3\"";
        let (original, shim) = (original.display().to_string(), shim.display().to_string());
        script(dir, "fetch", steps, &[&original, &shim, &format!("github.com/twmb/franz-go@v{}", go::VERSION)])
    })?;
    fs::write(source.join("kfake.go"), SHIM).map_err(|error| error.to_string())?;
    let mut build = Command::new("go");
    build.args(["test", "-c", "-vet=off", "-o", "tests", "./kafka_tests"]).current_dir(&source);
    must("go test -c", &mut build, &run.out.join("build.log"), BUILT_WITHIN)?;
    let mut command = Command::new("go");
    let again = go::pattern(&run.again);
    let tests = again.as_deref().or(run.only).unwrap_or(".");
    let parallel = if again.is_some() { "1" } else { "2" };
    let within = format!("{}s", run.left().as_secs());
    command.args(["test", "-json", "-vet=off", "-count=1", "-parallel", parallel, "-timeout", &within]);
    command.args(["-run", tests, "-skip", LEFT_OUT, "./kafka_tests"]).current_dir(&source);
    let xtask = std::env::current_exe().map_err(|error| error.to_string())?;
    command.env("SUITES_XTASK", xtask).env("SUITES_SIDE", run.side.name()).env("SUITES_OUT", &run.out);
    // The nodes that the shim starts are of the same programs.
    if let Ok(taccola) = &run.programs.taccola {
        command.env("TACCOLA_BIN", taccola);
    }
    if let Ok(jars) = &run.programs.jars {
        command.env("KAFKA_JARS", jars);
    }
    let mut job = Job::start("go test", &mut command, &run.out.join("log.json"))?;
    let ended = job.wait(run.left(), || None);
    go::read(&job.output(), results);
    let ended = ended?;
    if !ended.success() && results.count(Outcome::Failed) == 0 {
        return Err(format!("go test: {ended}; see {}", run.out.join("log.json").display()));
    }
    Ok(())
}

/// Serves one node for the shim: says its address, and ends when standard input does.
pub(super) fn serve(root: &Path, arguments: &[String]) -> Result<(), String> {
    let [side, dir, settings @ ..] = arguments else { return Err(super::USAGE.to_owned()) };
    let side = Side::BOTH.into_iter().find(|known| known.name() == side).ok_or(super::USAGE)?;
    let programs = Programs::of(root, &[side]);
    let settings: Vec<&str> = SETTINGS.iter().copied().chain(settings.iter().map(String::as_str)).collect();
    let mut node = Node::start(side, &programs, Path::new(dir), &settings)?;
    println!("{}", node.address());
    let mut rest = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut rest);
    let alive = node.alive();
    drop(node);
    fs::remove_dir_all(Path::new(dir).join("data")).map_err(|error| error.to_string())?;
    alive
}
