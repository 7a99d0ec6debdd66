//! The broker under test: one node, Apache Kafka on the JVM or Taccola, with the same properties; killed and started again
//! on the same ports and directory where a scenario wants that.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use taccola_wire::codec::Request;
use taccola_wire::frame;
use taccola_wire::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};

use super::job::{Job, must};
use crate::{kafka_jars, shell};

/// Longest wait for the line that says that the broker serves.
const READY_WITHIN: Duration = Duration::from_secs(300);
const STOPS_WITHIN: Duration = Duration::from_secs(180);
/// Below the ports that systems give to connections, so that none of those takes a port between a kill and a restart.
const PORTS: std::ops::Range<u16> = 21_000..31_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Kafka,
    Taccola,
}

impl Side {
    pub(super) const BOTH: [Side; 2] = [Side::Kafka, Side::Taccola];

    pub(super) fn name(self) -> &'static str {
        match self {
            Side::Kafka => "kafka",
            Side::Taccola => "taccola",
        }
    }
}

/// What starts the two brokers, or why it is not there.
pub(super) struct Programs {
    pub(super) taccola: Result<PathBuf, String>,
    pub(super) jars: Result<PathBuf, String>,
}

impl Programs {
    /// Those that these sides need, and Kafka's jars.
    pub(super) fn of(root: &Path, sides: &[Side]) -> Self {
        let taccola = if sides.contains(&Side::Taccola) {
            shell::release_binary(root)
        } else {
            Err("Taccola does not take part".to_owned())
        };
        Self { taccola, jars: kafka_jars::dir(root) }
    }

    /// The folder of Kafka's jars.
    pub(super) fn jars(&self) -> Result<&Path, String> {
        self.jars.as_deref().map_err(Clone::clone)
    }

    /// A Java program with Kafka's jars.
    pub(super) fn java(&self, heap: &str) -> Result<Command, String> {
        Ok(java(heap, &[self.jars()?]))
    }
}

/// A Java program with the jars of these folders, which starts fast and says nothing but what it must.
pub(super) fn java(heap: &str, folders: &[&Path]) -> Command {
    let class_path: Vec<String> = folders.iter().map(|dir| format!("{}/*", dir.display())).collect();
    let mut command = Command::new("java");
    command.args([&format!("-Xmx{heap}"), "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", &class_path.join(":")]);
    command
}

pub(super) struct Node {
    side: Side,
    log: PathBuf,
    port: u16,
    command: Command,
    job: Job,
}

impl Node {
    /// Starts a node with its files in `dir`: the usual properties of one node, then `settings`, of which the last word counts.
    pub(super) fn start(side: Side, programs: &Programs, dir: &Path, settings: &[&str]) -> Result<Self, String> {
        fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let (port, controller) = (free_port()?, free_port()?);
        let properties = dir.join("server.properties");
        fs::write(&properties, properties_text(dir, port, controller, settings)).map_err(|error| error.to_string())?;
        let mut command = match side {
            Side::Taccola => {
                let mut command = Command::new(programs.taccola.as_ref().map_err(Clone::clone)?);
                command.arg("serve").arg("-c").arg(&properties);
                command
            }
            Side::Kafka => kafka(programs, dir, &properties)?,
        };
        let log = dir.join("broker.log");
        let job = launch(side, &mut command, &log)?;
        Ok(Self { side, log, port, command, job })
    }

    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Says so if the broker is gone.
    pub(super) fn died(&mut self) -> Option<String> {
        self.job.ended().map(|status| format!("the broker died ({status}); see {}", self.log.display()))
    }

    pub(super) fn alive(&mut self) -> Result<(), String> {
        self.died().map_or(Ok(()), Err)
    }

    /// `kill -9`, and the same node again.
    pub(super) fn kill_and_restart(&mut self) -> Result<(), String> {
        self.alive()?;
        self.job.kill();
        self.job = launch(self.side, &mut self.command, &self.log)?;
        Ok(())
    }

    /// A clean stop; a broker that is gone already, or does not stop, is an error.
    pub(super) fn stop(mut self) -> Result<(), String> {
        self.alive()?;
        self.job.stop(STOPS_WITHIN)
    }
}

