//! A member of a share group (KIP-932): fetches, and accepts, releases or rejects what it acquires. A record whose
//! acceptance or rejection was acknowledged is never delivered again, over all lives of the broker; what one member has
//! acquired is nobody else's as long as the lock holds.

use bytes::Bytes;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::share_acknowledge_request::{AcknowledgePartition, AcknowledgeTopic, AcknowledgementBatch};
use taccola_wire::messages::share_fetch_request::{FetchPartition, FetchTopic};
use taccola_wire::messages::{ShareAcknowledgeRequest, ShareFetchRequest, ShareGroupHeartbeatRequest};

use super::{Client, Ctx, decode, encode, is_retriable};
use crate::simulation::network::Ask;
use crate::simulation::world;

const HEARTBEAT: i16 = 1;
const FETCH: i16 = 1;
const ACKNOWLEDGE: i16 = 1;
/// `group.share.record.lock.duration.ms`.
const LOCK_MS: i64 = 30_000;

/// What a share group's members know of it together: per offset who has it, since when it surely does, and until when.
#[derive(Debug, Default)]
pub(in crate::simulation) struct ShareLedger {
    /// By partition and offset.
    pub(in crate::simulation) done: std::collections::BTreeSet<(i32, i64)>,
    acquired: std::collections::BTreeMap<(i32, i64), (u32, i64, i64)>,
}

impl ShareLedger {
    /// The broker was started again: what was acquired is anybody's.
    pub(in crate::simulation) fn restarted(&mut self) {
        self.acquired.clear();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Heartbeat,
    Fetch,
    Acknowledge,
}

pub(in crate::simulation) struct Sharer {
    number: u32,
    group: &'static str,
    topic: &'static str,
    partitions: i32,
    incarnation: u32,
    member_epoch: i32,
    /// 0: the next fetch makes a new session.
    session_epoch: i32,
    /// Acquired and not acknowledged: partition, first and last offset.
    held: Vec<(i32, i64, i64)>,
    /// What the acknowledgement under way says: partition, first and last offset, type.
    telling: Vec<(i32, i64, i64, i8)>,
    under_way: Option<(Asked, i64)>,
    finishing: bool,
}

impl Sharer {
    pub(in crate::simulation) fn new(number: u32, group: &'static str, topic: &'static str, partitions: i32) -> Self {
        Self {
            number,
            group,
            topic,
            partitions,
            incarnation: 0,
            member_epoch: 0,
            session_epoch: 0,
            held: Vec::new(),
            telling: Vec::new(),
            under_way: None,
            finishing: false,
        }
    }

    fn id(&self) -> String {
        let number = u128::from(self.number) << 64 | u128::from(self.incarnation) << 8 | 1 << 101;
        taccola_base::Uuid::from_u128(number).to_string()
    }

    /// The session is gone, and with it what it held.
    fn forget_session(&mut self, ctx: &mut Ctx<'_>) {
        self.session_epoch = 0;
        self.held.clear();
        self.telling.clear();
        let number = self.number;
        ctx.ledger.shares.entry(self.group).or_default().acquired.retain(|_, (owner, ..)| *owner != number);
    }

    fn next_session_epoch(&mut self) {
        self.session_epoch = if self.session_epoch == i32::MAX { 1 } else { self.session_epoch + 1 };
    }

    fn fetch(&mut self, ctx: &mut Ctx<'_>) -> Option<Bytes> {
        let topic_id = *ctx.ledger.topic_ids.get(self.topic)?;
        let partition = |partition_index| FetchPartition { partition_index, ..Default::default() };
        let topic = FetchTopic { topic_id, partitions: (0..self.partitions).map(partition).collect() };
        let request = ShareFetchRequest {
            group_id: Some(self.group.to_owned()),
            member_id: Some(self.id()),
            share_session_epoch: self.session_epoch,
            max_wait_ms: if ctx.rng.one_in(2) { 20 } else { 0 },
            min_bytes: 1,
            max_bytes: 1 << 20,
            max_records: 1 + ctx.rng.below(10) as i32,
            batch_size: 5,
            topics: if self.session_epoch == 0 { vec![topic] } else { Vec::new() },
            ..Default::default()
        };
        Some(encode(&request, FETCH))
    }

    fn acknowledge(&mut self, ctx: &mut Ctx<'_>) -> Option<Bytes> {
        let topic_id = *ctx.ledger.topic_ids.get(self.topic)?;
        let mut partitions = std::collections::BTreeMap::<i32, Vec<AcknowledgementBatch>>::new();
        for (partition, first_offset, last_offset) in std::mem::take(&mut self.held) {
            // Accept, release, reject.
            let kind = [1, 1, 1, 2, 3][ctx.rng.index(5)];
            self.telling.push((partition, first_offset, last_offset, kind));
            let batch = AcknowledgementBatch { first_offset, last_offset, acknowledge_types: vec![kind] };
            partitions.entry(partition).or_default().push(batch);
            if kind == 2 {
                self.no_longer(ctx, partition, first_offset, last_offset);
            }
        }
        let partitions = partitions.into_iter().map(|(partition_index, acknowledgement_batches)| {
            AcknowledgePartition { partition_index, acknowledgement_batches }
        });
        let request = ShareAcknowledgeRequest {
            group_id: Some(self.group.to_owned()),
            member_id: Some(self.id()),
            share_session_epoch: self.session_epoch,
            topics: vec![AcknowledgeTopic { topic_id, partitions: partitions.collect() }],
            ..Default::default()
        };
        *ctx.said = format!("acknowledges {:?}", self.telling);
        Some(encode(&request, ACKNOWLEDGE))
    }

