//! Cluster metadata: KRaft records, the image that they build, and the controller that writes them.
