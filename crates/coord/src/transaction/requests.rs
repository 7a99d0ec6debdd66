//! The requests of producers, and the verification that brokers ask for. Answers to Kafka's
//! `TransactionCoordinator.handle*`, with the error codes that each version knows.

use std::sync::Arc;

use taccola_wire::error::ErrorCode;
use taccola_wire::messages::add_partitions_to_txn_request::AddPartitionsToTxnTransaction;
use taccola_wire::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use taccola_wire::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, EndTxnRequest, EndTxnResponse, InitProducerIdRequest,
    InitProducerIdResponse,
};

use super::effects::{
    NeedsProducerId, TransactionEffects, TransactionResponse, TransactionTimerKey, end_txn_error,
    init_producer_id_error,
};
use super::metadata::{
    EPOCH_BUMP_FROM, End, LAST_EPOCH, Metadata, NO_EPOCH, NO_PRODUCER_ID, State, TWO_PHASE_TIMEOUT_MS,
};
use super::partitions::Partitions;
use super::records;
use super::shard::{Out, Transaction, TransactionShard, WaitingAdd};
use crate::effects::{Reply, RequestContext, RequestToken, TimerOp};

/// From this version on clients know PRODUCER_FENCED; before it is INVALID_PRODUCER_EPOCH.
const INIT_FENCED_FROM: i16 = 4;
const FENCED_FROM: i16 = 2;
/// From this version on AddPartitionsToTxn comes from brokers, on behalf of clients of transaction version 2.
const ADD_PARTITIONS_V2_FROM: i16 = 4;
/// From this version on EndTxn raises the epoch.
const END_TXN_V2_FROM: i16 = 5;

/// Of a state that is not in the log yet.
const NO_OFFSET: i64 = -1;

/// How long the first partitions of a transaction wait for the end of the one before, when that is decided.
const ADD_WAIT_MS: i64 = 100;

/// What the request's version tells of the client.
fn client_version(api_version: i16, v2_from: i16) -> i16 {
    if api_version >= v2_from { EPOCH_BUMP_FROM } else { 0 }
}

fn known_to(error: ErrorCode, api_version: i16, fenced_from: i16) -> ErrorCode {
    match error {
        ErrorCode::ProducerFenced if api_version < fenced_from => ErrorCode::InvalidProducerEpoch,
        error => error,
    }
}

/// What a request makes of an id.
enum Verdict {
    To(Box<Metadata>),
    /// The transaction under way is aborted first; the request is answered with CONCURRENT_TRANSACTIONS then.
    Fence(Box<Metadata>),
}

/// Partitions for a transaction, whoever asks for them.
struct Add<'a> {
    id: &'a str,
    producer: (i64, i16),
    partitions: Partitions,
    client_version: i16,
}

impl TransactionShard {
    /// InitProducerId with a transactional id; without one it is no business of a coordinator. `fresh` is a producer id
    /// that was never used.
    pub fn handle_init_producer_id(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &InitProducerIdRequest,
        fresh: Option<i64>,
    ) -> Result<TransactionEffects<InitProducerIdResponse>, NeedsProducerId> {
        let error = |code| init_producer_id_error(known_to(code, ctx.api_version, INIT_FENCED_FROM));
        let verdict = match self.init(now_ms, request, fresh) {
            Ok(verdict) => verdict?,
            Err(code) => return Ok(self.finish_now(now_ms, error(code))),
        };
        let id: Arc<str> = request.transactional_id.as_deref().unwrap_or_default().into();
        let (next, response) = match verdict {
            Verdict::Fence(next) => (next, init_producer_id_error(ErrorCode::ConcurrentTransactions)),
            Verdict::To(next) => {
                let response = InitProducerIdResponse {
                    producer_id: next.producer_id,
                    producer_epoch: next.producer_epoch,
                    ..Default::default()
                };
                (next, response)
            }
        };
        if self.find(&id).is_none() {
            self.set(&id, Metadata::new(next.producer_id, next.timeout_ms, now_ms), NO_OFFSET);
        }
        let response = TransactionResponse::InitProducerId(response);
        let effects = self.finish_request(now_ms, ctx.token, &id, *next, response, error);
        if effects.append.is_none() && self.find(&id).is_some_and(|(_, t)| t.metadata.producer_epoch == NO_EPOCH) {
            self.remove(&id);
        }
        Ok(effects)
    }

