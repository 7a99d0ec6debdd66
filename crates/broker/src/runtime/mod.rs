//! What runs around the pure engines: the journal's group commit, the metadata log, replicas, housekeeping.

pub mod housekeeping;
pub mod journal;
pub mod metadata;
pub mod replicas;
