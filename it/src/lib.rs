//! What the black-box tests share: a broker that is started as a user starts it, on a free port with its data in a
//! temporary folder, stopped or killed by its process id; and the foreign clients that happen to be installed.
//!
//! `TACCOLA_BIN` names the binary (`cargo xtask test` sets it); without it the debug binary is built first.

pub mod alternate;
pub mod clients;
pub mod compacted;
pub mod conn;
pub mod crash;
pub mod differential;
#[cfg(target_os = "linux")]
pub mod disk_faults;
pub mod group;
pub mod history;
pub mod kafka;
pub mod ledger;
pub mod load;
pub mod members;
#[cfg(target_os = "linux")]
pub mod moto;
pub mod power;
pub mod proxy;
pub mod requests;
pub mod sequences;
pub mod server;
pub mod traffic;
pub mod txn;
pub mod txn_answers;
pub mod txn_campaign;
pub mod txn_load;
pub mod txn_steps;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longest wait for anything that should happen at once.
pub const WITHIN: Duration = Duration::from_secs(30);

/// The binary under test.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("TACCOLA_BIN") {
            return PathBuf::from(path);
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("it/ lies in the workspace");
        let built = Command::new("cargo").args(["build", "--quiet", "--package", "taccola"]).current_dir(root).status();
        assert!(built.expect("cargo runs").success(), "cargo build --package taccola");
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        target.join("debug/taccola")
    })
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// Waits until `condition` answers something.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + WITHIN;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < until, "waited {WITHIN:?} for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One broker and its data directory. Killed when dropped, and its log printed if the test fails.
pub struct Broker {
    pub port: u16,
    pub dir: Arc<TempDir>,
    /// Limit of the process's open files, soft and hard; Linux alone.
    pub open_files_max: Option<u32>,
    properties: Vec<String>,
    child: Option<Child>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Broker {
    /// A broker with these extra `key=value` lines, ready to serve.
    pub fn start(properties: &[&str]) -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        Self::start_in(dir, properties)
    }

    /// The same on a folder that may hold data already; log directory: `<dir>/data`.
    pub fn start_in(dir: Arc<TempDir>, properties: &[&str]) -> Self {
        let mut broker = Self::prepare_in(dir, properties);
        broker.launch();
        broker
    }

    /// A broker that is not started yet.
    pub fn prepare(properties: &[&str]) -> Self {
        Self::prepare_in(Arc::new(tempfile::tempdir().expect("a temporary folder")), properties)
    }

    pub fn prepare_in(dir: Arc<TempDir>, properties: &[&str]) -> Self {
        let properties = properties.iter().map(|line| (*line).to_owned()).collect();
        Self { port: free_port(), dir, open_files_max: None, properties, child: None, log: Arc::default() }
    }

    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the broker runs").id()
    }

    /// Lines of the broker's output so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("no panic under this lock").clone()
    }

    /// Starts and waits until it serves.
    pub fn launch(&mut self) {
        let waiting = self.spawn();
        if waiting.recv_timeout(WITHIN).is_err() {
            panic!("the broker did not start:\n{}", self.log().join("\n"));
        }
    }

    /// Starts; the receiver hears when it serves.
    pub fn spawn(&mut self) -> Receiver<()> {
        let file = self.dir.path().join("server.properties");
        let controller = free_port();
        let mut text = format!(
            "process.roles=broker,controller\nnode.id=0\ncontroller.quorum.voters=0@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n\
             log.dirs={data}\noffsets.topic.replication.factor=1\ngroup.initial.rebalance.delay.ms=0\n",
            port = self.port,
            data = self.data_dir().display()
        );
        for line in &self.properties {
            text.push_str(line);
            text.push('\n');
        }
        fs::write(&file, text).expect("server.properties is written");
        let mut command = Command::new(binary());
        if let Some(most) = self.open_files_max {
            command = Command::new("prlimit");
            command.arg(format!("--nofile={most}:{most}")).arg(binary());
        }
        let mut child = command
            .arg("serve")
            .arg("-c")
            .arg(&file)
            // Ours, and in the form of a key of the broker's configuration.
            .env_remove("KAFKA_JARS")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the broker's binary runs");
        let (ready, waiting) = std::sync::mpsc::channel();
        let streams: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().expect("piped")), Box::new(child.stderr.take().expect("piped"))];
        self.log.lock().expect("no panic under this lock").clear();
        for stream in streams {
            let (log, ready) = (self.log.clone(), ready.clone());
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if line.contains("Kafka Server started") {
                        let _ = ready.send(());
                    }
                    log.lock().expect("no panic under this lock").push(line);
                }
            });
        }
        self.child = Some(child);
        waiting
    }

    /// Panics if the broker has ended by itself.
    pub fn assert_alive(&mut self) {
        let child = self.child.as_mut().expect("the broker was started");
        let ended = child.try_wait().expect("our child");
        assert!(ended.is_none(), "the broker ended by itself: {ended:?}\n{}", self.log().join("\n"));
    }

    /// The exit code of a broker that has ended by itself (`None`: by a signal); `None` while it runs.
    pub fn ended(&mut self) -> Option<Option<i32>> {
        let child = self.child.as_mut().expect("the broker was started");
        child.try_wait().expect("our child").map(|status| status.code())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let sent = Command::new("kill").arg(child.id().to_string()).status().expect("kill runs");
        assert!(sent.success());
        let status = eventually("the broker's clean stop", || child.try_wait().expect("our child"));
        assert!(status.success(), "{status}\n{}", self.log().join("\n"));
    }

    /// Stops cleanly and starts again on the same port and data.
    pub fn restart(&mut self) {
        self.stop();
        self.launch();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "--- broker log ---\n{}", self.log().join("\n"));
        }
    }
}

/// Runs a command to its end and answers its standard output; panics with everything it said if it failed.
pub fn run(command: &mut Command) -> String {
    run_with_input(command, "")
}

/// The same with text on its standard input.
pub fn run_with_input(command: &mut Command, input: &str) -> String {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{shown}: {error}"));
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("our child");
    let _ = writer.join();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{shown}: {}\n{stdout}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    stdout
}

/// The `taccola` command against a broker.
pub fn taccola(broker: &Broker, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg("--bootstrap").arg(broker.bootstrap()).args(arguments);
    command
}
