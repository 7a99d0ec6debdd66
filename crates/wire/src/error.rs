//! Kafka's error codes: the one table of numbers, names, what a client may do about them, and a sentence each. Answers to
//! `org.apache.kafka.common.protocol.Errors`.

/// What a client does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// The same request fails again.
    Fatal,
    /// The same request may succeed later (`RetriableException`).
    Retry,
    /// As `Retry`, after fresh metadata (`InvalidMetadataException`).
    Refresh,
}

macro_rules! class {
    (fatal) => {
        Class::Fatal
    };
    (retry) => {
        Class::Retry
    };
    (refresh) => {
        Class::Refresh
    };
}

macro_rules! errors {
    ($($code:literal $variant:ident $name:literal $class:ident $message:literal,)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i16)]
        pub enum ErrorCode {
            $(#[doc = $message] $variant = $code,)*
        }

        impl ErrorCode {
            /// Every code, ascending.
            pub const ALL: &'static [ErrorCode] = &[$(Self::$variant,)*];

            /// A code of a newer Kafka reads as UNKNOWN_SERVER_ERROR, as clients do.
            pub const fn from_code(code: i16) -> Self {
                match code {
                    $($code => Self::$variant,)*
                    _ => Self::UnknownServerError,
                }
            }

            /// Kafka's name, e.g. `OFFSET_OUT_OF_RANGE`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// A sentence without a full stop.
            pub const fn message(self) -> &'static str {
                match self {
                    $(Self::$variant => $message,)*
                }
            }

            const fn class(self) -> Class {
                match self {
                    $(Self::$variant => class!($class),)*
                }
            }
        }
    };
}

