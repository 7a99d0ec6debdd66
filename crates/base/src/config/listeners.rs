//! Listener addresses: `NAME://host:port`, as `listeners`, `advertised.listeners` and the quorum's keys write them.
//! Answers to Kafka's `Endpoint` and `SocketServerConfigs.listenerListToEndPoints`.

use super::value::{split_list, trim};
use std::collections::BTreeMap;
use std::fmt;

/// One address that is listened on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Upper case.
    pub name: String,
    /// `None`: every interface (an empty host or `0.0.0.0` or `::`).
    pub host: Option<String>,
    /// 0: any free port.
    pub port: u16,
    pub protocol: SecurityProtocol,
}

/// One address that clients are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdvertisedListener {
    pub name: String,
    /// `None`: the address on which the client arrived.
    pub host: Option<String>,
    /// 0: the port that is listened on.
    pub port: u16,
    pub protocol: SecurityProtocol,
}

/// Kafka's SecurityProtocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityProtocol {
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

impl SecurityProtocol {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Ssl => "SSL",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }

    /// By its name in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Plaintext, Self::Ssl, Self::SaslPlaintext, Self::SaslSsl]
            .into_iter()
            .find(|p| p.name().eq_ignore_ascii_case(trim(name)))
    }

    /// The number of UpdateMetadata's and RegisterBroker's `securityProtocol`.
    pub const fn id(self) -> i16 {
        match self {
            Self::Plaintext => 0,
            Self::Ssl => 1,
            Self::SaslPlaintext => 2,
            Self::SaslSsl => 3,
        }
    }
}

impl fmt::Display for SecurityProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A listener as written: its protocol is not looked up yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawListener {
    pub(super) name: String,
    /// Without brackets; empty if none was written.
    pub(super) host: String,
    pub(super) port: u16,
}

impl RawListener {
    /// Written as every interface.
    pub(super) fn is_wildcard(&self) -> bool {
        is_wildcard(&self.host)
    }
}

pub(super) fn is_wildcard(host: &str) -> bool {
    matches!(host, "" | "0.0.0.0" | "::" | "0:0:0:0:0:0:0:0")
}

/// One `NAME://host:port`; names in upper case.
pub(super) fn parse_listener(text: &str) -> Option<RawListener> {
    let (name, address) = trim(text).split_once("://")?;
    let (host, port) = split_host_port(address)?;
    let named = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    named.then(|| RawListener { name: name.to_ascii_uppercase(), host: host.to_owned(), port })
}

/// `host:port` or `[v6]:port`; the host may be empty.
pub(super) fn split_host_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let inside = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host = inside.unwrap_or(host);
    let plain = host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '%' | '.' | '_' | ':'));
    if !plain || !port.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((host, port.parse().ok()?))
}

/// `listener.security.protocol.map`: `NAME:PROTOCOL,…`, names in upper case. The error is the item that is wrong.
pub(super) fn parse_protocol_map(text: &str) -> Result<BTreeMap<String, SecurityProtocol>, String> {
    let mut map = BTreeMap::new();
    for item in split_list(text) {
        let parsed = item.split_once(':').and_then(|(name, protocol)| {
            let name = trim(name).to_ascii_uppercase();
            Some((name, SecurityProtocol::from_name(protocol)?)).filter(|(n, _)| !n.is_empty())
        });
        let Some((name, protocol)) = parsed else { return Err(item) };
        if map.insert(name, protocol).is_some() {
            return Err(item);
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_parse() {
        let ok = |text: &str, name: &str, host: &str, port| {
            let expected = RawListener { name: name.to_owned(), host: host.to_owned(), port };
            assert_eq!(parse_listener(text), Some(expected), "{text}");
        };
        ok("PLAINTEXT://:9092", "PLAINTEXT", "", 9092);
        ok(" internal://kafka-0.svc:29092 ", "INTERNAL", "kafka-0.svc", 29092);
        ok("SSL://[::1]:0", "SSL", "::1", 0);
        ok("A://fe80::1%eth0:1", "A", "fe80::1%eth0", 1);
        for wrong in [
            "",
            "PLAINTEXT",
            "PLAINTEXT://",
            "://:1",
            "A://h",
            "A://h:",
            "A://h:65536",
            "A://h:-1",
            "A://h h:1",
            "A:h:1",
        ] {
            assert_eq!(parse_listener(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn protocol_maps_parse() {
        let map = parse_protocol_map("controller:PLAINTEXT, EXTERNAL:sasl_ssl").unwrap();
        assert_eq!(map.get("CONTROLLER"), Some(&SecurityProtocol::Plaintext));
        assert_eq!(map.get("EXTERNAL"), Some(&SecurityProtocol::SaslSsl));
        assert!(parse_protocol_map("").unwrap().is_empty());
        assert_eq!(parse_protocol_map("A:PLAINTEXT,B"), Err("B".to_owned()));
        assert_eq!(parse_protocol_map("A:TLS"), Err("A:TLS".to_owned()));
        assert_eq!(parse_protocol_map("A:SSL,a:SSL"), Err("a:SSL".to_owned()));
    }
}
