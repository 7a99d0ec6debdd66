//! Showing what files hold: batches and records of segments, and the entries of what is derived from them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use taccola_base::TopicPartition;
use taccola_log::verify::{Finding, read_segment};
use taccola_log::{parse_offset_index, parse_snapshot, parse_time_index, parse_txn_index};
use taccola_wire::batch::{BatchHeader, ControlRecord, RecordIter};

use super::decode::{Decoded, Decoder};
use super::{OfflineError, holds_segments};

/// What is shown.
#[derive(Clone, Copy, Debug)]
pub struct DumpFilter {
    /// Offsets from here on.
    pub from: i64,
    /// Offsets below this.
    pub to: i64,
    /// So many records, or batches where records are not wanted.
    pub count: u64,
    /// With records, not only batches.
    pub records: bool,
    /// `None`: by the topic's name.
    pub decoder: Option<Decoder>,
}

#[derive(Clone, Debug)]
pub struct DumpedBatch {
    pub file: PathBuf,
    pub position: u64,
    pub header: BatchHeader,
    pub records: Vec<DumpedRecord>,
    /// Why the records are not all here.
    pub error: Option<String>,
}

#[derive(Clone, Debug)]
pub struct DumpedRecord {
    pub offset: i64,
    pub timestamp: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// A control record.
    pub control: Option<String>,
    pub decoded: Decoded,
}

/// Index files larger than this are not shown.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Shows the batches of a `.log` or metadata snapshot file, or of all of a partition's folder, in order. `show` answers
/// whether to go on. The findings are where there were no batches.
pub fn dump_segments(
    path: &Path,
    filter: DumpFilter,
    show: &mut dyn FnMut(DumpedBatch) -> bool,
) -> Result<Vec<Finding>, OfflineError> {
    let path = path.canonicalize().map_err(|source| OfflineError::io(path, source))?;
    let folder = if path.is_dir() { path.as_path() } else { path.parent().unwrap_or(&path) };
    let topic = folder.file_name().and_then(OsStr::to_str).and_then(TopicPartition::from_dir_name);
    let decoder = filter.decoder.unwrap_or(topic.map_or(Decoder::None, |at| Decoder::of(&at.topic)));
    let mut left = filter.count;
    let mut findings = Vec::new();
    for file in segments(&path, filter.from)? {
        let mut over = false;
        let mut visit = |header: &BatchHeader, position: u64, batch: &[u8]| {
            over |= left == 0 || header.base_offset >= filter.to;
            if over || header.last_offset() < filter.from {
                return;
            }
            let mut dumped =
                DumpedBatch { file: file.clone(), position, header: *header, records: Vec::new(), error: None };
            if filter.records {
                read_records(&mut dumped, batch, filter, decoder, &mut left);
            } else {
                left -= 1;
            }
            over |= !show(dumped) || left == 0;
        };
        // Between batches there is nothing to wait for: what is behind the end is walked over, at most a segment.
        findings.extend(read_segment(&file, &mut visit)?);
        if over {
            break;
        }
    }
    Ok(findings)
}

/// The files to be shown, in order; of a folder those that may hold `from` or what is behind it.
fn segments(path: &Path, from: i64) -> Result<Vec<PathBuf>, OfflineError> {
    if !path.is_dir() {
        return match path.extension().and_then(OsStr::to_str) {
            Some("log" | "checkpoint" | "swap" | "cleaned" | "deleted") => Ok(vec![path.to_path_buf()]),
            _ => Err(OfflineError::UnknownFile(path.to_path_buf())),
        };
    }
    if !holds_segments(path) {
        return Err(OfflineError::NotALogDir(path.to_path_buf()));
    }
    let entries = std::fs::read_dir(path).map_err(|source| OfflineError::io(path, source))?;
    let base = |name: &OsStr| name.to_str()?.strip_suffix(".log")?.parse::<i64>().ok();
    let mut found: Vec<(i64, PathBuf)> =
        entries.flatten().filter_map(|entry| Some((base(&entry.file_name())?, entry.path()))).collect();
    found.sort();
    let first = found.partition_point(|(base, _)| *base <= from).saturating_sub(1);
    Ok(found.into_iter().skip(first).map(|(_, path)| path).collect())
}

fn read_records(dumped: &mut DumpedBatch, batch: &[u8], filter: DumpFilter, decoder: Decoder, left: &mut u64) {
    let records = match RecordIter::new(&Bytes::copy_from_slice(batch)) {
        Ok(records) => records,
        Err(error) => {
            dumped.error = Some(error.to_string());
            return;
        }
    };
    for record in records {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                dumped.error = Some(error.to_string());
                return;
            }
        };
        if !(filter.from..filter.to).contains(&record.offset) {
            continue;
        }
        if *left == 0 {
            return;
        }
        *left -= 1;
        let is_control = dumped.header.is_control();
        let control = is_control.then(|| match ControlRecord::decode(&record) {
            Ok(control) => format!("{control:?}"),
            Err(error) => format!("does not decode: {error}"),
        });
        let decoded = match is_control {
            true => Decoded::default(),
            false => decoder.decode(record.key.as_ref(), record.value.as_ref()),
        };
        dumped.records.push(DumpedRecord {
            offset: record.offset,
            timestamp: record.timestamp,
            headers: record.headers.into_iter().map(|header| (header.key, header.value)).collect(),
            key: record.key,
            value: record.value,
            control,
            decoded,
        });
    }
}

/// The entries of an index, a producer snapshot or a text file, one line of words each; `None` for a file of segments.
pub fn dump_derived(path: &Path) -> Result<Option<Vec<String>>, OfflineError> {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let kind = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    let base = name.split('.').next().and_then(|base| base.parse::<i64>().ok()).unwrap_or(0);
    let is_text = name.ends_with("-checkpoint")
        || ["partition.metadata", "meta.properties", "quorum-state", "taccola.quarantine", "taccola.starts"]
            .contains(&name);
    if path.is_dir() || (!is_text && !["index", "timeindex", "txnindex", "snapshot"].contains(&kind)) {
        return Ok(None);
    }
    let length = std::fs::metadata(path).map_err(|source| OfflineError::io(path, source))?.len();
    if length > FILE_BYTES_MAX {
        return Err(OfflineError::UnknownFile(path.to_path_buf()));
    }
    let bytes = std::fs::read(path).map_err(|source| OfflineError::io(path, source))?;
    let lines = match kind {
        _ if is_text => String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect(),
        "index" => parse_offset_index(&bytes)
            .into_iter()
            .map(|(relative, position)| format!("offset: {} position: {position}", base + i64::from(relative)))
            .collect(),
        "timeindex" => parse_time_index(&bytes)
            .into_iter()
            .map(|(timestamp, relative)| format!("timestamp: {timestamp} offset: {}", base + i64::from(relative)))
            .collect(),
        "txnindex" => parse_txn_index(&bytes).0.into_iter().map(|txn| format!("{txn:?}")).collect(),
        _ => match parse_snapshot(&bytes) {
            Ok(producers) => vec![format!("{producers} producers, checksum right")],
            Err(reason) => vec![format!("damaged: {reason}")],
        },
    };
    Ok(Some(lines))
}
