//! The API keys: which requests exist, their versions, and which header each version has.
//!
//! The table is generated from the specs; the rules for headers are those of `org.apache.kafka.common.protocol.ApiKeys`:
//! a flexible request has header version 2, a flexible response has header version 1, except that an ApiVersions response
//! always has version 0, so that a client can read it before it knows what the broker speaks (KIP-511).

pub use crate::messages::api_keys::ApiKey;
use crate::messages::api_keys::TABLE;

/// What Kafka 4.3.1 says about one API key. Versions are inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiInfo {
    pub key: ApiKey,
    /// The request's name without `Request`, as in Kafka's metrics and logs.
    pub name: &'static str,
    /// Lowest version that has an encoding.
    pub min: i16,
    /// Highest version that is not marked unstable.
    pub max: i16,
    /// Highest version that has an encoding; above `max` when the latest one is unstable.
    pub unstable_max: i16,
    /// First flexible version, `i16::MAX` when there is none.
    pub flexible_from: i16,
    /// Which listeners serve it.
    pub broker: bool,
    pub controller: bool,
}

impl ApiInfo {
    pub const fn supports(&self, version: i16) -> bool {
        self.min <= version && version <= self.unstable_max
    }

    /// Lowest version that ApiVersions names. Produce 0 to 2 are named although they are refused: librdkafka before 2.11
    /// turns compression off without them (KAFKA-18659).
    pub const fn advertised_min(&self) -> i16 {
        if matches!(self.key, ApiKey::Produce) { 0 } else { self.min }
    }

    pub const fn request_header_version(&self, version: i16) -> i16 {
        if version >= self.flexible_from { 2 } else { 1 }
    }

    pub const fn response_header_version(&self, version: i16) -> i16 {
        if version >= self.flexible_from && !matches!(self.key, ApiKey::ApiVersions) { 1 } else { 0 }
    }
}

impl ApiKey {
    /// Every key, ascending.
    pub const ALL: &'static [ApiInfo] = TABLE;

    pub const fn code(self) -> i16 {
        self as i16
    }

    pub fn from_code(code: i16) -> Option<Self> {
        let index = TABLE.binary_search_by_key(&code, |info| info.key.code()).ok()?;
        TABLE.get(index).map(|info| info.key)
    }
}

/// A code that is no key of Kafka 4.3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not an API key")]
pub struct UnknownApiKey(pub i16);

impl TryFrom<i16> for ApiKey {
    type Error = UnknownApiKey;

    fn try_from(code: i16) -> Result<Self, UnknownApiKey> {
        Self::from_code(code).ok_or(UnknownApiKey(code))
    }
}

impl std::fmt::Display for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.info().name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_complete() {
        assert!(ApiKey::ALL.is_sorted_by_key(|info| info.key.code()));
        for info in ApiKey::ALL {
            assert_eq!(ApiKey::try_from(info.key.code()), Ok(info.key));
            assert_eq!(info.key.info(), *info);
            assert!(info.min <= info.max && info.max <= info.unstable_max);
            assert!(info.broker || info.controller, "{} is served nowhere", info.name);
        }
        for gone in [4, 5, 6, 7, -1, 93, i16::MAX] {
            assert_eq!(ApiKey::try_from(gone), Err(UnknownApiKey(gone)));
        }
    }

    #[test]
    fn headers_follow_the_version() {
        let versions = |key: ApiKey, v| (key.info().request_header_version(v), key.info().response_header_version(v));
        assert_eq!(versions(ApiKey::Metadata, 8), (1, 0));
        assert_eq!(versions(ApiKey::Metadata, 9), (2, 1));
        assert_eq!(versions(ApiKey::ApiVersions, 2), (1, 0));
        assert_eq!(versions(ApiKey::ApiVersions, 3), (2, 0));
        assert_eq!(versions(ApiKey::SaslHandshake, 1), (1, 0));
        assert_eq!(versions(ApiKey::OffsetDelete, 0), (1, 0));
    }

    #[test]
    fn what_is_special() {
        assert_eq!((ApiKey::Produce.info().min, ApiKey::Produce.info().advertised_min()), (3, 0));
        let init = ApiKey::InitProducerId.info();
        assert_eq!((init.max, init.unstable_max), (5, 6));
        assert!(init.supports(6) && !init.supports(7));
        assert_eq!(ApiKey::Fetch.to_string(), "Fetch");
    }
}
