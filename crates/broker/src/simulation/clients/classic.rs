//! A member of a consumer group of the classic protocol: joins, syncs, heartbeats, commits offsets, leaves. The leader of a
//! generation assigns each member a text of its own, the others must get exactly that.
//!
//! A generation that came to its end in a SyncGroup somebody heard of never comes again, over all lives of the broker, and a
//! commit of an older one is never taken. One member may be static.

use std::collections::BTreeMap;

use bytes::Bytes;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::join_group_request::JoinGroupRequestProtocol;
use taccola_wire::messages::join_group_response::JoinGroupResponse;
use taccola_wire::messages::leave_group_request::MemberIdentity;
use taccola_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use taccola_wire::messages::{
    HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest, SyncGroupRequest,
};

use super::committer::topics;
use super::{Client, Ctx, decode, encode, is_retriable};
use crate::simulation::network::Ask;

const JOIN: i16 = 9;
const SYNC: i16 = 5;
const HEARTBEAT: i16 = 4;
const LEAVE: i16 = 5;
const COMMIT: i16 = 9;
/// The least that a broker takes by default.
const SESSION_MS: i32 = 6_000;
const REBALANCE_MS: i32 = 6_000;

/// What a group's members know of it together.
#[derive(Debug, Default)]
pub(in crate::simulation) struct ClassicLedger {
    /// The greatest generation whose assignments were handed out.
    synced: i32,
    /// What leaders sent for a generation, by member: more than one where a broker died in between.
    sent: BTreeMap<i32, Vec<BTreeMap<String, Bytes>>>,
    leaderships: u64,
    next_offset: i64,
    commits: Commits,
}

/// Which of several members' commits may be the last: each has an offset of its own.
#[derive(Debug, Default)]
struct Commits {
    /// Counts what happens.
    clock: u64,
    may_be: BTreeMap<i64, Commit>,
}

#[derive(Debug)]
enum Commit {
    /// Sent at this moment.
    UnderWay(u64),
    /// Answered at this moment.
    Taken(u64),
    /// Not answered; the start of the broker in which it was sent.
    Lost(u32),
}

impl Commits {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn sent(&mut self, offset: i64) {
        let now = self.tick();
        self.may_be.insert(offset, Commit::UnderWay(now));
    }

    fn refused(&mut self, offset: i64) {
        self.may_be.remove(&offset);
    }

    fn taken(&mut self, offset: i64, boot: u32) {
        let now = self.tick();
        let Some(Commit::UnderWay(sent)) = self.may_be.insert(offset, Commit::Taken(now)) else { return };
        self.may_be.retain(|_, other| match other {
            Commit::UnderWay(_) => true,
            Commit::Taken(at) => *at > sent,
            // It may still arrive as long as the same broker lives.
            Commit::Lost(of) => *of == boot,
        });
    }

    fn lost(&mut self, offset: i64, boot: u32) {
        self.may_be.insert(offset, Commit::Lost(boot));
    }

