//! Exit codes, which scripts rely on, and errors as the user sees them: one sentence that says what happened, and one that
//! says what to do.

use std::fmt;
use std::process::ExitCode;

use taccola_client::Error;
use taccola_net::api::ApiError;
use taccola_wire::error::ErrorCode;

/// Stable: numbers never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Ok = 0,
    Failure = 1,
    /// Also what clap exits with.
    Usage = 2,
    NotFound = 3,
    AlreadyExists = 4,
    CannotConnect = 5,
    Timeout = 6,
    NotAuthorized = 7,
    /// A check of files found something wrong.
    Damaged = 8,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

#[derive(Debug)]
pub(crate) struct CliError {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
}

pub(crate) type CliResult<T = ()> = Result<T, CliError>;

impl CliError {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn failure(message: impl Into<String>) -> Self {
        Self::new(Exit::Failure, message)
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        let exit = exit_of(&error);
        Self { exit, message: error.to_string(), hint: hint_of(&error) }
    }
}

fn exit_of(error: &Error) -> Exit {
    match error {
        Error::Unreachable { .. } => Exit::CannotConnect,
        Error::Api(ApiError::Connect { .. } | ApiError::ConnectTimeout { .. } | ApiError::Closed { .. }) => {
            Exit::CannotConnect
        }
        Error::Timeout { .. } => Exit::Timeout,
        Error::UnknownTopic(_) => Exit::NotFound,
        Error::Broker { code, .. } => exit_of_code(*code),
        Error::Abortable { source } => exit_of(source),
        _ => Exit::Failure,
    }
}

fn exit_of_code(code: ErrorCode) -> Exit {
    match code {
        ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId | ErrorCode::GroupIdNotFound => Exit::NotFound,
        ErrorCode::BrokerNotAvailable | ErrorCode::ResourceNotFound | ErrorCode::TransactionalIdNotFound => {
            Exit::NotFound
        }
        ErrorCode::TopicAlreadyExists => Exit::AlreadyExists,
        ErrorCode::RequestTimedOut => Exit::Timeout,
        ErrorCode::TopicAuthorizationFailed
        | ErrorCode::GroupAuthorizationFailed
        | ErrorCode::ClusterAuthorizationFailed
        | ErrorCode::TransactionalIdAuthorizationFailed
        | ErrorCode::SaslAuthenticationFailed => Exit::NotAuthorized,
        _ => Exit::Failure,
    }
}

fn hint_of(error: &Error) -> Option<String> {
    let hint = match error {
        Error::Unreachable { source, .. } if matches!(**source, ApiError::Protocol { .. }) => {
            "check that -b names a Kafka listener without TLS or SASL".to_owned()
        }
        Error::Unreachable { .. } => "start a broker with `taccola`, or name one with -b HOST:PORT".to_owned(),
        Error::Api(ApiError::Protocol { .. }) => "check that -b names a Kafka listener without TLS or SASL".to_owned(),
        Error::UnknownTopic(name) => format!("create it with `taccola topic create {name}`"),
        Error::RecordTooLarge { .. } => {
            "raise it with --max-message-bytes, and the topic's max.message.bytes if need be".to_owned()
        }
        Error::Broker { code, .. } => match code {
            ErrorCode::MessageTooLarge => {
                "the topic's max.message.bytes decides; raise it with `topic alter -c`".to_owned()
            }
            ErrorCode::TopicAlreadyExists => "--if-not-exists accepts that".to_owned(),
            ErrorCode::GroupIdNotFound => "`taccola group list` shows the groups".to_owned(),
            ErrorCode::NonEmptyGroup => "stop its consumers first".to_owned(),
            ErrorCode::UnknownMemberId => "the group has members: stop its consumers first".to_owned(),
            ErrorCode::InvalidReplicationFactor => "lower it with -r".to_owned(),
            ErrorCode::BrokerNotAvailable => "`taccola cluster info` shows the brokers".to_owned(),
            ErrorCode::TransactionalIdNotFound => "`taccola txn list` shows the transactional ids".to_owned(),
            ErrorCode::InvalidTransactionTimeout => {
                "lower --transaction-timeout, or raise the broker's transaction.max.timeout.ms".to_owned()
            }
            ErrorCode::InconsistentGroupProtocol => {
                "`taccola group describe` shows the group's type; choose the protocol that fits, or another group"
                    .to_owned()
            }
            ErrorCode::InvalidRegularExpression => "it must be one of RE2, as Go has them".to_owned(),
            ErrorCode::UnreleasedInstanceId | ErrorCode::FencedInstanceId => {
                "stop the other member, or choose another --instance-id".to_owned()
            }
            ErrorCode::InvalidUpdateVersion | ErrorCode::FeatureUpdateFailed => {
                "`taccola features` shows the levels that are supported".to_owned()
            }
            _ => return None,
        },
        Error::Fenced { .. } => "stop the other producer with this transactional id, or choose another".to_owned(),
        Error::Abortable { source } => return hint_of(source),
        Error::Api(ApiError::Unsupported { .. }) => {
            "the broker is too old for this, or does not offer it; `taccola features` shows what it does".to_owned()
        }
        _ => return None,
    };
    Some(hint)
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        CliError::failure(error.to_string())
    }
}
