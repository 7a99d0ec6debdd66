//! Replies in words, whatever they are of, without what is every broker's own.

use std::fmt::Debug;
use std::io;
use std::sync::OnceLock;

use bytes::Bytes;
use regex::Regex;
use taccola_wire::api::ApiKey;
use taccola_wire::codec::{Message, Reader, Request, Struct};
use taccola_wire::messages::*;

use crate::differential::normal;

/// A reply, as pretty as Rust prints it: a field to a line.
pub(super) fn shown(key: ApiKey, version: i16, frame: &[u8]) -> io::Result<String> {
    macro_rules! of {
        ($($key:ident $request:ident),* $(,)?) => {
            match key {
                $(ApiKey::$key => reply::<$request>(version, frame, |_| {}),)*
                ApiKey::ApiVersions => reply::<ApiVersionsRequest>(version, frame, normal::api_versions),
                ApiKey::Metadata => reply::<MetadataRequest>(version, frame, |reply| {
                    reply.topics.sort_by(|a, b| a.name.cmp(&b.name));
                    reply.topics.iter_mut().for_each(|topic| topic.partitions.sort_by_key(|row| row.partition_index));
                }),
                ApiKey::ListOffsets => reply::<ListOffsetsRequest>(version, frame, |reply| {
                    reply.topics.sort_by(|a, b| a.name.cmp(&b.name));
                    reply.topics.iter_mut().for_each(|topic| topic.partitions.sort_by_key(|row| row.partition_index));
                }),
                ApiKey::Fetch => reply::<FetchRequest>(version, frame, normal::fetched),
                ApiKey::ShareFetch => reply::<ShareFetchRequest>(version, frame, normal::share_fetched),
                ApiKey::DescribeConfigs => reply::<DescribeConfigsRequest>(version, frame, normal::configs),
                ApiKey::ListGroups => reply::<ListGroupsRequest>(version, frame, |reply| {
                    reply.groups.sort_by(|a, b| a.group_id.cmp(&b.group_id));
                }),
                ApiKey::CreateTopics => reply::<CreateTopicsRequest>(version, frame, |reply| {
                    for configs in reply.topics.iter_mut().filter_map(|topic| topic.configs.as_mut()) {
                        configs.sort_by(|a, b| a.name.cmp(&b.name));
                    }
                }),
                _ => Err(io::Error::other(format!("{key:?} in words"))),
            }
        };
    }
    of!(
        Produce ProduceRequest,
        OffsetCommit OffsetCommitRequest,
        OffsetFetch OffsetFetchRequest,
        FindCoordinator FindCoordinatorRequest,
        JoinGroup JoinGroupRequest,
        Heartbeat HeartbeatRequest,
        LeaveGroup LeaveGroupRequest,
        SyncGroup SyncGroupRequest,
        DescribeGroups DescribeGroupsRequest,
        DeleteTopics DeleteTopicsRequest,
        DeleteRecords DeleteRecordsRequest,
        InitProducerId InitProducerIdRequest,
        OffsetForLeaderEpoch OffsetForLeaderEpochRequest,
        AddPartitionsToTxn AddPartitionsToTxnRequest,
        AddOffsetsToTxn AddOffsetsToTxnRequest,
        EndTxn EndTxnRequest,
        TxnOffsetCommit TxnOffsetCommitRequest,
        AlterConfigs AlterConfigsRequest,
        DescribeLogDirs DescribeLogDirsRequest,
        CreatePartitions CreatePartitionsRequest,
        DeleteGroups DeleteGroupsRequest,
        ElectLeaders ElectLeadersRequest,
        IncrementalAlterConfigs IncrementalAlterConfigsRequest,
        AlterPartitionReassignments AlterPartitionReassignmentsRequest,
        ListPartitionReassignments ListPartitionReassignmentsRequest,
        OffsetDelete OffsetDeleteRequest,
        DescribeQuorum DescribeQuorumRequest,
        UpdateFeatures UpdateFeaturesRequest,
        DescribeCluster DescribeClusterRequest,
        DescribeProducers DescribeProducersRequest,
        UnregisterBroker UnregisterBrokerRequest,
        DescribeTransactions DescribeTransactionsRequest,
        ListTransactions ListTransactionsRequest,
        ConsumerGroupHeartbeat ConsumerGroupHeartbeatRequest,
        ConsumerGroupDescribe ConsumerGroupDescribeRequest,
        ListConfigResources ListConfigResourcesRequest,
        DescribeTopicPartitions DescribeTopicPartitionsRequest,
        ShareGroupHeartbeat ShareGroupHeartbeatRequest,
        ShareGroupDescribe ShareGroupDescribeRequest,
        ShareAcknowledge ShareAcknowledgeRequest,
        StreamsGroupHeartbeat StreamsGroupHeartbeatRequest,
        StreamsGroupDescribe StreamsGroupDescribeRequest,
        DescribeShareGroupOffsets DescribeShareGroupOffsetsRequest,
        AlterShareGroupOffsets AlterShareGroupOffsetsRequest,
        DeleteShareGroupOffsets DeleteShareGroupOffsetsRequest,
    )
}

fn reply<R: Request>(version: i16, frame: &[u8], normal: impl Fn(&mut R::Response)) -> io::Result<String>
where
    R::Response: Debug,
{
    let mut reader = Reader::new(Bytes::copy_from_slice(frame));
    let header = R::KEY.info().response_header_version(version);
    ResponseHeader::read(&mut reader, header).map_err(io::Error::other)?;
    let mut reply = R::Response::read_fields(&mut reader, version).map_err(io::Error::other)?;
    if reader.remaining() > 0 {
        return Err(io::Error::other(format!("{} bytes behind the reply of {:?}", reader.remaining(), R::KEY)));
    }
    normal(&mut reply);
    // What is there takes a line, as what is not.
    static SOME: OnceLock<Regex> = OnceLock::new();
    let some = SOME.get_or_init(|| Regex::new(r"Some\(\n\s*([^\n]*),\n\s*\)").expect("a pattern"));
    Ok(some.replace_all(&format!("{reply:#?}"), "Some($1)").into_owned())
}
