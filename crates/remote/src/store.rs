//! [`Store`]: one object store under one prefix. Owns retries, timeouts' wiring, key checks and the place where faults are injected.
//!
//! Retries: the HTTP stores retry each request themselves (`Options::retries`); for the others, and for injected faults, it happens
//! here. Nothing is retried that may not be repeated: puts replace, deletes of what is gone succeed, and
//! [`Store::put_if_absent`] says so when an object is there, be it its own.

use std::collections::BinaryHeap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig,
};

use crate::{Fault, Faults, Operation, Options, PAGE_MAX, RemoteError, Upload};

/// Unfinished writes of one object that are looked for.
const STAGED_MAX: u32 = 100;

/// One object in a [`Page`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// Its key, without the store's prefix.
    pub key: String,
    /// Its length, bytes.
    pub size: u64,
    /// When it was last written, milliseconds since 1970 by the store's clock.
    pub modified_ms: i64,
}

/// Part of a listing, in the order of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// At most [`PAGE_MAX`].
    pub objects: Vec<Object>,
    /// Whether there are more; the next page begins after the last key of this one.
    pub more: bool,
}

/// A handle of a store; clones share connections. See the crate for what holds.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    /// All keys lie under it.
    prefix: Path,
    shown: Arc<str>,
    /// Retries that happen here; the HTTP stores have theirs inside.
    retries: u32,
    /// With injected faults, which happen outside of the store, `Options::retries` for every kind.
    fault_retries: u32,
    backoff: Duration,
    /// The folder of a `file:` store; its listings come in no order.
    folder: Option<Arc<PathBuf>>,
    faults: Option<Faults>,
}

