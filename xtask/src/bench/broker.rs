//! Brokers under measurement: started as a user would start them, watched through `/proc`, stopped by signal.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Clock ticks per second of `/proc/PID/stat`; 100 on every Linux that runs here.
const TICKS_PER_SECOND: f64 = 100.0;
const READY_WITHIN: Duration = Duration::from_secs(300);

#[derive(Clone)]
pub(crate) enum BrokerKind {
    /// The binary.
    Taccola(PathBuf),
    /// The class path of Kafka's jars.
    Kafka(String),
}

impl BrokerKind {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            BrokerKind::Taccola(_) => "taccola",
            BrokerKind::Kafka(_) => "kafka",
        }
    }
}

/// How a broker ends before it starts again.
#[derive(Clone, Copy)]
pub(crate) enum Ending {
    /// SIGTERM, and the broker's own time.
    Clean,
    /// SIGKILL.
    Kill,
}

pub(crate) struct RunningBroker {
    kind: BrokerKind,
    child: Child,
    port: u16,
    dir: PathBuf,
    /// From the start of the process (of formatting, where that is a step of its own) to the ready line.
    pub(crate) ready_after: Duration,
}

/// Kafka's jars by Maven, once, into `target/kafka-jars` (or `KAFKA_JARS`).
pub(crate) fn kafka_classpath(root: &Path) -> Result<String, String> {
    crate::kafka_jars::dir(root).map(|dir| format!("{}/*", dir.display()))
}

fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    listener.local_addr().map(|address| address.port()).map_err(|error| error.to_string())
}

impl RunningBroker {
    pub(crate) fn start(kind: &BrokerKind, extra: &[&str]) -> Result<Self, String> {
        let (port, controller_port) = (free_port()?, free_port()?);
        let dir = std::env::temp_dir().join(format!("taccola-bench-{}-{port}", std::process::id()));
        fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        let properties = dir.join("server.properties");
        let mut text = format!(
            "process.roles=broker,controller\nnode.id=0\ncontroller.quorum.voters=0@127.0.0.1:{controller_port}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\nlog.dirs={}\n\
             offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\nshare.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\ngroup.initial.rebalance.delay.ms=0\n",
            dir.join("data").display()
        );
        for line in extra {
            text.push_str(line);
            text.push('\n');
        }
        fs::write(&properties, text).map_err(|error| error.to_string())?;
        let started = Instant::now();
        if let BrokerKind::Kafka(classpath) = kind {
            format_kafka(classpath, &dir, &properties)?;
        }
        let child = spawn_ready(kind, &dir)?;
        Ok(Self { kind: kind.clone(), child, port, dir, ready_after: started.elapsed() })
    }

    /// Ends the process and starts another one on the same data. Answers how long the end took; `ready_after` is of the
    /// new process.
    pub(crate) fn restart(&mut self, ending: Ending) -> Result<Duration, String> {
        let began = Instant::now();
        match ending {
            Ending::Clean => self.terminate()?,
            Ending::Kill => self.child.kill().map_err(|error| error.to_string())?,
        }
        self.child.wait().map_err(|error| error.to_string())?;
        let ended_after = began.elapsed();
        let started = Instant::now();
        self.child = spawn_ready(&self.kind, &self.dir)?;
        self.ready_after = started.elapsed();
        Ok(ended_after)
    }

    /// Where the log directories are.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Open file handles, and mappings of files of the data directory.
    pub(crate) fn handles_and_maps(&self) -> (usize, usize) {
        let proc = PathBuf::from(format!("/proc/{}", self.child.id()));
        let handles = fs::read_dir(proc.join("fd")).map_or(0, Iterator::count);
        let data = self.data().display().to_string();
        let maps = fs::read_to_string(proc.join("maps")).unwrap_or_default();
        (handles, maps.lines().filter(|line| line.contains(&data)).count())
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// User and system time of the process so far, seconds.
    pub(crate) fn cpu_seconds(&self) -> (f64, f64) {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let field = |index: usize| after_name.split(' ').nth(index).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
        (field(11) / TICKS_PER_SECOND, field(12) / TICKS_PER_SECOND)
    }

    pub(crate) fn rss_mb(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0
    }

    /// SIGTERM, and waits for the end; the data goes when this is dropped.
    pub(crate) fn stop(mut self) -> Result<(), String> {
        self.terminate()?;
        self.child.wait().map(|_| ()).map_err(|error| error.to_string())
    }

    fn terminate(&self) -> Result<(), String> {
        let sent = Command::new("kill").arg(self.child.id().to_string()).status().map_err(|error| error.to_string())?;
        if sent.success() { Ok(()) } else { Err("the broker is gone".to_owned()) }
    }
}

/// Whatever happened, no process and no data stay behind.
impl Drop for RunningBroker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Starts the process and waits for its ready line.
fn spawn_ready(kind: &BrokerKind, dir: &Path) -> Result<Child, String> {
    let properties = dir.join("server.properties");
    let mut command = match kind {
        BrokerKind::Taccola(binary) => {
            let mut command = Command::new(binary);
            command.arg("serve").arg("-c").arg(&properties).stderr(Stdio::null());
            command
        }
        BrokerKind::Kafka(classpath) => {
            let mut command = java(classpath, dir, "1g");
            command.arg("kafka.Kafka").arg(&properties);
            command
        }
    };
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| format!("{}: {error}", kind.name()))?;
    wait_ready(&mut child)?;
    Ok(child)
}

fn java(classpath: &str, dir: &Path, heap: &str) -> Command {
    let mut command = Command::new("java");
    command.args([
        &format!("-Xms{heap}"),
        &format!("-Xmx{heap}"),
        "-XX:+UseG1GC",
        "-XX:MaxGCPauseMillis=20",
        "-cp",
        classpath,
    ]);
    let log4j = dir.join("log4j2.yaml");
    command.arg(format!("-Dlog4j2.configurationFile={}", log4j.display())).stderr(Stdio::null());
    command
}

fn format_kafka(classpath: &str, dir: &Path, properties: &Path) -> Result<(), String> {
    let layout = "Configuration: {Appenders: {Console: {name: OUT, PatternLayout: {pattern: \"%m%n\"}}}, \
                  Loggers: {Root: {level: INFO, AppenderRef: {ref: OUT}}}}\n";
    fs::write(dir.join("log4j2.yaml"), layout).map_err(|error| error.to_string())?;
    let formatted = java(classpath, dir, "256m")
        .args(["kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c"])
        .arg(properties)
        .stdout(Stdio::null())
        .status();
    match formatted {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("kafka-storage format: {other:?}")),
    }
}

/// Reads standard output up to the ready line, and keeps it drained afterwards.
fn wait_ready(child: &mut Child) -> Result<(), String> {
    let output = child.stdout.take().ok_or("no standard output")?;
    let (ready, waiting) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if line.contains("Kafka Server started") {
                let _ = ready.send(());
            }
        }
    });
    waiting.recv_timeout(READY_WITHIN).map_err(|_| {
        let _ = child.kill();
        format!("the broker was not ready after {READY_WITHIN:?}")
    })
}
