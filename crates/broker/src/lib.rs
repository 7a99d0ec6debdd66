//! The broker: dispatch table, one file per API key, partitions, coordinator and controller runtimes.

pub mod api;
pub mod auto_create;
pub mod broker;
pub mod clock;
pub mod config_rules;
pub mod context;
pub mod dispatch;
pub mod error_map;
pub mod fetch;
pub mod groups;
pub mod metrics;
pub mod offline;
pub mod operations;
pub mod partition;
pub mod partitions;
pub mod random;
pub mod runtime;
pub mod serve;
pub mod share_fetch;
pub mod share_groups;
pub mod share_state;
#[cfg(test)]
mod simulation;
pub mod startup;
mod tier;
pub mod topic_config;
pub mod transactions;
