//! One partition's log in Kafka's on-disk format, and the journal that makes appends durable.
