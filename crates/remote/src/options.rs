//! How a store is reached: endpoint, region, credentials, patience. What is not given here is looked for in the environment
//! under the names that the store's own tools use (`AWS_ACCESS_KEY_ID`, `GOOGLE_APPLICATION_CREDENTIALS`,
//! `AZURE_STORAGE_ACCOUNT_NAME` and so on), then from the machine's identity.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::RemoteError;

/// See the module. `Default` is what a production store wants.
#[derive(Clone, PartialEq, Eq)]
pub struct Options {
    /// Where the store is, if not where its provider runs it: `http://127.0.0.1:5000`.
    pub endpoint: Option<String>,
    /// The region, for S3.
    pub region: Option<String>,
    /// Whether `http://` endpoints are accepted: credentials and data are then readable on the way.
    pub allow_http: bool,
    /// Further settings of the store by their own names (`aws_access_key_id`, `google_service_account`, ...).
    pub extra: BTreeMap<String, String>,
    /// How often a request that failed for a reason which may pass is tried again.
    pub retries: u32,
    /// For one request with its body.
    pub timeout: Duration,
    /// For the connection alone.
    pub connect_timeout: Duration,
    /// Wait before the first retry; doubles with each, up to thirty times this.
    pub backoff: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            allow_http: false,
            extra: BTreeMap::new(),
            retries: 4,
            timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
            backoff: Duration::from_millis(100),
        }
    }
}

impl Options {
    /// Takes settings by name: `endpoint`, `region`, `allow.http`, `retries`, `timeout.ms`, `connect.timeout.ms`; any other
    /// goes to the store under its own name, with `-` and `.` read as `_`, and an unknown one fails at [`crate::Store::open`].
    pub fn from_pairs<K: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, RemoteError> {
        let mut options = Self::default();
        for (name, value) in pairs {
            options.set(name.as_ref(), value.as_ref())?;
        }
        Ok(options)
    }

    /// Sets one setting by name; see [`Options::from_pairs`].
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), RemoteError> {
        let wrong = |what: &str| RemoteError::Config(format!("{name}: {value:?} is not {what}"));
        let millis = || value.parse().map(Duration::from_millis).map_err(|_| wrong("a number of milliseconds"));
        match name.replace(['-', '.'], "_").as_str() {
            "endpoint" => self.endpoint = Some(value.to_owned()),
            "region" => self.region = Some(value.to_owned()),
            "allow_http" => self.allow_http = value.parse().map_err(|_| wrong("true or false"))?,
            "retries" => self.retries = value.parse().map_err(|_| wrong("a number"))?,
            "timeout_ms" => self.timeout = millis()?,
            "connect_timeout_ms" => self.connect_timeout = millis()?,
            other => {
                self.extra.insert(other.to_ascii_lowercase(), value.to_owned());
            }
        }
        Ok(())
    }
}

/// Values in `extra` may be secrets and are not shown.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("allow_http", &self.allow_http)
            .field("extra", &self.extra.keys().collect::<Vec<_>>())
            .field("retries", &self.retries)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
