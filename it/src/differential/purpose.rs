//! What is answered otherwise than by Kafka, and why. `docs/differences.md` shows the list.

/// Cases that differ on purpose: how their names begin, and why.
pub const ON_PURPOSE: &[(&str, &str)] = &[
    ("Metadata v12: no id and no name", "Kafka fails with UNKNOWN_SERVER_ERROR; here an id that nobody has is unknown"),
    ("Metadata v13: no id and no name", "as above"),
    ("DeleteTopics v6: no name and no id, twice", "Kafka has one row for both, here each has its own"),
    ("DescribeProducers v0: twice", "Kafka answers as often as it is asked, which has no bound"),
    ("AlterConfigs v2: resource twice", "Kafka closes the connection; here it is INVALID_REQUEST for the resource"),
    ("IncrementalAlterConfigs v1: unknown operation", "Kafka: UNKNOWN_SERVER_ERROR; here INVALID_REQUEST"),
    ("IncrementalAlterConfigs v1: negative operation", "as above"),
    ("IncrementalAlterConfigs v1: logger", "levels are fixed at start: INVALID_REQUEST whatever the change"),
    ("DescribeShareGroupOffsets v1: some, and what is not there", "Kafka fails and closes the connection"),
    ("StreamsGroupHeartbeat v0: a topology with a copartition group that is none", "Kafka: UNKNOWN_SERVER_ERROR"),
    ("StreamsGroupHeartbeat v0: a topology with the same part twice", "Kafka: UNKNOWN_SERVER_ERROR"),
    ("StreamsGroupHeartbeat v0: older topology", "Kafka: UNKNOWN_SERVER_ERROR; a negative epoch is no topology's"),
    ("WriteShareGroupState v0: a batch that ends", "INVALID_REQUEST; Kafka keeps it, and no leader could ever use it"),
    ("WriteShareGroupState v1: a batch that ends", "as above"),
    ("Produce v3: no records", NO_RECORDS),
    ("Produce v7: no records", NO_RECORDS),
    ("Produce v8: no records", NO_RECORDS),
    ("Produce v12: no records", NO_RECORDS),
    ("Produce v13: no records", NO_RECORDS),
    ("ShareFetch v1: an empty group", EMPTY_GROUP),
    ("ShareFetch v2: an empty group", EMPTY_GROUP),
    ("ShareFetch v1: an unknown topic", UNKNOWN_SHARED),
    ("ShareFetch v2: an unknown topic", UNKNOWN_SHARED),
    ("ShareFetch v1: forgets", "UNKNOWN_SERVER_ERROR in Kafka as long as the session has the unknown topic above"),
    ("ShareFetch v2: forgets", "as above"),
];

const NO_RECORDS: &str = "INVALID_RECORD for the partition; Kafka closes the connection at a null";
const EMPTY_GROUP: &str = "no partition is read; Kafka fails with UNKNOWN_SERVER_ERROR in each";
const UNKNOWN_SHARED: &str =
    "UNKNOWN_TOPIC_ID for the partition; Kafka fails with UNKNOWN_SERVER_ERROR for all of them";
