//! Transactions: begin, send, offsets, commit, abort. Answers to `TransactionManager`, KIP-98, KIP-360, KIP-447, KIP-890.
//!
//! Which protocol is spoken is what the cluster has finalized: with `transaction.version` 2 partitions join a transaction by
//! being produced to and every end raises the epoch; below that each partition is added first, and the epoch is raised here
//! when sequences were lost. A failure leaves the transaction to be aborted ([`Error::Abortable`]) or the producer at its
//! end ([`Error::Fenced`], and whatever else the coordinator refuses for good).

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use taccola_base::TopicPartition;
use taccola_net::api::{Api, ApiExt};
use taccola_wire::codec::Request;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use taccola_wire::messages::txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
use taccola_wire::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest, TxnOffsetCommitRequest,
};

use super::partition::Identity;
use super::sender::Command;
use super::{Delivery, Placed, Producer, ProducerConfig, ProducerRecord};
use crate::admin::CommittedOffset;
use crate::cluster::{Client, CoordinatorKind, Lane};
use crate::consumer::group::GroupMetadata;
use crate::error::{Error, Result};
use crate::features;

/// Newest versions that clients speak while `transaction.version` is below 2, and of those that are brokers' beyond.
const ADD_PARTITIONS_VERSION_MAX: i16 = 3;
const EXPLICIT_END_VERSION_MAX: i16 = 4;
const EXPLICIT_OFFSETS_VERSION_MAX: i16 = 4;
/// Without two-phase commit (KIP-939).
const INIT_VERSION_MAX: i16 = 5;
/// First version of InitProducerId that raises the epoch of a producer id.
const RAISE_VERSION: i16 = 3;
/// How often an operation that meets the end of the last transaction is tried again.
const CONCURRENT_PAUSE: Duration = Duration::from_millis(20);

#[derive(Clone, Debug)]
pub struct TransactionConfig {
    pub transactional_id: String,
    /// `transaction.timeout.ms`: after it the coordinator aborts an open transaction.
    pub timeout: Duration,
}

impl TransactionConfig {
    pub fn new(transactional_id: impl Into<String>) -> Self {
        Self { transactional_id: transactional_id.into(), timeout: Duration::from_secs(60) }
    }
}

/// What the sending task and the transaction's owner share.
pub(super) struct Transaction {
    pub(super) id: String,
    implicit: AtomicBool,
    failure: Mutex<Option<Error>>,
    sequences_lost: AtomicBool,
}

impl Transaction {
    /// Whether producing to a partition adds it (`transaction.version` 2).
    pub(super) fn implicit(&self) -> bool {
        self.implicit.load(Ordering::Relaxed)
    }

    /// Why the transaction cannot be committed, if it cannot.
    pub(super) fn failure(&self) -> Option<Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Error::duplicate)
    }

    /// The first failure counts, unless a later one ends the producer.
    pub(super) fn fail(&self, error: &Error) {
        let error = match error.code() {
            Some(code @ ErrorCode::ProducerFenced) => Error::Fenced { transactional_id: self.id.clone(), code },
            _ => Error::Abortable { source: Box::new(error.duplicate()) },
        };
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.is_none() || matches!(error, Error::Fenced { .. }) {
            *failure = Some(error);
        }
    }

    /// The next batch's sequence is not what its broker expects.
    pub(super) fn lose_sequences(&self) {
        self.sequences_lost.store(true, Ordering::Relaxed);
    }

    fn clear(&self) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.sequences_lost.store(false, Ordering::Relaxed);
    }
}

enum State {
    /// [`TransactionalProducer::init`] comes first.
    New,
    Ready,
    Open,
    /// It was asked for, and the answer is not known: only the same can be asked again.
    Ending {
        commit: bool,
    },
    Over(Error),
}

