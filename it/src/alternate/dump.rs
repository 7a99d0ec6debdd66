//! Kafka's own tool reads every file of a directory (`DumpLogSegments`, by `it/java/Transcript.java` in one process), with the
//! decoder that each file's records are for, and has nothing to complain of.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::clients::kafka_tool;
use crate::run_with_input;

/// What the tool says of a file that is not as it should be.
const COMPLAINTS: [&str; 12] = [
    "Mismatches in",
    "Found timestamp mismatch",
    "Found out of order timestamp",
    "Found invalid bytes",
    "invalid bytes",
    "isvalid: false",
    "corrupt",
    "Could not",
    "Failed to decode",
    "Exception",
    "Unknown",
    "sanity check failed",
];

/// What was read.
#[derive(Debug)]
pub struct Dump {
    /// Files by the ends of their names.
    pub files: BTreeMap<String, usize>,
    pub complaints: Vec<String>,
}

impl Dump {
    /// Reads all files of a log directory whose broker has stopped cleanly; `None` where the tool is not installed.
    pub fn of(test: &str, data: &Path) -> Option<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("java/Transcript.java");
        let mut command = kafka_tool(test, source.to_str().expect("UTF-8"))?;
        let (commands, files) = commands(data);
        let said = run_with_input(command.arg("nobody:1"), &commands);
        Some(Self { files, complaints: complaints(&said) })
    }
}

/// One line for each decoder with all its logs, snapshots and checkpoints, and two for the indexes.
fn commands(data: &Path) -> (String, BTreeMap<String, usize>) {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let mut by_decoder: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut indexes = Vec::new();
    let entries = |path: &Path| fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path());
    for folder in entries(data).filter(|path| path.is_dir()) {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let decoder = match name.rsplit_once('-').map_or("", |(topic, _)| topic) {
            "__cluster_metadata" => "--cluster-metadata-decoder",
            "__consumer_offsets" => "--offsets-decoder",
            "__transaction_state" => "--transaction-log-decoder",
            "__share_group_state" => "--share-group-state-decoder",
            "__remote_log_metadata" => "--remote-log-metadata-decoder",
            _ => "--print-data-log",
        };
        for file in entries(&folder) {
            let kind = file.extension().unwrap_or_default().to_string_lossy().into_owned();
            let shown = file.display().to_string();
            match kind.as_str() {
                "index" | "timeindex" => indexes.push(shown.clone()),
                "log" | "txnindex" | "snapshot" | "checkpoint" => {}
                _ => continue,
            }
            *kinds.entry(kind).or_default() += 1;
            by_decoder.entry(decoder).or_default().push(shown);
        }
    }
    let mut lines = String::new();
    for (decoder, files) in by_decoder {
        lines.push_str(&format!("kafka-dump-log {decoder} --deep-iteration --files {}\n", files.join(",")));
    }
    for check in ["--index-sanity-check", "--verify-index-only"] {
        lines.push_str(&format!("kafka-dump-log {check} --files {}\n", indexes.join(",")));
    }
    (lines, kinds)
}

/// Lines that complain, with the file that they are of.
fn complaints(said: &str) -> Vec<String> {
    let (mut found, mut of, mut command) = (Vec::new(), String::new(), String::new());
    for line in said.lines() {
        if line.starts_with("$ ") {
            line.split(" --files").next().unwrap_or_default().clone_into(&mut command);
        } else if let Some(file) = line.strip_prefix("Dumping ") {
            file.clone_into(&mut of);
        } else if line.starts_with('[') && line.ends_with(']') && line != "[0]" {
            found.push(format!("{command} ended with {line}, at {of}"));
        } else if COMPLAINTS.iter().any(|complaint| line.contains(complaint)) {
            found.push(format!("{command}: {of}: {line}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::complaints;

    #[test]
    fn complaints_are_told_with_their_file() {
        let said = "$ kafka-dump-log --files a\nDumping a\noffset: 0 isvalid: true\n[0]\n$ kafka-dump-log --files b\n\
                    Dumping b\nbaseOffset: 0 isvalid: false\n[1]\n";
        assert_eq!(
            complaints(said),
            ["$ kafka-dump-log: b: baseOffset: 0 isvalid: false", "$ kafka-dump-log ended with [1], at b"]
        );
    }
}
