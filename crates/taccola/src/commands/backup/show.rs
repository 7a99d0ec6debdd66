//! How backups are shown.

use serde_json::{Value, json};
use taccola_backup::contents::{Acls, Contents};
use taccola_backup::manifest::Manifest;
use taccola_backup::repository::{Listed, Unfinished};
use taccola_backup::verify::{Finding, Lost, Verification};

use crate::exit::{CliError, CliResult};
use crate::output::{self, Format, Table};
use crate::timestamp;

/// Bytes for people.
pub(super) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

fn stored(manifest: &Manifest) -> u64 {
    manifest.identity.objects.iter().map(|object| object.bytes).sum()
}

fn identity(manifest: &Manifest) -> Value {
    let identity = &manifest.identity;
    json!({
        "id": identity.id,
        "created": timestamp::rfc3339(identity.created_ms),
        "created_ms": identity.created_ms,
        "parent": identity.parent.as_ref().map(|parent| &parent.id),
        "cipher": identity.cipher.name(),
        "kdf": manifest.envelope.as_ref().map(|envelope| envelope.kdf.name()),
        "key_id": manifest.envelope.as_ref().map(|envelope| &envelope.key_id),
        "objects": identity.objects.len(),
        "bytes": stored(manifest),
        "tool": identity.tool,
    })
}

pub(super) fn list(format: Format, listed: &[Listed], unfinished: &[Unfinished]) -> CliResult {
    let mut table = Table::new(&["BACKUP", "CREATED", "PARENT", "CIPHER", "KEY-ID", "OBJECTS", "BYTES", "STATE"]);
    let mut values = Vec::new();
    for entry in listed {
        match &entry.manifest {
            Ok(manifest) => {
                let value = identity(manifest);
                let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
                table.row([
                    entry.id.clone(),
                    text("created"),
                    text("parent"),
                    text("cipher"),
                    text("key_id"),
                    manifest.identity.objects.len().to_string(),
                    stored(manifest).to_string(),
                    "complete".to_owned(),
                ]);
                values.push(with_state(value, "complete"));
            }
            Err(error) => {
                let dash = || "-".to_owned();
                let state = format!("damaged: {error}");
                table.row([entry.id.clone(), dash(), dash(), dash(), dash(), dash(), dash(), state.clone()]);
                values.push(json!({"id": entry.id, "state": "damaged", "error": error.to_string()}));
            }
        }
    }
    for run in unfinished {
        let dash = || "-".to_owned();
        let created = timestamp::rfc3339(run.begun_ms);
        table.row([run.id.clone(), created.clone(), dash(), dash(), dash(), dash(), dash(), "unfinished".to_owned()]);
        values.push(json!({"id": run.id, "created": created, "created_ms": run.begun_ms, "state": "unfinished"}));
    }
    output::result(format, &Value::Array(values), &[table])
}

fn with_state(mut value: Value, state: &str) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.insert("state".to_owned(), state.into());
    }
    value
}

/// A backup with what is in it.
pub(super) fn described(format: Format, manifest: &Manifest, contents: &Contents) -> CliResult {
    let mut value = identity(manifest);
    let (topics_table, topics) = topics(contents);
    let (groups_table, groups) = groups(contents);
    let acls = match &contents.acls {
        Acls::Taken(acls) => json!({"taken": acls.len()}),
        Acls::NotTaken(reason) => json!({"taken": null, "reason": reason}),
    };
    let cut = &contents.cut;
    let cut_value = json!({
        "isolation": cut.isolation.name(),
        "begun": timestamp::rfc3339(cut.begun_ms),
        "begun_ms": cut.begun_ms,
        "ended_ms": cut.ended_ms,
        "instant": cut.instant,
        "transactions_in_doubt": cut.transactions_in_doubt,
    });
    if let Some(fields) = value.as_object_mut() {
        fields.insert("cluster_id".to_owned(), json!(contents.cluster_id));
        fields.insert("cut".to_owned(), cut_value);
        fields.insert("topics".to_owned(), topics);
        fields.insert("groups".to_owned(), groups);
        fields.insert("broker_configs".to_owned(), contents.brokers.len().into());
        fields.insert("acls".to_owned(), acls);
        fields.insert("notes".to_owned(), json!(contents.notes));
    }
    output::result(format, &value, &[summary(manifest, contents), topics_table, groups_table])?;
    if format == Format::Table {
        contents.notes.iter().for_each(|note| output::note(&format!("note: {note}")));
    }
    Ok(())
}

fn summary(manifest: &Manifest, contents: &Contents) -> Table {
    let identity = &manifest.identity;
    let cut = &contents.cut;
    let dash = || "-".to_owned();
    let acls = match &contents.acls {
        Acls::Taken(acls) => acls.len().to_string(),
        Acls::NotTaken(_) => "not taken".to_owned(),
    };
    let at = match cut.instant {
        true => "one moment".to_owned(),
        false => format!("within {} ms", cut.ended_ms - cut.begun_ms),
    };
    let mut table = Table::new(&[]);
    for (name, value) in [
        ("BACKUP", identity.id.clone()),
        ("CLUSTER", contents.cluster_id.clone().unwrap_or_else(dash)),
        ("PARENT", identity.parent.as_ref().map_or_else(dash, |parent| parent.id.clone())),
        ("CIPHER", identity.cipher.name().to_owned()),
        ("KEY-ID", manifest.envelope.as_ref().map_or_else(dash, |envelope| envelope.key_id.clone())),
        ("CUT", format!("{} ({at}, {})", timestamp::rfc3339(cut.begun_ms), cut.isolation.name())),
        ("OBJECTS", identity.objects.len().to_string()),
        ("BYTES", stored(manifest).to_string()),
        ("ACLS", acls),
    ] {
        table.row([name.to_owned(), value]);
    }
    table
}

