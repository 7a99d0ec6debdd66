//! Settings that every part of a client shares. Names and defaults follow Kafka's client configs.

use std::time::Duration;

use crate::error::{Error, Result};

/// Port that is meant when an address names none.
const DEFAULT_PORT: u16 = 9092;

#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `bootstrap.servers`: addresses that are tried in order until one answers.
    pub bootstrap: Vec<(String, u16)>,
    /// `client.id`.
    pub client_id: String,
    /// `request.timeout.ms`: one attempt at one request.
    pub request_timeout: Duration,
    /// `default.api.timeout.ms`: one operation with all its attempts.
    pub operation_timeout: Duration,
    /// How long a first connection is tried for, so that a broker that is just starting is met.
    pub bootstrap_patience: Duration,
    /// `retry.backoff.ms` and `retry.backoff.max.ms`: pauses double from the first to the second.
    pub retry_backoff: Duration,
    pub retry_backoff_max: Duration,
    /// `metadata.max.age.ms`: what is known about a topic is asked for anew when it is older.
    pub metadata_max_age: Duration,
}

impl ClientConfig {
    /// `bootstrap` is `host[:port]`, several separated by commas; IPv6 addresses stand in brackets.
    pub fn new(bootstrap: &str) -> Result<Self> {
        let addresses = bootstrap.split(',').map(str::trim).filter(|a| !a.is_empty());
        let bootstrap = addresses.map(parse_address).collect::<Result<Vec<_>>>()?;
        if bootstrap.is_empty() {
            return Err(Error::Invalid("no bootstrap address is given; expected HOST:PORT".to_owned()));
        }
        Ok(Self {
            bootstrap,
            client_id: "taccola".to_owned(),
            request_timeout: Duration::from_secs(30),
            operation_timeout: Duration::from_secs(60),
            bootstrap_patience: Duration::from_secs(2),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            metadata_max_age: Duration::from_secs(300),
        })
    }

    pub(crate) fn bootstrap_text(&self) -> String {
        self.bootstrap.iter().map(|(host, port)| format!("{host}:{port}")).collect::<Vec<_>>().join(",")
    }
}

/// `host[:port]`, with an optional `protocol://` in front as Java clients accept it.
fn parse_address(text: &str) -> Result<(String, u16)> {
    let bad = |why: &str| Error::Invalid(format!("{text:?} is no broker address: {why}; expected HOST:PORT"));
    let address = text.split_once("://").map_or(text, |(_, rest)| rest);
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(|| bad("a bracket is not closed"))?;
            (host, rest.strip_prefix(':'))
        }
        None => match address.rsplit_once(':') {
            Some((host, _)) if host.contains(':') => return Err(bad("an IPv6 address needs brackets")),
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    if host.is_empty() {
        return Err(bad("the host is missing"));
    }
    let port = match port {
        Some(port) => {
            port.parse().ok().filter(|p| *p != 0).ok_or_else(|| bad("the port is not between 1 and 65535"))?
        }
        None => DEFAULT_PORT,
    };
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let config = ClientConfig::new("a:1, b ,[::1]:3,PLAINTEXT://c:4").unwrap();
        let expected = [("a", 1), ("b", 9092), ("::1", 3), ("c", 4)].map(|(h, p)| (h.to_owned(), p));
        assert_eq!(config.bootstrap, expected);
        for bad in ["", ",", ":1", "a:", "a:0", "a:x", "a:65536", "::1", "[::1"] {
            assert!(ClientConfig::new(bad).is_err(), "{bad}");
        }
    }
}
