//! Object stores behind one small interface: a directory (`file:///dir`), S3 and what speaks its protocol
//! (`s3://bucket/prefix`), Google Cloud Storage (`gs://`), Azure (`az://`), and the memory of the process (`memory:`).
//!
//! What holds for all of them: an object appears whole or not at all ([`Store::put`], [`Upload`]), every request has a
//! timeout and a bounded number of retries, nothing is read that was not asked for, and an error says what its caller can
//! do about it ([`RemoteError`]). Beside `net` this is the only crate whose dependencies open sockets; unlike there, they
//! only ever go out, to the one store that the operator named.
//!
//! Used by tiered storage (KIP-405) and by backups. What objects mean is their users' business.

mod error;
mod fault;
mod options;
mod store;
mod upload;

pub use error::RemoteError;
pub use fault::{Fault, FaultPlan, Faults, Operation};
pub use options::Options;
pub use store::{Object, Page, Store};
pub use upload::Upload;

/// `bytes::Bytes`, in which objects come and go.
pub use bytes::Bytes;

/// Bytes that are uploaded with one request; a larger object goes in parts of this size. S3 wants at least 5 MiB per part and at
/// most 10,000 parts, so that an object may have 80 GiB.
pub const PART_BYTES: usize = 8 * 1024 * 1024;

/// Most objects that one [`Page`] holds.
pub const PAGE_MAX: usize = 1_000;
