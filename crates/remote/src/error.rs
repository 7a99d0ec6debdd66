//! What can go wrong with an object store, sorted by what a caller does about it.

/// An error of an object store. Messages name the object and the store's own words.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The URL or an option is wrong. Nothing was sent; somebody has to change the configuration.
    #[error("{0}")]
    Config(String),
    /// There is no such object (or no such bucket). A retry gives the same.
    #[error("{key}: no such object")]
    NotFound {
        /// The object.
        key: String,
    },
    /// [`crate::Store::put_if_absent`] found an object. After a lost reply it may be one's own: compare before despairing.
    #[error("{key}: there is an object already")]
    AlreadyExists {
        /// The object.
        key: String,
    },
    /// The object is shorter than what was asked for: damaged, or not the one that was expected.
    #[error("{key}: has {have} bytes where {want} were expected")]
    Short {
        /// The object.
        key: String,
        /// Bytes that there are.
        have: u64,
        /// Bytes that were asked for.
        want: u64,
    },
    /// The object is larger than the bound that the caller gave.
    #[error("{key}: has {have} bytes, more than {max}")]
    TooLarge {
        /// The object.
        key: String,
        /// Bytes that there are.
        have: u64,
        /// Bytes that the caller takes at most.
        max: u64,
    },
    /// The store knows who asks and says no, or does not know. Somebody has to mend credentials or rights.
    #[error("{key}: refused: {why}")]
    Denied {
        /// The object.
        key: String,
        /// The store's words.
        why: String,
    },
    /// The store cannot do that, whoever asks and however often.
    #[error("{key}: {why}")]
    Unsupported {
        /// The object.
        key: String,
        /// The store's words.
        why: String,
    },
    /// The store could not be reached, did not answer in time or had an error of its own, also after retries. Later may be better.
    #[error("{key}: {why}")]
    Unavailable {
        /// The object.
        key: String,
        /// The last attempt's error.
        why: String,
    },
}

impl RemoteError {
    /// Whether the same request may succeed later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// Whether the object is known not to be there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    pub(crate) fn from_store(key: &str, error: object_store::Error) -> Self {
        use object_store::Error as E;
        let key = key.to_owned();
        match error {
            E::NotFound { .. } => Self::NotFound { key },
            E::AlreadyExists { .. } | E::Precondition { .. } => Self::AlreadyExists { key },
            E::PermissionDenied { source, .. } | E::Unauthenticated { source, .. } => {
                Self::Denied { key, why: chain(source.as_ref()) }
            }
            E::NotSupported { source } => Self::Unsupported { key, why: chain(source.as_ref()) },
            E::NotImplemented { .. } => Self::Unsupported { key, why: error.to_string() },
            E::InvalidPath { source } => Self::Config(format!("{key}: {source}")),
            E::UnknownConfigurationKey { .. } => Self::Config(error.to_string()),
            other => Self::Unavailable { key, why: chain(&other) },
        }
    }
}

/// An error with its causes, each said once: libraries tend to repeat a cause in what wraps it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = next.source();
    }
    text
}
