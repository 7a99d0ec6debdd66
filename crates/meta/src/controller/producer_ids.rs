//! Blocks of producer ids (AllocateProducerIds, KIP-730). Answers to `ProducerIdControlManager`.

use taccola_wire::error::ErrorCode;
use taccola_wire::messages::{AllocateProducerIdsRequest, AllocateProducerIdsResponse, ProducerIdsRecord};

use super::{Controller, Outcome};
use crate::image::MetadataImage;
use crate::record::VersionedRecord;

/// Ids in one block.
pub const PRODUCER_ID_BLOCK: i32 = 1_000;

impl Controller {
    /// The next block for a broker that is registered under this epoch. No id is ever in two blocks.
    pub fn allocate_producer_ids(
        &self,
        image: &MetadataImage,
        request: &AllocateProducerIdsRequest,
    ) -> Outcome<AllocateProducerIdsResponse> {
        let refuse = |code: ErrorCode| {
            Outcome::atomic(Vec::new(), AllocateProducerIdsResponse { error_code: code.code(), ..Default::default() })
        };
        if self.check_broker_epoch(image, request.broker_id, request.broker_epoch).is_err() {
            return refuse(ErrorCode::StaleBrokerEpoch);
        }
        let first = image.next_producer_id.unwrap_or(0);
        let Some(next) = first.checked_add(i64::from(PRODUCER_ID_BLOCK)).filter(|_| first >= 0) else {
            return refuse(ErrorCode::UnknownServerError);
        };
        let record = ProducerIdsRecord {
            broker_id: request.broker_id,
            broker_epoch: request.broker_epoch,
            next_producer_id: next,
        };
        let response = AllocateProducerIdsResponse {
            producer_id_start: first,
            producer_id_len: PRODUCER_ID_BLOCK,
            ..Default::default()
        };
        Outcome::atomic(vec![VersionedRecord::new(record, 0)], response)
    }
}