impl Store {
    /// Opens a store by URL: `file:///dir`, `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, `memory:`. Sends
    /// nothing; a directory is created.
    pub fn open(url: &str, options: &Options) -> Result<Self, RemoteError> {
        let config = |why: String| RemoteError::Config(format!("{url}: {why}"));
        let (scheme, rest) = url.split_once(':').ok_or_else(|| config("not a URL".to_owned()))?;
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let refused = |error: object_store::Error| config(error.to_string());
        let (inner, prefix): (Arc<dyn ObjectStore>, &str) = match scheme {
            "file" => (Arc::new(directory(rest).map_err(config)?), ""),
            "memory" => (Arc::new(InMemory::new()), rest),
            "s3" | "gs" | "az" => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                if bucket.is_empty() {
                    return Err(config("names no bucket".to_owned()));
                }
                let store: Arc<dyn ObjectStore> = match scheme {
                    "s3" => Arc::new(amazon(bucket, options).map_err(refused)?),
                    "gs" => Arc::new(google(bucket, options).map_err(refused)?),
                    _ => Arc::new(azure(bucket, options).map_err(refused)?),
                };
                (store, prefix)
            }
            other => return Err(config(format!("{other}: none of file, s3, gs, az, memory"))),
        };
        let prefix = Path::parse(prefix.trim_matches('/')).map_err(|error| config(error.to_string()))?;
        let http = matches!(scheme, "s3" | "gs" | "az");
        if !http && let Some(name) = options.extra.keys().next() {
            return Err(config(format!("no option {name}")));
        }
        Ok(Self {
            inner,
            prefix,
            shown: url.into(),
            retries: if http { 0 } else { options.retries },
            fault_retries: options.retries,
            backoff: options.backoff,
            folder: (scheme == "file").then(|| Arc::new(PathBuf::from(rest))),
            faults: None,
        })
    }

    /// A store in memory, for tests; clones share it.
    pub fn memory() -> Self {
        let options = Options { backoff: Duration::from_millis(1), ..Options::default() };
        Self {
            inner: Arc::new(InMemory::new()),
            prefix: Path::default(),
            shown: "memory:".into(),
            retries: options.retries,
            fault_retries: options.retries,
            backoff: options.backoff,
            folder: None,
            faults: None,
        }
    }

    /// The same store, whose requests meet faults from now on. Handles made before do not.
    pub fn with_faults(mut self, faults: Faults) -> Self {
        self.retries = self.fault_retries;
        self.faults = Some(faults);
        self
    }

    /// The URL that it was opened with.
    pub fn url(&self) -> &str {
        &self.shown
    }

    /// Writes a whole object; what was there is replaced. Readers see the old one or the new one.
    pub async fn put(&self, key: &str, body: impl Into<Bytes>) -> Result<(), RemoteError> {
        self.put_mode(key, body.into(), PutMode::Overwrite).await
    }

    /// Writes a whole object if there is none, else fails with [`RemoteError::AlreadyExists`]. Atomic where the store is (a directory, S3
    /// with conditional writes, Google, Azure). After a lost reply the object that is there may be the one of this call.
    pub async fn put_if_absent(&self, key: &str, body: impl Into<Bytes>) -> Result<(), RemoteError> {
        self.put_mode(key, body.into(), PutMode::Create).await
    }

    async fn put_mode(&self, key: &str, body: Bytes, mode: PutMode) -> Result<(), RemoteError> {
        let path = self.path(key)?;
        self.attempt(Operation::Put, key, |fault| {
            let (path, mode) = (path.clone(), mode.clone());
            let body =
                if matches!(fault, Fault::Torn | Fault::Short) { body.slice(..body.len() / 2) } else { body.clone() };
            async move {
                let options = PutOptions { mode, ..PutOptions::default() };
                self.inner.put_opts(&path, PutPayload::from(body), options).await.map(|_| ())
            }
        })
        .await
    }

    /// Begins an object that is written in pieces and is there when [`Upload::finish`] returned.
    pub fn upload(&self, key: &str) -> Result<Upload, RemoteError> {
        Ok(Upload::new(self.clone(), key.to_owned(), self.path(key)?))
    }

    /// Reads `range` (end exclusive). Fails with [`RemoteError::Short`] rather than giving less.
    pub async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes, RemoteError> {
        let want = range.end.saturating_sub(range.start);
        if want == 0 {
            return Ok(Bytes::new());
        }
        let path = self.path(key)?;
        let bytes = self
            .attempt(Operation::Get, key, |fault| {
                let (path, range) = (path.clone(), range.clone());
                async move {
                    let bytes = self.inner.get_range(&path, range).await?;
                    Ok(if fault == Fault::Short { bytes.slice(..bytes.len() / 2) } else { bytes })
                }
            })
            .await;
        let bytes = match bytes {
            Ok(bytes) => bytes,
            // A range that begins at or behind the end is an error of its own kind in each store.
            Err(error @ (RemoteError::Unavailable { .. } | RemoteError::Unsupported { .. })) => {
                let have = self.head(key).await?;
                if have >= range.end {
                    return Err(error);
                }
                return Err(RemoteError::Short { key: key.to_owned(), have: have.saturating_sub(range.start), want });
            }
            Err(error) => return Err(error),
        };
        let have = bytes.len() as u64;
        if have == want { Ok(bytes) } else { Err(RemoteError::Short { key: key.to_owned(), have, want }) }
    }

    /// Reads a whole object of at most `max` bytes.
    pub async fn get_whole(&self, key: &str, max: u64) -> Result<Bytes, RemoteError> {
        let path = self.path(key)?;
        let too_large = |have| RemoteError::TooLarge { key: key.to_owned(), have, max };
        let bytes = self
            .attempt(Operation::Get, key, |fault| {
                let path = path.clone();
                async move {
                    let result = self.inner.get(&path).await?;
                    if result.meta.size > max {
                        return Ok(Err(result.meta.size));
                    }
                    let bytes = result.bytes().await?;
                    Ok(Ok(if fault == Fault::Short { bytes.slice(..bytes.len() / 2) } else { bytes }))
                }
            })
            .await?;
        bytes.map_err(too_large)
    }

    /// The length of an object, bytes.
    pub async fn head(&self, key: &str) -> Result<u64, RemoteError> {
        let path = self.path(key)?;
        self.attempt(Operation::Head, key, |_| {
            let path = path.clone();
            async move { Ok(self.inner.head(&path).await?.size) }
        })
        .await
    }

    /// Objects under the folder `folder` (`""`: all), in the order of keys, beginning after the key `after`. A folder is whole
    /// segments of keys: `a/b` holds `a/b/c`, not `a/bc`.
    pub async fn list(&self, folder: &str, after: Option<&str>) -> Result<Page, RemoteError> {
        let path = self.path(folder)?;
        let after = after.map(|key| self.path(key)).transpose()?;
        self.attempt(Operation::List, folder, |_| {
            let (path, after) = (path.clone(), after.clone());
            async move { self.list_once(&path, after.as_ref()).await }
        })
        .await
    }

    async fn list_once(&self, folder: &Path, after: Option<&Path>) -> Result<Page, object_store::Error> {
        let folder = if folder.as_ref().is_empty() { None } else { Some(folder) };
        let mut found = match after {
            Some(after) => self.inner.list_with_offset(folder, after),
            None => self.inner.list(folder),
        };
        // The smallest keys: in memory bounded by a page also where the store lists in no order.
        let mut smallest = BinaryHeap::new();
        let mut more = false;
        while let Some(meta) = found.next().await {
            let meta = meta?;
            let Some(key) = self.key_of(&meta.location) else { continue };
            if after.is_some_and(|after| meta.location <= *after) {
                continue;
            }
            smallest.push(Object { key, size: meta.size, modified_ms: meta.last_modified.timestamp_millis() });
            if smallest.len() > PAGE_MAX {
                smallest.pop();
                more = true;
                if self.folder.is_none() {
                    break;
                }
            }
        }
        Ok(Page { objects: smallest.into_sorted_vec(), more })
    }

    /// Removes an object; one that is not there is fine.
    pub async fn delete(&self, key: &str) -> Result<(), RemoteError> {
        let path = self.path(key)?;
        self.remove_staged(&path).await;
        let done = self
            .attempt(Operation::Delete, key, |_| {
                let path = path.clone();
                async move { self.inner.delete(&path).await }
            })
            .await;
        if matches!(&done, Err(error) if error.is_not_found()) { Ok(()) } else { done }
    }

    /// A folder's objects are written beside their place, as `<name>#<number>`, and renamed. What a crash left of that is no object,
    /// and nobody else would remove it.
    async fn remove_staged(&self, path: &Path) {
        let Some(folder) = self.folder.clone() else { return };
        let name = path.to_string();
        let remove = move || {
            for number in 1..STAGED_MAX {
                let staged = folder.join(format!("{name}#{number}"));
                if std::fs::remove_file(&staged).is_err() {
                    return;
                }
            }
        };
        if let Err(error) = tokio::task::spawn_blocking(remove).await {
            tracing::warn!(%error, "staged files");
        }
    }

    pub(crate) fn inner(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }

    fn path(&self, key: &str) -> Result<Path, RemoteError> {
        let path = Path::parse(key).map_err(|error| RemoteError::Config(format!("{key:?}: {error}")))?;
        Ok(self.prefix.parts().chain(path.parts()).collect())
    }

    /// The key of an object, if it is under the prefix.
    fn key_of(&self, location: &Path) -> Option<String> {
        if self.prefix.as_ref().is_empty() {
            return Some(location.to_string());
        }
        let rest: Path = location.prefix_match(&self.prefix)?.collect();
        Some(rest.to_string())
    }

    /// Does what `request` says as often as it takes, and lets the faults have their way.
    pub(crate) async fn attempt<T, F>(
        &self,
        operation: Operation,
        key: &str,
        mut request: impl FnMut(Fault) -> F,
    ) -> Result<T, RemoteError>
    where
        F: Future<Output = Result<T, object_store::Error>>,
    {
        let mut attempts = 0;
        loop {
            let fault = self.faults.as_ref().map_or(Fault::None, |faults| faults.next(operation, key));
            let injected = || RemoteError::Unavailable { key: key.to_owned(), why: format!("injected: {fault:?}") };
            if let Fault::Delay(time) = fault {
                tokio::time::sleep(time).await;
            }
            let done = match fault {
                Fault::Error => Err(injected()),
                Fault::Torn if operation != Operation::Put => Err(injected()),
                _ => request(fault).await.map_err(|error| RemoteError::from_store(key, error)),
            };
            let done = match fault {
                Fault::LostReply | Fault::Torn => done.and(Err(injected())),
                _ => done,
            };
            match done {
                Err(error) if error.is_transient() && attempts < self.retries => {
                    tracing::debug!(%key, ?operation, attempts, %error, "object store request failed, trying again");
                    tokio::time::sleep(self.backoff * 2u32.pow(attempts.min(5))).await;
                    attempts += 1;
                }
                done => return done,
            }
        }
    }
}

