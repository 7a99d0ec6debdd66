//! `taccola` and `taccola serve`: from settings to a running broker, and what is said when it is ready.

use std::fmt::Write;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use taccola_base::config::{AcksDurability, ServerConfig, Settings, SettingsError};
use taccola_broker::startup::StartError;

use crate::cli::{LogFormat, ServeArgs};
use crate::exit::{CliError, CliResult, Exit};
use crate::output;

/// What `taccola` without a file starts from; everything else has Kafka's defaults.
const STANDALONE: [(&str, &str); 2] = [("listeners", "PLAINTEXT://127.0.0.1:9092"), ("log.dirs", "taccola-data")];

pub(crate) fn run(args: &ServeArgs) -> CliResult {
    let settings = settings(args)?;
    let loaded = ServerConfig::load(&settings).map_err(|errors| CliError::new(Exit::Usage, errors.to_string()))?;
    let json = match args.log_format {
        Some(format) => format == LogFormat::Json,
        None => loaded.config.taccola.log_format == taccola_base::config::LogFormat::Json,
    };
    start_log(json);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    serve(loaded.config, settings, json)
}

/// File, environment and flags, over what a broker without a file starts from.
pub(crate) fn settings(args: &ServeArgs) -> CliResult<Settings> {
    let settings = Settings::load(args.config.as_deref(), taccola_base::config::process_environment(), &args.overrides);
    let mut settings = settings.map_err(not_read)?;
    if args.config.is_none() {
        for (key, value) in STANDALONE {
            let set = settings.contains(key) || (key == "log.dirs" && settings.contains("log.dir"));
            if !set {
                settings.set(key, value, taccola_base::config::Place::Program);
            }
        }
    }
    Ok(settings)
}

/// A worker that writes, flushes or reads what is not cached waits for the disk: the others must be able to go on, however
/// few cores there are.
const WORKERS_MIN: usize = 6;