    /// The outer error is the client's; the inner one the caller's.
    #[allow(clippy::type_complexity)]
    fn init(
        &self,
        now_ms: i64,
        request: &InitProducerIdRequest,
        fresh: Option<i64>,
    ) -> Result<Result<Verdict, NeedsProducerId>, ErrorCode> {
        let id = request.transactional_id.as_deref().filter(|id| !id.is_empty()).ok_or(ErrorCode::InvalidRequest)?;
        let expected = match (request.producer_id, request.producer_epoch) {
            (NO_PRODUCER_ID, NO_EPOCH) => None,
            (NO_PRODUCER_ID, _) | (_, NO_EPOCH) => return Err(ErrorCode::InvalidRequest),
            expected => Some(expected),
        };
        let timeout_ms = self.resolve_timeout(request)?;
        let Some((_, transaction)) = self.find(id) else {
            if !self.has_room_for(id) {
                return Err(ErrorCode::CoordinatorNotAvailable);
            }
            let Some(producer_id) = fresh else { return Ok(Err(NeedsProducerId)) };
            let first = Metadata::new(producer_id, timeout_ms, now_ms);
            let epoch = expected.map(|(_, epoch)| epoch);
            let next = first.bumped(epoch, timeout_ms, now_ms).ok_or(ErrorCode::ProducerFenced)?;
            return Ok(Ok(Verdict::To(Box::new(next))));
        };
        let metadata = &transaction.metadata;
        if transaction.in_transition() {
            return Err(ErrorCode::ConcurrentTransactions);
        }
        if !expected.is_none_or(|(id, epoch)| is_valid_producer(metadata, id, epoch)) {
            return Err(ErrorCode::ProducerFenced);
        }
        if metadata.state == State::Ongoing {
            let needed = metadata.end_needs_producer_id(self.transaction_version());
            let Some(next_producer_id) = (if needed { fresh } else { Some(NO_PRODUCER_ID) }) else {
                return Ok(Err(NeedsProducerId));
            };
            return Ok(Ok(Verdict::Fence(Box::new(self.fenced(metadata, next_producer_id, now_ms)))));
        }
        let epoch = expected.map(|(_, epoch)| epoch);
        if metadata.is_epoch_exhausted() && epoch.is_none_or(|epoch| metadata.may_rotate(epoch)) {
            let Some(producer_id) = fresh else { return Ok(Err(NeedsProducerId)) };
            let next = metadata.rotated(producer_id, epoch.is_some(), timeout_ms, now_ms);
            return Ok(Ok(Verdict::To(Box::new(next))));
        }
        let next = metadata.bumped(epoch, timeout_ms, now_ms).ok_or(ErrorCode::ProducerFenced)?;
        Ok(Ok(Verdict::To(Box::new(next))))
    }

    fn resolve_timeout(&self, request: &InitProducerIdRequest) -> Result<i32, ErrorCode> {
        if request.enable2_pc && !self.config.two_phase_commit_enable {
            return Err(ErrorCode::TransactionalIdAuthorizationFailed);
        }
        if request.keep_prepared_txn {
            return Err(ErrorCode::UnsupportedVersion);
        }
        if request.enable2_pc {
            return Ok(TWO_PHASE_TIMEOUT_MS);
        }
        let timeouts = 1..=self.config.max_timeout_ms;
        let timeout_ms = request.transaction_timeout_ms;
        timeouts.contains(&timeout_ms).then_some(timeout_ms).ok_or(ErrorCode::InvalidTransactionTimeout)
    }

    /// The transaction under way aborted by the coordinator, and whoever made it shut out.
    pub(super) fn fenced(&self, metadata: &Metadata, next_producer_id: i64, now_ms: i64) -> Metadata {
        let transaction_version = self.transaction_version();
        let end = End { commit: false, transaction_version, next_producer_id, fence: true };
        metadata.prepared(end, now_ms)
    }

