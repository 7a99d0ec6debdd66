//! A whole broker, from its settings to its stop.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use taccola_base::config::{Listener, NetConfig, ServerConfig, Settings};
use taccola_net::admission::{Admissions, ConnectionLimits, ListenerConnectionLimits};
use taccola_net::memory::MemoryBudget;
use taccola_net::server::{Server, ServerLimits, bind};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::broker::Broker;
use crate::dispatch::Dispatcher;
use crate::runtime::workers::Attendant;
use crate::runtime::{cleaner, housekeeping, log_dirs, relocate, scrubber, storage};
use crate::startup::file_handles::FileHandles;
use crate::startup::{self, RecoverySummary, StartError};
use crate::tier;

/// Requests that are under way when the stop begins have this long.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Request memory when `queued.max.request.bytes` says nothing.
const REQUEST_BYTES_DEFAULT: usize = 512 * 1024 * 1024;
/// "Never" for a limit that is always there.
const FOREVER: Duration = Duration::from_secs(365 * 86_400);

/// How often dynamic settings are looked at for other limits of connections.
const LIMITS_EVERY: Duration = Duration::from_secs(1);

/// A broker that serves.
pub struct RunningBroker {
    pub broker: Arc<Broker>,
    /// Name and bound address of each listener.
    pub listeners: Vec<(String, SocketAddr)>,
    pub recovery: RecoverySummary,
    servers: JoinSet<()>,
    background: JoinSet<()>,
}

/// Starts a broker. When this returns it serves.
pub async fn start(config: ServerConfig, settings: Settings) -> Result<RunningBroker, StartError> {
    // Ports first: a busy one should cost nothing.
    let mut bound = Vec::new();
    for listener in &config.net.listeners {
        bound.push((listener.clone(), listen(listener, config.net.socket_listen_backlog)?));
    }
    let handles = FileHandles::claim();
    let (broker, recovery) = startup::open(config, settings, &bound, handles.for_segments()).await?;
    let server_limits = server_limits(&broker.config);
    let memory = broker.config.net.queued_max_request_bytes.and_then(|bytes| usize::try_from(bytes).ok());
    let memory = MemoryBudget::new(memory.unwrap_or(REQUEST_BYTES_DEFAULT));
    let admissions = Arc::new(Admissions::new(connection_limits(&broker.dynamic_config().net, handles)));
    let attendant =
        Attendant::start().map_err(|source| StartError::Config(format!("cannot start a thread: {source}")))?;
    let service = Arc::new(Dispatcher::new(broker.clone(), attendant));
    let mut servers = JoinSet::new();
    let mut listeners = Vec::new();
    for (listener, socket) in bound {
        let address = socket.local_addr().map_err(|source| listen_error(&listener, source))?;
        listeners.push((listener.name.clone(), address));
        let server = Server {
            listener: socket,
            listener_name: listener.name.as_str().into(),
            service: service.clone(),
            limits: server_limits.clone(),
            memory: memory.clone(),
            replies: broker.replies.clone(),
            admissions: admissions.clone(),
            stop: broker.stop.subscribe(),
        };
        servers.spawn(server.run());
    }
    let mut background = JoinSet::new();
    background.spawn(housekeeping::run(broker.clone()));
    background.spawn(follow_limits(broker.clone(), admissions, handles));
    background.spawn(storage::watch(broker.clone()));
    background.spawn(log_dirs::run(broker.clone()));
    if broker.recovery_mode.is_none() {
        background.spawn(relocate::run(broker.clone()));
    }
    background.spawn(scrubber::run(broker.clone()));
    if broker.recovery_mode.is_none() {
        background.spawn(cleaner::run(broker.clone()));
    }
    background.spawn(tier::run(broker.clone()));
    Ok(RunningBroker { broker, listeners, recovery, servers, background })
}

impl RunningBroker {
    /// A clean stop: listeners close, what is under way is answered, logs are flushed and closed, the journal is empty.
    pub async fn stop(mut self) -> Result<(), StartError> {
        let _ = self.broker.stop.send(true);
        while self.servers.join_next().await.is_some() {}
        while self.background.join_next().await.is_some() {}
        startup::close(&self.broker).await
    }
}

/// Hands limits of connections that were changed while the broker runs to its listeners.
async fn follow_limits(broker: Arc<Broker>, admissions: Arc<Admissions>, handles: FileHandles) {
    let mut stopping = std::pin::pin!(broker.stopping());
    let mut known = broker.dynamic_config().clone();
    loop {
        tokio::select! {
            () = &mut stopping => return,
            () = tokio::time::sleep(LIMITS_EVERY) => {}
        }
        let current = broker.dynamic_config().clone();
        if Arc::ptr_eq(&known, &current) {
            continue;
        }
        known = current.clone();
        // Names of hosts are looked up, which may take its time.
        if let Ok(limits) = tokio::task::spawn_blocking(move || connection_limits(&current.net, handles)).await {
            admissions.set_limits(limits);
        }
    }
}

fn count(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn connection_limits(net: &NetConfig, handles: FileHandles) -> ConnectionLimits {
    let of_listener = net.listener_limits.iter().map(|(name, own)| {
        let connections_max = own.max_connections.map(count);
        (name.clone(), ListenerConnectionLimits { connections_max, creation_rate: own.max_connection_creation_rate })
    });
    ConnectionLimits {
        connections_max: count(net.max_connections).min(handles.for_connections()),
        per_ip_max: count(net.max_connections_per_ip),
        per_ip_overrides: resolve_overrides(net),
        creation_rate: net.max_connection_creation_rate,
        of_listener: of_listener.collect(),
    }
}

/// `max.connections.per.ip.overrides` by address. A name that nobody knows is told, and limits nobody.
fn resolve_overrides(net: &NetConfig) -> HashMap<IpAddr, usize> {
    let mut limits = HashMap::new();
    for (host, limit) in &net.max_connections_per_ip_overrides {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match (bare, 0).to_socket_addrs() {
            Ok(addresses) => limits.extend(addresses.map(|address| (address.ip().to_canonical(), count(*limit)))),
            Err(error) => {
                tracing::warn!(host, %error, "max.connections.per.ip.overrides names a host that is not known");
            }
        }
    }
    limits
}

fn server_limits(config: &ServerConfig) -> ServerLimits {
    let net = &config.net;
    ServerLimits {
        frame_bytes_max: net.socket_request_max_bytes,
        idle_max: net.connections_max_idle.unwrap_or(FOREVER),
        send_buffer_bytes: net.socket_send_buffer_bytes,
        receive_buffer_bytes: net.socket_receive_buffer_bytes,
        drain_max: DRAIN_MAX,
    }
}

fn listen(listener: &Listener, backlog: u32) -> Result<TcpListener, StartError> {
    let host = listener.host.as_deref().unwrap_or("0.0.0.0");
    let address = (host, listener.port).to_socket_addrs().and_then(|mut addresses| {
        addresses.next().ok_or_else(|| std::io::Error::new(std::io::ErrorKind::NotFound, "the host has no address"))
    });
    address
        .and_then(|address| bind(address, i32::try_from(backlog).unwrap_or(i32::MAX)))
        .map_err(|source| listen_error(listener, source))
}

fn listen_error(listener: &Listener, source: std::io::Error) -> StartError {
    let host = listener.host.as_deref().unwrap_or("0.0.0.0");
    StartError::Listen { address: format!("{}://{host}:{}", listener.name, listener.port), source }
}
