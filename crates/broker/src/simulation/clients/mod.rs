//! Simulated clients: state machines that have one request or several under way, hear what became of each, and tell the
//! ledger what they were promised.

pub(super) mod classic;
pub(super) mod committer;
pub(super) mod deleter;
pub(super) mod member;
mod ownership;
pub(super) mod producer;
pub(super) mod reader;
pub(super) mod share;
pub(super) mod streams;
pub(super) mod transactional;

use bytes::Bytes;
use taccola_wire::codec::Request;
use taccola_wire::error::ErrorCode;
use taccola_wire::frame;

use super::ledger::Ledger;
use super::network::Ask;
use super::rng::Rng;

/// What a client works with.
pub(super) struct Ctx<'a> {
    pub(super) rng: &'a mut Rng,
    pub(super) ledger: &'a mut Ledger,
    /// Counts starts of the broker.
    pub(super) boot: u32,
    /// Some of the disk could not be read since the last start.
    pub(super) bad: bool,
    /// What the trace says of the last thing that happened.
    pub(super) said: &'a mut String,
}

pub(super) trait Client {
    fn name(&self) -> String;
    /// The next request, if there is one to send now.
    fn ask(&mut self, ctx: &mut Ctx<'_>) -> Option<Ask>;
    /// A request's reply.
    fn answered(&mut self, ctx: &mut Ctx<'_>, tag: u64, frame: Bytes);
    /// The connection broke before the reply came.
    fn lost(&mut self, ctx: &mut Ctx<'_>, tag: u64);
    /// Whether what was on its way when the connection broke may still arrive. Not where the protocol itself cannot stand it.
    fn late(&self) -> bool {
        true
    }
    /// From now on nothing new is begun; what is under way is brought to its end. True: there is nothing left to do.
    fn finish(&mut self) -> bool;
    /// What can only be asked of the whole broker, after a start and at the end: group, topic and partition of committed
    /// offsets that this client answers for.
    fn offsets(&self) -> Vec<(String, String, i32)> {
        Vec::new()
    }
    /// The broker says that this offset is committed there (-1: none)
    /// (`settled`: nothing is under way any more).
    fn committed(&mut self, _ctx: &mut Ctx<'_>, _group: &str, _offset: i64, _settled: bool) {}
}

/// A request's frame without its size.
pub(super) fn encode<R: Request>(request: &R, version: i16) -> Bytes {
    frame::encode_request(1, Some("sim"), version, request).unwrap().freeze().slice(4..)
}

pub(super) fn decode<R: Request>(version: i16, frame: Bytes) -> R::Response {
    frame::decode_response::<R>(version, frame).unwrap().1
}

/// Errors after which a client tries the same again.
pub(super) fn is_retriable(code: i16) -> bool {
    use ErrorCode as E;
    matches!(
        ErrorCode::from_code(code),
        E::CoordinatorLoadInProgress
            | E::CoordinatorNotAvailable
            | E::NotCoordinator
            | E::ConcurrentTransactions
            | E::NotEnoughReplicas
            | E::RequestTimedOut
            | E::UnknownTopicOrPartition
            | E::NotLeaderOrFollower
            | E::KafkaStorageError
            | E::RebalanceInProgress
    )
}
