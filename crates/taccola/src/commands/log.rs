//! `taccola log`: files instead of a broker.

use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use taccola_broker::offline::{
    self, Decoder, DirReport, DumpFilter, DumpedBatch, DumpedRecord, Finding, Level, OfflineError,
};

use crate::cli::{DumpDecoder, LogCommand, LogDumpArgs, LogRepairArgs, LogVerifyArgs};
use crate::exit::{CliError, CliResult, Exit};
use crate::output::{self, Format, Table};

pub(crate) fn run(command: LogCommand, format: Option<Format>) -> CliResult {
    match command {
        LogCommand::Verify(args) => verify(&args, args.output.output.or(format).unwrap_or_default()),
        LogCommand::Repair(args) => repair(&args, args.output.output.or(format).unwrap_or_default()),
        LogCommand::Dump(args) => dump(&args, args.output.output.or(format).unwrap_or_default()),
    }
}

fn failed(error: OfflineError) -> CliError {
    let not_found = |source: &std::io::Error| source.kind() == std::io::ErrorKind::NotFound;
    match &error {
        OfflineError::NotALogDir(_) | OfflineError::UnknownFile(_) => CliError::new(Exit::Usage, error.to_string()),
        OfflineError::Io { source, .. } if not_found(source) => CliError::new(Exit::NotFound, error.to_string()),
        OfflineError::Unclean(_) => CliError::failure(error.to_string()).hint("--even-if-unclean repairs it as it is"),
        _ => CliError::failure(error.to_string()),
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Note => "note",
        Level::Rebuildable => "rebuildable",
        Level::Damage => "damage",
    }
}

fn range<T: std::fmt::Display>(range: &Option<Range<T>>) -> String {
    range.as_ref().map_or_else(|| "-".to_owned(), |range| format!("{}..{}", range.start, range.end))
}

fn finding_value(finding: &Finding) -> Value {
    let bounds = |range: Option<(i64, i64)>| range.map(|(start, end)| json!({ "start": start, "end": end }));
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    json!({
        "level": level(finding.level),
        "file": finding.file,
        "positions": bounds(finding.positions.as_ref().map(|r| (number(r.start), number(r.end)))),
        "offsets": bounds(finding.offsets.as_ref().map(|r| (r.start, r.end))),
        "what": finding.what,
    })
}

fn findings_table(findings: &[&Finding]) -> Table {
    let mut table = Table::new(&["LEVEL", "FILE", "POSITIONS", "OFFSETS", "WHAT"]);
    for finding in findings {
        table.row([
            level(finding.level).to_owned(),
            finding.file.display().to_string(),
            range(&finding.positions),
            range(&finding.offsets),
            finding.what.clone(),
        ]);
    }
    if findings.is_empty() { Table::new(&[]) } else { table }
}

fn verify(args: &LogVerifyArgs, format: Format) -> CliResult {
    let report = offline::verify(&args.dir, &args.topics).map_err(failed)?;
    let shown: Vec<&Finding> =
        report.all_findings().filter(|finding| args.all || finding.level > Level::Note).collect();
    let count = |wanted: Level| report.all_findings().filter(|finding| finding.level == wanted).count();
    let (damage, rebuildable) = (count(Level::Damage), count(Level::Rebuildable));
    let value = json!({
        "dir": report.dir,
        "running": report.running,
        "clean": report.clean,
        "bytes": report.bytes(),
        "damage": damage,
        "rebuildable": rebuildable,
        "findings": shown.iter().map(|finding| finding_value(finding)).collect::<Vec<_>>(),
        "partitions": partitions_value(&report),
    });
    output::result(format, &value, &[verify_summary(&report), findings_table(&shown)])?;
    if damage + rebuildable == 0 {
        return Ok(());
    }
    let message = format!("{damage} damaged, {rebuildable} that can be made anew");
    Err(CliError::new(Exit::Damaged, message).hint("`taccola log repair` tells what can be done"))
}

fn partitions_value(report: &DirReport) -> Value {
    let partitions = report.partitions.iter().map(|(at, partition)| {
        json!({
            "topic": &*at.topic,
            "partition": at.partition,
            "segments": partition.segments,
            "bytes": partition.bytes,
            "batches": partition.batches,
            "records": partition.records,
            "start_offset": partition.start_offset,
            "end_offset": partition.end_offset,
            "findings": partition.findings.iter().filter(|finding| finding.level > Level::Note).count(),
        })
    });
    Value::Array(partitions.collect())
}

