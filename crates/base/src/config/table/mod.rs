//! All keys. One file per area; the sum is the union of Kafka's four tables, of what its plug-ins read, and of ours.
//!
//! Invariant: a name is unique in its scope; every `synonyms` entry names a key of the broker (tests hold both).

mod client_metrics;
mod controller;
mod group;
mod groups;
mod log;
mod net;
mod ops;
mod others;
mod ours;
mod reasons;
mod remote;
mod replication;
mod security;
mod topic;
mod transactions;

use super::key::{ConfigKey, Scope};
use std::collections::HashMap;
use std::sync::LazyLock;

pub use others::{REMOVED, RemovedKey};

/// The areas in the order of the documentation, with their headings.
pub static AREAS: &[(&str, &[ConfigKey])] = &[
    ("Taccola's own", ours::KEYS),
    ("This node, the quorum and the metadata log", controller::KEYS),
    ("Listeners, connections and requests", net::KEYS),
    ("Logs and topics", log::KEYS),
    ("Groups and committed offsets", groups::KEYS),
    ("Transactions and share state", transactions::KEYS),
    ("Replication", replication::KEYS),
    ("Quotas, metrics, telemetry", ops::KEYS),
    ("Security", security::KEYS),
    ("Tiered storage", remote::KEYS),
    ("Read by plug-ins, or set only while the broker runs", others::KEYS),
    ("Topics", topic::KEYS),
    ("Groups", group::KEYS),
    ("Client metrics", client_metrics::KEYS),
];

static INDEX: LazyLock<HashMap<(Scope, &'static str), &'static ConfigKey>> =
    LazyLock::new(|| all().map(|k| ((k.scope, k.name), k)).collect());

/// Every key, area by area.
pub fn all() -> impl Iterator<Item = &'static ConfigKey> {
    AREAS.iter().flat_map(|(_, keys)| keys.iter())
}

/// Every key of a scope, in the order of the table.
pub fn keys(scope: Scope) -> impl Iterator<Item = &'static ConfigKey> {
    all().filter(move |k| k.scope == scope)
}

/// The entry of a key, by its exact name.
pub fn find(scope: Scope, name: &str) -> Option<&'static ConfigKey> {
    INDEX.get(&(scope, name)).copied()
}
