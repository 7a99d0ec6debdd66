//! WriteTxnMarkers, as other brokers' coordinators and `kafka-transactions.sh abort` send it.

use taccola_wire::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use taccola_wire::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};

use super::{Asking, Producer, name};
use crate::server::fresh;

fn marker(asking: &Asking, p: &Producer, partitions: &[i32], coordinator_epoch: i32) -> WritableTxnMarker {
    WritableTxnMarker {
        producer_id: p.producer_id,
        producer_epoch: p.epoch,
        transaction_result: false,
        topics: vec![WritableTxnMarkerTopic { name: asking.topic.clone(), partition_indexes: partitions.to_vec() }],
        coordinator_epoch,
        transaction_version: 0,
    }
}

fn rows(response: &WriteTxnMarkersResponse) -> String {
    let of = response.markers.iter().map(|marker| {
        let rows = marker.topics.iter().flat_map(|topic| &topic.partitions);
        let mut rows: Vec<String> =
            rows.map(|row| format!("{} {}", row.partition_index, name(row.error_code))).collect();
        rows.sort();
        format!("[{}]", rows.join(", "))
    });
    of.collect::<Vec<_>>().join(" ")
}

fn one(marker: WritableTxnMarker) -> WriteTxnMarkersRequest {
    WriteTxnMarkersRequest { markers: vec![marker] }
}

pub(super) fn write(asking: &mut Asking) {
    for version in 1..=2 {
        let p = asking.open();
        asking.produced(&p, 11, 0, 0);
        let case = |asking: &mut Asking, what: &str, marker: WritableTxnMarker| {
            asking.case(what, version, &one(marker), rows);
        };
        let older = marker(asking, &p.with_epoch(p.epoch - 1), &[0], 0);
        case(asking, "an older epoch", older);
        let unknown = marker(asking, &p, &[7, -1], 0);
        case(asking, "unknown partitions", unknown);
        let mut missing = marker(asking, &p, &[0], 0);
        missing.topics[0].name = fresh("missing");
        case(asking, "unknown topic", missing);
        let open = marker(asking, &p, &[0, 1], 5);
        case(asking, "of what is open", open.clone());
        case(asking, "the same again", open);
        let zombie = marker(asking, &p, &[0], 4);
        case(asking, "an older coordinator", zombie);
        let newer = marker(asking, &p.with_epoch(p.epoch + 1), &[0], 5);
        case(asking, "a newer epoch", newer);
        let nobody = marker(asking, &p.with_producer_id(p.producer_id + 1_000_000), &[0], 0);
        case(asking, "a producer that nobody knows", nobody);
        let empty = marker(asking, &p, &[], 5);
        case(asking, "no partition", empty);
        asking.case("nothing", version, &WriteTxnMarkersRequest { markers: Vec::new() }, rows);
        let (a, b) = (marker(asking, &p.with_epoch(p.epoch + 1), &[0], 5), marker(asking, &p, &[1, 0], 5));
        asking.case("two of one producer", version, &WriteTxnMarkersRequest { markers: vec![a, b] }, rows);
    }
    version_2(asking);
}

/// Each transaction has an epoch of its own, and its marker a higher one.
fn version_2(asking: &mut Asking) {
    let p = asking.producer();
    asking.produced(&p, 12, 0, 0);
    let of = |asking: &Asking, epoch: i16| {
        let marker = marker(asking, &p.with_epoch(epoch), &[0], 0);
        one(WritableTxnMarker { transaction_version: 2, ..marker })
    };
    for (what, epoch) in [
        ("of version 2 at the open epoch", p.epoch),
        ("of version 2 at the next epoch", p.epoch + 1),
        ("of version 2 again", p.epoch + 1),
        ("of version 2 at the old epoch", p.epoch),
    ] {
        let request = of(asking, epoch);
        asking.case(what, 2, &request, rows);
    }
}