errors! {
    -1 UnknownServerError "UNKNOWN_SERVER_ERROR" fatal "the server failed in a way that has no code of its own",
    0 None "NONE" fatal "no error",
    1 OffsetOutOfRange "OFFSET_OUT_OF_RANGE" fatal "no such offset: it is below the log's start or above its end",
    2 CorruptMessage "CORRUPT_MESSAGE" retry "the batch is damaged, oversized, or has a record without a key for a compacted topic",
    3 UnknownTopicOrPartition "UNKNOWN_TOPIC_OR_PARTITION" refresh "no such topic or partition here",
    4 InvalidFetchSize "INVALID_FETCH_SIZE" fatal "the fetch size makes no sense",
    5 LeaderNotAvailable "LEADER_NOT_AVAILABLE" refresh "the partition has no leader at the moment",
    6 NotLeaderOrFollower "NOT_LEADER_OR_FOLLOWER" refresh "this broker is not the partition's leader, or no replica of it",
    7 RequestTimedOut "REQUEST_TIMED_OUT" retry "the time allowed for the request ran out",
    8 BrokerNotAvailable "BROKER_NOT_AVAILABLE" fatal "the broker cannot be reached",
    9 ReplicaNotAvailable "REPLICA_NOT_AVAILABLE" refresh "the replica is not there",
    10 MessageTooLarge "MESSAGE_TOO_LARGE" fatal "the batch is larger than the topic or broker accepts",
    11 StaleControllerEpoch "STALE_CONTROLLER_EPOCH" fatal "the controller has moved",
    12 OffsetMetadataTooLarge "OFFSET_METADATA_TOO_LARGE" fatal "the metadata committed with an offset is too long",
    13 NetworkException "NETWORK_EXCEPTION" refresh "the connection was lost before the answer came",
    14 CoordinatorLoadInProgress "COORDINATOR_LOAD_IN_PROGRESS" retry "the coordinator is still loading",
    15 CoordinatorNotAvailable "COORDINATOR_NOT_AVAILABLE" retry "there is no coordinator at the moment",
    16 NotCoordinator "NOT_COORDINATOR" retry "this broker is not the coordinator",
    17 InvalidTopicException "INVALID_TOPIC_EXCEPTION" fatal "not a valid topic, or one that clients may not touch",
    18 RecordListTooLarge "RECORD_LIST_TOO_LARGE" fatal "the batch is larger than a segment may be",
    19 NotEnoughReplicas "NOT_ENOUGH_REPLICAS" retry "too few replicas are in sync to accept the write",
    20 NotEnoughReplicasAfterAppend "NOT_ENOUGH_REPLICAS_AFTER_APPEND" retry "the write was appended, but too few replicas stayed in sync",
    21 InvalidRequiredAcks "INVALID_REQUIRED_ACKS" fatal "acks must be -1, 0 or 1",
    22 IllegalGeneration "ILLEGAL_GENERATION" fatal "the generation is not the group's current one",
    23 InconsistentGroupProtocol "INCONSISTENT_GROUP_PROTOCOL" fatal "the member shares no protocol with the group, or names none",
    24 InvalidGroupId "INVALID_GROUP_ID" fatal "not a valid group id",
    25 UnknownMemberId "UNKNOWN_MEMBER_ID" fatal "the group has no such member",
    26 InvalidSessionTimeout "INVALID_SESSION_TIMEOUT" fatal "the session timeout is outside of what the broker allows",
    27 RebalanceInProgress "REBALANCE_IN_PROGRESS" fatal "the group is rebalancing: join again",
    28 InvalidCommitOffsetSize "INVALID_COMMIT_OFFSET_SIZE" fatal "the offset commit is too large",
    29 TopicAuthorizationFailed "TOPIC_AUTHORIZATION_FAILED" fatal "no permission for the topic",
    30 GroupAuthorizationFailed "GROUP_AUTHORIZATION_FAILED" fatal "no permission for the group",
    31 ClusterAuthorizationFailed "CLUSTER_AUTHORIZATION_FAILED" fatal "no permission for the cluster",
    32 InvalidTimestamp "INVALID_TIMESTAMP" fatal "the timestamp is further from the broker's clock than the topic allows",
    33 UnsupportedSaslMechanism "UNSUPPORTED_SASL_MECHANISM" fatal "the broker does not offer this SASL mechanism",
    34 IllegalSaslState "ILLEGAL_SASL_STATE" fatal "the request does not fit the state of the SASL exchange",
    35 UnsupportedVersion "UNSUPPORTED_VERSION" fatal "the API has no such version here",
    36 TopicAlreadyExists "TOPIC_ALREADY_EXISTS" fatal "the topic exists already",
    37 InvalidPartitions "INVALID_PARTITIONS" fatal "the number of partitions is too small",
    38 InvalidReplicationFactor "INVALID_REPLICATION_FACTOR" fatal "the replication factor is below one or above the number of brokers",
    39 InvalidReplicaAssignment "INVALID_REPLICA_ASSIGNMENT" fatal "the replica assignment is not valid",
    40 InvalidConfig "INVALID_CONFIG" fatal "the configuration is not valid",
    41 NotController "NOT_CONTROLLER" retry "this node is not the active controller",
    42 InvalidRequest "INVALID_REQUEST" fatal "the request contradicts itself or the protocol",
    43 UnsupportedForMessageFormat "UNSUPPORTED_FOR_MESSAGE_FORMAT" fatal "the message format in use cannot do that",
    44 PolicyViolation "POLICY_VIOLATION" fatal "a policy of the broker forbids it",
    45 OutOfOrderSequenceNumber "OUT_OF_ORDER_SEQUENCE_NUMBER" fatal "the sequence number does not follow the last one",
    46 DuplicateSequenceNumber "DUPLICATE_SEQUENCE_NUMBER" fatal "the batch was appended before",
    47 InvalidProducerEpoch "INVALID_PRODUCER_EPOCH" fatal "the producer's epoch is not the current one",
    48 InvalidTxnState "INVALID_TXN_STATE" fatal "the transaction's state does not allow the operation",
    49 InvalidProducerIdMapping "INVALID_PRODUCER_ID_MAPPING" fatal "the producer id does not belong to the transactional id",
    50 InvalidTransactionTimeout "INVALID_TRANSACTION_TIMEOUT" fatal "the transaction timeout is above what the broker allows",
    51 ConcurrentTransactions "CONCURRENT_TRANSACTIONS" retry "another operation on the transaction is not finished",
    52 TransactionCoordinatorFenced "TRANSACTION_COORDINATOR_FENCED" fatal "the marker comes from a coordinator that has been replaced",
    53 TransactionalIdAuthorizationFailed "TRANSACTIONAL_ID_AUTHORIZATION_FAILED" fatal "no permission for the transactional id",
    54 SecurityDisabled "SECURITY_DISABLED" fatal "the broker runs without an authorizer",
    55 OperationNotAttempted "OPERATION_NOT_ATTEMPTED" fatal "not tried, because another part of the request failed",
    56 KafkaStorageError "KAFKA_STORAGE_ERROR" refresh "the log directory failed",
    57 LogDirNotFound "LOG_DIR_NOT_FOUND" fatal "the broker has no such log directory",
    58 SaslAuthenticationFailed "SASL_AUTHENTICATION_FAILED" fatal "the credentials were refused",
    59 UnknownProducerId "UNKNOWN_PRODUCER_ID" fatal "the partition no longer knows the producer id",
    60 ReassignmentInProgress "REASSIGNMENT_IN_PROGRESS" fatal "the partition is being reassigned",
    61 DelegationTokenAuthDisabled "DELEGATION_TOKEN_AUTH_DISABLED" fatal "delegation tokens are turned off",
    62 DelegationTokenNotFound "DELEGATION_TOKEN_NOT_FOUND" fatal "no such delegation token",
    63 DelegationTokenOwnerMismatch "DELEGATION_TOKEN_OWNER_MISMATCH" fatal "the principal neither owns nor may renew the token",
    64 DelegationTokenRequestNotAllowed "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED" fatal "tokens cannot be managed over this kind of connection",
    65 DelegationTokenAuthorizationFailed "DELEGATION_TOKEN_AUTHORIZATION_FAILED" fatal "no permission for the delegation token",
    66 DelegationTokenExpired "DELEGATION_TOKEN_EXPIRED" fatal "the delegation token has expired",
    67 InvalidPrincipalType "INVALID_PRINCIPAL_TYPE" fatal "the principal's type is not supported",
    68 NonEmptyGroup "NON_EMPTY_GROUP" fatal "the group still has members",
    69 GroupIdNotFound "GROUP_ID_NOT_FOUND" fatal "no such group",
    70 FetchSessionIdNotFound "FETCH_SESSION_ID_NOT_FOUND" retry "no such fetch session",
    71 InvalidFetchSessionEpoch "INVALID_FETCH_SESSION_EPOCH" retry "the fetch session's epoch is not the expected one",
    72 ListenerNotFound "LISTENER_NOT_FOUND" refresh "the leader has no listener of the name that the client used",
    73 TopicDeletionDisabled "TOPIC_DELETION_DISABLED" fatal "deleting topics is turned off",
    74 FencedLeaderEpoch "FENCED_LEADER_EPOCH" refresh "the leader epoch in the request is older than the broker's",
    75 UnknownLeaderEpoch "UNKNOWN_LEADER_EPOCH" retry "the leader epoch in the request is newer than the broker's",
    76 UnsupportedCompressionType "UNSUPPORTED_COMPRESSION_TYPE" fatal "the client's version cannot receive this compression",
    77 StaleBrokerEpoch "STALE_BROKER_EPOCH" fatal "the broker epoch is not the current one",
    78 OffsetNotAvailable "OFFSET_NOT_AVAILABLE" retry "the new leader cannot tell offsets yet",
    79 MemberIdRequired "MEMBER_ID_REQUIRED" fatal "join again with the member id given here",
    80 PreferredLeaderNotAvailable "PREFERRED_LEADER_NOT_AVAILABLE" refresh "the preferred leader is not available",
    81 GroupMaxSizeReached "GROUP_MAX_SIZE_REACHED" fatal "the group is full",
    82 FencedInstanceId "FENCED_INSTANCE_ID" fatal "another member has taken over the group instance id",
    83 EligibleLeadersNotAvailable "ELIGIBLE_LEADERS_NOT_AVAILABLE" refresh "no eligible leader is available",
    84 ElectionNotNeeded "ELECTION_NOT_NEEDED" refresh "the partition already has that leader",
    85 NoReassignmentInProgress "NO_REASSIGNMENT_IN_PROGRESS" fatal "the partition is not being reassigned",
    86 GroupSubscribedToTopic "GROUP_SUBSCRIBED_TO_TOPIC" fatal "the group is subscribed to the topic",
    87 InvalidRecord "INVALID_RECORD" fatal "the broker's validation refused the record",
    88 UnstableOffsetCommit "UNSTABLE_OFFSET_COMMIT" retry "a transaction has not yet decided these offsets",
    89 ThrottlingQuotaExceeded "THROTTLING_QUOTA_EXCEEDED" retry "a quota is used up; wait as long as the answer says",
    90 ProducerFenced "PRODUCER_FENCED" fatal "a newer producer uses the transactional id",
    91 ResourceNotFound "RESOURCE_NOT_FOUND" fatal "the request names something that does not exist",
    92 DuplicateResource "DUPLICATE_RESOURCE" fatal "the request names something twice",
    93 UnacceptableCredential "UNACCEPTABLE_CREDENTIAL" fatal "the credential does not meet the requirements",
    94 InconsistentVoterSet "INCONSISTENT_VOTER_SET" fatal "sender or receiver is no voter of the quorum",
    95 InvalidUpdateVersion "INVALID_UPDATE_VERSION" fatal "the version to update to is not valid",
    96 FeatureUpdateFailed "FEATURE_UPDATE_FAILED" fatal "the features could not be updated",
    97 PrincipalDeserializationFailure "PRINCIPAL_DESERIALIZATION_FAILURE" fatal "the forwarded principal cannot be read",
    98 SnapshotNotFound "SNAPSHOT_NOT_FOUND" fatal "no such snapshot",
    99 PositionOutOfRange "POSITION_OUT_OF_RANGE" fatal "the position lies outside of the snapshot",
    100 UnknownTopicId "UNKNOWN_TOPIC_ID" refresh "no topic with this id here",
    101 DuplicateBrokerRegistration "DUPLICATE_BROKER_REGISTRATION" fatal "the broker id is in use",
    102 BrokerIdNotRegistered "BROKER_ID_NOT_REGISTERED" fatal "the broker id is not registered",
    103 InconsistentTopicId "INCONSISTENT_TOPIC_ID" refresh "the topic id is not that of the log",
    104 InconsistentClusterId "INCONSISTENT_CLUSTER_ID" fatal "the cluster id is that of another cluster",
    105 TransactionalIdNotFound "TRANSACTIONAL_ID_NOT_FOUND" fatal "no such transactional id",
    106 FetchSessionTopicIdError "FETCH_SESSION_TOPIC_ID_ERROR" retry "a fetch session cannot mix topic names and topic ids",
    107 IneligibleReplica "INELIGIBLE_REPLICA" fatal "a replica in the new ISR may not be there",
    108 NewLeaderElected "NEW_LEADER_ELECTED" fatal "the partition changed as asked, and has another leader now",
    109 OffsetMovedToTieredStorage "OFFSET_MOVED_TO_TIERED_STORAGE" fatal "the offset lives in tiered storage",
    110 FencedMemberEpoch "FENCED_MEMBER_EPOCH" fatal "the member epoch is fenced: give up all partitions and join again",
    111 UnreleasedInstanceId "UNRELEASED_INSTANCE_ID" fatal "another member still holds the instance id",
    112 UnsupportedAssignor "UNSUPPORTED_ASSIGNOR" fatal "the group does not support the assignor",
    113 StaleMemberEpoch "STALE_MEMBER_EPOCH" fatal "the member epoch is outdated: retry after the next heartbeat",
    114 MismatchedEndpointType "MISMATCHED_ENDPOINT_TYPE" fatal "this kind of node does not serve the request",
    115 UnsupportedEndpointType "UNSUPPORTED_ENDPOINT_TYPE" fatal "the kind of endpoint is not supported",
    116 UnknownControllerId "UNKNOWN_CONTROLLER_ID" fatal "no controller with this id",
    117 UnknownSubscriptionId "UNKNOWN_SUBSCRIPTION_ID" fatal "the telemetry subscription is unknown or outdated",
    118 TelemetryTooLarge "TELEMETRY_TOO_LARGE" fatal "the telemetry is larger than the broker accepts",
    119 InvalidRegistration "INVALID_REGISTRATION" fatal "the controller refused the registration",
    120 TransactionAbortable "TRANSACTION_ABORTABLE" fatal "the transaction must be aborted; its id stays usable",
    121 InvalidRecordState "INVALID_RECORD_STATE" fatal "the record's state does not allow the acknowledgement",
    122 ShareSessionNotFound "SHARE_SESSION_NOT_FOUND" retry "no such share session",
    123 InvalidShareSessionEpoch "INVALID_SHARE_SESSION_EPOCH" retry "the share session's epoch is not the expected one",
    124 FencedStateEpoch "FENCED_STATE_EPOCH" fatal "the share group's state epoch does not match",
    125 InvalidVoterKey "INVALID_VOTER_KEY" fatal "the voter's directory id is another one",
    126 DuplicateVoter "DUPLICATE_VOTER" fatal "already a voter",
    127 VoterNotFound "VOTER_NOT_FOUND" fatal "not a voter",
    128 InvalidRegularExpression "INVALID_REGULAR_EXPRESSION" fatal "not a valid regular expression",
    129 RebootstrapRequired "REBOOTSTRAP_REQUIRED" fatal "the client's view of the cluster is too old: start over from the bootstrap servers",
    130 StreamsInvalidTopology "STREAMS_INVALID_TOPOLOGY" fatal "the topology is not valid",
    131 StreamsInvalidTopologyEpoch "STREAMS_INVALID_TOPOLOGY_EPOCH" fatal "the topology's epoch is not valid",
    132 StreamsTopologyFenced "STREAMS_TOPOLOGY_FENCED" fatal "the topology's epoch is outdated",
    133 ShareSessionLimitReached "SHARE_SESSION_LIMIT_REACHED" retry "there are too many share sessions",
}