    fn no_longer(&self, ctx: &mut Ctx<'_>, partition: i32, first: i64, last: i64) {
        let share = ctx.ledger.shares.entry(self.group).or_default();
        for offset in first..=last {
            share.acquired.remove(&(partition, offset));
        }
    }

    fn fetched(&mut self, ctx: &mut Ctx<'_>, sent_ms: i64, frame: Bytes) {
        let response = decode::<ShareFetchRequest>(FETCH, frame);
        *ctx.said = format!("code {}", response.error_code);
        if !self.session_goes_on(ctx, response.error_code) {
            return;
        }
        let now_ms = world::now_ms().unwrap();
        for data in response.responses.iter().flat_map(|topic| &topic.partitions) {
            for range in &data.acquired_records {
                let held = (data.partition_index, range.first_offset, range.last_offset);
                ctx.said.push_str(&format!(" {held:?}"));
                self.held.push(held);
                let share = ctx.ledger.shares.entry(self.group).or_default();
                for offset in range.first_offset..=range.last_offset {
                    let at = (data.partition_index, offset);
                    assert!(!share.done.contains(&at), "{}: {at:?} was done with and comes again", self.group);
                    let mine = (self.number, now_ms, sent_ms + LOCK_MS);
                    if let Some((other, since, until)) = share.acquired.insert(at, mine) {
                        let taken = other != self.number && since < sent_ms && now_ms < until;
                        assert!(!taken, "{}: {at:?} is given to {} while {other} has it", self.group, self.number);
                    }
                }
            }
        }
    }

    fn acknowledged(&mut self, ctx: &mut Ctx<'_>, frame: Bytes) {
        let response = decode::<ShareAcknowledgeRequest>(ACKNOWLEDGE, frame);
        let telling = std::mem::take(&mut self.telling);
        *ctx.said = format!("code {}", response.error_code);
        if !self.session_goes_on(ctx, response.error_code) {
            return;
        }
        for data in response.responses.iter().flat_map(|topic| &topic.partitions) {
            ctx.said.push_str(&format!(" {}: {}", data.partition_index, data.error_code));
            let of_partition = telling.iter().filter(|told| told.0 == data.partition_index);
            for (partition, first, last, kind) in of_partition {
                self.no_longer(ctx, *partition, *first, *last);
                if data.error_code == 0 && *kind != 2 {
                    let share = ctx.ledger.shares.entry(self.group).or_default();
                    share.done.extend((*first..=*last).map(|offset| (*partition, offset)));
                }
            }
        }
    }

    fn session_goes_on(&mut self, ctx: &mut Ctx<'_>, code: i16) -> bool {
        match ErrorCode::from_code(code) {
            ErrorCode::None => {
                self.next_session_epoch();
                true
            }
            ErrorCode::ShareSessionNotFound
            | ErrorCode::InvalidShareSessionEpoch
            | ErrorCode::ShareSessionLimitReached
            | ErrorCode::UnknownMemberId => {
                self.forget_session(ctx);
                false
            }
            other => {
                assert!(is_retriable(code), "{}: {other:?}", self.name());
                self.forget_session(ctx);
                false
            }
        }
    }
}

impl Client for Sharer {
    fn name(&self) -> String {
        format!("sharer {}", self.number)
    }

    fn ask(&mut self, ctx: &mut Ctx<'_>) -> Option<Ask> {
        if self.under_way.is_some() || self.finishing {
            return None;
        }
        let now_ms = world::now_ms()?;
        let (asked, frame) = if self.member_epoch == 0 || ctx.rng.one_in(8) {
            if self.member_epoch == 0 {
                self.incarnation += 1;
                self.forget_session(ctx);
            }
            let request = ShareGroupHeartbeatRequest {
                group_id: self.group.to_owned(),
                member_id: self.id(),
                member_epoch: self.member_epoch,
                subscribed_topic_names: (self.member_epoch == 0).then(|| vec![self.topic.to_owned()]),
                ..Default::default()
            };
            *ctx.said = format!("heartbeat {}", self.member_epoch);
            (Asked::Heartbeat, encode(&request, HEARTBEAT))
        } else if self.session_epoch > 0 && !self.held.is_empty() && !ctx.rng.one_in(4) {
            (Asked::Acknowledge, self.acknowledge(ctx)?)
        } else {
            *ctx.said = format!("fetch in session {}", self.session_epoch);
            (Asked::Fetch, self.fetch(ctx)?)
        };
        self.under_way = Some((asked, now_ms));
        Some(Ask { tag: 0, frame })
    }

    fn answered(&mut self, ctx: &mut Ctx<'_>, _tag: u64, frame: Bytes) {
        let Some((asked, sent_ms)) = self.under_way.take() else { return };
        match asked {
            Asked::Fetch => self.fetched(ctx, sent_ms, frame),
            Asked::Acknowledge => self.acknowledged(ctx, frame),
            Asked::Heartbeat => {
                let response = decode::<ShareGroupHeartbeatRequest>(HEARTBEAT, frame);
                *ctx.said = format!("code {} epoch {}", response.error_code, response.member_epoch);
                match ErrorCode::from_code(response.error_code) {
                    ErrorCode::None => self.member_epoch = response.member_epoch,
                    ErrorCode::UnknownMemberId | ErrorCode::FencedMemberEpoch => self.member_epoch = 0,
                    _ => assert!(is_retriable(response.error_code), "{}: {response:?}", self.name()),
                }
            }
        }
    }

    fn lost(&mut self, ctx: &mut Ctx<'_>, _tag: u64) {
        self.under_way = None;
        self.forget_session(ctx);
    }

    fn late(&self) -> bool {
        false
    }

    fn finish(&mut self) -> bool {
        self.finishing = true;
        self.under_way.is_none()
    }
}