    /// None is possible until one was taken.
    fn allows(&self, offset: i64) -> bool {
        let none_taken = !self.may_be.values().any(|commit| matches!(commit, Commit::Taken(_)));
        self.may_be.contains_key(&offset) || (offset == -1 && none_taken)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Join,
    Sync,
    Heartbeat,
    Leave,
    /// An offset.
    Commit(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Out,
    Joined,
    Stable,
}

pub(in crate::simulation) struct Classic {
    number: u32,
    group: &'static str,
    topic: &'static str,
    instance: Option<String>,
    member: String,
    generation: i32,
    state: State,
    /// Of the leader: what it sends, until it is answered.
    assigns: BTreeMap<String, Bytes>,
    /// The request under way, and the ledger's `synced` when it was sent.
    under_way: Option<(Asked, i32)>,
    finishing: bool,
    over: bool,
}

impl Classic {
    pub(in crate::simulation) fn new(number: u32, group: &'static str, topic: &'static str, is_static: bool) -> Self {
        Self {
            number,
            group,
            topic,
            instance: is_static.then(|| format!("instance-{number}")),
            member: String::new(),
            generation: -1,
            state: State::Out,
            assigns: BTreeMap::new(),
            under_way: None,
            finishing: false,
            over: false,
        }
    }

    fn ledger<'a>(&self, ctx: &'a mut Ctx<'_>) -> &'a mut ClassicLedger {
        ctx.ledger.classics.entry(self.group).or_default()
    }

    fn join(&self) -> Bytes {
        let protocol = JoinGroupRequestProtocol { name: "range".to_owned(), metadata: Bytes::from_static(b"all") };
        let request = JoinGroupRequest {
            group_id: self.group.to_owned(),
            session_timeout_ms: SESSION_MS,
            rebalance_timeout_ms: REBALANCE_MS,
            member_id: self.member.clone(),
            group_instance_id: self.instance.clone(),
            protocol_type: "consumer".to_owned(),
            protocols: vec![protocol],
            ..Default::default()
        };
        encode(&request, JOIN)
    }

    fn sync(&self, ctx: &mut Ctx<'_>) -> Bytes {
        if !self.assigns.is_empty() {
            let (generation, assigns) = (self.generation, self.assigns.clone());
            let sent = self.ledger(ctx).sent.entry(generation).or_default();
            if !sent.contains(&assigns) {
                sent.push(assigns);
            }
        }
        let row = |(member_id, assignment): (&String, &Bytes)| SyncGroupRequestAssignment {
            member_id: member_id.clone(),
            assignment: assignment.clone(),
        };
        let request = SyncGroupRequest {
            group_id: self.group.to_owned(),
            generation_id: self.generation,
            member_id: self.member.clone(),
            group_instance_id: self.instance.clone(),
            protocol_type: Some("consumer".to_owned()),
            protocol_name: Some("range".to_owned()),
            assignments: self.assigns.iter().map(row).collect(),
        };
        encode(&request, SYNC)
    }

    fn heartbeat(&self) -> Bytes {
        let request = HeartbeatRequest {
            group_id: self.group.to_owned(),
            generation_id: self.generation,
            member_id: self.member.clone(),
            group_instance_id: self.instance.clone(),
        };
        encode(&request, HEARTBEAT)
    }

    fn leave(&self) -> Bytes {
        let member = MemberIdentity {
            member_id: self.member.clone(),
            group_instance_id: self.instance.clone(),
            ..Default::default()
        };
        let request =
            LeaveGroupRequest { group_id: self.group.to_owned(), members: vec![member], ..Default::default() };
        encode(&request, LEAVE)
    }

    fn commit(&self, offset: i64) -> Bytes {
        let request = OffsetCommitRequest {
            group_id: self.group.to_owned(),
            generation_id_or_member_epoch: self.generation,
            member_id: self.member.clone(),
            group_instance_id: self.instance.clone(),
            topics: topics(self.topic, offset),
            ..Default::default()
        };
        encode(&request, COMMIT)
    }

    /// The group does not know this member any more, or it left.
    fn out(&mut self) {
        self.member.clear();
        self.again();
    }

    /// It has to join anew, as who it is.
    fn again(&mut self) {
        self.generation = -1;
        self.state = State::Out;
        self.assigns.clear();
    }

    /// What a refusal makes of a member.
    fn refused(&mut self, code: i16) {
        match ErrorCode::from_code(code) {
            ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId => self.out(),
            ErrorCode::IllegalGeneration | ErrorCode::RebalanceInProgress => self.again(),
            _ => assert!(is_retriable(code), "{}: code {code}", self.name()),
        }
    }

    fn joined(&mut self, ctx: &mut Ctx<'_>, response: JoinGroupResponse, synced_before: i32) {
        *ctx.said = format!(
            "code {} generation {} of {} members, leads {}",
            response.error_code,
            response.generation_id,
            response.members.len(),
            response.leader == response.member_id
        );
        if response.error_code == ErrorCode::MemberIdRequired.code() {
            assert!(!response.member_id.is_empty(), "{}: no member id", self.name());
            self.member = response.member_id;
            return;
        }
        if response.error_code != 0 {
            return self.refused(response.error_code);
        }
        let generation = response.generation_id;
        assert!(generation >= synced_before, "{}: generation {generation} after {synced_before}", self.name());
        assert_eq!(response.protocol_name.as_deref(), Some("range"), "{}", self.name());
        let leads = response.leader == response.member_id;
        assert_eq!(leads, !response.members.is_empty(), "{}: {response:?}", self.name());
        (self.member, self.generation, self.state) = (response.member_id, generation, State::Joined);
        if leads && !response.skip_assignment {
            assert!(response.members.iter().any(|row| row.member_id == self.member), "{}: not in it", self.name());
            let known = self.ledger(ctx);
            known.leaderships += 1;
            let nonce = known.leaderships;
            let row = |member: &str| (member.to_owned(), Bytes::from(format!("{nonce} {generation} {member}")));
            self.assigns = response.members.iter().map(|member| row(&member.member_id)).collect();
        }
    }

    fn synced(&mut self, ctx: &mut Ctx<'_>, code: i16, assignment: &Bytes) {
        *ctx.said = format!("code {code} {}", String::from_utf8_lossy(assignment));
        if code != 0 {
            return self.refused(code);
        }
        let (name, generation, member) = (self.name(), self.generation, self.member.clone());
        let is_static = self.instance.is_some();
        let known = self.ledger(ctx);
        let sent = known.sent.entry(generation).or_default();
        // A static member that came back has its predecessor's.
        let is_mine = |sent: &&BTreeMap<String, Bytes>| {
            sent.get(&member) == Some(assignment) || (is_static && sent.values().any(|text| text == assignment))
        };
        let found = sent.iter().find(is_mine).cloned();
        let found = found.unwrap_or_else(|| panic!("{name}: generation {generation}: {assignment:?} of {sent:?}"));
        // Nobody gets another leader's from now on.
        *sent = vec![found];
        known.synced = known.synced.max(generation);
        self.state = State::Stable;
        self.assigns.clear();
    }
}

impl Client for Classic {
    fn name(&self) -> String {
        format!("classic {}", self.number)
    }

    fn ask(&mut self, ctx: &mut Ctx<'_>) -> Option<Ask> {
        if self.under_way.is_some() || self.over {
            return None;
        }
        if self.finishing && self.member.is_empty() && self.instance.is_none() {
            self.over = true;
            return None;
        }
        let (asked, frame) = match self.state {
            _ if self.finishing => (Asked::Leave, self.leave()),
            State::Out => (Asked::Join, self.join()),
            State::Joined => (Asked::Sync, self.sync(ctx)),
            State::Stable if ctx.rng.one_in(30) => (Asked::Leave, self.leave()),
            // By itself, as who has another subscription.
            State::Stable if ctx.rng.one_in(30) => (Asked::Join, self.join()),
            State::Stable if ctx.rng.one_in(2) => {
                let known = self.ledger(ctx);
                let offset = known.next_offset;
                known.next_offset += 1;
                known.commits.sent(offset);
                (Asked::Commit(offset), self.commit(offset))
            }
            State::Stable => (Asked::Heartbeat, self.heartbeat()),
        };
        *ctx.said = format!("{asked:?} as {:?} in {}", self.member, self.generation);
        self.under_way = Some((asked, self.ledger(ctx).synced));
        Some(Ask { tag: 0, frame })
    }

    fn answered(&mut self, ctx: &mut Ctx<'_>, _tag: u64, frame: Bytes) {
        let Some((asked, synced_before)) = self.under_way.take() else { return };
        match asked {
            Asked::Join => {
                let response = decode::<JoinGroupRequest>(JOIN, frame);
                self.joined(ctx, response, synced_before);
            }
            Asked::Sync => {
                let response = decode::<SyncGroupRequest>(SYNC, frame);
                self.synced(ctx, response.error_code, &response.assignment);
            }
            Asked::Heartbeat => {
                let code = decode::<HeartbeatRequest>(HEARTBEAT, frame).error_code;
                *ctx.said = format!("code {code}");
                if code != 0 {
                    self.refused(code);
                }
            }
            Asked::Leave => {
                let response = decode::<LeaveGroupRequest>(LEAVE, frame);
                let row = response.members.first().map_or(response.error_code, |row| row.error_code);
                *ctx.said = format!("code {} {row}", response.error_code);
                let known = [ErrorCode::None, ErrorCode::UnknownMemberId, ErrorCode::FencedInstanceId];
                let code = if response.error_code == 0 { row } else { response.error_code };
                if known.contains(&ErrorCode::from_code(code)) {
                    self.out();
                    self.over = self.finishing;
                } else {
                    assert!(is_retriable(code), "{}: LeaveGroup answers {code}", self.name());
                }
            }
            Asked::Commit(offset) => {
                let response = decode::<OffsetCommitRequest>(COMMIT, frame);
                let code = response.topics[0].partitions[0].error_code;
                *ctx.said = format!("offset {offset} code {code}");
                let (name, generation, boot) = (self.name(), self.generation, ctx.boot);
                let known = self.ledger(ctx);
                if code != 0 {
                    // What the disk refused may be on it all the same.
                    match ErrorCode::from_code(code) {
                        ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration => known.commits.refused(offset),
                        _ => known.commits.lost(offset, boot),
                    }
                    return self.refused(code);
                }
                assert!(generation >= synced_before, "{name}: a commit of generation {generation} is taken");
                known.commits.taken(offset, boot);
            }
        }
    }

    fn lost(&mut self, ctx: &mut Ctx<'_>, _tag: u64) {
        let Some((asked, _)) = self.under_way.take() else { return };
        match asked {
            Asked::Commit(offset) => {
                let boot = ctx.boot;
                self.ledger(ctx).commits.lost(offset, boot);
            }
            // Whether it is in the group it does not know: somebody else joins in its place.
            Asked::Join | Asked::Leave => self.out(),
            Asked::Sync | Asked::Heartbeat => {}
        }
    }

    fn late(&self) -> bool {
        false
    }

    fn finish(&mut self) -> bool {
        self.finishing = true;
        self.over && self.under_way.is_none()
    }

    fn offsets(&self) -> Vec<(String, String, i32)> {
        // One of the members answers for all.
        if self.number == 1 { vec![(self.group.to_owned(), self.topic.to_owned(), 0)] } else { Vec::new() }
    }

    fn committed(&mut self, ctx: &mut Ctx<'_>, group: &str, offset: i64, _settled: bool) {
        let commits = &self.ledger(ctx).commits;
        assert!(commits.allows(offset), "{group}: {offset} is committed, and not one of {:?}", commits.may_be);
    }
}
