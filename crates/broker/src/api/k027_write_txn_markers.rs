//! WriteTxnMarkers, key 27, v1–v2. Asked by other brokers' coordinators, and by `kafka-transactions.sh abort`.
//!
//! Behaviour: each marker ends its producer's transaction in each of the partitions, which answer one by one once the
//! marker is durable. A producer with several markers has one row, in which the last answer of each partition stands, and one
//! whose markers name no partition has none, as in Kafka. Version notes: v2 names the transaction version, so that a late marker cannot end the next
//! transaction (KIP-1228).

use std::sync::Arc;

use taccola_coord::EndMarker;
use taccola_wire::messages::write_txn_markers_request::{WritableTxnMarker, WriteTxnMarkersRequest};
use taccola_wire::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult, WriteTxnMarkersResponse,
};

use crate::broker::Broker;
use crate::context::RequestContext;

pub async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: WriteTxnMarkersRequest,
) -> WriteTxnMarkersResponse {
    let mut markers: Vec<WritableTxnMarkerResult> = Vec::new();
    for marker in request.markers {
        if marker.topics.iter().all(|topic| topic.partition_indexes.is_empty()) {
            continue;
        }
        let written = write(broker, marker).await;
        match markers.iter_mut().find(|row| row.producer_id == written.producer_id) {
            Some(row) => written.topics.into_iter().for_each(|topic| merge(&mut row.topics, topic)),
            None => markers.push(written),
        }
    }
    WriteTxnMarkersResponse { markers }
}

fn merge(topics: &mut Vec<WritableTxnMarkerTopicResult>, later: WritableTxnMarkerTopicResult) {
    match topics.iter_mut().find(|topic| topic.name == later.name) {
        Some(topic) => {
            topic
                .partitions
                .retain(|row| later.partitions.iter().all(|new| new.partition_index != row.partition_index));
            topic.partitions.extend(later.partitions);
        }
        None => topics.push(later),
    }
}

async fn write(broker: &Arc<Broker>, marker: WritableTxnMarker) -> WritableTxnMarkerResult {
    let partitions = marker.topics.iter().flat_map(|topic| {
        let name: Arc<str> = topic.name.as_str().into();
        topic.partition_indexes.iter().map(move |index| (name.clone(), *index))
    });
    let end = EndMarker {
        producer_id: marker.producer_id,
        producer_epoch: marker.producer_epoch,
        commit: marker.transaction_result,
        coordinator_epoch: marker.coordinator_epoch,
        transaction_version: i16::from(marker.transaction_version),
    };
    let partitions: Vec<_> = partitions.collect();
    let mut topics: Vec<WritableTxnMarkerTopicResult> = Vec::new();
    for (name, partition_index, written) in broker.write_markers(end, partitions).await {
        let error_code = written.err().map_or(0, |error| error.code());
        let row = WritableTxnMarkerPartitionResult { partition_index, error_code };
        match topics.iter_mut().rfind(|topic| *topic.name == *name) {
            Some(topic) => topic.partitions.push(row),
            None => topics.push(WritableTxnMarkerTopicResult { name: name.to_string(), partitions: vec![row] }),
        }
    }
    WritableTxnMarkerResult { producer_id: marker.producer_id, topics }
}
