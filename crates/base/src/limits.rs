//! The one table of limits: every queue, buffer, decoder and wait that input can grow is bounded by a constant here or
//! by a config key. Each says what happens when it is reached.

/// Request frames with no `socket.request.max.bytes` in force yet; larger ones close the connection.
pub const FRAME_BYTES_MAX: usize = 100 * 1024 * 1024;
/// A request of a key or version that is not served is read, and answered as far as the protocol has an answer, up to this
/// size; a larger one closes the connection as soon as its first bytes say what it is.
pub const UNKNOWN_FRAME_BYTES_MAX: usize = 64 * 1024;
/// Reply bytes of all connections together that wait for clients to read them. Beyond it no further fetch is started, and
/// clients that read nothing are cut off.
pub const REPLY_BYTES_HELD_MAX: usize = 256 * 1024 * 1024;
/// A fetch that was started may read so much even when [`REPLY_BYTES_HELD_MAX`] is reached.
pub const FETCH_BYTES_ALWAYS: usize = 64 * 1024;
/// A frame's buffer grows as bytes arrive; never more than this is reserved because a size field says so.
pub const FRAME_RESERVE_MAX: usize = 64 * 1024;
/// A decoder allocates at most this multiple of the frame, plus [`DECODE_BUDGET_FLOOR`]; beyond: `DecodeError`. A list of
/// two-letter strings, 3 bytes each on the wire, takes nearly 9 times its size; every other honest request takes less.
pub const DECODE_BUDGET_FACTOR: usize = 12;
/// Bytes that any decode may allocate whatever the frame's size.
pub const DECODE_BUDGET_FLOOR: usize = 64 * 1024;
/// Tagged fields in one structure; more is a malformed request.
pub const TAGGED_FIELDS_MAX: usize = 64;
/// Requests of one connection that are being worked on at a time; reading stops there.
pub const IN_FLIGHT_REQUESTS_MAX: usize = 64;
/// Request bytes of one connection that are being worked on at a time; reading stops there.
pub const IN_FLIGHT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Partitions that are not here of which a log directory is remembered where they are to be, should they come; of more it
/// is not.
pub const PREFERRED_DIRS_MAX: usize = 10_000;
/// Partitions named by one request; more is INVALID_REQUEST.
pub const REQUEST_PARTITIONS_MAX: usize = 10_000;
/// Bytes of one answer to DescribeConfigs, about; what finds no room is POLICY_VIOLATION.
pub const DESCRIBE_CONFIGS_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Decompressed size of one batch: at most this, and at most [`DECOMPRESS_RATIO_MAX`] times the compressed size plus 1 MiB.
pub const DECOMPRESSED_BATCH_BYTES_MAX: usize = 256 * 1024 * 1024;
pub const DECOMPRESS_RATIO_MAX: usize = 1_032;
/// Headers of one record; more is INVALID_RECORD.
pub const RECORD_HEADERS_MAX: usize = 1_000;
/// Producers remembered per partition; the longest idle one is forgotten first.
pub const PRODUCER_IDS_PER_PARTITION_MAX: usize = 100_000;
/// Members of one classic group when `group.max.size` says nothing smaller: GROUP_MAX_SIZE_REACHED.
pub const GROUP_MEMBERS_MAX: usize = 10_000;
/// Metadata bytes of all members of one group together: GROUP_MAX_SIZE_REACHED.
pub const GROUP_METADATA_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Transactions that are open at a time in one partition of `__transaction_state`: CONCURRENT_TRANSACTIONS, which clients
/// wait out.
pub const OPEN_TRANSACTIONS_PER_PARTITION_MAX: usize = 10_000;
/// Partitions of one transaction: UNKNOWN_SERVER_ERROR, as Kafka answers when the record would be too large.
pub const TRANSACTION_PARTITIONS_MAX: usize = 100_000;
/// Bytes that the partitions of one transaction take in its record; likewise.
pub const TRANSACTION_PARTITION_BYTES_MAX: usize = 900 * 1024;
/// Transactional ids in one partition of `__transaction_state`: COORDINATOR_NOT_AVAILABLE until some have expired.
pub const TRANSACTIONAL_IDS_PER_PARTITION_MAX: usize = 200_000;
/// Bytes of all of them; likewise.
pub const TRANSACTIONAL_ID_BYTES_PER_PARTITION_MAX: usize = 64 * 1024 * 1024;
/// Bytes appended past the journal that may be unflushed before a checkpoint begins: about what a start after `kill -9` reads
/// again.
pub const UNFLUSHED_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// File handles kept open for segments by the whole process; the longest unused one is closed.
pub const SEGMENT_HANDLES_MAX: usize = 4_096;
/// File handles that are kept for everything but connections and segments: checkpoints, indexes, the journal, snapshots.
pub const OTHER_HANDLES: usize = 128;
/// Bytes of one file of settings; a larger one is refused.
pub const CONFIG_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Requests of one client connection that wait for a reply; more wait to be sent.
pub const CLIENT_IN_FLIGHT_REQUESTS_MAX: usize = 64;
/// Reply frames that a client reads; a larger size closes the connection. What TLS or HTTP servers say reads as more.
pub const REPLY_BYTES_MAX: usize = 256 * 1024 * 1024;
