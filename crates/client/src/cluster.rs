//! What a client knows about its cluster, and its connections: bootstrap list, brokers, topics with ids and leaders,
//! coordinators of groups and of transactions. Answers to Kafka's `Metadata` and `NetworkClient`.
//!
//! Connections are opened when first needed, one per broker and [`Lane`]: a broker works on one request of a connection at
//! a time, so a long poll or a parked join must not stand in front of anything else. What is cached is dropped when a reply
//! shows it to be out of date; the next use asks again.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use taccola_base::Uuid;
use taccola_net::api::{Api, ApiExt, Connector};
use taccola_net::client::{ConnectionOptions, TcpConnector};
use taccola_wire::codec::Request;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::find_coordinator_response::FindCoordinatorResponse;
use taccola_wire::messages::metadata_request::MetadataRequestTopic;
use taccola_wire::messages::metadata_response::{MetadataResponse, MetadataResponseTopic};
use taccola_wire::messages::{FindCoordinatorRequest, MetadataRequest};

use crate::config::ClientConfig;
use crate::error::{Error, Result};

/// Coordinators remembered; beyond that the memory is cleared.
const COORDINATORS_MAX: usize = 10_000;
/// Node id under which the bootstrap connection is kept.
const BOOTSTRAP_NODE: i32 = -1;
/// First version of Metadata that finds topics by id.
const BY_ID_VERSION: i16 = 12;

/// What a connection is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    General,
    Produce,
    Fetch,
    Group,
    Transaction,
}

/// What a coordinator coordinates (`CoordinatorType`), with its code in FindCoordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i8)]
pub enum CoordinatorKind {
    Group = 0,
    Transaction = 1,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    pub id: i32,
    pub host: String,
    pub port: u16,
    pub rack: Option<String>,
}

#[derive(Clone, Debug)]
pub struct TopicMetadata {
    pub name: Arc<str>,
    /// [`Uuid::ZERO`] when the broker is too old for ids.
    pub id: Uuid,
    pub internal: bool,
    /// Sorted by index.
    pub partitions: Vec<PartitionMetadata>,
    fetched: Instant,
}

#[derive(Clone, Debug)]
pub struct PartitionMetadata {
    pub index: i32,
    pub leader: Option<i32>,
    /// -1 when unknown.
    pub leader_epoch: i32,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
    pub offline: Vec<i32>,
    pub error: ErrorCode,
}

impl TopicMetadata {
    pub fn partition(&self, index: i32) -> Option<&PartitionMetadata> {
        self.partitions.binary_search_by_key(&index, |p| p.index).ok().and_then(|at| self.partitions.get(at))
    }
}

/// One answer to Metadata, as far as it is not about single topics.
#[derive(Clone, Debug, Default)]
pub struct ClusterInfo {
    pub cluster_id: Option<String>,
    pub controller: Option<i32>,
    pub brokers: Vec<Broker>,
}

#[derive(Default)]
struct State {
    cluster: ClusterInfo,
    topics: HashMap<Arc<str>, Arc<TopicMetadata>>,
    coordinators: HashMap<(CoordinatorKind, String), i32>,
    slots: HashMap<(i32, Lane), Arc<Slot>>,
}

/// Where one connection is kept; locked while it is being opened, so that it is opened once.
#[derive(Default)]
struct Slot {
    open: tokio::sync::Mutex<Option<Opened>>,
}

struct Opened {
    host: String,
    port: u16,
    api: Arc<dyn Api>,
}

struct Inner {
    config: ClientConfig,
    connector: Arc<dyn Connector>,
    state: Mutex<State>,
}

/// A cluster as seen by one client. Cheap to clone; clones share connections and what is cached.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

impl Client {
    /// Nothing is connected yet.
    pub fn new(config: ClientConfig) -> Self {
        let options = ConnectionOptions { client_id: config.client_id.clone(), ..Default::default() };
        Self::with_connector(config, Arc::new(TcpConnector { options }))
    }

    /// A client whose connections are made by the caller's connector.
    pub fn with_connector(config: ClientConfig, connector: Arc<dyn Connector>) -> Self {
        Self { inner: Arc::new(Inner { config, connector, state: Mutex::default() }) }
    }

