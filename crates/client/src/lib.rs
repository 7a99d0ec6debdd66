//! A Kafka client over the wire protocol: [`Producer`], [`Consumer`], [`GroupConsumer`] and [`Admin`]. It reaches brokers
//! through `taccola_net::api::Api` alone, so it works against any Kafka over TCP and against a broker in its own process.

pub mod admin;
pub mod cluster;
pub mod config;
pub mod consumer;
pub mod error;
pub mod features;
pub mod partitioner;
pub mod producer;
pub mod raw;
pub mod share;

pub use admin::Admin;
pub use cluster::Client;
pub use config::ClientConfig;
pub use consumer::assignor::Assignor;
pub use consumer::group::{GroupConfig, GroupConsumer, GroupMetadata, GroupProtocol};
pub use consumer::{Consumer, ConsumerConfig, ConsumerRecord, IsolationLevel, StartOffset};
pub use error::{Error, Result};
pub use producer::transaction::{TransactionConfig, TransactionalProducer};
pub use producer::{Acks, Delivery, Producer, ProducerConfig, ProducerRecord, RecordMetadata};
pub use raw::{BatchWriter, DataBatches, ProducerId, RawBatches};
pub use share::{AckMode, AckType, ShareConfig, ShareConsumer, ShareRecord};