fn launch(side: Side, command: &mut Command, log: &Path) -> Result<Job, String> {
    let mark = fs::metadata(log).map_or(0, |data| usize::try_from(data.len()).unwrap_or(usize::MAX));
    let mut job = Job::start(&format!("the broker ({})", side.name()), command, log)?;
    job.wait_for(&["Kafka Server started"], mark, READY_WITHIN)
        .map_err(|error| format!("{error}; see {}", log.display()))?;
    Ok(job)
}

/// A formatted directory, and the command that starts Kafka on it.
fn kafka(programs: &Programs, dir: &Path, properties: &Path) -> Result<Command, String> {
    let mut format = programs.java("256m")?;
    format.args(["kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c"]).arg(properties);
    must("kafka-storage format", &mut format, &dir.join("format.log"), READY_WITHIN)?;
    let log4j = dir.join("log4j2.yaml");
    let layout = "Configuration: {Appenders: {Console: {name: OUT, PatternLayout: {pattern: \"%d %p %m%n%ex\"}}}, \
                  Loggers: {Root: {level: INFO, AppenderRef: {ref: OUT}}}}\n";
    fs::write(&log4j, layout).map_err(|error| error.to_string())?;
    let mut command = Command::new("java");
    command.args(["-Xms512m", "-Xmx512m", "-XX:+UseG1GC", "-cp", &format!("{}/*", programs.jars()?.display())]);
    command.arg(format!("-Dlog4j2.configurationFile={}", log4j.display())).arg("kafka.Kafka").arg(properties);
    Ok(command)
}

/// A port that nobody listens on.
fn free_port() -> Result<u16, String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let count = u32::from(PORTS.end - PORTS.start);
    for _ in 0..count {
        let place = (std::process::id().wrapping_mul(97) + NEXT.fetch_add(1, Ordering::Relaxed)) % count;
        let port = PORTS.start + u16::try_from(place).unwrap_or(0);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err("no free port".to_owned())
}

fn properties_text(dir: &Path, port: u16, controller: u16, settings: &[&str]) -> String {
    format!(
        "process.roles=broker,controller\nnode.id=0\ncontroller.quorum.voters=0@127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\nlog.dirs={}\n\
         offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\nshare.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\ngroup.initial.rebalance.delay.ms=0\n{}\n",
        dir.join("data").display(),
        settings.join("\n")
    )
}

/// Creates topics of one replica.
pub(super) fn create_topics(address: &str, topics: &[(&str, i32)]) -> Result<(), String> {
    let topic = |(name, partitions): &(&str, i32)| CreatableTopic {
        name: (*name).into(),
        num_partitions: *partitions,
        replication_factor: 1,
        ..Default::default()
    };
    let request =
        CreateTopicsRequest { topics: topics.iter().map(topic).collect(), timeout_ms: 30_000, ..Default::default() };
    let mut stream = TcpStream::connect(address).map_err(|error| format!("{address}: {error}"))?;
    let response = call(&mut stream, 7, &request)?;
    response
        .topics
        .iter()
        .find(|topic| topic.error_code != 0)
        .map_or(Ok(()), |topic| Err(format!("CreateTopics: {}: error {}", topic.name, topic.error_code)))
}

fn call<R: Request>(stream: &mut TcpStream, version: i16, request: &R) -> Result<R::Response, String> {
    let failed = |error: std::io::Error| format!("the broker under test: {error}");
    let frame = frame::encode_request(1, Some("suites"), version, request).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(READY_WITHIN)).map_err(failed)?;
    stream.write_all(&frame).map_err(failed)?;
    let mut size = [0; 4];
    stream.read_exact(&mut size).map_err(failed)?;
    let mut reply = Vec::new();
    let size = u64::from(u32::from_be_bytes(size));
    stream.take(size).read_to_end(&mut reply).map_err(failed)?;
    frame::decode_response::<R>(version, Bytes::from(reply)).map(|(_, response)| response).map_err(|e| e.to_string())
}
