//! A Kafka client over the wire protocol: producer, consumer and admin; works against any Kafka.
