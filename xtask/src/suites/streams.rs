//! Kafka Streams' own drivers (`kafka-streams`, test jar) with the scenarios that Kafka's system tests play with them: an
//! application whose instances come, close or are killed while a driver writes and afterwards checks every result. Beside
//! what those tests do, the broker is killed too.
//!
//! `SmokeTestDriver` and `RelationalSmokeTest` are of the release under test; `EosTestDriver` is not in it any more (its
//! checks went into the smoke driver) and comes from the last one that has it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Run;
use super::job::Job;
use super::node::{Node, create_topics, java};
use super::outcome::Results;
use crate::kafka_jars::{self, KAFKA_VERSION, LOGGING, kafka};

/// The last release with `EosTestDriver`.
const EOS_VERSION: &str = "4.2.0";
/// For a state, a rebalance or the first records: JVMs start and restore on a machine that is busy.
const SOON: Duration = Duration::from_secs(300);
/// For a driver's verification.
const VERIFIED_WITHIN: Duration = Duration::from_secs(900);

/// Short rounds and sessions, as the system tests have them.
pub(super) const SETTINGS: &[&str] = &[
    "group.streams.min.session.timeout.ms=10000",
    "group.streams.session.timeout.ms=10000",
    "group.streams.min.heartbeat.interval.ms=1000",
    "group.streams.heartbeat.interval.ms=1000",
    "group.streams.num.standby.replicas=1",
    "transaction.remove.expired.transaction.cleanup.interval.ms=3600000",
];

const SMOKE_TOPICS: [&str; 14] = [
    "data",
    "echo",
    "max",
    "min",
    "min-suppressed",
    "min-raw",
    "dif",
    "sum",
    "sws-raw",
    "sws-suppressed",
    "cnt",
    "avg",
    "tagg",
    "fk",
];
const EOS_TOPICS: [&str; 7] = ["data", "echo", "min", "sum", "repartition", "max", "cnt"];
const RELATIONAL_TOPICS: [(&str, i32); 4] =
    [("in-article", 3), ("in-comment", 5), ("out-augmented-article", 3), ("out-augmented-comment", 5)];
/// The EOS application asks for three replicas of these, more than one node has: they are there before it starts.
const EOS_CHANGELOGS: [&str; 4] = [
    "EosTest-KSTREAM-AGGREGATE-STATE-STORE-0000000003-changelog",
    "EosTest-KSTREAM-AGGREGATE-STATE-STORE-0000000007-changelog",
    "EosTest-KSTREAM-AGGREGATE-STATE-STORE-0000000014-changelog",
    "EosTest-KSTREAM-AGGREGATE-STATE-STORE-0000000018-changelog",
];

#[derive(Clone, Copy, PartialEq)]
enum Driver {
    Smoke,
    Relational,
    Eos { complex: bool },
}

/// What happens to the instances while the data flows.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    /// Each is closed before the next takes over.
    Close,
    /// Each gets SIGKILL instead.
    Crash,
    /// The broker gets SIGKILL each time that an instance has begun to work, and the instances close.
    BrokerKill,
}

struct Scenario {
    name: &'static str,
    driver: Driver,
    guarantee: &'static str,
    protocol: &'static str,
    fault: Fault,
}

const ALO: &str = "at_least_once";
const EOS: &str = "exactly_once_v2";

const fn scenario(
    name: &'static str,
    driver: Driver,
    guarantee: &'static str,
    protocol: &'static str,
    fault: Fault,
) -> Scenario {
    Scenario { name, driver, guarantee, protocol, fault }
}

const SIMPLE: Driver = Driver::Eos { complex: false };
const COMPLEX: Driver = Driver::Eos { complex: true };

