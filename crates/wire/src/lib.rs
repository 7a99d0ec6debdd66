//! Kafka's wire and record formats: generated messages, primitives with a decode budget, record batches, compression, error codes.

pub mod api;
pub mod batch;
pub mod codec;
pub mod compress;
pub mod error;
pub mod frame;
pub mod messages;