    /// Adds partitions to a transaction, or only says whether they are in it (`verify_only`). For a request of a client
    /// (below version 4) the caller makes one transaction of its fields.
    pub fn handle_add_partitions(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &AddPartitionsToTxnTransaction,
    ) -> TransactionEffects<AddPartitionsToTxnResult> {
        if request.verify_only {
            let result = self.verify(request);
            return self.finish_now(now_ms, result);
        }
        let error = |code| add_partitions_result(request, known_to(code, ctx.api_version, FENCED_FROM));
        let added = request.topics.iter().flat_map(|t| t.partitions.iter().map(|p| (t.name.as_str(), *p)));
        let add = Add {
            id: &request.transactional_id,
            producer: (request.producer_id, request.producer_epoch),
            partitions: added.collect(),
            client_version: client_version(ctx.api_version, ADD_PARTITIONS_V2_FROM),
        };
        let response = TransactionResponse::AddPartitions(add_partitions_result(request, ErrorCode::None));
        self.handle_add(now_ms, ctx.token, add, response, error)
    }

    fn verify(&self, request: &AddPartitionsToTxnTransaction) -> AddPartitionsToTxnResult {
        let found = self.find(&request.transactional_id);
        let partitions =
            match check_producer(found, &request.transactional_id, request.producer_id, request.producer_epoch) {
                Err(code) => return add_partitions_result(request, code),
                Ok(transaction) if transaction.metadata.state.is_prepared() => {
                    return add_partitions_result(request, ErrorCode::ConcurrentTransactions);
                }
                Ok(transaction) => &transaction.metadata.partitions,
            };
        add_partitions_results(request, |topic, partition| match partitions.contains(topic, partition) {
            true => ErrorCode::None,
            false => ErrorCode::TransactionAbortable,
        })
    }

    fn handle_add<R>(
        &mut self,
        now_ms: i64,
        token: RequestToken,
        add: Add<'_>,
        response: TransactionResponse,
        error: impl FnOnce(ErrorCode) -> R,
    ) -> TransactionEffects<R> {
        let id: Arc<str> = add.id.into();
        if self.may_wait(&add) {
            let deadline_ms = now_ms.saturating_add(ADD_WAIT_MS);
            if let Some(transaction) = self.transactions.get_mut(&id) {
                let Add { partitions, client_version, .. } = add;
                transaction.waiting = Some(WaitingAdd { token, response, partitions, client_version, deadline_ms });
            }
            let mut out = Out::default();
            let key = TransactionTimerKey::Waiting { transactional_id: id };
            out.timers.push(TimerOp::Set { key, deadline_ms });
            return self.finish(now_ms, Reply::Parked, out);
        }
        match self.add(now_ms, add) {
            Err(code) => self.finish_now(now_ms, error(code)),
            Ok(next) => self.finish_request(now_ms, token, &id, next, response, error),
        }
    }

    /// The first partitions of the next transaction may come while the markers of this one are being written. Kafka
    /// sends them away with CONCURRENT_TRANSACTIONS, and the client comes back after a rest that is mostly too long.
    fn may_wait(&self, add: &Add<'_>) -> bool {
        self.find(add.id).is_some_and(|(_, transaction)| {
            transaction.metadata.state.is_prepared()
                && transaction.waiting.is_none()
                && transaction.metadata.after_completion() == add.producer
                && !self.cannot_record(add.client_version)
                && add.partitions.fit()
        })
    }

    /// The error may be NONE: there is nothing to do.
    fn add(&self, now_ms: i64, add: Add<'_>) -> Result<Metadata, ErrorCode> {
        // Before the producer is looked at: it may know already which one it is after the transition.
        if self.find(add.id).is_some_and(|(_, transaction)| transaction.in_transition()) {
            return Err(ErrorCode::ConcurrentTransactions);
        }
        let transaction = check_producer(self.find(add.id), add.id, add.producer.0, add.producer.1)?;
        if self.cannot_record(add.client_version) {
            return Err(ErrorCode::UnsupportedVersion);
        }
        let metadata = &transaction.metadata;
        let ongoing = metadata.state == State::Ongoing;
        if !ongoing && !self.has_room_for_open() {
            return Err(ErrorCode::ConcurrentTransactions);
        }
        let mut partitions = metadata.partitions.clone();
        let before = partitions.len();
        for (topic, partition) in add.partitions.iter() {
            partitions.insert(topic, partition);
        }
        if ongoing && partitions.len() == before {
            return Err(ErrorCode::None);
        }
        if !partitions.fit() {
            return Err(ErrorCode::UnknownServerError);
        }
        Ok(metadata.with_partitions(partitions, add.client_version, now_ms))
    }