fn verify_summary(report: &DirReport) -> Table {
    let mut table = Table::new(&[]);
    let state = match (report.running, report.clean) {
        (true, _) => "a broker is running there",
        (false, true) => "stopped cleanly",
        (false, false) => "not stopped cleanly: the next start recovers it",
    };
    let sum = |of: fn(&offline::PartitionReport) -> u64| report.partitions.iter().map(|(_, p)| of(p)).sum::<u64>();
    table.row(["DIRECTORY".to_owned(), report.dir.display().to_string()]);
    table.row(["STATE".to_owned(), state.to_owned()]);
    table.row(["PARTITIONS".to_owned(), report.partitions.len().to_string()]);
    table.row(["SEGMENTS".to_owned(), sum(|p| p.segments as u64).to_string()]);
    table.row(["BATCHES".to_owned(), sum(|p| p.batches).to_string()]);
    table.row(["RECORDS".to_owned(), sum(|p| p.records).to_string()]);
    table.row(["BYTES".to_owned(), report.bytes().to_string()]);
    table
}

fn repair(args: &LogRepairArgs, format: Format) -> CliResult {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let now_ms = i64::try_from(now).unwrap_or(i64::MAX);
    let report =
        offline::repair(&args.dir, &args.topics, args.execute, args.even_if_unclean, now_ms).map_err(failed)?;
    let mut table = Table::new(&["PARTITION", "LEVEL", "FILE", "OFFSETS", "WHAT", "REPAIR"]);
    let mut values = Vec::new();
    for repair in &report.partitions {
        for finding in &repair.findings {
            let action = match (finding.level, repair.done.is_some()) {
                (Level::Damage, true) => "quarantined",
                (Level::Damage, false) => "would be quarantined",
                (_, true) => "made anew",
                (_, false) => "would be made anew",
            };
            let file = finding.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let offsets = range(&finding.offsets);
            let cells = [repair.partition.to_string(), level(finding.level).to_owned(), file, offsets];
            table.row(cells.into_iter().chain([finding.what.clone(), action.to_owned()]));
        }
        let done = repair.done.as_ref().map(|done| {
            json!({
                "indexes_made_anew": done.indexes_rebuilt,
                "bytes_read": done.bytes_scanned,
                "torn_bytes_cut_off": done.truncated_bytes,
                "quarantined": done.quarantined.iter().map(|range| json!({
                    "segment": range.segment_base_offset,
                    "start_position": range.start_position,
                    "end_position": range.end_position,
                    "first_offset": range.first_offset,
                    "next_valid_offset": range.next_valid_offset,
                    "reason": range.reason,
                })).collect::<Vec<_>>(),
            })
        });
        values.push(json!({
            "partition": repair.partition.to_string(),
            "findings": repair.findings.iter().map(finding_value).collect::<Vec<_>>(),
            "done": done,
        }));
    }
    let own: Vec<&Finding> = report.findings.iter().filter(|finding| finding.level > Level::Note).collect();
    let value = json!({
        "dir": report.dir,
        "executed": args.execute,
        "partitions": values,
        "findings": own.iter().map(|finding| finding_value(finding)).collect::<Vec<_>>(),
    });
    let tables = if report.partitions.is_empty() { Table::new(&[]) } else { table };
    output::result(format, &value, &[tables, findings_table(&own)])?;
    if report.partitions.is_empty() && own.is_empty() {
        output::note("nothing to repair");
    } else if !args.execute {
        output::note("nothing was changed; --execute does it");
    }
    if !own.is_empty() {
        output::note("the directory's own files are looked after by the next start, which says what it needs");
    }
    Ok(())
}

