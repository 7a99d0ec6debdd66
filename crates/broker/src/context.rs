//! What a handler knows about the request besides its body.

use std::sync::Arc;

use taccola_net::server::ConnectionInfo;
use taccola_wire::api::ApiKey;

/// One request's circumstances. Lives as long as the request; cheap to move.
#[derive(Clone, Debug)]
pub struct RequestContext {
    pub connection: Arc<ConnectionInfo>,
    pub api_key: ApiKey,
    pub api_version: i16,
    pub correlation_id: i32,
    /// As the client sent it: show it escaped only.
    pub client_id: Option<String>,
}

impl RequestContext {
    /// The client id, empty when there is none.
    pub fn client_id(&self) -> &str {
        self.client_id.as_deref().unwrap_or_default()
    }

    /// The client's host in the form that group members carry: `/` and the address.
    pub fn client_host(&self) -> String {
        format!("/{}", self.connection.peer.ip())
    }
}
