//! A member of a consumer group of the new protocol (KIP-848): joins, heartbeats, gives back what it is asked to, leaves.
//!
//! What it was assigned nobody else may be given meanwhile. Epochs never go back, over all lives of the broker.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use taccola_base::Uuid;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::ConsumerGroupHeartbeatRequest;
use taccola_wire::messages::consumer_group_heartbeat_request::TopicPartitions;

use super::ownership::Ownership;
use super::{Client, Ctx, decode, encode, is_retriable};
use crate::simulation::network::Ask;
use crate::simulation::world;

const HEARTBEAT: i16 = 1;
/// `group.consumer.session.timeout.ms`.
const SESSION_MS: i64 = 45_000;

type Place = (Uuid, i32);

pub(in crate::simulation) type GroupLedger = Ownership<Place>;

pub(in crate::simulation) struct Member {
    number: u32,
    group: String,
    topic: &'static str,
    incarnation: u32,
    epoch: i32,
    own: BTreeSet<Place>,
    leaving: bool,
    /// When the request under way was sent, and the greatest epoch then known.
    under_way: Option<(i64, i32)>,
    finishing: bool,
    over: bool,
}

impl Member {
    pub(in crate::simulation) fn new(number: u32, group: &str, topic: &'static str) -> Self {
        Self {
            number,
            group: group.to_owned(),
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
        Uuid::from_u128(u128::from(self.number) << 64 | u128::from(self.incarnation) << 8 | 1 << 100).to_string()
    }

    fn let_go(&mut self, ctx: &mut Ctx<'_>, kept: &BTreeSet<Place>) {
        let group = ctx.ledger.groups.entry(self.group.clone()).or_default();
        group.keep(self.number, kept);
        self.own.retain(|place| kept.contains(place));
    }

    fn begin_anew(&mut self, ctx: &mut Ctx<'_>) {
        self.let_go(ctx, &BTreeSet::new());
        self.epoch = 0;
        self.leaving = false;
    }

    fn take_over(&mut self, ctx: &mut Ctx<'_>, target: BTreeSet<Place>, until_ms: i64) {
        let group = ctx.ledger.groups.entry(self.group.clone()).or_default();
        group.take(&self.group, self.number, &target, until_ms);
        self.own = target;
    }
}

impl Client for Member {
    fn name(&self) -> String {
        format!("member {}", self.number)
    }

    fn ask(&mut self, ctx: &mut Ctx<'_>) -> Option<Ask> {
        if self.under_way.is_some() || self.over {
            return None;
        }
        if self.epoch > 0 && (self.finishing || ctx.rng.one_in(40)) {
            self.leaving = true;
            self.let_go(ctx, &BTreeSet::new());
        } else if self.finishing && self.epoch == 0 {
            self.over = true;
            return None;
        }
        let joining = self.epoch == 0;
        if joining {
            self.incarnation += 1;
        }
        let epoch_max = ctx.ledger.groups.entry(self.group.clone()).or_default().epoch_max;
        self.under_way = Some((world::now_ms()?, epoch_max));
        let mut topics: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in &self.own {
            topics.entry(*topic).or_default().push(*partition);
        }
        let owned = topics.into_iter().map(|(topic_id, partitions)| TopicPartitions { topic_id, partitions });
        let request = ConsumerGroupHeartbeatRequest {
            group_id: self.group.clone(),
            member_id: self.id(),
            member_epoch: if self.leaving { -1 } else { self.epoch },
            rebalance_timeout_ms: 300_000,
            subscribed_topic_names: (!self.leaving).then(|| vec![self.topic.to_owned()]),
            topic_partitions: (!self.leaving).then(|| owned.collect()),
            ..Default::default()
        };
        *ctx.said =
            format!("epoch {} own {:?}", request.member_epoch, self.own.iter().map(|own| own.1).collect::<Vec<_>>());
        Some(Ask { tag: 0, frame: encode(&request, HEARTBEAT) })
    }

    fn answered(&mut self, ctx: &mut Ctx<'_>, _tag: u64, frame: Bytes) {
        let Some((sent_ms, epoch_max)) = self.under_way.take() else { return };
        let response = decode::<ConsumerGroupHeartbeatRequest>(HEARTBEAT, frame);
        *ctx.said = format!("code {} epoch {}", response.error_code, response.member_epoch);
        if response.error_code != 0 {
            match ErrorCode::from_code(response.error_code) {
                ErrorCode::UnknownMemberId | ErrorCode::FencedMemberEpoch => self.begin_anew(ctx),
                _ => assert!(is_retriable(response.error_code), "{}: {response:?}", self.name()),
            }
            return;
        }
        if self.leaving {
            return self.begin_anew(ctx);
        }
        let until_ms = sent_ms + SESSION_MS;
        if until_ms <= world::now_ms().unwrap() {
            // Too late to be true: the session may be over.
            return self.let_go(ctx, &BTreeSet::new());
        }
        let group = ctx.ledger.groups.entry(self.group.clone()).or_default();
        assert!(
            response.member_epoch >= self.epoch,
            "{}: epoch {} after {}",
            self.name(),
            response.member_epoch,
            self.epoch
        );
        if self.epoch == 0 {
            let epoch = response.member_epoch;
            assert!(epoch >= epoch_max, "{}: joins in {epoch} after {epoch_max}", self.name());
        }
        group.epoch_max = group.epoch_max.max(response.member_epoch);
        self.epoch = response.member_epoch;
        group.renew(self.number, until_ms);
        if let Some(assignment) = response.assignment {
            let places = |topic: &taccola_wire::messages::consumer_group_heartbeat_response::TopicPartitions| {
                topic.partitions.iter().map(|partition| (topic.topic_id, *partition)).collect::<Vec<_>>()
            };
            self.take_over(ctx, assignment.topic_partitions.iter().flat_map(places).collect(), until_ms);
            ctx.said.push_str(&format!(" own {:?}", self.own.iter().map(|own| own.1).collect::<Vec<_>>()));
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
