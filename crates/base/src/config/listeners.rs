//! Listener addresses: `NAME://host:port`, as `listeners`, `advertised.listeners` and the quorum's keys write them.
//! Answers to Kafka's `Endpoint` and `SocketServerConfigs.listenerListToEndPoints`.

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
