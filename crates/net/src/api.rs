//! The `Api`: one broker's request/reply surface. Everything above the broker reaches data through this trait alone, so
//! that it obeys the same rules whether it sits in the broker's own process or on the far side of a TCP connection
//! ([`crate::client`]).
//!
//! Submitting has two stages. The first future resolves when the request's place in the connection's order is fixed; the
//! [`PendingReply`] that it yields resolves with the reply. Whoever needs an order (a producer) awaits the first stage
//! before it submits the next request.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use taccola_wire::api::ApiKey;
use taccola_wire::codec::{DecodeError, EncodeError, Message, Reader, Request};

/// A boxed future, so that the traits here can be used as objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The second stage of a request: the reply's body, without its header.
pub type PendingReply = BoxFuture<'static, Result<Bytes, ApiError>>;

/// Why a request got no reply that could be read.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("cannot connect to {address}: {source}")]
    Connect { address: String, source: io::Error },
    #[error("{address} did not accept the connection within {millis} ms")]
    ConnectTimeout { address: String, millis: u128 },
    #[error("{address} closed the connection")]
    Closed { address: String },
    #[error("{address} does not speak the Kafka protocol: {reason}")]
    Protocol { address: String, reason: String },
    /// `served` is a verb phrase: what the broker does instead.
    #[error("{address} {served}")]
    Unsupported { address: String, api: &'static str, served: String },
    #[error("the reply cannot be read: {0}")]
    Decode(#[from] DecodeError),
    #[error("the request cannot be written: {0}")]
    Encode(#[from] EncodeError),
}

impl ApiError {
    /// Whether another attempt, perhaps over a new connection, may succeed.
    pub fn retriable(&self) -> bool {
        matches!(self, ApiError::Connect { .. } | ApiError::ConnectTimeout { .. } | ApiError::Closed { .. })
    }
}

/// Versions of one API, both ends inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionRange {
    pub min: i16,
    pub max: i16,
}

/// One broker's request surface.
pub trait Api: Send + Sync {
    /// What the broker serves of an API; `None` when it does not know it.
    fn served(&self, key: ApiKey) -> Option<VersionRange>;

    /// Submits an encoded request body. `answered` is false for the one request that gets no reply (Produce with
    /// acks=0); its [`PendingReply`] resolves with an empty body once the request is handed over.
    fn submit(
        &self,
        key: ApiKey,
        version: i16,
        body: Bytes,
        answered: bool,
    ) -> BoxFuture<'_, Result<PendingReply, ApiError>>;

    /// Whether no further request can succeed here.
    fn is_closed(&self) -> bool;

    /// Where the broker is, for messages.
    fn address(&self) -> &str;
}

/// Typed calls over any [`Api`].
pub trait ApiExt: Api {
    /// The newest version that both ends speak, or [`ApiError::Unsupported`].
    fn version<R: Request>(&self) -> Result<i16, ApiError> {
        self.version_up_to::<R>(i16::MAX)
    }

    /// As [`ApiExt::version`], but never above `cap`.
    fn version_up_to<R: Request>(&self, cap: i16) -> Result<i16, ApiError> {
        let served = self.served(R::KEY);
        let own_max = R::MAX_VERSION.min(cap);
        match served {
            Some(range) if range.min <= own_max && range.max >= R::MIN_VERSION => Ok(range.max.min(own_max)),
            _ => {
                let (address, api, own_min) = (self.address().to_owned(), R::KEY.info().name, R::MIN_VERSION);
                let served = match served {
                    Some(range) => format!(
                        "serves {api} versions {} to {}, this client speaks {own_min} to {own_max}",
                        range.min, range.max
                    ),
                    None => format!("does not serve {api}"),
                };
                Err(ApiError::Unsupported { address, api, served })
            }
        }
    }

    /// First stage of a typed request; see the module's header.
    fn start<R: Request>(
        &self,
        request: &R,
        version: i16,
        answered: bool,
    ) -> impl Future<Output = Result<PendingReply, ApiError>> + Send {
        let encoded = request.to_bytes(version);
        async move { self.submit(R::KEY, version, encoded?, answered).await }
    }

    /// Sends a request and waits for its reply. There is no time limit here: wrap the call.
    fn call<R: Request>(
        &self,
        request: &R,
        version: i16,
    ) -> impl Future<Output = Result<R::Response, ApiError>> + Send {
        let encoded = request.to_bytes(version);
        async move {
            let reply = self.submit(R::KEY, version, encoded?, true).await?;
            decode(reply.await?, version)
        }
    }
}

impl<T: Api + ?Sized> ApiExt for T {}

/// Reads a reply's body.
pub fn decode<M: Message>(body: Bytes, version: i16) -> Result<M, ApiError> {
    Ok(M::read(&mut Reader::new(body), version)?)
}

/// Opens [`Api`]s by address: over TCP, or the same in-process broker for every address.
pub trait Connector: Send + Sync {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, Result<Arc<dyn Api>, ApiError>>;
}
