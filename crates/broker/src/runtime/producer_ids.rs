//! Producer ids out of blocks that the controller hands out. Answers to Kafka's `RPCProducerIdManager`.
//!
//! INVARIANT: no id is given out twice in the cluster's life: a block is used only after the record that says so is
//! durable, and what a broker did not use of its block when it stopped is never used.

use std::ops::Range;

use parking_lot::Mutex;
use taccola_base::planted::{Bug, planted};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::AllocateProducerIdsRequest;

use crate::broker::Broker;
use crate::error_map;

/// The ids that this broker may still give out.
#[derive(Debug, Default)]
pub struct ProducerIds {
    block: Mutex<Range<i64>>,
    /// Held by whoever asks for the next block, so that one run-out block leads to one new one.
    refill: tokio::sync::Mutex<()>,
}

impl ProducerIds {
    fn next(&self) -> Option<i64> {
        self.block.lock().next()
    }
}

impl Broker {
    /// An id that nobody had before.
    pub async fn next_producer_id(&self) -> Result<i64, ErrorCode> {
        if let Some(id) = self.producer_ids.next() {
            return Ok(id);
        }
        let _refill = self.producer_ids.refill.lock().await;
        if let Some(id) = self.producer_ids.next() {
            return Ok(id);
        }
        let block = self.allocate_producer_ids().await?;
        let mut held = self.producer_ids.block.lock();
        *held = if planted(Bug::ProducerIdReused) { 0..block.end - block.start } else { block };
        held.next().ok_or(ErrorCode::UnknownServerError)
    }

    async fn allocate_producer_ids(&self) -> Result<Range<i64>, ErrorCode> {
        let allocated = self.command(|controller, image| {
            let broker_epoch = image.cluster.brokers.get(&self.node_id).map_or(-1, |registration| registration.epoch);
            let request = AllocateProducerIdsRequest { broker_id: self.node_id, broker_epoch };
            controller.allocate_producer_ids(image, &request)
        });
        let response = allocated.await.map_err(|error| {
            tracing::error!(%error, "cannot allocate producer ids");
            error_map::metadata_write(&error)
        })?;
        match ErrorCode::from_code(response.error_code) {
            ErrorCode::None => {}
            error => return Err(error),
        }
        let start = response.producer_id_start;
        let end = start.checked_add(i64::from(response.producer_id_len)).ok_or(ErrorCode::UnknownServerError)?;
        Ok(start..end)
    }
}
