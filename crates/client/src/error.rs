//! What can go wrong between a caller and a cluster, sorted by what the caller can do about it.

use std::time::Duration;

use taccola_net::api::ApiError;
use taccola_wire::batch::BatchError;
use taccola_wire::codec::DecodeError;
use taccola_wire::error::ErrorCode;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No broker of the bootstrap list answered.
    #[error("no broker answers at {bootstrap}: {source}")]
    Unreachable { bootstrap: String, source: Box<ApiError> },
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("topic {0} does not exist")]
    UnknownTopic(String),
    /// The broker's verdict on one thing that was asked for.
    #[error("{subject}: {} ({})", message.as_deref().unwrap_or(code.message()), code.name())]
    Broker { code: ErrorCode, subject: String, message: Option<String> },
    #[error("no answer within {} s: {what}", timeout.as_secs_f32())]
    Timeout { what: String, timeout: Duration },
    #[error("{topic}-{partition} at offset {offset}: {source}")]
    Records { topic: String, partition: i32, offset: i64, source: BatchError },
    #[error("a record of {bytes} bytes is larger than max.request.size={max}")]
    RecordTooLarge { bytes: usize, max: usize },
    #[error("group data of another client cannot be read: {0}")]
    GroupData(#[from] DecodeError),
    #[error("{0}")]
    Invalid(String),
    #[error("the client is closed")]
    Closed,
    /// Final for this producer: another one uses its transactional id, or its coordinator ended its transaction for it.
    #[error("transactional id {transactional_id}: {} ({})", code.message(), code.name())]
    Fenced { transactional_id: String, code: ErrorCode },
    /// The transaction cannot be committed any more. Once it is aborted the producer can go on.
    #[error("the transaction has to be aborted: {source}")]
    Abortable { source: Box<Error> },
}

impl Error {
    pub(crate) fn broker(code: ErrorCode, subject: impl Into<String>, message: Option<String>) -> Self {
        let message = message.map(|m| m.trim_end_matches('.').to_owned()).filter(|m| !m.is_empty());
        Error::Broker { code, subject: subject.into(), message }
    }

    /// `Ok` when the code is NONE, else the error with its subject.
    pub(crate) fn check(code: i16, subject: impl Into<String>, message: Option<String>) -> Result<()> {
        match ErrorCode::from_code(code) {
            ErrorCode::None => Ok(()),
            code => Err(Self::broker(code, subject, message)),
        }
    }

    /// The broker's error code, if it was the broker that refused.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Error::Broker { code, .. } | Error::Fenced { code, .. } => Some(*code),
            Error::Abortable { source } => source.code(),
            Error::UnknownTopic(_) => Some(ErrorCode::UnknownTopicOrPartition),
            _ => None,
        }
    }

    /// Whether the broker does not serve this API, or no version of it that is spoken here.
    pub fn unsupported(&self) -> bool {
        matches!(self, Error::Api(ApiError::Unsupported { .. }))
    }

    /// Whether the same request may succeed a little later.
    pub fn retriable(&self) -> bool {
        match self {
            Error::Broker { code, .. } => code.retriable(),
            Error::Api(error) => error.retriable(),
            Error::Unreachable { source, .. } => source.retriable(),
            Error::Timeout { .. } => true,
            Error::UnknownTopic(_)
            | Error::Records { .. }
            | Error::RecordTooLarge { .. }
            | Error::GroupData(_)
            | Error::Invalid(_)
            | Error::Fenced { .. }
            | Error::Abortable { .. }
            | Error::Closed => false,
        }
    }

    /// The same failure for somebody else who is concerned. What cannot be had twice (an I/O error) becomes its text.
    pub(crate) fn duplicate(&self) -> Self {
        match self {
            Error::Broker { code, subject, message } => {
                Error::Broker { code: *code, subject: subject.clone(), message: message.clone() }
            }
            Error::Timeout { what, timeout } => Error::Timeout { what: what.clone(), timeout: *timeout },
            Error::UnknownTopic(name) => Error::UnknownTopic(name.clone()),
            Error::Fenced { transactional_id, code } => {
                Error::Fenced { transactional_id: transactional_id.clone(), code: *code }
            }
            Error::Abortable { source } => Error::Abortable { source: Box::new(source.duplicate()) },
            other => Error::Invalid(other.to_string()),
        }
    }

    /// Whether what is cached about leaders and coordinators may be out of date.
    pub(crate) fn stale_metadata(&self) -> bool {
        match self {
            Error::Broker { code, .. } => matches!(
                *code,
                ErrorCode::NotLeaderOrFollower
                    | ErrorCode::LeaderNotAvailable
                    | ErrorCode::UnknownTopicOrPartition
                    | ErrorCode::UnknownTopicId
                    | ErrorCode::InconsistentTopicId
                    | ErrorCode::FencedLeaderEpoch
                    | ErrorCode::UnknownLeaderEpoch
                    | ErrorCode::NotCoordinator
                    | ErrorCode::CoordinatorNotAvailable
                    | ErrorCode::NotController
                    | ErrorCode::KafkaStorageError
                    | ErrorCode::ReplicaNotAvailable
            ),
            Error::Api(error) => error.retriable(),
            _ => false,
        }
    }
}
