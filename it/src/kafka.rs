//! Apache Kafka on a directory, as an oracle and as the other owner of a data directory. SIGKILL when dropped.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::clients::kafka_tool;
use crate::conn::Conn;
use crate::{free_port, run};

/// How long a JVM may take on a busy machine.
pub const JVM: Duration = Duration::from_secs(120);

/// Apache Kafka on a directory.
pub struct Kafka {
    pub child: Child,
    pub port: u16,
}

impl Kafka {
    /// `None` where it is not installed. Log directory: `<home>/data`, formatted if asked to; `extra` are `key=value` lines.
    pub fn spawn(test: &str, home: &Path, extra: &[&str], format: bool) -> Option<Self> {
        let (port, controller) = (free_port(), free_port());
        let file = home.join("kafka.properties");
        let text = format!(
            "process.roles=broker,controller\nnode.id=0\ncontroller.quorum.voters=0@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n\
             log.dirs={}\noffsets.topic.replication.factor=1\noffsets.topic.num.partitions=3\n\
             group.initial.rebalance.delay.ms=0\ntransaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\nshare.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\n{}\n",
            home.join("data").display(),
            extra.join("\n")
        );
        fs::write(&file, text).expect("kafka.properties is written");
        if format {
            let mut tool = kafka_tool(test, "kafka.tools.StorageTool")?;
            run(tool.args(["format", "-t", "SWAPswapSWAPswapSWAPsw", "-c"]).arg(&file));
        }
        let log = fs::File::create(home.join("kafka.log")).expect("kafka.log");
        let mut command = kafka_tool(test, "kafka.Kafka")?;
        command.arg(&file).stdin(Stdio::null()).stderr(log.try_clone().expect("a second handle")).stdout(log);
        Some(Self { child: command.spawn().expect("java runs"), port })
    }

    /// Starts and waits until it serves.
    pub fn start(test: &str, home: &Path, extra: &[&str], format: bool) -> Option<Self> {
        let mut kafka = Self::spawn(test, home, extra, format)?;
        let until = Instant::now() + JVM;
        loop {
            if let Ok(mut conn) = Conn::connect(kafka.port)
                && !ready(&mut conn).is_empty()
            {
                return Some(kafka);
            }
            let ended = kafka.child.try_wait().expect("our child");
            assert!(ended.is_none() && Instant::now() < until, "Kafka did not start: {}", said(home));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(mut self) {
        let sent = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill runs");
        assert!(sent.success());
        let until = Instant::now() + JVM;
        while self.child.try_wait().expect("our child").is_none() {
            assert!(Instant::now() < until, "Kafka does not stop");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What it printed.
pub fn said(home: &Path) -> String {
    let mut text = String::new();
    let _ = fs::File::open(home.join("kafka.log")).and_then(|mut file| file.read_to_string(&mut text));
    text
}

/// Names of the brokers that are unfenced.
fn ready(conn: &mut Conn) -> Vec<i32> {
    let request = taccola_wire::messages::MetadataRequest { topics: Some(Vec::new()), ..Default::default() };
    conn.call(&request, 12).map(|reply| reply.brokers.iter().map(|row| row.node_id).collect()).unwrap_or_default()
}
