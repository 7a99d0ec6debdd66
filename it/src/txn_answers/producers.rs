//! InitProducerId, AddPartitionsToTxn of clients and of brokers, EndTxn, and the Produce requests between them.

use taccola_wire::messages::add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
use taccola_wire::messages::add_partitions_to_txn_response::AddPartitionsToTxnTopicResult;
use taccola_wire::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, InitProducerIdRequest, ProduceResponse,
};

use super::{Asking, Producer, name};
use crate::server::fresh;

pub(super) fn init(asking: &mut Asking) {
    for version in 0..=6 {
        let p = asking.producer();
        let init = Asking::init_request(&p.id);
        let mut case = |what: &str, request: &InitProducerIdRequest| {
            asking.case(what, version, request, |response| p.initialized(response));
        };
        case("again", &init);
        case("for no time", &InitProducerIdRequest { transaction_timeout_ms: 0, ..init.clone() });
        case("for less", &InitProducerIdRequest { transaction_timeout_ms: -1, ..init.clone() });
        case("for too long", &InitProducerIdRequest { transaction_timeout_ms: 900_001, ..init.clone() });
        case("without a name", &InitProducerIdRequest { transactional_id: Some(String::new()), ..init.clone() });
        case("two-phase", &InitProducerIdRequest { enable2_pc: true, ..init.clone() });
        case("keeping", &InitProducerIdRequest { keep_prepared_txn: true, ..init.clone() });
        case("keeping, two-phase", &InitProducerIdRequest { enable2_pc: true, keep_prepared_txn: true, ..init });
        if version >= 3 {
            init_as_somebody(asking, version);
        }
        init_in_transaction(asking, version);
    }
}

fn as_somebody(p: &Producer, producer_id: i64, producer_epoch: i16) -> InitProducerIdRequest {
    InitProducerIdRequest { producer_id, producer_epoch, ..Asking::init_request(&p.id) }
}

fn init_as_somebody(asking: &mut Asking, version: i16) {
    let p = asking.producer();
    let mut case = |what: &str, producer_id, epoch| {
        asking.case(what, version, &as_somebody(&p, producer_id, epoch), |response| p.initialized(response));
    };
    case("as itself", p.producer_id, p.epoch);
    case("as itself, once more", p.producer_id, p.epoch);
    case("as who it is now", p.producer_id, p.epoch + 1);
    case("as who it was first", p.producer_id, p.epoch);
    case("as who it will be", p.producer_id, p.epoch + 9);
    case("as another", p.producer_id + 1_000_000, p.epoch);
    case("as nobody with an epoch", -1, p.epoch);
    case("as somebody without one", p.producer_id, -1);
    let unknown = Producer { id: fresh("nobody"), ..p.clone() };
    asking.case("of nobody as somebody", version, &as_somebody(&unknown, p.producer_id, p.epoch), |response| {
        p.initialized(response)
    });
}

fn init_in_transaction(asking: &mut Asking, version: i16) {
    if version == 6 {
        return;
    }
    if version >= 3 {
        for (what, other, change) in [
            ("in a transaction, as itself", 0, 0),
            ("in a transaction, as an older epoch", 0, -1),
            ("in a transaction, as a newer epoch", 0, 5),
            ("in a transaction, as another", 1_000_000, 0),
        ] {
            // At epoch 1, so that there is an older one.
            let mut p = asking.producer();
            p.epoch = asking.settled(&Asking::init_request(&p.id), 5, |response| response.error_code).producer_epoch;
            asking.add(&p, &[0]);
            asking.case(what, version, &as_somebody(&p, p.producer_id + other, p.epoch + change), |r| p.initialized(r));
        }
    }
    let p = asking.open();
    asking.case("in a transaction", version, &Asking::init_request(&p.id), |response| p.initialized(response));
    asking.complete(&p);
    asking.case("after it was aborted", version, &Asking::init_request(&p.id), |response| p.initialized(response));
    asking.case("end of who was fenced", 5, &Asking::end_request(&p, true), |response| p.ended(response));
}

fn rows<'a>(topics: impl IntoIterator<Item = &'a AddPartitionsToTxnTopicResult>) -> String {
    let mut all: Vec<String> = topics
        .into_iter()
        .flat_map(|topic| topic.results_by_partition.iter())
        .map(|row| format!("{} {}", row.partition_index, name(row.partition_error_code)))
        .collect();
    all.sort();
    all.join(", ")
}

fn added(response: &AddPartitionsToTxnResponse) -> String {
    rows(response.results_by_topic_v3_and_below.iter())
}

pub(super) fn add_partitions(asking: &mut Asking) {
    for version in 0..=3 {
        let mut p = asking.producer();
        let case = |asking: &mut Asking, what: &str, p: &Producer, partitions: &[i32]| {
            let request = asking.add_request(p, partitions);
            asking.case(what, version, &request, added);
        };
        case(asking, "unknown partition", &p, &[7]);
        case(asking, "known and unknown partition", &p, &[0, 7, -1]);
        case(asking, "no partition", &p, &[]);
        case(asking, "first", &p, &[0]);
        case(asking, "again", &p, &[0]);
        case(asking, "another and twice", &p, &[1, 1, 0]);
        for (what, stranger) in p.strangers() {
            case(asking, what, &stranger, &[0]);
        }
        let mut unknown = asking.add_request(&p, &[0]);
        unknown.v3_and_below_topics[0].name = fresh("missing");
        asking.case("unknown topic", version, &unknown, added);
        unknown.v3_and_below_topics[0].name = "a b".to_owned();
        asking.case("bad topic", version, &unknown, added);
        unknown.v3_and_below_topics[0].name = "__transaction_state".to_owned();
        asking.case("internal topic", version, &unknown, added);
        unknown.v3_and_below_topics.clear();
        asking.case("no topic", version, &unknown, added);
        asking.ended(&mut p, 4, true);
        case(asking, "after the end", &p, &[0]);
    }
}