/// One transactional id's producer. Not to be cloned: transactions of one id follow one another.
pub struct TransactionalProducer {
    producer: Producer,
    transaction: Arc<Transaction>,
    timeout: Duration,
    identity: Identity,
    state: State,
    /// Partitions of the open transaction.
    partitions: HashSet<TopicPartition>,
    /// Whether the coordinator has anything to end.
    begun: bool,
    features_asked: Option<Instant>,
}

impl TransactionalProducer {
    /// Nothing is connected yet.
    pub fn new(client: Client, config: ProducerConfig, transaction: TransactionConfig) -> Result<Self> {
        if !config.idempotent {
            return Err(Error::Invalid("a transactional producer needs idempotence and acks=all".to_owned()));
        }
        if transaction.transactional_id.is_empty() {
            return Err(Error::Invalid("the transactional id is empty".to_owned()));
        }
        let shared = Arc::new(Transaction {
            id: transaction.transactional_id,
            implicit: AtomicBool::new(false),
            failure: Mutex::new(None),
            sequences_lost: AtomicBool::new(false),
        });
        Ok(Self {
            producer: Producer::start(client, config, Some(Arc::clone(&shared)))?,
            transaction: shared,
            timeout: transaction.timeout,
            identity: Identity::NONE,
            state: State::New,
            partitions: HashSet::new(),
            begun: false,
            features_asked: None,
        })
    }

    fn client(&self) -> &Client {
        &self.producer.client
    }

    /// The producer id and epoch in use; -1 before [`TransactionalProducer::init`].
    pub fn identity(&self) -> (i64, i16) {
        (self.identity.id, self.identity.epoch)
    }

    /// `initTransactions`: ends what a former producer of this id left open and shuts that producer out.
    pub async fn init(&mut self) -> Result<()> {
        match &self.state {
            State::New => {}
            State::Over(error) => return Err(error.duplicate()),
            _ => return Err(Error::Invalid("the producer is initialized already".to_owned())),
        }
        self.ask_features().await?;
        let fresh = self.init_producer(Identity::NONE).await;
        self.adopt(fresh).await?;
        self.state = State::Ready;
        Ok(())
    }

    /// `beginTransaction`: nothing is sent.
    pub async fn begin(&mut self) -> Result<()> {
        match &self.state {
            State::Ready => {}
            State::New => return Err(Error::Invalid("the producer is not initialized".to_owned())),
            State::Open | State::Ending { .. } => {
                return Err(Error::Invalid("a transaction is open already".to_owned()));
            }
            State::Over(error) => return Err(error.duplicate()),
        }
        let max_age = self.client().config().metadata_max_age;
        if self.features_asked.is_none_or(|asked| asked.elapsed() >= max_age) {
            self.ask_features().await?;
        }
        self.transaction.clear();
        self.partitions.clear();
        self.begun = false;
        self.state = State::Open;
        Ok(())
    }

    /// As [`Producer::send`], inside the transaction.
    pub async fn send(&mut self, record: ProducerRecord) -> Result<Delivery> {
        self.check_open()?;
        let placed = self.producer.place(record).await?;
        self.add_partition(&placed).await?;
        self.producer.enqueue(placed).await
    }

    /// `sendOffsetsToTransaction`: the offsets count if and when the transaction commits. `offsets` are next offsets.
    pub async fn send_offsets(
        &mut self,
        offsets: &[(TopicPartition, CommittedOffset)],
        group: &GroupMetadata,
    ) -> Result<()> {
        self.check_open()?;
        if offsets.is_empty() {
            return Ok(());
        }
        let done = async {
            if !self.transaction.implicit() {
                self.ask(|| self.add_offsets_once(group)).await?;
            }
            self.ask(|| self.commit_offsets_once(offsets, group)).await
        };
        let done = done.await;
        self.begun = true;
        self.judge(done)
    }

    /// As [`Producer::flush`].
    pub async fn flush(&self) -> Result<()> {
        self.producer.flush().await
    }