fn dump(args: &LogDumpArgs, format: Format) -> CliResult {
    if let Some(lines) = offline::dump_derived(&args.path).map_err(failed)? {
        return match format {
            Format::Table => output::text(&lines.iter().map(|line| format!("{line}\n")).collect::<String>()),
            _ => output::result(format, &json!({ "file": args.path, "entries": lines }), &[]),
        };
    }
    let decoder = args.decode.map(|decoder| match decoder {
        DumpDecoder::None => Decoder::None,
        DumpDecoder::Offsets => Decoder::Offsets,
        DumpDecoder::Transactions => Decoder::Transactions,
        DumpDecoder::ShareState => Decoder::ShareState,
        DumpDecoder::Metadata => Decoder::Metadata,
    });
    let count = args.num.unwrap_or(u64::MAX);
    let filter = DumpFilter { from: args.from, to: args.to, count, records: !args.batches, decoder };
    let mut out = output::Stdout::new();
    let mut written = Ok(());
    let findings = offline::dump_segments(&args.path, filter, &mut |batch| {
        let text = match format {
            Format::Table => batch_text(&batch),
            _ => output::stream_document(format, &batch_value(&batch)),
        };
        written = out.write(text.as_bytes());
        written.is_ok()
    });
    written?;
    out.flush()?;
    let findings = findings.map_err(failed)?;
    if findings.is_empty() {
        return Ok(());
    }
    for finding in &findings {
        let (file, what) = (finding.file.display(), &finding.what);
        output::note(&format!("{file}: no batch at {}: {what}", range(&finding.positions)));
    }
    Err(CliError::new(Exit::Damaged, "some of it is no batch").hint("`taccola log verify` looks at all of it"))
}

fn batch_value(batch: &DumpedBatch) -> Value {
    let header = &batch.header;
    json!({
        "file": batch.file,
        "position": batch.position,
        "size": header.size_bytes(),
        "base_offset": header.base_offset,
        "last_offset": header.last_offset(),
        "records_count": header.records_count,
        "leader_epoch": header.partition_leader_epoch,
        "producer_id": header.producer_id,
        "producer_epoch": header.producer_epoch,
        "base_sequence": header.base_sequence,
        "transactional": header.is_transactional(),
        "control": header.is_control(),
        "compression": header.compression().map_or("unknown".to_owned(), |codec| format!("{codec:?}").to_lowercase()),
        "base_timestamp": header.base_timestamp,
        "max_timestamp": header.max_timestamp,
        "timestamp_type": format!("{:?}", header.timestamp_type()),
        "crc": header.crc,
        "error": batch.error,
        "records": batch.records.iter().map(record_value).collect::<Vec<_>>(),
    })
}

fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

fn record_value(record: &DumpedRecord) -> Value {
    let headers =
        record.headers.iter().map(|(name, value)| json!({ "name": shown(name), "value": value.as_deref().map(shown) }));
    json!({
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": record.decoded.key.clone().or(record.key.as_deref().map(shown)),
        "value": record.decoded.value.clone().or(record.value.as_deref().map(shown)),
        "headers": headers.collect::<Vec<_>>(),
        "control": record.control,
    })
}

fn batch_text(batch: &DumpedBatch) -> String {
    let header = &batch.header;
    let codec = header.compression().map_or("unknown".to_owned(), |codec| format!("{codec:?}").to_lowercase());
    let mut text = format!(
        "batch {}..={} at {} bytes {} records {} epoch {} max timestamp {} compression {codec}",
        header.base_offset,
        header.last_offset(),
        batch.position,
        header.size_bytes(),
        header.records_count,
        header.partition_leader_epoch,
        header.max_timestamp,
    );
    if header.has_producer_id() {
        let (id, epoch, sequence) = (header.producer_id, header.producer_epoch, header.base_sequence);
        text.push_str(&format!(" producer {id} epoch {epoch} sequence {sequence}"));
    }
    if header.is_transactional() {
        text.push_str(" transactional");
    }
    if header.is_control() {
        text.push_str(" control");
    }
    if let Some(error) = &batch.error {
        text.push_str(&format!(" unreadable: {error}"));
    }
    text.push('\n');
    for record in &batch.records {
        text.push_str(&format!("  {} timestamp {}", record.offset, record.timestamp));
        if let Some(control) = &record.control {
            text.push_str(&format!(" {control}\n"));
            continue;
        }
        let part = |decoded: &Option<String>, bytes: Option<&[u8]>| {
            let text = decoded.clone().or(bytes.map(shown)).unwrap_or_else(|| "null".to_owned());
            // Control characters must not reach a terminal.
            text.escape_debug().to_string()
        };
        text.push_str(&format!(" key {}", part(&record.decoded.key, record.key.as_deref())));
        text.push_str(&format!(" value {}", part(&record.decoded.value, record.value.as_deref())));
        for (name, value) in &record.headers {
            text.push_str(&format!(" header {}={}", shown(name).escape_debug(), part(&None, value.as_deref())));
        }
        text.push('\n');
    }
    text
}
