//! The transactional part of a Produce request: which of its batches begin a transaction in their partition, and under
//! which guard they may. Answers to the first half of Kafka's `ReplicaManager.handleProduceAppend`.

use std::collections::HashMap;
use std::sync::Arc;

use taccola_log::{AppendOrigin, VerificationGuard};
use taccola_wire::batch::BatchHeader;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};

use super::verification::{Place, Producer, Support};
use crate::broker::Broker;
use crate::context::RequestContext;

/// The version from which on topics are numbers.
const TOPIC_IDS_SINCE: i16 = 13;

/// What is to be done before the batches are appended.
pub(crate) enum Begun {
    Nothing,
    Ask(Asked),
}

/// Where the producer writes in its transaction.
pub(crate) struct Asked {
    producer_id: i64,
    producer_epoch: i16,
    places: Vec<Place>,
}

/// What the coordinator said. Empty where nothing was asked.
#[derive(Default)]
pub(crate) struct Verified {
    guards: HashMap<(Arc<str>, i32), Result<VerificationGuard, ErrorCode>>,
}

impl Verified {
    /// As what a partition's batch is appended; an error when the coordinator refused it.
    pub(crate) fn origin(
        &self,
        broker: &Broker,
        context: &RequestContext,
        topic: &str,
        data: &PartitionProduceData,
    ) -> Result<AppendOrigin, ErrorCode> {
        if transactional(data).is_none() || !broker.verifies(Support::of_produce(context.api_version)) {
            return Ok(AppendOrigin::Client);
        }
        let guard = self.guards.get(&(Arc::from(topic), data.index)).copied().transpose()?;
        Ok(AppendOrigin::ClientTransaction { guard })
    }
}

/// The header of a transactional batch. What cannot be read is refused later.
fn transactional(data: &PartitionProduceData) -> Option<BatchHeader> {
    let records = data.records.as_ref()?;
    BatchHeader::parse(records).ok().filter(BatchHeader::is_transactional)
}

/// Looks at a request before anything of it is appended. The error is for all of its partitions.
pub(crate) fn begin(broker: &Broker, context: &RequestContext, request: &ProduceRequest) -> Result<Begun, ErrorCode> {
    let mut producer = None;
    let mut places = Vec::new();
    for topic in &request.topic_data {
        for data in &topic.partition_data {
            let Some(header) = transactional(data) else { continue };
            if request.transactional_id.is_none() {
                return Err(ErrorCode::TransactionalIdAuthorizationFailed);
            }
            let (id, epoch) = *producer.get_or_insert((header.producer_id, header.producer_epoch));
            if (header.producer_id, header.producer_epoch) != (id, epoch) {
                return Err(ErrorCode::InvalidProducerIdMapping);
            }
            if let Some(name) = name_of(broker, context, topic) {
                places.push(Place { topic: name, partition: data.index, first_sequence: header.base_sequence });
            }
        }
    }
    let support = Support::of_produce(context.api_version);
    let Some((producer_id, producer_epoch)) = producer.filter(|_| broker.verifies(support)) else {
        return Ok(Begun::Nothing);
    };
    let transactional_id = request.transactional_id.as_deref().unwrap_or_default();
    let producer = Producer { transactional_id, producer_id, producer_epoch };
    Ok(match broker.begin_verification(producer, support, &places).is_empty() {
        true => Begun::Nothing,
        false => Begun::Ask(Asked { producer_id, producer_epoch, places }),
    })
}

fn name_of(broker: &Broker, context: &RequestContext, topic: &TopicProduceData) -> Option<Arc<str>> {
    match context.api_version >= TOPIC_IDS_SINCE {
        true => broker.partitions.topic_name(&topic.topic_id),
        false => Some(topic.name.as_str().into()),
    }
}

/// Asks the coordinator.
pub(crate) async fn ask(broker: &Broker, context: &RequestContext, request: &ProduceRequest, asked: Asked) -> Verified {
    let Asked { producer_id, producer_epoch, places } = asked;
    let transactional_id = request.transactional_id.as_deref().unwrap_or_default();
    let producer = Producer { transactional_id, producer_id, producer_epoch };
    let support = Support::of_produce(context.api_version);
    Verified { guards: broker.verify_transaction(producer, support, &places).await }
}
