//! Backups of a Kafka cluster's topics, groups, configs and ACLs in any object store: incremental, encrypted, consistent at
//! a stated cut; verified without restoring; restored under new names or into another cluster.
//!
//! Reaches clusters through `taccola_client` alone, so that it works against any Kafka, and stores through
//! `taccola_remote`. docs/backup.md says what is promised.

pub mod chain;
pub mod contents;
pub mod create;
pub mod crypto;
mod cut;
#[cfg(test)]
mod damage_tests;
mod error;
mod extent;
pub mod keys;
pub mod manifest;
mod object;
pub mod progress;
pub mod repository;
pub mod restore;
pub mod rewrite;
pub mod rotate;
pub mod selector;
mod source;
pub mod verify;

pub use chain::Chain;
pub use error::{Error, Result};
pub use keys::{Keyring, Unlock};
pub use progress::Progress;
pub use repository::Repository;
pub use selector::Selector;