/// Runs the broker until SIGTERM or SIGINT, then stops it cleanly.
fn serve(config: ServerConfig, settings: Settings, json: bool) -> CliResult {
    let begun = Instant::now();
    let failed = |error: String| CliError::new(Exit::Failure, error);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.max(WORKERS_MIN))
        .enable_all()
        .thread_name("taccola")
        .build()
        .map_err(|error| failed(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(async {
        let (node_id, data) = (config.node_id, config.log_dirs.clone());
        let durability = config.taccola.acks_durability;
        let protocols: Vec<String> =
            config.net.listeners.iter().map(|listener| listener.protocol.to_string()).collect();
        // Before anything is said: who reads the ready line may send a signal at once, and a signal that comes during the
        // start is a clean stop right after it.
        let stop = StopSignal::listen().map_err(|error| failed(format!("cannot wait for signals: {error}")))?;
        let running = taccola_broker::serve::start(config, settings).await.map_err(not_started)?;
        let addresses = running.listeners.iter().map(|(_, address)| address.to_string());
        let listeners = addresses.zip(protocols).collect();
        announce(&Started { node_id, listeners, durability, data, took: begun.elapsed() }, json)?;
        stop.received().await;
        running.stop().await.map_err(|error| failed(format!("the stop was not clean: {error}")))
    })
}

/// Settings that cannot be read, and what to do about it.
fn not_read(error: SettingsError) -> CliError {
    let hint = match &error {
        SettingsError::Read { source, .. } => match source.kind() {
            ErrorKind::NotFound => Some("name a file that exists with -c, or leave -c out to start with the defaults"),
            ErrorKind::PermissionDenied => Some("let this user read it, or name another file with -c"),
            ErrorKind::IsADirectory => Some("name the file in it with -c"),
            _ => None,
        },
        _ => None,
    };
    let failure = CliError::new(Exit::Usage, error.to_string());
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// A broker that does not start, and what to do about it where its own sentence does not say.
fn not_started(error: StartError) -> CliError {
    let hint = match &error {
        StartError::Io { path, .. } if path.is_file() => {
            Some("it is a file: set log.dirs to a directory, or move the file away")
        }
        StartError::Io { source, .. } => match source.kind() {
            ErrorKind::NotADirectory => Some("a part of the path is a file: set log.dirs to another directory"),
            ErrorKind::PermissionDenied => Some("let this user write there, or set log.dirs to another directory"),
            ErrorKind::ReadOnlyFilesystem => Some("set log.dirs to a directory that can be written"),
            ErrorKind::StorageFull => Some("make room, or set log.dirs to a directory on another disk"),
            _ => None,
        },
        _ => None,
    };
    let failure = CliError::failure(error.to_string());
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// SIGTERM and SIGINT, which end the process no more once this exists.
struct StopSignal {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl StopSignal {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Resolves at the first of them, at once if it has come already.
    async fn received(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Lines on standard error; `TACCOLA_LOG` sets levels as `info,taccola_log=debug`.
fn start_log(json: bool) {
    use tracing_subscriber::filter::{LevelFilter, Targets};
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;

    let levels = std::env::var("TACCOLA_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let levels = levels.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours).with_target(false);
    // A second call, as tests make it, changes nothing.
    let _ = if json {
        tracing_subscriber::registry().with(levels).with(lines.json().flatten_event(true)).try_init()
    } else {
        tracing_subscriber::registry().with(levels).with(lines).try_init()
    };
}

/// What a broker that has started tells about itself.
pub(crate) struct Started {
    pub(crate) node_id: i32,
    /// `HOST:PORT` and protocol of each listener, as bound.
    pub(crate) listeners: Vec<(String, String)>,
    pub(crate) durability: AcksDurability,
    pub(crate) data: Vec<PathBuf>,
    pub(crate) took: Duration,
}

impl Started {
    /// For people, and with the lines that tools wait for: Testcontainers' modules and ducktape match Kafka's own.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let version = env!("CARGO_PKG_VERSION");
        // Writing to a String never fails.
        let _ = writeln!(text, "Taccola {version} is ready after {} ms.\n", self.took.as_millis());
        for (address, protocol) in &self.listeners {
            let _ = writeln!(text, "  listens on  {address} ({protocol})");
        }
        let durability = match self.durability {
            AcksDurability::Disk => "disk: what is acknowledged survives a power cut",
            AcksDurability::Memory => "memory: what is acknowledged survives the process, not a power cut",
        };
        let _ = writeln!(text, "  durability  {durability}");
        for directory in &self.data {
            let _ = writeln!(text, "  data        {}", directory.display());
        }
        let _ = write!(text, "\n{}\n{}", self.next_commands(), self.ready_lines());
        text
    }

    /// For programs: one line of JSON per ready line.
    pub(crate) fn json(&self) -> String {
        let listeners: Vec<_> = self.listeners.iter().map(|(address, _)| address.as_str()).collect();
        let line = |message: &str| {
            let value = serde_json::json!({
                "level": "INFO",
                "message": message,
                "listeners": listeners,
                "durability": match self.durability { AcksDurability::Disk => "disk", AcksDurability::Memory => "memory" },
                "data": self.data,
                "took_ms": self.took.as_millis() as u64,
            });
            format!("{value}\n")
        };
        self.ready_lines().lines().map(line).collect()
    }

    fn next_commands(&self) -> String {
        // An address that stands for every interface is reached over the loopback.
        let own = self
            .listeners
            .first()
            .map(|(address, _)| address.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "127.0.0.1:"));
        let bootstrap = match own.as_deref() {
            None | Some(crate::cli::DEFAULT_BOOTSTRAP) => String::new(),
            Some(address) => format!(" -b {address}"),
        };
        format!(
            "Next, in another terminal:\n\
             \x20 taccola{bootstrap} topic create greetings\n\
             \x20 echo hello | taccola{bootstrap} produce greetings\n\
             \x20 taccola{bootstrap} consume greetings\n"
        )
    }

    fn ready_lines(&self) -> String {
        let id = self.node_id;
        format!(
            "[BrokerServer id={id}] Transitioning from RECOVERY to RUNNING\n\
             [KafkaRaftServer nodeId={id}] Kafka Server started\n"
        )
    }
}

/// Says that the broker is ready.
pub(crate) fn announce(started: &Started, json: bool) -> CliResult {
    output::text(&if json { started.json() } else { started.text() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(address: &str) -> Started {
        Started {
            node_id: 1,
            listeners: vec![(address.to_owned(), "PLAINTEXT".to_owned())],
            durability: AcksDurability::Disk,
            data: vec!["taccola-data".into()],
            took: Duration::from_millis(12),
        }
    }

    #[test]
    fn ready_lines_are_what_tools_wait_for() {
        let text = started("127.0.0.1:9092").text();
        assert!(text.contains("\n[KafkaRaftServer nodeId=1] Kafka Server started\n"), "{text}");
        assert!(text.contains("Transitioning from RECOVERY to RUNNING"));
        assert!(text.contains("taccola topic create greetings"));
        assert!(started("0.0.0.0:9092").text().contains("| taccola produce greetings"));
        assert!(started("127.0.0.1:1").text().contains("taccola -b 127.0.0.1:1 produce greetings"));
    }

    #[test]
    fn json_lines_are_json() {
        let json = started("127.0.0.1:9092").json();
        let last: serde_json::Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
        assert_eq!(last["message"], "[KafkaRaftServer nodeId=1] Kafka Server started");
    }
}
