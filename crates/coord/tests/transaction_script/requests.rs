//! Requests made of the words of a command.

use taccola_wire::messages::add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
use taccola_wire::messages::{AddOffsetsToTxnRequest, EndTxnRequest, InitProducerIdRequest, ListTransactionsRequest};

use super::Args;

/// Producer id and epoch.
pub(crate) type Producer = (i64, i16);

pub(crate) fn producer(text: &str, last: Producer) -> Producer {
    let (id, epoch) = match text {
        "-" => return last,
        text => text.split_once('/').unwrap_or_else(|| panic!("{text} is no producer")),
    };
    let id = if id == "-" { last.0 } else { id.parse().unwrap() };
    (id, if epoch == "-" { last.1 } else { epoch.parse().unwrap() })
}

pub(crate) fn version(args: &Args<'_>, verb: &str) -> i16 {
    let default = match verb {
        "add" => 3,
        "offsets" => 4,
        "init" if args.has("2pc") || args.has("keep") => 6,
        _ => 5,
    };
    args.number("v", default)
}

pub(crate) fn init(id: &str, args: &Args<'_>, last: Producer) -> InitProducerIdRequest {
    let (producer_id, producer_epoch) = args.get("producer").map_or((-1, -1), |text| producer(text, last));
    InitProducerIdRequest {
        transactional_id: Some(id.to_owned()),
        transaction_timeout_ms: args.duration("timeout", 60_000) as i32,
        producer_id,
        producer_epoch,
        enable2_pc: args.has("2pc"),
        keep_prepared_txn: args.has("keep"),
    }
}

pub(crate) fn topic_partition(text: &str) -> (&str, i32) {
    let (topic, partition) = text.rsplit_once('-').unwrap_or_else(|| panic!("{text} is no partition"));
    (topic, partition.parse().unwrap())
}

pub(crate) fn add(id: &str, args: &Args<'_>, last: Producer, verify_only: bool) -> AddPartitionsToTxnTransaction {
    let (producer_id, producer_epoch) = producer(args.word(1), last);
    let mut topics: Vec<AddPartitionsToTxnTopic> = Vec::new();
    for (topic, partition) in args.rest(2).iter().map(|p| topic_partition(p)) {
        match topics.iter_mut().find(|t| t.name == topic) {
            Some(t) => t.partitions.push(partition),
            None => topics.push(AddPartitionsToTxnTopic { name: topic.to_owned(), partitions: vec![partition] }),
        }
    }
    AddPartitionsToTxnTransaction { transactional_id: id.to_owned(), producer_id, producer_epoch, verify_only, topics }
}

pub(crate) fn offsets(id: &str, args: &Args<'_>, last: Producer) -> AddOffsetsToTxnRequest {
    let (producer_id, producer_epoch) = producer(args.word(1), last);
    AddOffsetsToTxnRequest { transactional_id: id.to_owned(), producer_id, producer_epoch, group_id: "g".to_owned() }
}

pub(crate) fn end(id: &str, args: &Args<'_>, last: Producer) -> EndTxnRequest {
    let (producer_id, producer_epoch) = producer(args.word(1), last);
    let committed = match args.word(2) {
        "commit" => true,
        "abort" => false,
        other => panic!("{other} is no end"),
    };
    EndTxnRequest { transactional_id: id.to_owned(), producer_id, producer_epoch, committed }
}

fn list_of(text: Option<&str>) -> Vec<String> {
    text.map_or(Vec::new(), |text| text.split(',').map(str::to_owned).collect())
}

pub(crate) fn list(args: &Args<'_>) -> ListTransactionsRequest {
    ListTransactionsRequest {
        state_filters: list_of(args.get("states")),
        producer_id_filters: list_of(args.get("producers")).iter().map(|id| id.parse().unwrap()).collect(),
        duration_filter: args.duration("duration", -1),
        transactional_id_pattern: args.get("pattern").map(str::to_owned),
    }
}