    /// Sends what waits, and commits if every record was acknowledged.
    pub async fn commit(&mut self) -> Result<()> {
        if !matches!(self.state, State::Ending { commit: true }) {
            self.check_open()?;
            self.producer.flush().await?;
            self.check_open()?;
        }
        self.end(true).await
    }

    /// Drops what was not sent, and aborts.
    pub async fn abort(&mut self) -> Result<()> {
        match &self.state {
            State::Open => {
                self.transaction.fail(&Error::Invalid("the transaction was aborted".to_owned()));
                self.producer.settle(Command::Drop).await?;
            }
            State::Ending { commit: false } => {}
            State::Ending { commit: true } => {
                return Err(Error::Invalid("the outcome of the commit is unknown; commit again".to_owned()));
            }
            State::Over(error) => return Err(error.duplicate()),
            State::New | State::Ready => return Err(Error::Invalid("no transaction is open".to_owned())),
        }
        self.end(false).await
    }

    async fn end(&mut self, commit: bool) -> Result<()> {
        let old = self.identity;
        let mut base = old;
        if self.begun {
            self.state = State::Ending { commit };
            match self.ask(|| self.end_once(commit)).await {
                Ok(identity) => self.adopt(Ok(identity)).await?,
                // The transactional id has lost its producer id, as by expiry: there is nothing to end, and a new one begins.
                Err(error) if !commit && error.code() == Some(ErrorCode::InvalidProducerIdMapping) => {
                    self.transaction.lose_sequences();
                    base = Identity::NONE;
                }
                // Asking again is safe, and the only way to learn the outcome.
                Err(error) if error.retriable() => return Err(error),
                Err(error) => {
                    self.state = State::Open;
                    return self.judge(Err(error));
                }
            }
        }
        if self.transaction.sequences_lost.load(Ordering::Relaxed) && self.identity == old {
            let raised = self.init_producer(base).await;
            self.adopt(raised).await?;
        }
        self.state = State::Ready;
        Ok(())
    }

    fn check_open(&self) -> Result<()> {
        match &self.state {
            State::Open => match self.transaction.failure() {
                Some(failure) => Err(failure),
                None => Ok(()),
            },
            State::Over(error) => Err(error.duplicate()),
            State::Ending { .. } => Err(Error::Invalid("the transaction is being ended".to_owned())),
            State::New | State::Ready => Err(Error::Invalid("no transaction is open; begin one".to_owned())),
        }
    }

    /// Turns a coordinator's refusal into what it means for this producer.
    fn judge<T>(&mut self, result: Result<T>) -> Result<T> {
        let error = match result {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let error = match error.code() {
            Some(code @ (ErrorCode::ProducerFenced | ErrorCode::InvalidProducerEpoch)) => {
                Error::Fenced { transactional_id: self.transaction.id.clone(), code }
            }
            Some(code) if !abortable(code) && !error.retriable() => error,
            _ => {
                self.transaction.fail(&error);
                return Err(Error::Abortable { source: Box::new(error) });
            }
        };
        self.state = State::Over(error.duplicate());
        Err(error)
    }

    // ---- requests ----------------------------------------------------------------------------------------------------

    /// Repeats an attempt at the coordinator as [`Client::retrying`] does, and sooner when the last transaction is just
    /// being ended.
    async fn ask<T, F, Fut>(&self, attempt: F) -> Result<T>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let client = self.client();
        let deadline = Instant::now() + client.config().operation_timeout;
        let patient = || async {
            let mut result = attempt().await;
            while is_concurrent(&result) && Instant::now() < deadline {
                tokio::time::sleep(CONCURRENT_PAUSE).await;
                result = attempt().await;
            }
            result
        };
        client.retrying(patient).await
    }

    async fn coordinator(&self) -> Result<Arc<dyn Api>> {
        self.client().transaction_coordinator(&self.transaction.id).await
    }

