//! The transactional part of a Produce request: which of its batches begin a transaction in their partition, and under
//! which guard they may. Answers to the first half of Kafka's `ReplicaManager.handleProduceAppend`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use taccola_log::{AppendOrigin, VerificationGuard};
use taccola_wire::batch::BatchHeader;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use taccola_wire::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};

use super::verification::{Producer, Support};
use crate::broker::Broker;
use crate::context::RequestContext;

/// The version from which on topics are numbers.
const TOPIC_IDS_SINCE: i16 = 13;

/// What is to be done before the batches are appended.
pub(crate) enum Begun {
    Nothing,
    Ask(Asked),
}

/// The partitions in which the producer's transaction would begin.
pub(crate) struct Asked {
    producer_id: i64,
    producer_epoch: i16,
    guards: HashMap<(Arc<str>, i32), VerificationGuard>,
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
    let mut guards = HashMap::new();
    let support = Support::of_produce(context.api_version);
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
            if !broker.verifies(support) {
                continue;
            }
            let Some(name) = name_of(broker, context, topic) else { continue };
            let Some(partition) = broker.partitions.get(&name, data.index) else { continue };
            let guard =
                partition.with_log(|log| log.start_verification(id, epoch, header.base_sequence, support.adds()));
            if let Some(guard) = guard.flatten() {
                guards.insert((name, data.index), guard);
            }
        }
    }
    Ok(match producer {
        Some((producer_id, producer_epoch)) if !guards.is_empty() => {
            Begun::Ask(Asked { producer_id, producer_epoch, guards })
        }
        _ => Begun::Nothing,
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
    let Asked { producer_id, producer_epoch, guards } = asked;
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, index) in guards.keys() {
        topics.entry(topic).or_default().push(*index);
    }
    let topics = topics
        .into_iter()
        .map(|(name, partitions)| AddPartitionsToTxnTopic { name: name.to_owned(), partitions })
        .collect();
    let transactional_id = request.transactional_id.as_deref().unwrap_or_default();
    let producer = Producer { transactional_id, producer_id, producer_epoch };
    let refusals = broker.verify_transaction(producer, Support::of_produce(context.api_version), topics).await;
    let mut guards: HashMap<_, _> = guards.into_iter().map(|(at, guard)| (at, Ok(guard))).collect();
    for (topic, index, error) in refusals {
        guards.insert((topic.into(), index), Err(error));
    }
    Verified { guards }
}
