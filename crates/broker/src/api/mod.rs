//! One file per API key, named by the key's number. A handler authorizes, normalizes by version, calls the engine that
//! owns the matter, and builds the response; it holds no state and no lock and touches no file.

pub mod k000_produce;
pub mod k001_fetch;
pub mod k002_list_offsets;
pub mod k003_metadata;
pub mod k018_api_versions;
pub mod k019_create_topics;
