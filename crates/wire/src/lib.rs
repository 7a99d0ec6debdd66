//! Kafka's wire and record formats: generated messages, primitives with a decode budget, record batches, compression, error codes.

pub mod batch;
pub mod compress;
