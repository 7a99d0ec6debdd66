//! From settings to [`NetConfig`]: which addresses to listen on and to tell, with the checks that Kafka makes of them.

use super::listeners::{
    AdvertisedListener, Listener, RawListener, SecurityProtocol, is_wildcard, parse_listener, parse_protocol_map,
};
use super::server::{ListenerLimits, NetConfig};
use super::view::View;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn load_net(v: &mut View<'_>) -> NetConfig {
    let controller_names: Vec<String> =
        v.list("controller.listener.names").iter().map(|n| n.to_ascii_uppercase()).collect();
    let protocols = read_protocols(v, &controller_names);
    let all = read_listeners(v, &protocols);
    check_ports(v, &all);
    let (controller_listeners, listeners): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|l| controller_names.contains(&l.name));
    if listeners.is_empty() && v.errors.is_empty() {
        v.wrong("listeners", "must hold one that is not in controller.listener.names");
    }
    if controller_listeners.is_empty() && v.is_set("controller.listener.names") && v.is_set("process.roles") {
        v.wrong("controller.listener.names", "must name one of listeners, as process.roles holds controller");
    }
    let advertised = read_advertised(v, &listeners, &controller_names, &protocols);
    NetConfig {
        listener_limits: read_limits(v, &listeners),
        inter_broker_listener: read_inter_broker(v, &advertised, &controller_names),
        listeners,
        advertised,
        controller_listeners,
        controller_listener_names: controller_names,
        connections_max_idle: v.ms_or_never("connections.max.idle.ms"),
        max_connections: v.u32("max.connections"),
        max_connections_per_ip: v.u32("max.connections.per.ip"),
        max_connections_per_ip_overrides: read_overrides(v),
        max_connection_creation_rate: v.u32("max.connection.creation.rate"),
        socket_request_max_bytes: v.usize("socket.request.max.bytes"),
        socket_receive_buffer_bytes: v.size_or_none("socket.receive.buffer.bytes"),
        socket_send_buffer_bytes: v.size_or_none("socket.send.buffer.bytes"),
        socket_listen_backlog: v.u32("socket.listen.backlog.size"),
        queued_max_requests: v.usize("queued.max.requests"),
        queued_max_request_bytes: Some(v.u64("queued.max.request.bytes")).filter(|b| *b > 0),
        num_network_threads: v.usize("num.network.threads"),
        num_io_threads: v.usize("num.io.threads"),
        background_threads: v.usize("background.threads"),
        request_timeout: v.ms("request.timeout.ms"),
        failed_authentication_delay: v.ms("connection.failed.authentication.delay.ms"),
    }
}

/// The map; unless it is set, controller listeners are PLAINTEXT too.
fn read_protocols(v: &mut View<'_>, controller_names: &[String]) -> BTreeMap<String, SecurityProtocol> {
    let name = "listener.security.protocol.map";
    let mut protocols = match parse_protocol_map(&v.text(name)) {
        Ok(map) => map,
        Err(item) => {
            v.wrong(name, format!("must be a list of NAME:PROTOCOL with a protocol of Kafka's, which {item:?} is not"));
            BTreeMap::new()
        }
    };
    if !v.is_set(name) {
        for controller in controller_names {
            protocols.entry(controller.clone()).or_insert(SecurityProtocol::Plaintext);
        }
    }
    protocols
}

fn parse_all(v: &mut View<'_>, name: &str) -> Vec<RawListener> {
    let mut listeners: Vec<RawListener> = Vec::new();
    for item in v.list(name) {
        match parse_listener(&item) {
            Some(l) if listeners.iter().any(|x| x.name == l.name) => {
                v.wrong(name, format!("must not name the listener {} twice", l.name));
            }
            Some(l) => listeners.push(l),
            None => v.wrong(name, format!("must be a list of NAME://host:port, which {item:?} is not")),
        }
    }
    listeners
}

fn read_listeners(v: &mut View<'_>, protocols: &BTreeMap<String, SecurityProtocol>) -> Vec<Listener> {
    let mut listeners = Vec::new();
    for raw in parse_all(v, "listeners") {
        let Some(protocol) = protocols.get(&raw.name).copied() else {
            v.conflict(format!("listener.security.protocol.map must say which protocol listener {} speaks", raw.name));
            continue;
        };
        if protocol != SecurityProtocol::Plaintext {
            let reason = format!("listener {} speaks {protocol}, and only PLAINTEXT is implemented yet", raw.name);
            v.refuse("listeners", reason);
            continue;
        }
        let host = Some(raw.host.clone()).filter(|h| !is_wildcard(h));
        listeners.push(Listener { name: raw.name, host, port: raw.port, protocol });
    }
    if listeners.is_empty() && v.errors.is_empty() {
        v.wrong("listeners", "must hold at least one");
    }
    listeners
}

