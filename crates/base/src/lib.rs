//! What every other crate shares and what depends on nothing: newtypes, limits, the config table, invariant macros.

pub mod config;
pub mod invariant;
pub mod limits;
pub mod planted;
pub mod topic;
pub mod uuid;

pub use topic::{TopicPartition, TopicPartitionRef};
pub use uuid::Uuid;