    pub fn config(&self) -> &ClientConfig {
        &self.inner.config
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock halfway through a change.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- requests ----------------------------------------------------------------------------------------------------

    /// One attempt, bounded by `request.timeout.ms`.
    pub async fn request<R: Request>(&self, api: &Arc<dyn Api>, request: &R, version: i16) -> Result<R::Response> {
        self.request_within(api, request, version, self.config().request_timeout).await
    }

    pub(crate) async fn request_within<R: Request>(
        &self,
        api: &Arc<dyn Api>,
        request: &R,
        version: i16,
        timeout: Duration,
    ) -> Result<R::Response> {
        match tokio::time::timeout(timeout, api.call(request, version)).await {
            Ok(reply) => Ok(reply?),
            Err(_) => Err(Error::Timeout { what: format!("{} from {}", R::KEY.info().name, api.address()), timeout }),
        }
    }

    /// Repeats `attempt` while it fails in a way that may pass, with growing pauses, for at most
    /// `default.api.timeout.ms`; returns the last error then.
    pub(crate) async fn retrying<T, F, Fut>(&self, attempt: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        self.retrying_within(self.config().operation_timeout, attempt).await
    }

    pub(crate) async fn retrying_within<T, F, Fut>(&self, limit: Duration, mut attempt: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let begun = Instant::now();
        let mut backoff = Backoff::new(self.config());
        loop {
            match attempt().await {
                Err(error) if error.retriable() => {
                    if error.stale_metadata() {
                        self.forget_all();
                    }
                    let never_met =
                        matches!(error, Error::Unreachable { .. }) && self.state().cluster.brokers.is_empty();
                    let limit = if never_met { limit.min(self.config().bootstrap_patience) } else { limit };
                    let pause = backoff.next();
                    if begun.elapsed() + pause >= limit {
                        return Err(error);
                    }
                    tracing::debug!(%error, ?pause, "trying again");
                    tokio::time::sleep(pause).await;
                }
                result => return result,
            }
        }
    }

    // ---- connections -------------------------------------------------------------------------------------------------

    /// A connection to any broker: one that is open, else a known broker, else the bootstrap list.
    pub async fn any(&self) -> Result<Arc<dyn Api>> {
        let (known, slots) = {
            let state = self.state();
            let slots: Vec<_> =
                state.slots.iter().filter(|((_, l), _)| *l == Lane::General).map(|(_, s)| Arc::clone(s)).collect();
            (state.cluster.brokers.clone(), slots)
        };
        for slot in slots {
            // A slot that is being opened just now is not waited for.
            if let Ok(open) = slot.open.try_lock()
                && let Some(opened) = open.as_ref().filter(|o| !o.api.is_closed())
            {
                return Ok(Arc::clone(&opened.api));
            }
        }
        for broker in known {
            if let Ok(api) = self.open(broker.id, Lane::General, &broker.host, broker.port).await {
                return Ok(api);
            }
        }
        let mut last = None;
        for (host, port) in &self.config().bootstrap {
            match self.open(BOOTSTRAP_NODE, Lane::General, host, *port).await {
                Ok(api) => return Ok(api),
                Err(Error::Api(error)) => last = Some(error),
                Err(other) => return Err(other),
            }
        }
        match last {
            Some(source) => {
                Err(Error::Unreachable { bootstrap: self.config().bootstrap_text(), source: Box::new(source) })
            }
            None => Err(Error::Invalid("the bootstrap list is empty".to_owned())),
        }
    }

    /// A connection to one broker.
    pub async fn broker(&self, id: i32, lane: Lane) -> Result<Arc<dyn Api>> {
        if self.known_broker(id).is_none() {
            self.refresh(Some(&[]), false).await?;
        }
        match self.known_broker(id) {
            Some(broker) => self.open(id, lane, &broker.host, broker.port).await,
            None => Err(Error::broker(ErrorCode::BrokerNotAvailable, format!("broker {id}"), None)),
        }
    }

    fn known_broker(&self, id: i32) -> Option<Broker> {
        self.state().cluster.brokers.iter().find(|b| b.id == id).cloned()
    }

    async fn open(&self, node: i32, lane: Lane, host: &str, port: u16) -> Result<Arc<dyn Api>> {
        let slot = Arc::clone(self.state().slots.entry((node, lane)).or_default());
        let mut open = slot.open.lock().await;
        if let Some(opened) = open.as_ref().filter(|o| o.host == host && o.port == port && !o.api.is_closed()) {
            return Ok(Arc::clone(&opened.api));
        }
        let api = self.inner.connector.connect(host, port).await?;
        *open = Some(Opened { host: host.to_owned(), port, api: Arc::clone(&api) });
        Ok(api)
    }

    // ---- metadata ----------------------------------------------------------------------------------------------------

    /// Brokers, controller and cluster id, asked for anew.
    pub async fn cluster(&self) -> Result<ClusterInfo> {
        self.retrying(|| self.refresh(Some(&[]), false)).await?;
        Ok(self.state().cluster.clone())
    }

    /// All topics that the caller may see, sorted by name.
    pub async fn topics(&self) -> Result<Vec<Arc<TopicMetadata>>> {
        let mut topics = self.retrying(|| self.refresh(None, false)).await?;
        topics.retain(|t| t.error == ErrorCode::None);
        let mut topics: Vec<_> = topics.into_iter().map(|t| t.topic).collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// One topic, from the cache if it is there and not too old. An unknown topic is an error at once.
    pub async fn topic(&self, name: &str) -> Result<Arc<TopicMetadata>> {
        self.topic_with(name, false, Duration::ZERO).await
    }

    /// As [`Client::topic`]; with `create`, asks the broker to create the topic (which it does if its settings say so) and
    /// waits up to `patience` for it to appear.
    pub async fn topic_with(&self, name: &str, create: bool, patience: Duration) -> Result<Arc<TopicMetadata>> {
        if let Some(topic) = self.cached_topic(name) {
            return Ok(topic);
        }
        let deadline = Instant::now() + patience;
        let mut backoff = Backoff::new(self.config());
        let names = [name];
        loop {
            let found = self.retrying(|| self.refresh(Some(&names), create)).await?;
            let found = found.into_iter().next();
            let code = found.as_ref().map_or(ErrorCode::UnknownTopicOrPartition, |f| f.error);
            match found {
                Some(found) if code == ErrorCode::None => return Ok(found.topic),
                _ => {}
            }
            let absent = matches!(code, ErrorCode::UnknownTopicOrPartition | ErrorCode::LeaderNotAvailable);
            if !absent || Instant::now() >= deadline {
                return Err(match code {
                    ErrorCode::UnknownTopicOrPartition => Error::UnknownTopic(name.to_owned()),
                    code => Error::broker(code, format!("topic {name}"), None),
                });
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// One topic by its id, from the cache if it is there. An unknown id is UNKNOWN_TOPIC_ID, which may pass: a coordinator
    /// can know a topic before the broker that is asked here does.
    pub async fn topic_by_id(&self, id: Uuid) -> Result<Arc<TopicMetadata>> {
        let cached = self.state().topics.values().find(|t| t.id == id).map(|t| Arc::clone(&t.name));
        if let Some(topic) = cached.and_then(|name| self.cached_topic(&name)) {
            return Ok(topic);
        }
        let asked = vec![MetadataRequestTopic { topic_id: id, name: None }];
        let found = self.refresh_topics(Some(asked), false).await?.into_iter().next();
        match found {
            Some(found) if found.error == ErrorCode::None => Ok(found.topic),
            Some(found) => Err(Error::broker(found.error, format!("topic id {id}"), None)),
            None => Err(Error::broker(ErrorCode::UnknownTopicId, format!("topic id {id}"), None)),
        }
    }

    /// What the cache holds on a topic, unless it is older than `metadata.max.age.ms`.
    pub fn cached_topic(&self, name: &str) -> Option<Arc<TopicMetadata>> {
        let topic = self.state().topics.get(name).cloned()?;
        (topic.fetched.elapsed() < self.config().metadata_max_age).then_some(topic)
    }

    /// Drops what is known about leaders and coordinators; connections stay.
    pub fn forget_all(&self) {
        let mut state = self.state();
        state.topics.clear();
        state.coordinators.clear();
    }

    pub fn forget_topic(&self, name: &str) {
        self.state().topics.remove(name);
    }

    /// Asks for metadata and keeps the answer. `None` means all topics, an empty slice none.
    async fn refresh(&self, names: Option<&[&str]>, create: bool) -> Result<Vec<FoundTopic>> {
        let topic = |name: &&str| MetadataRequestTopic { name: Some((*name).to_owned()), ..Default::default() };
        self.refresh_topics(names.map(|names| names.iter().map(topic).collect()), create).await
    }

    async fn refresh_topics(&self, topics: Option<Vec<MetadataRequestTopic>>, create: bool) -> Result<Vec<FoundTopic>> {
        let api = self.any().await?;
        let version = api.version::<MetadataRequest>()?;
        if version < BY_ID_VERSION && topics.iter().flatten().any(|topic| topic.name.is_none()) {
            return Err(Error::Invalid("the broker is too old to look up topics by id".to_owned()));
        }
        let all = topics.is_none();
        let mut request =
            MetadataRequest { topics, allow_auto_topic_creation: create || version < 4, ..Default::default() };
        if version == 0 && all {
            request.topics = Some(Vec::new());
        }
        let response = self.request(&api, &request, version).await?;
        Error::check(response.error_code, "metadata", None)?;
        Ok(self.keep(response))
    }

    fn keep(&self, response: MetadataResponse) -> Vec<FoundTopic> {
        let brokers = response.brokers.iter().map(|b| Broker {
            id: b.node_id,
            host: b.host.clone(),
            port: u16::try_from(b.port).unwrap_or(0),
            rack: b.rack.clone(),
        });
        let cluster = ClusterInfo {
            cluster_id: response.cluster_id.clone(),
            controller: (response.controller_id >= 0).then_some(response.controller_id),
            brokers: brokers.collect(),
        };
        let found: Vec<_> = response.topics.into_iter().map(found_topic).collect();
        let mut state = self.state();
        // An empty list comes from a broker that has just started; what was known stays usable.
        if !cluster.brokers.is_empty() {
            state.cluster = cluster;
        }
        for topic in &found {
            if topic.error == ErrorCode::None {
                state.topics.insert(Arc::clone(&topic.topic.name), Arc::clone(&topic.topic));
            } else {
                state.topics.remove(&topic.topic.name);
            }
        }
        found
    }

    // ---- coordinators ------------------------------------------------------------------------------------------------

    /// A connection to the coordinator of a group.
    pub async fn coordinator(&self, group: &str, lane: Lane) -> Result<Arc<dyn Api>> {
        let node = self.coordinator_node(CoordinatorKind::Group, group).await?;
        self.broker(node, lane).await
    }

    /// A connection to the coordinator of a transactional id.
    pub async fn transaction_coordinator(&self, transactional_id: &str) -> Result<Arc<dyn Api>> {
        let node = self.coordinator_node(CoordinatorKind::Transaction, transactional_id).await?;
        self.broker(node, Lane::Transaction).await
    }

    pub(crate) async fn coordinator_node(&self, kind: CoordinatorKind, key: &str) -> Result<i32> {
        let known = self.state().coordinators.get(&(kind, key.to_owned())).copied();
        match known {
            Some(node) => Ok(node),
            None => self.find_coordinator(kind, key).await,
        }
    }

    pub(crate) fn forget_coordinator(&self, kind: CoordinatorKind, key: &str) {
        self.state().coordinators.remove(&(kind, key.to_owned()));
    }

    async fn find_coordinator(&self, kind: CoordinatorKind, key: &str) -> Result<i32> {
        let api = self.any().await?;
        let version = api.version::<FindCoordinatorRequest>()?;
        if version < 1 && kind != CoordinatorKind::Group {
            return Err(Error::Invalid("the broker is too old for transactions".to_owned()));
        }
        let mut request = FindCoordinatorRequest { key_type: kind as i8, ..Default::default() };
        match version {
            ..4 => key.clone_into(&mut request.key),
            _ => request.coordinator_keys = vec![key.to_owned()],
        }
        let response = self.request(&api, &request, version).await?;
        let (node, code, message) = coordinator_of(response, version)?;
        let what = if kind == CoordinatorKind::Group { "group" } else { "transactional id" };
        Error::check(code, format!("coordinator of {what} {key}"), message)?;
        let mut state = self.state();
        if state.coordinators.len() >= COORDINATORS_MAX {
            state.coordinators.clear();
        }
        state.coordinators.insert((kind, key.to_owned()), node);
        Ok(node)
    }
}

/// Node id, error code and message of the one coordinator that was asked for.
fn coordinator_of(response: FindCoordinatorResponse, version: i16) -> Result<(i32, i16, Option<String>)> {
    if version < 4 {
        return Ok((response.node_id, response.error_code, response.error_message));
    }
    match response.coordinators.into_iter().next() {
        Some(found) => Ok((found.node_id, found.error_code, found.error_message)),
        None => Err(Error::broker(ErrorCode::CoordinatorNotAvailable, "FindCoordinator", None)),
    }
}

/// A topic of a Metadata answer with its error.
struct FoundTopic {
    topic: Arc<TopicMetadata>,
    error: ErrorCode,
}

fn found_topic(topic: MetadataResponseTopic) -> FoundTopic {
    let partition = |p: taccola_wire::messages::metadata_response::MetadataResponsePartition| PartitionMetadata {
        index: p.partition_index,
        leader: (p.leader_id >= 0).then_some(p.leader_id),
        leader_epoch: p.leader_epoch,
        replicas: p.replica_nodes,
        isr: p.isr_nodes,
        offline: p.offline_replicas,
        error: ErrorCode::from_code(p.error_code),
    };
    let mut partitions: Vec<_> = topic.partitions.into_iter().map(partition).collect();
    partitions.sort_by_key(|p| p.index);
    let metadata = TopicMetadata {
        name: topic.name.unwrap_or_default().into(),
        id: topic.topic_id,
        internal: topic.is_internal,
        partitions,
        fetched: Instant::now(),
    };
    FoundTopic { topic: Arc::new(metadata), error: ErrorCode::from_code(topic.error_code) }
}

/// Pauses that double from `retry.backoff.ms` to `retry.backoff.max.ms`.
pub(crate) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    pub(crate) fn new(config: &ClientConfig) -> Self {
        Self { next: config.retry_backoff, max: config.retry_backoff_max }
    }

    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.next.min(self.max);
        self.next = pause.saturating_mul(2);
        pause
    }
}