    /// States of the first version have no field for what clients of version 2 need.
    fn cannot_record(&self, client_version: i16) -> bool {
        client_version >= EPOCH_BUMP_FROM && self.transaction_version() < records::FLEXIBLE_FROM
    }

    /// AddOffsetsToTxn: `topic` and `partition` are where the group's offsets are kept.
    pub fn handle_add_offsets(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &AddOffsetsToTxnRequest,
        topic: &str,
        partition: i32,
    ) -> TransactionEffects<AddOffsetsToTxnResponse> {
        let error = |code| AddOffsetsToTxnResponse {
            error_code: known_to(code, ctx.api_version, FENCED_FROM).code(),
            ..Default::default()
        };
        let add = Add {
            id: &request.transactional_id,
            producer: (request.producer_id, request.producer_epoch),
            partitions: [(topic, partition)].into_iter().collect(),
            client_version: 0,
        };
        let response = TransactionResponse::AddOffsets(AddOffsetsToTxnResponse::default());
        self.handle_add(now_ms, ctx.token, add, response, error)
    }

    /// EndTxn; `fresh` is a producer id that was never used, for when the epochs of the present one are used up.
    pub fn handle_end_txn(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &EndTxnRequest,
        fresh: Option<i64>,
    ) -> Result<TransactionEffects<EndTxnResponse>, NeedsProducerId> {
        let version = client_version(ctx.api_version, END_TXN_V2_FROM);
        let decided = match version >= EPOCH_BUMP_FROM {
            true => self.end_v2(request),
            false => self.end_v1(request),
        };
        let error = |code| end_txn_error(known_to(code, ctx.api_version, FENCED_FROM));
        match decided {
            Ok(()) if self.cannot_record(version) => {
                return Ok(self.finish_now(now_ms, error(ErrorCode::UnsupportedVersion)));
            }
            Ok(()) => {}
            Err(EndRefused::Error(code)) => return Ok(self.finish_now(now_ms, error(code))),
            Err(EndRefused::Retry { producer_id, producer_epoch }) => {
                let response = EndTxnResponse { producer_id, producer_epoch, ..Default::default() };
                return Ok(self.finish_now(now_ms, response));
            }
        }
        let Some((id, transaction)) = self.find(&request.transactional_id) else {
            return Ok(self.finish_now(now_ms, error(ErrorCode::InvalidProducerIdMapping)));
        };
        let next_producer_id = match (transaction.metadata.end_needs_producer_id(version), fresh) {
            (false, _) => NO_PRODUCER_ID,
            (true, Some(fresh)) => fresh,
            (true, None) => return Err(NeedsProducerId),
        };
        let end = End { commit: request.committed, transaction_version: version, next_producer_id, fence: false };
        let (id, next) = (id.clone(), transaction.metadata.prepared(end, now_ms));
        let (producer_id, producer_epoch) = match version >= EPOCH_BUMP_FROM {
            true => next.after_completion(),
            false => (NO_PRODUCER_ID, NO_EPOCH),
        };
        let response = EndTxnResponse { producer_id, producer_epoch, ..Default::default() };
        Ok(self.finish_request(now_ms, ctx.token, &id, next, TransactionResponse::EndTxn(response), error))
    }

    /// Before KIP-890 the state alone tells a retry.
    fn end_v1(&self, request: &EndTxnRequest) -> Result<(), EndRefused> {
        let id = request.transactional_id.as_str();
        let transaction = check_producer(self.find(id), id, request.producer_id, request.producer_epoch)?;
        if transaction.in_transition() {
            return Err(ErrorCode::ConcurrentTransactions.into());
        }
        match (transaction.metadata.state, request.committed) {
            (State::Ongoing, _) => Ok(()),
            (State::CompleteCommit, true) | (State::CompleteAbort, false) => {
                Err(EndRefused::Retry { producer_id: NO_PRODUCER_ID, producer_epoch: NO_EPOCH })
            }
            _ => Err(ErrorCode::InvalidTxnState.into()),
        }
    }

