//! What runs around the pure engines: the journal's group commit, the metadata log, replicas, group
//! coordinators, housekeeping.

pub(crate) mod blocking;
pub mod cleaner;
pub mod coordinator;
pub mod housekeeping;
pub mod journal;
pub mod log_dirs;
pub mod metadata;
pub mod producer_ids;
pub(crate) mod relocate;
pub mod replicas;
pub mod scrubber;
pub mod storage;
pub mod workers;
