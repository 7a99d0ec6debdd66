//! Cluster metadata: KRaft records, the image that they build, and the controller that writes them.
//!
//! Everything here is pure: bytes, ids and times come in, records, images and bytes go out. Who calls it owns the files,
//! the clock and the lock: one writer at a time asks the [`controller::Controller`] for records against the latest image,
//! appends them with [`batch::encode_batches`], and applies them with the [`loader::MetadataLoader`], which yields the next
//! image and what changed in it.
//!
//! Answers to Kafka's `metadata` module (`QuorumController`, `MetadataImage`, `MetadataLoader`) and to the file formats of
//! `raft` (snapshots, `quorum-state`), at metadata.version 4.3-IV0.

pub mod batch;
pub mod bootstrap;
pub mod chunk_map;
pub mod controller;
pub mod delta;
pub mod error;
pub mod feature;
pub mod image;
pub mod loader;
pub mod meta_properties;
pub mod quorum;
pub mod quorum_state;
pub mod record;
pub mod snapshot;
pub mod views;
pub mod voters;

pub use controller::{Controller, ControllerSettings, Outcome};
pub use delta::{MetadataChanges, MetadataDelta};
pub use error::MetaError;
pub use image::{MetadataImage, Provenance};
pub use loader::{MetadataLoader, Published};
pub use record::{MetadataRecord, VersionedRecord};
