//! Why keys are refused, each said once.

pub(super) const TLS: &str = "TLS listeners are not implemented yet";
pub(super) const SASL: &str = "SASL listeners are not implemented yet";
pub(super) const ACLS: &str = "ACLs are not implemented yet, so no authorizer would protect anything";
pub(super) const PLUGIN: &str = "there is no JVM here to load Java classes into";
pub(super) const REMOTE: &str = "there are no plug-in classes: taccola.remote.storage.url says where segments go, and __remote_log_metadata keeps track of them";
pub(super) const UNSTABLE: &str = "no unstable API or feature version is implemented";
pub(super) const CORDON: &str = "log directories cannot be cordoned yet";
pub(super) const TWOPC: &str = "two-phase commit is not implemented yet";
pub(super) const QUORUM: &str = "a node cannot join another node's quorum yet";
pub(super) const PROVIDERS: &str =
    "values cannot be fetched by Java config providers; put them in the environment or in the file";
