//! AddOffsetsToTxn and TxnOffsetCommit.

use taccola_wire::messages::txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
use taccola_wire::messages::{AddOffsetsToTxnRequest, TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use super::{Asking, Producer, name};
use crate::server::fresh;

fn add(p: &Producer, group: &str) -> AddOffsetsToTxnRequest {
    AddOffsetsToTxnRequest {
        transactional_id: p.id.clone(),
        producer_id: p.producer_id,
        producer_epoch: p.epoch,
        group_id: group.to_owned(),
    }
}

pub(super) fn add_offsets(asking: &mut Asking) {
    for version in 0..=4 {
        let p = asking.producer();
        let group = asking.group.clone();
        for (what, stranger) in p.strangers() {
            asking.case(what, version, &add(&stranger, &group), |response| name(response.error_code));
        }
        asking.case("first", version, &add(&p, &group), |response| name(response.error_code));
        asking.case("again", version, &add(&p, &group), |response| name(response.error_code));
        asking.case("an empty group", version, &add(&p, ""), |response| name(response.error_code));
    }
}

fn request(asking: &Asking, p: &Producer, partitions: &[i32]) -> TxnOffsetCommitRequest {
    let row = |partition_index: &i32| TxnOffsetCommitRequestPartition {
        partition_index: *partition_index,
        committed_offset: 5,
        committed_leader_epoch: -1,
        committed_metadata: Some("m".to_owned()),
    };
    TxnOffsetCommitRequest {
        transactional_id: p.id.clone(),
        group_id: asking.group.clone(),
        producer_id: p.producer_id,
        producer_epoch: p.epoch,
        generation_id: -1,
        topics: vec![TxnOffsetCommitRequestTopic {
            name: asking.topic.clone(),
            partitions: partitions.iter().map(row).collect(),
        }],
        ..Default::default()
    }
}

fn rows(response: &TxnOffsetCommitResponse) -> String {
    let rows = response.topics.iter().flat_map(|topic| &topic.partitions);
    let mut rows: Vec<String> = rows.map(|row| format!("{} {}", row.partition_index, name(row.error_code))).collect();
    rows.sort();
    rows.join(", ")
}

pub(super) fn commit(asking: &mut Asking) {
    for version in 0..=5 {
        let mut p = asking.producer();
        if version < 5 {
            let early = request(asking, &p, &[0]);
            asking.case("before AddOffsetsToTxn", version, &early, rows);
            let group = asking.group.clone();
            asking.settled(&add(&p, &group), 3, |response| response.error_code);
        }
        let first = request(asking, &p, &[0]);
        asking.case("first", version, &first, rows);
        asking.case("again", version, &first, rows);
        // Brokers are not asked whether an epoch is known that the log has not seen: these are the last words.
        for (what, stranger) in p.strangers() {
            let wrong = request(asking, &stranger, &[0]);
            asking.case(what, version, &wrong, rows);
        }
        refused(asking, version, &p);
        asking.ended(&mut p, if version < 5 { 4 } else { 5 }, false);
        let late = request(asking, &p, &[0]);
        if version < 5 {
            asking.case("after the end", version, &late, rows);
        }
    }
}

fn refused(asking: &mut Asking, version: i16, p: &Producer) {
    let good = request(asking, p, &[0]);
    let unknown = request(asking, p, &[7, 0, -1]);
    asking.case("unknown partitions", version, &unknown, rows);
    let mut other = good.clone();
    other.topics[0].name = fresh("missing");
    asking.case("unknown topic", version, &other, rows);
    other.topics.clear();
    asking.case("nothing", version, &other, rows);
    let mut long = good.clone();
    long.topics[0].partitions[0].committed_metadata = Some("m".repeat(5_000));
    asking.case("long metadata", version, &long, rows);
    let mut negative = good.clone();
    negative.topics[0].partitions[0].committed_offset = -7;
    asking.case("a negative offset", version, &negative, rows);
    if version >= 3 {
        let member = TxnOffsetCommitRequest { generation_id: 3, member_id: "somebody".to_owned(), ..good.clone() };
        asking.case("a member that is not", version, &member, rows);
        let generation = TxnOffsetCommitRequest { generation_id: 3, ..good.clone() };
        asking.case("a generation without a member", version, &generation, rows);
        let instance = TxnOffsetCommitRequest { group_instance_id: Some("i".to_owned()), ..member };
        asking.case("an instance that is not", version, &instance, rows);
    }
    let nobody = TxnOffsetCommitRequest { group_id: String::new(), ..good };
    asking.case("an empty group", version, &nobody, rows);
}