fn verified(response: &AddPartitionsToTxnResponse) -> String {
    let of = response.results_by_transaction.iter().map(|txn| format!("[{}]", rows(txn.topic_results.iter())));
    let mut of: Vec<String> = of.collect();
    of.sort();
    format!("{} {}", name(response.error_code), of.join(" "))
}

fn transaction(asking: &Asking, p: &Producer, partitions: &[i32], verify_only: bool) -> AddPartitionsToTxnTransaction {
    AddPartitionsToTxnTransaction {
        transactional_id: p.id.clone(),
        producer_id: p.producer_id,
        producer_epoch: p.epoch,
        verify_only,
        topics: vec![AddPartitionsToTxnTopic { name: asking.topic.clone(), partitions: partitions.to_vec() }],
    }
}

pub(super) fn verify(asking: &mut Asking) {
    for version in 4..=5 {
        let mut p = asking.producer();
        let case = |asking: &mut Asking, what: &str, p: &Producer, partitions: &[i32], only: bool| {
            let transactions = vec![transaction(asking, p, partitions, only)];
            let request = AddPartitionsToTxnRequest { transactions, ..Default::default() };
            asking.case(what, version, &request, verified);
        };
        case(asking, "verified before anything", &p, &[0], true);
        case(asking, "added", &p, &[0], false);
        case(asking, "verified", &p, &[0], true);
        case(asking, "verified with one that is not there", &p, &[0, 1], true);
        case(asking, "verified, unknown partition", &p, &[7], true);
        case(asking, "added, unknown partition", &p, &[1, 7], false);
        for (what, stranger) in p.strangers() {
            case(asking, &format!("verified, {what}"), &stranger, &[0], true);
            case(asking, &format!("added, {what}"), &stranger, &[0], false);
        }
        let other = asking.producer();
        let transactions = vec![transaction(asking, &p, &[0], true), transaction(asking, &other, &[1], false)];
        let both = AddPartitionsToTxnRequest { transactions, ..Default::default() };
        asking.case("one verified, one added", version, &both, verified);
        asking.case("nobody", version, &AddPartitionsToTxnRequest::default(), verified);
        asking.ended(&mut p, 5, false);
        case(asking, "verified after the end", &p, &[0], true);
        case(asking, "added after the end", &p, &[0], false);
    }
}

pub(super) fn end(asking: &mut Asking) {
    for version in 0..=5 {
        let p = asking.producer();
        asking.case("commit of nothing", version, &Asking::end_request(&p, true), |response| p.ended(response));
        asking.case("abort of nothing", version, &Asking::end_request(&p, false), |response| p.ended(response));
        for (what, commit) in [("commit", true), ("abort", false)] {
            let p = asking.open();
            for (stranger, q) in p.strangers() {
                asking.case(&format!("{what}, {stranger}"), version, &Asking::end_request(&q, commit), |r| p.ended(r));
            }
            asking.case(what, version, &Asking::end_request(&p, commit), |response| p.ended(response));
            asking.complete(&p);
            asking.case(&format!("{what} again"), version, &Asking::end_request(&p, commit), |r| p.ended(r));
            asking.case(&format!("{what} turned round"), version, &Asking::end_request(&p, !commit), |r| p.ended(r));
            let next = p.with_epoch(p.epoch + 1);
            asking.case(&format!("{what} as the next epoch"), version, &Asking::end_request(&next, commit), |r| {
                p.ended(r)
            });
        }
    }
}

fn produced(response: &ProduceResponse) -> String {
    let row = &response.responses[0].partition_responses[0];
    name(row.error_code).to_owned()
}

pub(super) fn produce(asking: &mut Asking) {
    for version in [9, 10, 11, 12] {
        let mut p = asking.open();
        let case = |asking: &mut Asking, what: &str, p: &Producer, partition, sequence| {
            let request = asking.produce_request(p, partition, sequence);
            asking.case(what, version, &request, produced);
        };
        case(asking, "in the transaction", &p, 0, 0);
        case(asking, "the same again", &p, 0, 0);
        case(asking, "behind a gap", &p, 0, 5);
        case(asking, "of a partition that is not in it", &p, 1, 0);
        for (what, stranger) in p.strangers() {
            case(asking, what, &stranger, 0, 1);
        }
        asking.ended(&mut p, if version >= 12 { 5 } else { 4 }, true);
        case(asking, "after the end", &p, 0, if version >= 12 { 0 } else { 1 });
        let mut nameless = asking.produce_request(&p, 0, 1);
        nameless.transactional_id = None;
        asking.case("without a name", version, &nameless, produced);
    }
}