    /// One request to the transaction's coordinator; `cap` is the newest version that may be spoken.
    async fn call<R: Request>(&self, request: &R, cap: i16) -> Result<(R::Response, i16)> {
        let api = self.coordinator().await?;
        let version = api.version_up_to::<R>(cap)?;
        Ok((self.client().request(&api, request, version).await?, version))
    }

    /// The verdict on the whole request, after a moved coordinator was forgotten.
    fn check(&self, code: i16) -> Result<()> {
        let result = Error::check(code, format!("transactional id {}", self.transaction.id), None);
        if matches!(&result, Err(error) if error.stale_metadata()) {
            self.client().forget_coordinator(CoordinatorKind::Transaction, &self.transaction.id);
        }
        result
    }

    async fn ask_features(&mut self) -> Result<()> {
        let client = self.client();
        let level = client.retrying(|| features::finalized(client, "transaction.version")).await?;
        self.transaction.implicit.store(level >= 2, Ordering::Relaxed);
        self.features_asked = Some(Instant::now());
        Ok(())
    }

    /// A first identity, or the next epoch of the one given.
    async fn init_producer(&mut self, old: Identity) -> Result<Identity> {
        let timeout_ms = i32::try_from(self.timeout.as_millis()).unwrap_or(i32::MAX);
        self.ask(|| async {
            let api = self.coordinator().await?;
            let version = api.version_up_to::<InitProducerIdRequest>(INIT_VERSION_MAX)?;
            let old = if version >= RAISE_VERSION { old } else { Identity::NONE };
            let request = InitProducerIdRequest {
                transactional_id: Some(self.transaction.id.clone()),
                transaction_timeout_ms: timeout_ms,
                producer_id: old.id,
                producer_epoch: old.epoch,
                ..Default::default()
            };
            let response = self.client().request(&api, &request, version).await?;
            self.check(response.error_code)?;
            Ok(Identity { id: response.producer_id, epoch: response.producer_epoch })
        })
        .await
    }

    /// Goes on with an identity; an error in place of one ends the producer unless it may pass.
    async fn adopt(&mut self, identity: Result<Identity>) -> Result<()> {
        let identity = match identity {
            Ok(identity) => identity,
            Err(error) if error.retriable() => return Err(error),
            Err(error) => return self.judge(Err(error)),
        };
        if identity != self.identity {
            self.identity = identity;
            self.producer.command(Command::Identity(identity)).await?;
        }
        Ok(())
    }

    async fn add_partition(&mut self, placed: &Placed) -> Result<()> {
        let partition = TopicPartition::new(Arc::clone(&placed.record.topic), placed.partition);
        if self.partitions.contains(&partition) {
            return Ok(());
        }
        if !self.transaction.implicit() {
            let added = self.ask(|| self.add_partition_once(&partition)).await;
            self.judge(added)?;
        }
        self.begun = true;
        self.partitions.insert(partition);
        Ok(())
    }

