//! The one table of config keys and everything derived from it: parsing, the typed views, DescribeConfigs, the checks
//! of AlterConfigs and CreateTopics, and `docs/config.md`.

mod listeners;
pub mod key;
mod server;
pub mod table;
mod topic_config;

pub use listeners::*;
pub use server::*;
pub use topic_config::*;
