//! A member of a streams group (KIP-1071) with one stateless subtopology: joins, heartbeats, gives back the tasks that it is
//! asked to, leaves.
//!
//! A task that is active at it is active at nobody else meanwhile. Epochs never go back, over all lives of the broker.

use std::collections::BTreeSet;

use bytes::Bytes;
use taccola_base::Uuid;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::StreamsGroupHeartbeatRequest;
use taccola_wire::messages::streams_group_heartbeat_request::{Subtopology, TaskIds, Topology};
use taccola_wire::messages::streams_group_heartbeat_response::StreamsGroupHeartbeatResponse;

use super::ownership::Ownership;
use super::{Client, Ctx, decode, encode, is_retriable};
use crate::simulation::network::Ask;
use crate::simulation::world;

const HEARTBEAT: i16 = 0;
/// `group.streams.session.timeout.ms`.
const SESSION_MS: i64 = 45_000;
const SUBTOPOLOGY: &str = "0";

/// Whose the tasks of the one subtopology are, by partition.
pub(in crate::simulation) type StreamsLedger = Ownership<i32>;

pub(in crate::simulation) struct Streamer {
    number: u32,
    group: &'static str,
    topic: &'static str,
    incarnation: u32,
    epoch: i32,
    own: BTreeSet<i32>,
    leaving: bool,
    /// When the request under way was sent, and the greatest epoch then known.
    under_way: Option<(i64, i32)>,
    finishing: bool,
    over: bool,
}

impl Streamer {
    pub(in crate::simulation) fn new(number: u32, group: &'static str, topic: &'static str) -> Self {
        Self {
            number,
            group,
            topic,
            incarnation: 0,
            epoch: 0,
            own: BTreeSet::new(),
            leaving: false,
            under_way: None,
            finishing: false,
            over: false,
        }
    }

    fn id(&self) -> String {
        Uuid::from_u128(u128::from(self.number) << 64 | u128::from(self.incarnation) << 8 | 1 << 102).to_string()
    }

    fn let_go_all(&mut self, ctx: &mut Ctx<'_>) {
        self.own.clear();
        ctx.ledger.streams.entry(self.group).or_default().keep(self.number, &self.own);
    }

    fn begin_anew(&mut self, ctx: &mut Ctx<'_>) {
        self.let_go_all(ctx);
        self.epoch = 0;
        self.leaving = false;
    }

    fn request(&self) -> StreamsGroupHeartbeatRequest {
        let joins = self.epoch == 0;
        let subtopology = Subtopology {
            subtopology_id: SUBTOPOLOGY.to_owned(),
            source_topics: vec![self.topic.to_owned()],
            ..Default::default()
        };
        let partitions: Vec<i32> = self.own.iter().copied().collect();
        let own = TaskIds { subtopology_id: SUBTOPOLOGY.to_owned(), partitions };
        let tasks = |own: Vec<TaskIds>| (!self.leaving).then_some(own);
        StreamsGroupHeartbeatRequest {
            group_id: self.group.to_owned(),
            member_id: self.id(),
            member_epoch: if self.leaving { -1 } else { self.epoch },
            rebalance_timeout_ms: if joins { 300_000 } else { -1 },
            topology: joins.then(|| Topology { epoch: 1, subtopologies: vec![subtopology] }),
            active_tasks: tasks(if self.own.is_empty() { Vec::new() } else { vec![own] }),
            standby_tasks: tasks(Vec::new()),
            warmup_tasks: tasks(Vec::new()),
            process_id: joins.then(|| format!("process-{}", self.number)),
            ..Default::default()
        }
    }

    fn heard(&mut self, ctx: &mut Ctx<'_>, response: &StreamsGroupHeartbeatResponse, sent_ms: i64, epoch_max: i32) {
        let until_ms = sent_ms + SESSION_MS;
        if until_ms <= world::now_ms().unwrap() {
            // Too late to be true: the session may be over.
            return self.let_go_all(ctx);
        }
        let epoch = response.member_epoch;
        assert!(epoch >= self.epoch, "{}: epoch {epoch} after {}", self.name(), self.epoch);
        assert!(self.epoch > 0 || epoch >= epoch_max, "{}: joins in {epoch} after {epoch_max}", self.name());
        self.epoch = epoch;
        let group = ctx.ledger.streams.entry(self.group).or_default();
        group.epoch_max = group.epoch_max.max(epoch);
        group.renew(self.number, until_ms);
        if let Some(tasks) = &response.active_tasks {
            self.own = tasks.iter().flat_map(|tasks| &tasks.partitions).copied().collect();
            group.take(self.group, self.number, &self.own, until_ms);
            ctx.said.push_str(&format!(" own {:?}", self.own));
        }
    }
}

impl Client for Streamer {
    fn name(&self) -> String {
        format!("streamer {}", self.number)
    }

    fn ask(&mut self, ctx: &mut Ctx<'_>) -> Option<Ask> {
        if self.under_way.is_some() || self.over {
            return None;
        }
        if self.epoch > 0 && (self.finishing || ctx.rng.one_in(40)) {
            self.leaving = true;
            self.let_go_all(ctx);
        } else if self.finishing && self.epoch == 0 {
            self.over = true;
            return None;
        }
        if self.epoch == 0 {
            self.incarnation += 1;
        }
        let epoch_max = ctx.ledger.streams.entry(self.group).or_default().epoch_max;
        self.under_way = Some((world::now_ms()?, epoch_max));
        let request = self.request();
        *ctx.said = format!("epoch {} own {:?}", request.member_epoch, self.own);
        Some(Ask { tag: 0, frame: encode(&request, HEARTBEAT) })
    }

    fn answered(&mut self, ctx: &mut Ctx<'_>, _tag: u64, frame: Bytes) {
        let Some((sent_ms, epoch_max)) = self.under_way.take() else { return };
        let response = decode::<StreamsGroupHeartbeatRequest>(HEARTBEAT, frame);
        *ctx.said = format!("code {} epoch {}", response.error_code, response.member_epoch);
        match ErrorCode::from_code(response.error_code) {
            ErrorCode::None if self.leaving => self.begin_anew(ctx),
            ErrorCode::None => self.heard(ctx, &response, sent_ms, epoch_max),
            ErrorCode::UnknownMemberId | ErrorCode::FencedMemberEpoch => self.begin_anew(ctx),
            _ => assert!(is_retriable(response.error_code), "{}: {response:?}", self.name()),
        }
    }

    fn lost(&mut self, _ctx: &mut Ctx<'_>, _tag: u64) {
        self.under_way = None;
    }

    fn late(&self) -> bool {
        false
    }

    fn finish(&mut self) -> bool {
        self.finishing = true;
        self.over && self.under_way.is_none()
    }
}