impl ErrorCode {
    pub const fn code(self) -> i16 {
        self as i16
    }

    pub const fn is_ok(self) -> bool {
        matches!(self, Self::None)
    }

    /// The same request may succeed later.
    pub const fn retriable(self) -> bool {
        !matches!(self.class(), Class::Fatal)
    }

    /// The client's metadata is wrong: it is to be fetched again before a retry.
    pub const fn refreshes_metadata(self) -> bool {
        matches!(self.class(), Class::Refresh)
    }
}

impl From<ErrorCode> for i16 {
    fn from(error: ErrorCode) -> i16 {
        error.code()
    }
}

impl From<i16> for ErrorCode {
    fn from(code: i16) -> Self {
        Self::from_code(code)
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name(), self.message())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_dense_from_minus_one() {
        for (code, error) in (-1..).zip(ErrorCode::ALL) {
            assert_eq!(error.code(), code);
            assert_eq!(ErrorCode::from_code(code), *error);
        }
        assert_eq!(ErrorCode::ALL.last(), Some(&ErrorCode::ShareSessionLimitReached));
        assert_eq!(ErrorCode::from_code(-2), ErrorCode::UnknownServerError);
        assert_eq!(ErrorCode::from_code(i16::MAX), ErrorCode::UnknownServerError);
    }

    #[test]
    fn what_clients_retry() {
        assert!(!ErrorCode::None.retriable());
        assert!(ErrorCode::NotCoordinator.retriable() && !ErrorCode::NotCoordinator.refreshes_metadata());
        assert!(ErrorCode::NotLeaderOrFollower.retriable() && ErrorCode::NotLeaderOrFollower.refreshes_metadata());
        assert!(!ErrorCode::UnknownMemberId.retriable());
    }
}