    async fn add_partition_once(&self, partition: &TopicPartition) -> Result<()> {
        let topic =
            AddPartitionsToTxnTopic { name: partition.topic.to_string(), partitions: vec![partition.partition] };
        let request = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: self.transaction.id.clone(),
            v3_and_below_producer_id: self.identity.id,
            v3_and_below_producer_epoch: self.identity.epoch,
            v3_and_below_topics: vec![topic],
            ..Default::default()
        };
        let (response, _) = self.call(&request, ADD_PARTITIONS_VERSION_MAX).await?;
        let results = response.results_by_topic_v3_and_below.into_iter().flat_map(|t| t.results_by_partition);
        results.into_iter().try_for_each(|p| self.check(p.partition_error_code))
    }

    async fn add_offsets_once(&self, group: &GroupMetadata) -> Result<()> {
        let request = AddOffsetsToTxnRequest {
            transactional_id: self.transaction.id.clone(),
            producer_id: self.identity.id,
            producer_epoch: self.identity.epoch,
            group_id: group.group_id.clone(),
        };
        let (response, _) = self.call(&request, i16::MAX).await?;
        self.check(response.error_code)
    }

    async fn commit_offsets_once(
        &self,
        offsets: &[(TopicPartition, CommittedOffset)],
        group: &GroupMetadata,
    ) -> Result<()> {
        let client = self.client();
        let api = client.coordinator(&group.group_id, Lane::Transaction).await?;
        let cap = if self.transaction.implicit() { i16::MAX } else { EXPLICIT_OFFSETS_VERSION_MAX };
        let version = api.version_up_to::<TxnOffsetCommitRequest>(cap)?;
        let mut topics: BTreeMap<&Arc<str>, Vec<TxnOffsetCommitRequestPartition>> = BTreeMap::new();
        for (partition, committed) in offsets {
            topics.entry(&partition.topic).or_default().push(TxnOffsetCommitRequestPartition {
                partition_index: partition.partition,
                committed_offset: committed.offset,
                committed_leader_epoch: committed.leader_epoch,
                committed_metadata: Some(committed.metadata.clone()),
            });
        }
        let topic = |(name, partitions): (&Arc<str>, Vec<_>)| TxnOffsetCommitRequestTopic {
            name: name.to_string(),
            partitions,
        };
        // Before KIP-447 a transaction did not know members.
        let knows_members = version >= 3;
        let request = TxnOffsetCommitRequest {
            transactional_id: self.transaction.id.clone(),
            group_id: group.group_id.clone(),
            producer_id: self.identity.id,
            producer_epoch: self.identity.epoch,
            generation_id: if knows_members { group.generation } else { -1 },
            member_id: if knows_members { group.member_id.clone() } else { String::new() },
            group_instance_id: group.instance_id.clone().filter(|_| knows_members),
            topics: topics.into_iter().map(topic).collect(),
        };
        let response = client.request(&api, &request, version).await?;
        for topic in response.topics {
            for p in topic.partitions {
                let subject = format!("group {}, {}-{}", group.group_id, topic.name, p.partition_index);
                let result = Error::check(p.error_code, subject, None);
                if matches!(&result, Err(error) if error.stale_metadata()) {
                    client.forget_coordinator(CoordinatorKind::Group, &group.group_id);
                }
                result?;
            }
        }
        Ok(())
    }

    /// The identity to go on with.
    async fn end_once(&self, commit: bool) -> Result<Identity> {
        let request = EndTxnRequest {
            transactional_id: self.transaction.id.clone(),
            producer_id: self.identity.id,
            producer_epoch: self.identity.epoch,
            committed: commit,
        };
        let cap = if self.transaction.implicit() { i16::MAX } else { EXPLICIT_END_VERSION_MAX };
        let (response, version) = self.call(&request, cap).await?;
        self.check(response.error_code)?;
        let raised = version > EXPLICIT_END_VERSION_MAX && response.producer_id >= 0;
        Ok(match raised {
            true => Identity { id: response.producer_id, epoch: response.producer_epoch },
            false => self.identity,
        })
    }
}

fn is_concurrent<T>(result: &Result<T>) -> bool {
    matches!(result, Err(error) if error.code() == Some(ErrorCode::ConcurrentTransactions))
}

/// Refusals that end a transaction, not its producer.
fn abortable(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::TransactionAbortable
            | ErrorCode::UnknownProducerId
            | ErrorCode::InvalidProducerIdMapping
            | ErrorCode::TopicAuthorizationFailed
            | ErrorCode::GroupAuthorizationFailed
            | ErrorCode::UnknownTopicOrPartition
            | ErrorCode::OffsetMetadataTooLarge
            | ErrorCode::IllegalGeneration
            | ErrorCode::UnknownMemberId
            | ErrorCode::StaleMemberEpoch
            | ErrorCode::FencedMemberEpoch
            | ErrorCode::FencedInstanceId
            | ErrorCode::RebalanceInProgress
            | ErrorCode::OperationNotAttempted
    )
}
