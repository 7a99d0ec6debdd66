//! What can go wrong with a backup, sorted by what its caller can do about it.

use taccola_wire::batch::BatchError;

use crate::crypto::CryptoError;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster's verdict, or none came.
    #[error(transparent)]
    Cluster(#[from] taccola_client::Error),
    /// The object store's.
    #[error("object store: {0}")]
    Store(#[from] taccola_remote::RemoteError),
    /// An object that a backup names is damaged, or is not the one that it names.
    #[error("{object}: {reason}")]
    Damaged { object: String, reason: String },
    /// What was given does not open the backup.
    #[error("backup {backup}: {source}")]
    Key { backup: String, source: CryptoError },
    #[error("backup {0} is encrypted, and no key was given")]
    KeyMissing(String),
    #[error("there is no backup {0}")]
    NotFound(String),
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// A batch that the cluster gave cannot be read.
    #[error("{partition} at offset {offset}: {source}")]
    Batch { partition: String, offset: i64, source: BatchError },
    /// What was asked for would destroy or mix something.
    #[error("{0}")]
    Refused(String),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    pub(crate) fn damaged(object: impl Into<String>, reason: impl ToString) -> Self {
        Self::Damaged { object: object.into(), reason: reason.to_string() }
    }
}
