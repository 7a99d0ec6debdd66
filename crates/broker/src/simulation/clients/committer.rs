//! Commits ever greater offsets for a group without members, one after the other. What is found committed must be the last
//! acknowledged one, or one whose answer was lost: it may have arrived, or may arrive late.

use std::collections::BTreeMap;

use bytes::Bytes;
use taccola_wire::messages::OffsetCommitRequest;
use taccola_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};

use super::{Client, Ctx, decode, encode, is_retriable};
use crate::simulation::network::Ask;

const OFFSET_COMMIT: i16 = 9;

pub(in crate::simulation) struct Committer {
    group: String,
    topic: &'static str,
    next: i64,
    under_way: bool,
    acked: i64,
    /// Offsets without an answer, and the start of the broker in which they were sent.
    lost: BTreeMap<i64, u32>,
    finishing: bool,
}

impl Committer {
    pub(in crate::simulation) fn new(group: String, topic: &'static str) -> Self {
        Self { group, topic, next: 0, under_way: false, acked: -1, lost: BTreeMap::new(), finishing: false }
    }
}

pub(super) fn topics(topic: &str, offset: i64) -> Vec<OffsetCommitRequestTopic> {
    let partition = OffsetCommitRequestPartition {
        partition_index: 0,
        committed_offset: offset,
        committed_leader_epoch: -1,
        committed_metadata: Some(String::new()),
    };
    vec![OffsetCommitRequestTopic { name: topic.to_owned(), partitions: vec![partition], ..Default::default() }]
}

impl Client for Committer {
    fn name(&self) -> String {
        format!("committer {}", self.group)
    }

    fn ask(&mut self, ctx: &mut Ctx<'_>) -> Option<Ask> {
        if self.finishing || std::mem::replace(&mut self.under_way, true) {
            return None;
        }
        let request = OffsetCommitRequest {
            group_id: self.group.clone(),
            generation_id_or_member_epoch: -1,
            topics: topics(self.topic, self.next),
            ..Default::default()
        };
        *ctx.said = format!("offset {}", self.next);
        Some(Ask { tag: 0, frame: encode(&request, OFFSET_COMMIT) })
    }

    fn answered(&mut self, ctx: &mut Ctx<'_>, _tag: u64, frame: Bytes) {
        let response = decode::<OffsetCommitRequest>(OFFSET_COMMIT, frame);
        let code = response.topics[0].partitions[0].error_code;
        *ctx.said = format!("offset {} code {code}", self.next);
        self.under_way = false;
        if code == 0 {
            self.acked = self.next;
            self.lost.retain(|_, boot| *boot == ctx.boot);
        } else {
            assert!(is_retriable(code), "{}: OffsetCommit answers {code}", self.group);
            // A disk that failed over it may have it all the same.
            self.lost.insert(self.next, ctx.boot);
        }
        self.next += 1;
    }

    fn lost(&mut self, ctx: &mut Ctx<'_>, _tag: u64) {
        self.lost.insert(self.next, ctx.boot);
        self.under_way = false;
        self.next += 1;
    }

    fn finish(&mut self) -> bool {
        self.finishing = true;
        !self.under_way
    }

    fn offsets(&self) -> Vec<(String, String, i32)> {
        vec![(self.group.clone(), self.topic.to_owned(), 0)]
    }

    fn committed(&mut self, _ctx: &mut Ctx<'_>, group: &str, offset: i64, _settled: bool) {
        let may_be = offset == self.acked || self.lost.contains_key(&offset);
        assert!(may_be, "{group}: {offset} is committed, acknowledged was {}, lost {:?}", self.acked, self.lost);
    }
}
