//! AlterReplicaLogDirs, key 34, v1–v2.
//!
//! Behaviour: each named replica of this broker begins to move to the directory under which it stands; the answer comes at
//! once, and DescribeLogDirs tells how far it is. One that is there already is done, and a move of it elsewhere ends. A
//! partition that is named twice goes where it is named last. A path that is none of `log.dirs`, literally, is
//! LOG_DIR_NOT_FOUND, also for what is not here; a directory or a replica that is offline is KAFKA_STORAGE_ERROR. A
//! partition that is not here (UNKNOWN_TOPIC_OR_PARTITION, or REPLICA_NOT_AVAILABLE where others have it) will be made in that
//! directory, should it come while this broker runs. A name too long for a copy's folder is INVALID_TOPIC_EXCEPTION before
//! anything else. A tiered topic's replicas do not move: INVALID_REQUEST.

use std::collections::BTreeMap;
use std::sync::Arc;

use taccola_wire::messages::alter_replica_log_dirs_request::AlterReplicaLogDirsRequest;
use taccola_wire::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult, AlterReplicaLogDirsResponse,
};

use crate::broker::Broker;
use crate::context::RequestContext;

pub async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    let mut asked: BTreeMap<(String, i32), String> = BTreeMap::new();
    for dir in request.dirs {
        for topic in dir.topics {
            for partition in topic.partitions {
                asked.insert((topic.name.clone(), partition), dir.path.clone());
            }
        }
    }
    let mut results: Vec<AlterReplicaLogDirTopicResult> = Vec::new();
    for ((topic, partition), path) in asked {
        let error = broker.alter_log_dir(&path, &topic, partition).err();
        let result = AlterReplicaLogDirPartitionResult {
            partition_index: partition,
            error_code: error.map_or(0, |error| error.code()),
        };
        match results.last_mut().filter(|last| last.topic_name == topic) {
            Some(last) => last.partitions.push(result),
            None => results.push(AlterReplicaLogDirTopicResult { topic_name: topic, partitions: vec![result] }),
        }
    }
    AlterReplicaLogDirsResponse { results, ..Default::default() }
}
