//! Brokers under measurement: started as a user would start them, watched through `/proc`, stopped by signal.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Clock ticks per second of `/proc/PID/stat`; 100 on every Linux that runs here.
const TICKS_PER_SECOND: f64 = 100.0;
const READY_WITHIN: Duration = Duration::from_secs(60);

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

pub(crate) struct RunningBroker {
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
        let mut child = match kind {
            BrokerKind::Taccola(binary) => Command::new(binary)
                .arg("serve")
                .arg("-c")
                .arg(&properties)
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .map_err(|error| format!("{}: {error}", binary.display()))?,
            BrokerKind::Kafka(classpath) => start_kafka(classpath, &dir, &properties)?,
        };
        wait_ready(&mut child)?;
        Ok(Self { child, port, dir, ready_after: started.elapsed() })
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
        let sent = Command::new("kill").arg(self.child.id().to_string()).status().map_err(|error| error.to_string())?;
        if !sent.success() {
            return Err("the broker is gone".to_owned());
        }
        self.child.wait().map(|_| ()).map_err(|error| error.to_string())
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

fn start_kafka(classpath: &str, dir: &Path, properties: &Path) -> Result<Child, String> {
    let log4j = dir.join("log4j2.yaml");
    let layout = "Configuration: {Appenders: {Console: {name: OUT, PatternLayout: {pattern: \"%m%n\"}}}, \
                  Loggers: {Root: {level: INFO, AppenderRef: {ref: OUT}}}}\n";
    fs::write(&log4j, layout).map_err(|error| error.to_string())?;
    let java = |heap: &str| {
        let mut command = Command::new("java");
        command.args([
            &format!("-Xms{heap}"),
            &format!("-Xmx{heap}"),
            "-XX:+UseG1GC",
            "-XX:MaxGCPauseMillis=20",
            "-cp",
            classpath,
        ]);
        command.arg(format!("-Dlog4j2.configurationFile={}", log4j.display())).stderr(Stdio::null());
        command
    };
    let formatted = java("256m")
        .args(["kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c"])
        .arg(properties)
        .stdout(Stdio::null())
        .status();
    match formatted {
        Ok(status) if status.success() => {}
        other => return Err(format!("kafka-storage format: {other:?}")),
    }
    java("1g")
        .arg("kafka.Kafka")
        .arg(properties)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("java: {error}"))
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