fn topics(contents: &Contents) -> (Table, Value) {
    let mut table = Table::new(&["TOPIC", "PARTITIONS", "RECORDS", "BYTES", "KIND"]);
    let mut values = Vec::new();
    for topic in &contents.topics {
        let records: u64 = topic.partitions.iter().map(|partition| partition.records()).sum();
        let bytes: u64 = topic.partitions.iter().map(|partition| partition.bytes()).sum();
        let kind = if topic.incremental { "incremental" } else { "full" };
        table.row([
            topic.name.clone(),
            topic.partitions.len().to_string(),
            records.to_string(),
            bytes.to_string(),
            kind.to_owned(),
        ]);
        let partition = |partition: &taccola_backup::contents::Partition| {
            json!({
                "partition": partition.index,
                "log_start": partition.log_start,
                "from": partition.from,
                "cut": partition.cut,
                "records": partition.records(),
                "bytes": partition.bytes(),
            })
        };
        values.push(json!({
            "topic": topic.name,
            "topic_id": topic.id,
            "kind": kind,
            "records": records,
            "bytes": bytes,
            "configs": topic.configs.iter().map(|(name, value)| (name.clone(), json!(value))).collect::<serde_json::Map<_, _>>(),
            "partitions": topic.partitions.iter().map(partition).collect::<Vec<_>>(),
        }));
    }
    (table, Value::Array(values))
}

fn groups(contents: &Contents) -> (Table, Value) {
    if contents.groups.is_empty() {
        return (Table::new(&[]), Value::Array(Vec::new()));
    }
    let mut table = Table::new(&["GROUP", "TYPE", "OFFSETS"]);
    let mut values = Vec::new();
    for group in &contents.groups {
        table.row([group.id.clone(), group.kind.clone(), group.offsets.len().to_string()]);
        let offset = |offset: &taccola_backup::contents::GroupOffset| {
            json!({
                "topic": offset.topic,
                "partition": offset.partition,
                "offset": offset.offset,
                "committed_beyond_cut": offset.beyond,
            })
        };
        values.push(json!({
            "group": group.id,
            "type": group.kind,
            "offsets": group.offsets.iter().map(offset).collect::<Vec<_>>(),
        }));
    }
    (table, Value::Array(values))
}

/// A report, and failure if there are findings.
pub(super) fn verified(format: Format, report: &Verification) -> CliResult {
    let mut summary = Table::new(&[]);
    let state = if report.findings.is_empty() { "good" } else { "damaged" };
    for (name, value) in [
        ("BACKUP", report.backup.clone()),
        ("CHAIN", report.chain.len().to_string()),
        ("OBJECTS", report.objects.to_string()),
        ("BYTES", report.bytes.to_string()),
        ("RECORDS", if report.opened { report.records.to_string() } else { "-".to_owned() }),
        ("CHECKED", if report.opened { "contents" } else { "checksums only" }.to_owned()),
        ("STATE", state.to_owned()),
    ] {
        summary.row([name.to_owned(), value]);
    }
    let mut findings = match report.findings.is_empty() {
        true => Table::new(&[]),
        false => Table::new(&["OBJECT", "PROBLEM", "LOST"]),
    };
    for finding in &report.findings {
        findings.row([finding.object.clone(), finding.problem.clone(), lost_text(finding)]);
    }
    let value = json!({
        "backup": report.backup,
        "chain": report.chain,
        "objects": report.objects,
        "bytes": report.bytes,
        "batches": report.opened.then_some(report.batches),
        "records": report.opened.then_some(report.records),
        "checked": if report.opened { "contents" } else { "checksums" },
        "state": state,
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
    });
    output::result(format, &value, &[summary, findings])?;
    match report.findings.len() {
        0 => Ok(()),
        count => Err(CliError::failure(format!("backup {} is damaged in {count} places", report.backup))),
    }
}

fn finding(finding: &Finding) -> Value {
    let lost = |lost: &Lost| {
        json!({
            "topic": lost.topic,
            "partition": lost.partition,
            "first_offset": lost.first,
            "last_offset": lost.last,
            "records_at_most": lost.records,
        })
    };
    json!({
        "object": finding.object,
        "problem": finding.problem,
        "lost": finding.lost.iter().map(lost).collect::<Vec<_>>(),
    })
}

fn lost_text(finding: &Finding) -> String {
    let lost =
        finding.lost.iter().map(|lost| format!("{}-{} {}..={}", lost.topic, lost.partition, lost.first, lost.last));
    let text = lost.collect::<Vec<_>>().join(" ");
    if text.is_empty() { "-".to_owned() } else { text }
}
