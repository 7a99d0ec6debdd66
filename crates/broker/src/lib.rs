//! The broker: dispatch table, one file per API key, partitions, coordinator and controller runtimes.