const SCENARIOS: &[Scenario] = &[
    scenario("smoke/exactly_once_v2/streams/broker-kill", Driver::Smoke, EOS, "streams", Fault::BrokerKill),
    scenario("smoke/exactly_once_v2/classic/broker-kill", Driver::Smoke, EOS, "classic", Fault::BrokerKill),
    scenario("smoke/exactly_once_v2/streams/crash", Driver::Smoke, EOS, "streams", Fault::Crash),
    scenario("smoke/exactly_once_v2/classic/crash", Driver::Smoke, EOS, "classic", Fault::Crash),
    scenario("smoke/exactly_once_v2/streams/close", Driver::Smoke, EOS, "streams", Fault::Close),
    scenario("smoke/exactly_once_v2/classic/close", Driver::Smoke, EOS, "classic", Fault::Close),
    scenario("smoke/at_least_once/streams/broker-kill", Driver::Smoke, ALO, "streams", Fault::BrokerKill),
    scenario("smoke/at_least_once/classic/broker-kill", Driver::Smoke, ALO, "classic", Fault::BrokerKill),
    scenario("smoke/at_least_once/streams/crash", Driver::Smoke, ALO, "streams", Fault::Crash),
    scenario("smoke/at_least_once/classic/crash", Driver::Smoke, ALO, "classic", Fault::Crash),
    scenario("smoke/at_least_once/streams/close", Driver::Smoke, ALO, "streams", Fault::Close),
    scenario("smoke/at_least_once/classic/close", Driver::Smoke, ALO, "classic", Fault::Close),
    scenario("relational/exactly_once_v2/streams/crash", Driver::Relational, EOS, "streams", Fault::Crash),
    scenario("relational/exactly_once_v2/classic/crash", Driver::Relational, EOS, "classic", Fault::Crash),
    scenario("relational/exactly_once_v2/streams/broker-kill", Driver::Relational, EOS, "streams", Fault::BrokerKill),
    scenario("relational/exactly_once_v2/classic/broker-kill", Driver::Relational, EOS, "classic", Fault::BrokerKill),
    scenario("eos/simple/streams/crash", SIMPLE, EOS, "streams", Fault::Crash),
    scenario("eos/simple/classic/crash", SIMPLE, EOS, "classic", Fault::Crash),
    scenario("eos/complex/streams/crash", COMPLEX, EOS, "streams", Fault::Crash),
    scenario("eos/complex/classic/crash", COMPLEX, EOS, "classic", Fault::Crash),
    scenario("eos/complex/streams/close", COMPLEX, EOS, "streams", Fault::Close),
    scenario("eos/complex/classic/close", COMPLEX, EOS, "classic", Fault::Close),
    scenario("eos/complex/streams/broker-kill", COMPLEX, EOS, "streams", Fault::BrokerKill),
    scenario("eos/complex/classic/broker-kill", COMPLEX, EOS, "classic", Fault::BrokerKill),
];

/// How many scenarios run at the same time: JVMs that wait for one another most of the time.
const JOBS: usize = 3;

/// What `--quick` runs.
const QUICK: [&str; 1] = ["smoke/exactly_once_v2/streams/broker-kill"];

pub(super) fn run(run: &Run<'_>, results: &mut Results) -> Result<(), String> {
    let chosen = SCENARIOS.iter().filter(|scenario| run.wants(scenario.name, QUICK.contains(&scenario.name)));
    let chosen: Vec<(&str, &Scenario)> = chosen.map(|scenario| (scenario.name, scenario)).collect();
    let jars = Jars::bring(run)?;
    run.play(JOBS, &chosen, results, |scenario, dir| play(run, &jars, scenario, dir));
    Ok(())
}

/// Folders with the drivers' classes.
struct Jars {
    tests: PathBuf,
    eos: PathBuf,
    kafka: PathBuf,
}

impl Jars {
    fn bring(run: &Run<'_>) -> Result<Self, String> {
        let tests = run.home.join(KAFKA_VERSION);
        let of_tests = ["kafka-streams", "kafka-clients"].map(|artifact| kafka(artifact, KAFKA_VERSION, "test"));
        kafka_jars::bring(&tests, &of_tests)?;
        let eos = run.home.join(EOS_VERSION);
        let [streams, clients] =
            ["kafka-streams", "kafka-clients"].map(|artifact| kafka(artifact, EOS_VERSION, "test"));
        kafka_jars::bring(&eos, &[kafka("kafka-streams", EOS_VERSION, ""), streams, clients, LOGGING])?;
        Ok(Self { tests, eos, kafka: run.programs.jars()?.to_owned() })
    }
}

/// One scenario under way.
struct Stage<'a> {
    jars: &'a Jars,
    scenario: &'a Scenario,
    dir: &'a Path,
    node: Node,
}