/// The directory of a `file:` URL, made if it is missing. Writes are synced before they count.
fn directory(path: &str) -> Result<LocalFileSystem, String> {
    if !path.starts_with('/') {
        return Err("a file: URL needs an absolute path, file:///dir".to_owned());
    }
    std::fs::create_dir_all(path).map_err(|error| error.to_string())?;
    let store = LocalFileSystem::new_with_prefix(path).map_err(|error| error.to_string())?;
    Ok(store.with_fsync(true).with_automatic_cleanup(true))
}

fn client(options: &Options) -> ClientOptions {
    ClientOptions::new()
        .with_allow_http(options.allow_http)
        .with_timeout(options.timeout)
        .with_connect_timeout(options.connect_timeout)
}

fn retry(options: &Options) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { init_backoff: options.backoff, max_backoff: options.backoff * 30, base: 2.0 },
        max_retries: options.retries as usize,
        retry_timeout: options.timeout * 2,
    }
}

fn amazon(bucket: &str, options: &Options) -> Result<object_store::aws::AmazonS3, object_store::Error> {
    let mut builder = AmazonS3Builder::from_env()
        .with_client_options(client(options))
        .with_retry(retry(options))
        .with_bucket_name(bucket);
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &options.region {
        builder = builder.with_region(region);
    }
    for (name, value) in &options.extra {
        builder = builder.with_config(name.parse::<AmazonS3ConfigKey>()?, value);
    }
    if options.allow_http {
        builder = builder.with_allow_http(true);
    }
    builder.build()
}

fn google(bucket: &str, options: &Options) -> Result<object_store::gcp::GoogleCloudStorage, object_store::Error> {
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_client_options(client(options))
        .with_retry(retry(options))
        .with_bucket_name(bucket);
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    for (name, value) in &options.extra {
        builder = builder.with_config(name.parse::<GoogleConfigKey>()?, value);
    }
    builder.build()
}

fn azure(container: &str, options: &Options) -> Result<object_store::azure::MicrosoftAzure, object_store::Error> {
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_client_options(client(options))
        .with_retry(retry(options))
        .with_container_name(container);
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    for (name, value) in &options.extra {
        builder = builder.with_config(name.parse::<AzureConfigKey>()?, value);
    }
    builder.build()
}
