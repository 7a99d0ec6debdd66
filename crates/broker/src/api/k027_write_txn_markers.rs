//! WriteTxnMarkers, key 27, v1–v2. Asked by other brokers' coordinators, and by `kafka-transactions.sh abort`.
//!
//! Behaviour: each marker ends its producer's transaction in each of the partitions, which answer one by one once the
//! marker is durable. Version notes: v2 names the transaction version, so that a late marker cannot end the next
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
    let mut markers = Vec::new();
    for marker in request.markers {
        markers.push(write(broker, marker).await);
    }
    WriteTxnMarkersResponse { markers }
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