/// Two cannot have one port unless their hosts differ.
fn check_ports(v: &mut View<'_>, listeners: &[Listener]) {
    let mut clash = BTreeSet::new();
    for (i, a) in listeners.iter().enumerate() {
        for b in listeners.iter().skip(i + 1) {
            let same_host = a.host.is_none() || b.host.is_none() || a.host == b.host;
            if a.port != 0 && a.port == b.port && same_host {
                clash.insert(a.port);
            }
        }
    }
    for port in clash {
        v.wrong("listeners", format!("must not give port {port} to two listeners"));
    }
}

fn read_advertised(
    v: &mut View<'_>,
    listeners: &[Listener],
    controller_names: &[String],
    protocols: &BTreeMap<String, SecurityProtocol>,
) -> Vec<AdvertisedListener> {
    let name = "advertised.listeners";
    if v.list(name).is_empty() {
        return listeners
            .iter()
            .map(|l| AdvertisedListener {
                name: l.name.clone(),
                host: l.host.clone(),
                port: l.port,
                protocol: l.protocol,
            })
            .collect();
    }
    let mut advertised = Vec::new();
    for raw in parse_all(v, name) {
        if matches!(raw.host.as_str(), "0.0.0.0" | "::" | "0:0:0:0:0:0:0:0") {
            v.wrong(name, format!("must be an address that clients can reach, which {} is not", raw.host));
        } else if controller_names.contains(&raw.name) {
            // Kafka tells these to other controllers; there are none.
        } else if !listeners.iter().any(|l| l.name == raw.name) {
            v.wrong(name, format!("must only name listeners of this broker, which {} is not", raw.name));
        } else {
            let host = Some(raw.host.clone()).filter(|_| !raw.is_wildcard());
            let protocol = protocols.get(&raw.name).copied().unwrap_or(SecurityProtocol::Plaintext);
            advertised.push(AdvertisedListener { name: raw.name, host, port: raw.port, protocol });
        }
    }
    if advertised.is_empty() && v.errors.is_empty() {
        v.wrong(name, "must hold one that is not in controller.listener.names");
    }
    advertised
}

fn read_inter_broker(v: &mut View<'_>, advertised: &[AdvertisedListener], controller_names: &[String]) -> String {
    let name = "inter.broker.listener.name";
    if v.is_set(name) && v.is_set("security.inter.broker.protocol") {
        v.conflict("inter.broker.listener.name and security.inter.broker.protocol must not both be set");
    }
    if let Some(listener) = v.opt_text(name).map(|n| n.to_ascii_uppercase()) {
        if controller_names.contains(&listener) {
            v.wrong(name, "must not be one of controller.listener.names");
        } else if !advertised.iter().any(|l| l.name == listener) && v.errors.is_empty() {
            v.wrong(name, "must be one of advertised.listeners");
        }
        return listener;
    }
    let protocol = SecurityProtocol::from_name(&v.text("security.inter.broker.protocol"));
    let by_name = advertised.iter().find(|l| Some(l.name.as_str()) == protocol.map(SecurityProtocol::name));
    let found = by_name.or_else(|| advertised.iter().find(|l| Some(l.protocol) == protocol));
    if found.is_none() && v.errors.is_empty() {
        v.conflict("none of advertised.listeners speaks security.inter.broker.protocol");
    }
    found.map(|l| l.name.clone()).unwrap_or_default()
}

fn read_limits(v: &mut View<'_>, listeners: &[Listener]) -> BTreeMap<String, ListenerLimits> {
    let mut all = BTreeMap::new();
    for listener in listeners {
        let prefix = format!("listener.name.{}", listener.name.to_ascii_lowercase());
        let limits = ListenerLimits {
            max_connections: v.opt_u32_of(&format!("{prefix}.max.connections"), "max.connections"),
            max_connection_creation_rate: v
                .opt_u32_of(&format!("{prefix}.max.connection.creation.rate"), "max.connection.creation.rate"),
        };
        if limits != ListenerLimits::default() {
            all.insert(listener.name.clone(), limits);
        }
    }
    all
}

fn read_overrides(v: &mut View<'_>) -> BTreeMap<String, u32> {
    let name = "max.connections.per.ip.overrides";
    match parse_ip_overrides(&v.text(name)) {
        Some(overrides) => overrides,
        None => {
            v.wrong(name, "must be a list of host:limit");
            BTreeMap::new()
        }
    }
}

/// `host:limit,…`; limits are whole numbers from 0.
pub(super) fn parse_ip_overrides(text: &str) -> Option<BTreeMap<String, u32>> {
    super::value::split_list(text)
        .iter()
        .map(|item| {
            let (host, limit) = item.rsplit_once(':')?;
            let host = host.trim();
            let limit = limit.trim().parse::<i32>().ok().and_then(|n| u32::try_from(n).ok())?;
            (!host.is_empty()).then(|| (host.to_owned(), limit))
        })
        .collect()
}
