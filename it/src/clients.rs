//! Foreign clients: found where a developer has them, installed by `.ci/run` on a bare machine. A test whose client is
//! absent says so in one line that begins with [`ABSENT`], which `cargo xtask test` collects and prints at its end.

use std::path::PathBuf;
use std::process::Command;

/// Begins the line that reports a test as not run.
pub const ABSENT: &str = "NOT RUN:";

/// Whether a program answers to `--version`-like arguments.
fn answers(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

fn report(test: &str, client: &str) {
    println!("{ABSENT} {test}: {client} is not installed");
}

/// kcat (librdkafka).
pub fn kcat(test: &str) -> Option<&'static str> {
    let found = ["kcat", "kafkacat"].into_iter().find(|program| answers(program, &["-V"]));
    if found.is_none() {
        report(test, "kcat");
    }
    found
}

/// A Python that can import `module` (`confluent_kafka` or `kafka`). `TACCOLA_PYTHON` names another interpreter.
pub fn python(test: &str, module: &str) -> Option<String> {
    let python = std::env::var("TACCOLA_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    if answers(&python, &["-c", &format!("import {module}")]) {
        return Some(python);
    }
    report(test, &format!("Python's {module}"));
    None
}

/// The Go tool.
pub fn go(test: &str) -> Option<&'static str> {
    if answers("go", &["version"]) {
        return Some("go");
    }
    report(test, "Go");
    None
}

/// Apache Kafka's own tools: a class of its jars, ready for arguments. `KAFKA_JARS` names the folder of the jars.
pub fn kafka_tool(test: &str, class: &str) -> Option<Command> {
    let jars = std::env::var_os("KAFKA_JARS").map(PathBuf::from).filter(|dir| dir.is_dir());
    let (Some(jars), true) = (jars, answers("java", &["-version"])) else {
        report(test, "Java, or the folder of Kafka's jars (KAFKA_JARS)");
        return None;
    };
    let mut command = Command::new("java");
    // For short runs: no second compiler, no parallel collector.
    command.args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]).arg(jars.join("*")).arg(class);
    Some(command)
}

/// Records per codec: `SCALE`, or few.
pub fn scale() -> usize {
    usize::try_from(crate::crash::number("SCALE", 2_000)).expect("a count")
}

/// The codecs of the protocol by the names that all clients use.
pub const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
