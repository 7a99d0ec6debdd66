//! What the trace says.

use taccola_coord::CoordinatorRecord;
use taccola_coord::transaction::{Markers, Partitions, TransactionResponse, TransactionTimerKey};
use taccola_wire::codec::{Message, Reader};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::add_partitions_to_txn_response::AddPartitionsToTxnResult;
use taccola_wire::messages::describe_transactions_response::TransactionState;
use taccola_wire::messages::{
    EndTxnResponse, InitProducerIdResponse, ListTransactionsResponse, TransactionLogKey, TransactionLogValue,
};

pub(crate) fn code(code: i16) -> String {
    ErrorCode::from_code(code).name().to_owned()
}

pub(crate) fn error(name: &str) -> ErrorCode {
    (-1..200).map(ErrorCode::from_code).find(|error| error.name() == name).unwrap_or_else(|| panic!("no error {name}"))
}

pub(crate) fn init(r: &InitProducerIdResponse) -> String {
    match r.error_code {
        0 => format!("{}/{}", r.producer_id, r.producer_epoch),
        error => code(error),
    }
}

pub(crate) fn end(r: &EndTxnResponse) -> String {
    match (r.error_code, r.producer_id) {
        (0, -1) => "NONE".to_owned(),
        (0, _) => format!("{}/{}", r.producer_id, r.producer_epoch),
        (error, _) => code(error),
    }
}

pub(crate) fn added(r: &AddPartitionsToTxnResult) -> String {
    let mut rows: Vec<(String, String)> = Vec::new();
    for topic in &r.topic_results {
        for p in &topic.results_by_partition {
            rows.push((format!("{}-{}", topic.name, p.partition_index), code(p.partition_error_code)));
        }
    }
    rows.sort();
    match rows.first() {
        Some((_, first)) if rows.iter().all(|(_, c)| c == first) => first.clone(),
        _ => rows.iter().map(|(p, c)| format!("{p}={c}")).collect::<Vec<_>>().join(" "),
    }
}

pub(crate) fn response(response: &TransactionResponse) -> String {
    match response {
        TransactionResponse::InitProducerId(r) => init(r),
        TransactionResponse::AddPartitions(r) => added(r),
        TransactionResponse::AddOffsets(r) => code(r.error_code),
        TransactionResponse::EndTxn(r) => end(r),
    }
}

fn partitions(partitions: &Partitions) -> String {
    partitions.iter().map(|(topic, p)| format!("{topic}-{p}")).collect::<Vec<_>>().join(" ")
}

pub(crate) fn markers(m: &Markers) -> String {
    let kind = if m.commit { "commit" } else { "abort" };
    format!(
        "markers {} {kind} {}/{} coordinator-epoch={} tv={}: {}",
        m.transactional_id,
        m.producer_id,
        m.producer_epoch,
        m.coordinator_epoch,
        m.transaction_version,
        partitions(&m.partitions)
    )
}

pub(crate) fn timer(key: &TransactionTimerKey) -> String {
    match key {
        TransactionTimerKey::AbortTimedOut => "abort-timed-out".to_owned(),
        TransactionTimerKey::ExpireIds => "expire-ids".to_owned(),
        TransactionTimerKey::Complete { transactional_id } => format!("complete {transactional_id}"),
        TransactionTimerKey::Waiting { transactional_id } => format!("waiting {transactional_id}"),
    }
}

pub(crate) fn described(t: &TransactionState) -> String {
    if t.error_code != 0 {
        return code(t.error_code);
    }
    let mut topics: Vec<String> = Vec::new();
    for topic in &t.topics {
        topics.extend(topic.partitions.iter().map(|p| format!("{}-{p}", topic.topic)));
    }
    topics.sort();
    let topics = topics.iter().map(|t| format!(" {t}")).collect::<String>();
    let started = if t.transaction_start_time_ms < 0 { "" } else { " started" };
    let producer = format!("{}/{}", t.producer_id, t.producer_epoch);
    format!("{} {producer} timeout={}{started}{topics}", t.transaction_state, t.transaction_timeout_ms)
}

pub(crate) fn listed(r: &ListTransactionsResponse) -> String {
    let mut rows: Vec<String> = Vec::new();
    for t in &r.transaction_states {
        rows.push(format!("{}:{}:{}", t.transactional_id, t.producer_id, t.transaction_state));
    }
    rows.sort();
    let unknown: String = r.unknown_state_filters.iter().map(|s| format!(" unknown {s}")).collect();
    format!("{} [{}]{unknown}", code(r.error_code), rows.join(" "))
}

const STATES: [&str; 6] = ["Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort"];

pub(crate) fn state_id(name: &str) -> i8 {
    STATES.iter().position(|s| *s == name).unwrap_or_else(|| name.parse().unwrap()) as i8
}

pub(crate) fn record(record: &CoordinatorRecord) -> String {
    let key = TransactionLogKey::read(&mut Reader::new(record.key.slice(2..)), 0).unwrap();
    let Some(value) = &record.value else { return format!("{} tombstone", key.transactional_id) };
    let version = i16::from_be_bytes(*value.first_chunk().unwrap());
    let v = TransactionLogValue::read(&mut Reader::new(value.slice(2..)), version).unwrap();
    let mut line = format!(
        "{} v{version} {} {}/{}",
        key.transactional_id, STATES[v.transaction_status as usize], v.producer_id, v.producer_epoch
    );
    for (name, value) in [("previous", v.previous_producer_id), ("next", v.next_producer_id)] {
        if value != -1 {
            line += &format!(" {name}={value}");
        }
    }
    line += &format!(" tv={} timeout={}", v.client_transaction_version, v.transaction_timeout_ms);
    match v.transaction_partitions {
        None => line += " null",
        Some(topics) => {
            for topic in topics {
                line.extend(topic.partition_ids.iter().map(|p| format!(" {}-{p}", topic.topic)));
            }
        }
    }
    line
}

pub(crate) fn unhex(text: &str) -> bytes::Bytes {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect::<Vec<_>>().into()
}