fn play(run: &Run<'_>, jars: &Jars, scenario: &Scenario, dir: &Path) -> Result<(), String> {
    let node = run.node(&dir.join("node"), &[])?;
    let mut stage = Stage { jars, scenario, dir, node };
    match scenario.driver {
        Driver::Smoke => stage.smoke()?,
        Driver::Relational => stage.relational()?,
        Driver::Eos { .. } => stage.eos()?,
    }
    stage.node.stop()
}

impl Stage<'_> {
    /// Starts a program of the drivers; its output goes to `NAME.log`.
    fn java(&self, name: &str, class: &str, arguments: &[&str]) -> Result<Job, String> {
        let log4j = self.dir.join("log4j2.yaml");
        let layout = "Configuration: {Appenders: {Console: {name: OUT, PatternLayout: {pattern: \"%d %p %m (%c)%n%ex\"}}}, \
                      Loggers: {Root: {level: WARN, AppenderRef: {ref: OUT}}, \
                      Logger: [{name: org.apache.kafka.streams.tests, level: INFO}]}}\n";
        fs::write(&log4j, layout).map_err(|error| error.to_string())?;
        let folders: &[&Path] = match self.scenario.driver {
            Driver::Eos { .. } => &[&self.jars.eos],
            _ => &[&self.jars.tests, &self.jars.kafka],
        };
        let mut command = java("512m", folders);
        command.arg(format!("-Dlog4j2.configurationFile={}", log4j.display()));
        command.arg(format!("-Djava.io.tmpdir={}", self.dir.display()));
        command.arg(format!("org.apache.kafka.streams.tests.{class}")).args(arguments);
        Job::start(name, &mut command, &self.dir.join(format!("{name}.log")))
    }

    /// The properties of an instance, as the system tests set them for one node.
    fn properties(&self, name: &str) -> Result<String, String> {
        let Scenario { guarantee, protocol, driver, .. } = self.scenario;
        let state = self.dir.join(format!("state-{name}"));
        let mut text = format!(
            "bootstrap.servers={}\nstate.dir={}\nprocessing.guarantee={guarantee}\ngroup.protocol={protocol}\n",
            self.node.address(),
            state.display()
        );
        if *driver == Driver::Smoke {
            text.push_str("num.stream.threads=3\nreplication.factor=1\nbuffered.records.per.partition=100\n");
            text.push_str("commit.interval.ms=1000\nauto.offset.reset=earliest\nacks=all\n");
        }
        if *protocol == "classic" {
            text.push_str("acceptable.recovery.lag=9223372036854775807\nsession.timeout.ms=10000\n");
            if *driver == Driver::Smoke {
                text.push_str("num.standby.replicas=2\n");
            }
        }
        let path = self.dir.join(format!("{name}.properties"));
        fs::write(&path, text).map_err(|error| error.to_string())?;
        Ok(path.display().to_string())
    }

    fn create(&self, topics: &[&str]) -> Result<(), String> {
        let topics: Vec<(&str, i32)> = topics.iter().map(|topic| (*topic, 5)).collect();
        create_topics(&self.node.address(), &topics)
    }

    /// The end of an instance, as the scenario wants it.
    fn end(&mut self, mut instance: Job) -> Result<(), String> {
        match self.scenario.fault {
            Fault::Crash => {
                instance.kill();
                Ok(())
            }
            Fault::Close | Fault::BrokerKill => instance.stop(SOON),
        }
    }

    /// The broker's end and return, where the scenario is about that; then the instance works on.
    fn disturb(&mut self, instance: &mut Job, sign_of_work: &[&str]) -> Result<(), String> {
        if self.scenario.fault != Fault::BrokerKill {
            return self.node.alive();
        }
        self.node.kill_and_restart()?;
        let mark = instance.mark();
        instance.wait_for(sign_of_work, mark, SOON).map(|_| ())
    }

    fn smoke(&mut self) -> Result<(), String> {
        self.create(&SMOKE_TOPICS)?;
        let instance = |stage: &Self, name: &str| -> Result<Job, String> {
            let mut job = stage.java(name, "StreamsSmokeTest", &[&stage.properties(name)?, "process"])?;
            job.wait_for(&["REBALANCING -> RUNNING"], 0, SOON)?;
            Ok(job)
        };
        let works = ["processed", "records from topic"];
        let mut current = instance(self, "instance1")?;
        let mut driver = self.java("driver", "StreamsSmokeTest", &[&self.properties("driver")?, "run"])?;
        for name in ["instance2", "instance3"] {
            current.wait_for(&works, 0, SOON)?;
            self.disturb(&mut current, &works)?;
            if driver.output().contains("Result Verification") {
                return Err("the data ran out before the faults".to_owned());
            }
            self.end(current)?;
            current = instance(self, name)?;
        }
        current.wait_for(&works, 0, SOON)?;
        let node = &mut self.node;
        driver.wait(VERIFIED_WITHIN, || node.died())?;
        current.stop(SOON)?;
        let said = driver.output();
        // At least once may be more than once where an instance or the broker was killed.
        let twice_is_fine = self.scenario.guarantee == ALO && self.scenario.fault != Fault::Close;
        let good = said.contains("SUCCESS")
            || (twice_is_fine
                && said.contains("PROCESSED-MORE-THAN-GENERATED")
                && said.contains("ALL-RECORDS-DELIVERED"));
        if good { Ok(()) } else { Err("the driver's verification failed".to_owned()) }
    }

    fn relational(&mut self) -> Result<(), String> {
        create_topics(&self.node.address(), &RELATIONAL_TOPICS)?;
        let class = "RelationalSmokeTest";
        let address = self.node.address();
        let instance = |stage: &Self, name: &str| -> Result<Job, String> {
            let state = stage.dir.join(format!("state-{name}")).display().to_string();
            let Scenario { guarantee, protocol, .. } = stage.scenario;
            stage.java(name, class, &["application", &address, name, guarantee, protocol, &state])
        };
        let (mut first, mut second) = (instance(self, "instance1")?, instance(self, "instance2")?);
        first.wait_for(&["Streams has started"], 0, SOON)?;
        second.wait_for(&["Streams has started"], 0, SOON)?;
        let mut driver = self.java("driver", class, &["driver", &address])?;
        // Some of the ten thousand: the rest flows through the faults.
        driver.wait_for(&["sent in-comment 1000 "], 0, SOON)?;
        if self.scenario.fault == Fault::BrokerKill {
            self.node.kill_and_restart()?;
        }
        self.end(first)?;
        let mut third = instance(self, "instance3")?;
        third.wait_for(&["Streams has started"], 0, SOON)?;
        self.end(second)?;
        let node = &mut self.node;
        driver.wait(VERIFIED_WITHIN, || node.died())?;
        third.kill();
        let good = driver.output().contains("Smoke test complete: passed");
        if good { Ok(()) } else { Err("the driver's verification failed".to_owned()) }
    }

    /// Three instances, of which one at a time ends and comes back.
    fn eos(&mut self) -> Result<(), String> {
        self.create(&EOS_TOPICS)?;
        self.create(&EOS_CHANGELOGS)?;
        let complex = self.scenario.driver == COMPLEX;
        let (process, verify) = if complex { ("process-complex", "verify-complex") } else { ("process", "verify") };
        let class = "StreamsEosTest";
        let mut driver = self.java("driver", class, &[&self.properties("driver")?, "run"])?;
        driver.wait_for(&["records produced"], 0, SOON)?;
        let runs = ["StateChange: REBALANCING -> RUNNING"];
        let works = ["processed", "records from topic"];
        let mut instances = Vec::new();
        for round in 0..5 {
            if instances.len() == 3 {
                let oldest: Job = instances.remove(0);
                self.end(oldest)?;
            }
            let name = format!("instance{}", round % 3 + 1);
            let properties = self.properties(&name)?;
            let mut job = self.java(&format!("{name}-{round}"), class, &[&properties, process])?;
            job.wait_for(&runs, 0, SOON)?;
            instances.push(job);
            for instance in &mut instances {
                let mark = instance.mark();
                instance.wait_for(&works, mark, SOON)?;
            }
            if let Some(instance) = instances.first_mut() {
                self.disturb(instance, &works)?;
            }
        }
        for mut instance in instances {
            instance.stop(SOON)?;
        }
        driver.stop(SOON)?;
        let mut verifier = self.java("verifier", class, &[&self.properties("verifier")?, verify])?;
        let node = &mut self.node;
        verifier.wait(VERIFIED_WITHIN, || node.died())?;
        let good = verifier.output().contains("ALL-RECORDS-DELIVERED");
        if good { Ok(()) } else { Err("the verifier did not find every record once".to_owned()) }
    }
}