    /// KIP-890: the epoch tells a retry from the next transaction, and a transaction without partitions can be aborted.
    fn end_v2(&self, request: &EndTxnRequest) -> Result<(), EndRefused> {
        if request.transactional_id.is_empty() {
            return Err(ErrorCode::InvalidRequest.into());
        }
        let (_, transaction) = self.find(&request.transactional_id).ok_or(ErrorCode::InvalidProducerIdMapping)?;
        // Before the producer is looked at: it may know already which one it is after the transition.
        if transaction.in_transition() {
            return Err(ErrorCode::ConcurrentTransactions.into());
        }
        let metadata = &transaction.metadata;
        let epoch = request.producer_epoch;
        let retry_on_overflow =
            metadata.previous_producer_id == request.producer_id && epoch == LAST_EPOCH && metadata.producer_epoch == 0;
        // An epoch that InitProducerId raised, before a transaction of the first version, is another client's.
        let bumped_by_end = metadata.client_version >= EPOCH_BUMP_FROM;
        let retry_on_bump = bumped_by_end && epoch.checked_add(1) == Some(metadata.producer_epoch);
        if metadata.producer_id != request.producer_id && !retry_on_overflow {
            return Err(ErrorCode::InvalidProducerIdMapping.into());
        }
        let over = matches!(metadata.state, State::CompleteCommit | State::CompleteAbort);
        let current = epoch == metadata.producer_epoch;
        let valid = current || (over && (retry_on_bump || retry_on_overflow));
        if !valid || metadata.is_retired() {
            return Err(ErrorCode::ProducerFenced.into());
        }
        let retry = retry_on_bump || retry_on_overflow;
        match (metadata.state, request.committed, retry) {
            (State::Ongoing, _, _) => Ok(()),
            (State::CompleteCommit, true, true) | (State::CompleteAbort, false, true) => {
                let (producer_id, producer_epoch) = (metadata.producer_id, metadata.producer_epoch);
                Err(EndRefused::Retry { producer_id, producer_epoch })
            }
            (State::CompleteCommit | State::CompleteAbort | State::Empty, false, false) => Ok(()),
            _ => Err(ErrorCode::InvalidTxnState.into()),
        }
    }
}

enum EndRefused {
    Error(ErrorCode),
    /// It was done already: the reply is what it was then.
    Retry {
        producer_id: i64,
        producer_epoch: i16,
    },
}

impl From<ErrorCode> for EndRefused {
    fn from(code: ErrorCode) -> Self {
        Self::Error(code)
    }
}

/// Whether a producer that says who it is may go on: it is the present one, or the one before whose epochs ran out, so
/// that it repeats a request whose reply it never saw. Its epoch is looked at later.
fn is_valid_producer(metadata: &Metadata, producer_id: i64, producer_epoch: i16) -> bool {
    metadata.producer_epoch == NO_EPOCH
        || producer_id == metadata.producer_id
        || (producer_id == metadata.previous_producer_id && producer_epoch >= LAST_EPOCH)
}

/// The producer is the one that the id belongs to now.
fn check_producer<'a>(
    found: Option<(&Arc<str>, &'a Transaction)>,
    id: &str,
    producer_id: i64,
    producer_epoch: i16,
) -> Result<&'a Transaction, ErrorCode> {
    if id.is_empty() {
        return Err(ErrorCode::InvalidRequest);
    }
    let (_, transaction) = found.ok_or(ErrorCode::InvalidProducerIdMapping)?;
    if transaction.metadata.producer_id != producer_id {
        return Err(ErrorCode::InvalidProducerIdMapping);
    }
    if transaction.metadata.producer_epoch != producer_epoch || transaction.metadata.is_retired() {
        return Err(ErrorCode::ProducerFenced);
    }
    Ok(transaction)
}

/// The same answer for all partitions.
pub(super) fn add_partitions_result(
    request: &AddPartitionsToTxnTransaction,
    code: ErrorCode,
) -> AddPartitionsToTxnResult {
    add_partitions_results(request, |_, _| code)
}

fn add_partitions_results(
    request: &AddPartitionsToTxnTransaction,
    code: impl Fn(&str, i32) -> ErrorCode,
) -> AddPartitionsToTxnResult {
    let topic_results = request.topics.iter().map(|topic| AddPartitionsToTxnTopicResult {
        name: topic.name.clone(),
        results_by_partition: topic
            .partitions
            .iter()
            .map(|partition| AddPartitionsToTxnPartitionResult {
                partition_index: *partition,
                partition_error_code: code(&topic.name, *partition).code(),
            })
            .collect(),
    });
    AddPartitionsToTxnResult {
        transactional_id: request.transactional_id.clone(),
        topic_results: topic_results.collect(),
    }
}
