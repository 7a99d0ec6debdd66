//! Incremental fetch sessions (KIP-227). Answers to Kafka's `FetchManager`, `FetchSession` and its cache.
//!
//! A session remembers the partitions of a client and what it was last told of each, so that a request carries only
//! changes and an answer only partitions with news. Invariants: a session's epoch counts its requests and wraps from
//! `i32::MAX` to 1; a session speaks either topic names or topic ids for its whole life; a partition with an error is
//! answered in each round until the error is gone. LIMIT: `max.incremental.fetch.session.cache.slots` sessions; when
//! all are in use the oldest idle one gives way, or the client is served without a session (id 0).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use taccola_base::Uuid;
use taccola_wire::error::ErrorCode;

/// Session epochs with a meaning (`FetchMetadata`).
pub const EPOCH_INITIAL: i32 = 0;
pub const EPOCH_FINAL: i32 = -1;
/// `min.incremental.fetch.session.eviction.ms`, fixed in Kafka 4.
const EVICTION_IDLE_MS: i64 = 120_000;

/// How a request names a partition: by topic name (v4–12) or id (v13 and later).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FetchKey {
    pub topic: FetchTopicName,
    pub partition: i32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FetchTopicName {
    Name(Arc<str>),
    Id(Uuid),
}

/// What a client asks of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchPosition {
    /// The name of the topic that `FetchTopicName::Id` meant when it was asked for. A session keeps it when the topic is
    /// deleted, so that the answer tells a topic that is gone or made anew from an id that was never known.
    pub topic_name: Option<Arc<str>>,
    pub fetch_offset: i64,
    pub log_start_offset: i64,
    pub partition_max_bytes: i32,
    /// -1 when the client does not say.
    pub current_leader_epoch: i32,
    /// -1 when the client does not say.
    pub last_fetched_epoch: i32,
}

/// What a client was last told of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    high_watermark: i64,
    log_start_offset: i64,
}

#[derive(Debug)]
struct SessionPartition {
    position: FetchPosition,
    told: Option<Told>,
}

/// One client's session.
#[derive(Debug)]
pub struct FetchSession {
    pub id: i32,
    uses_topic_ids: bool,
    /// The epoch that the next request must carry.
    next_epoch: i32,
    last_used_ms: i64,
    /// Partitions in the order in which they are read; whoever got data goes to the end, so none starves.
    order: BTreeMap<u64, FetchKey>,
    partitions: HashMap<FetchKey, (u64, SessionPartition)>,
    next_position: u64,
}

/// The part of a partition's answer that decides whether a session has news.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub high_watermark: i64,
    pub log_start_offset: i64,
    pub has_records: bool,
    /// An error or a diverging epoch: to be told again in the next round.
    pub must_tell: bool,
}

impl FetchSession {
    fn new(id: i32, uses_topic_ids: bool, now_ms: i64) -> Self {
        Self {
            id,
            uses_topic_ids,
            next_epoch: 1,
            last_used_ms: now_ms,
            order: BTreeMap::new(),
            partitions: HashMap::new(),
            next_position: 0,
        }
    }

    fn upsert(&mut self, key: FetchKey, position: FetchPosition) {
        match self.partitions.get_mut(&key) {
            Some((_, known)) => {
                let topic_name = known.position.topic_name.take().or(position.topic_name);
                known.position = FetchPosition { topic_name, ..position };
            }
            None => {
                self.order.insert(self.next_position, key.clone());
                self.partitions.insert(key, (self.next_position, SessionPartition { position, told: None }));
                self.next_position += 1;
            }
        }
    }

    fn forget(&mut self, key: &FetchKey) {
        if let Some((position, _)) = self.partitions.remove(key) {
            self.order.remove(&position);
        }
    }

    /// The partitions to read, in order.
    pub fn plan(&self) -> Vec<(FetchKey, FetchPosition)> {
        self.order
            .values()
            .filter_map(|key| self.partitions.get(key).map(|(_, p)| (key.clone(), p.position.clone())))
            .collect()
    }

    /// Whether the answer goes to the client in this round; remembers it as told when it does.
    pub fn tell(&mut self, key: &FetchKey, answer: Answer, always: bool) -> bool {
        let Some((position, partition)) = self.partitions.get_mut(key) else { return true };
        let news = Told { high_watermark: answer.high_watermark, log_start_offset: answer.log_start_offset };
        let tell = always || answer.has_records || answer.must_tell || partition.told != Some(news);
        partition.told = (!answer.must_tell).then_some(news);
        if tell && answer.has_records {
            self.order.remove(position);
            *position = self.next_position;
            self.order.insert(self.next_position, key.clone());
            self.next_position += 1;
        }
        tell
    }
}

/// How a request is to be served.
#[derive(Debug)]
pub enum FetchContext {
    /// No session: all partitions are read and answered.
    Sessionless { partitions: Vec<(FetchKey, FetchPosition)> },
    /// A first request: all partitions are answered; the session is there from now on, if `session` is.
    Full { session: Option<SharedSession>, partitions: Vec<(FetchKey, FetchPosition)> },
    /// Only partitions with news are answered.
    Incremental { session: SharedSession, partitions: Vec<(FetchKey, FetchPosition)> },
    /// The whole request is answered with this error and session id 0.
    Error(ErrorCode),
}

pub type SharedSession = Arc<Mutex<FetchSession>>;

/// A request's session part.
#[derive(Debug)]
pub struct FetchRequestView {
    pub session_id: i32,
    pub session_epoch: i32,
    pub uses_topic_ids: bool,
    pub partitions: Vec<(FetchKey, FetchPosition)>,
    pub forgotten: Vec<FetchKey>,
}

/// All sessions of this broker.
#[derive(Debug)]
pub struct FetchSessionCache {
    sessions: HashMap<i32, SharedSession>,
    slots: usize,
}

impl FetchSessionCache {
    pub fn new(slots: usize) -> Self {
        Self { sessions: HashMap::new(), slots }
    }

    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Finds out how to serve a request and updates its session. `fresh_id` is a random positive id.
    pub fn context(&mut self, request: FetchRequestView, now_ms: i64, fresh_id: impl FnMut() -> i32) -> FetchContext {
        match request.session_epoch {
            EPOCH_FINAL => {
                self.sessions.remove(&request.session_id);
                FetchContext::Sessionless { partitions: request.partitions }
            }
            EPOCH_INITIAL => {
                self.sessions.remove(&request.session_id);
                self.open(request, now_ms, fresh_id)
            }
            _ => self.resume(request, now_ms),
        }
    }

    fn open(&mut self, request: FetchRequestView, now_ms: i64, mut fresh_id: impl FnMut() -> i32) -> FetchContext {
        let partitions = request.partitions;
        if !self.make_room(now_ms) {
            return FetchContext::Full { session: None, partitions };
        }
        let id = loop {
            let id = fresh_id();
            if id > 0 && !self.sessions.contains_key(&id) {
                break id;
            }
        };
        let mut session = FetchSession::new(id, request.uses_topic_ids, now_ms);
        for (key, position) in partitions {
            session.upsert(key, position);
        }
        let partitions = session.plan();
        let session = Arc::new(Mutex::new(session));
        self.sessions.insert(id, session.clone());
        FetchContext::Full { session: Some(session), partitions }
    }

    fn make_room(&mut self, now_ms: i64) -> bool {
        if self.sessions.len() < self.slots {
            return true;
        }
        let oldest = self.sessions.values().map(|s| s.lock()).map(|s| (s.last_used_ms, s.id)).min();
        match oldest {
            Some((last_used_ms, id)) if now_ms.saturating_sub(last_used_ms) > EVICTION_IDLE_MS => {
                self.sessions.remove(&id);
                true
            }
            _ => false,
        }
    }

    fn resume(&mut self, request: FetchRequestView, now_ms: i64) -> FetchContext {
        let Some(shared) = self.sessions.get(&request.session_id).cloned() else {
            return FetchContext::Error(ErrorCode::FetchSessionIdNotFound);
        };
        let mut session = shared.lock();
        if session.next_epoch != request.session_epoch {
            return FetchContext::Error(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.uses_topic_ids != request.uses_topic_ids {
            return FetchContext::Error(ErrorCode::FetchSessionTopicIdError);
        }
        for (key, position) in request.partitions {
            session.upsert(key, position);
        }
        for key in &request.forgotten {
            session.forget(key);
        }
        session.last_used_ms = now_ms;
        session.next_epoch = if session.next_epoch == i32::MAX { 1 } else { session.next_epoch + 1 };
        if session.partitions.is_empty() {
            self.sessions.remove(&request.session_id);
            return FetchContext::Sessionless { partitions: Vec::new() };
        }
        let partitions = session.plan();
        drop(session);
        FetchContext::Incremental { session: shared, partitions }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(partition: i32) -> FetchKey {
        FetchKey { topic: FetchTopicName::Name("t".into()), partition }
    }

    fn position(fetch_offset: i64) -> FetchPosition {
        FetchPosition {
            topic_name: None,
            fetch_offset,
            log_start_offset: -1,
            partition_max_bytes: 1,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
        }
    }

    fn request(session_id: i32, session_epoch: i32, partitions: &[(i32, i64)], forgotten: &[i32]) -> FetchRequestView {
        FetchRequestView {
            session_id,
            session_epoch,
            uses_topic_ids: false,
            partitions: partitions.iter().map(|(p, o)| (key(*p), position(*o))).collect(),
            forgotten: forgotten.iter().map(|p| key(*p)).collect(),
        }
    }

    fn opened(cache: &mut FetchSessionCache) -> SharedSession {
        match cache.context(request(0, 0, &[(0, 0), (1, 0), (2, 0)], &[]), 0, || 77) {
            FetchContext::Full { session: Some(session), partitions } => {
                assert_eq!(partitions.len(), 3);
                session
            }
            other => panic!("{other:?}"),
        }
    }

    const QUIET: Answer = Answer { high_watermark: 5, log_start_offset: 0, has_records: false, must_tell: false };

    #[test]
    fn trap_35_epochs_are_counted_and_wrap_to_one() {
        let mut cache = FetchSessionCache::new(10);
        let session = opened(&mut cache);
        let wrong = cache.context(request(77, 2, &[], &[]), 0, || 1);
        assert!(matches!(wrong, FetchContext::Error(ErrorCode::InvalidFetchSessionEpoch)));
        let missing = cache.context(request(78, 1, &[], &[]), 0, || 1);
        assert!(matches!(missing, FetchContext::Error(ErrorCode::FetchSessionIdNotFound)));
        session.lock().next_epoch = i32::MAX;
        assert!(matches!(cache.context(request(77, i32::MAX, &[], &[]), 0, || 1), FetchContext::Incremental { .. }));
        assert!(matches!(cache.context(request(77, 1, &[], &[]), 0, || 1), FetchContext::Incremental { .. }));
    }

    #[test]
    fn only_news_is_told_and_errors_are_told_again() {
        let mut cache = FetchSessionCache::new(10);
        let session = opened(&mut cache);
        let mut session = session.lock();
        assert!(session.tell(&key(0), QUIET, true));
        assert!(!session.tell(&key(0), QUIET, false));
        assert!(session.tell(&key(0), Answer { high_watermark: 6, ..QUIET }, false));
        let error = Answer { must_tell: true, ..QUIET };
        assert!(session.tell(&key(1), error, false));
        assert!(session.tell(&key(1), error, false));
        assert!(session.tell(&key(1), QUIET, false), "the end of an error is news");
        let order: Vec<i32> = session.plan().iter().map(|(k, _)| k.partition).collect();
        assert_eq!(order, [0, 1, 2]);
        assert!(session.tell(&key(0), Answer { has_records: true, ..QUIET }, false));
        let order: Vec<i32> = session.plan().iter().map(|(k, _)| k.partition).collect();
        assert_eq!(order, [1, 2, 0], "whoever got data goes to the end");
    }

    #[test]
    fn forgetting_all_partitions_closes_the_session() {
        let mut cache = FetchSessionCache::new(10);
        opened(&mut cache);
        let context = cache.context(request(77, 1, &[(3, 0)], &[0, 1, 2]), 0, || 1);
        assert!(matches!(context, FetchContext::Incremental { partitions, .. } if partitions.len() == 1));
        let context = cache.context(request(77, 2, &[], &[3]), 0, || 1);
        assert!(matches!(context, FetchContext::Sessionless { partitions } if partitions.is_empty()));
        assert!(cache.is_empty());
    }

    #[test]
    fn trap_36_a_session_keeps_to_names_or_ids() {
        let mut cache = FetchSessionCache::new(10);
        opened(&mut cache);
        let by_id = FetchRequestView { uses_topic_ids: true, ..request(77, 1, &[], &[]) };
        assert!(matches!(cache.context(by_id, 0, || 1), FetchContext::Error(ErrorCode::FetchSessionTopicIdError)));
    }

    #[test]
    fn a_session_keeps_the_name_that_an_id_had() {
        let mut session = FetchSession::new(7, true, 0);
        let id = FetchKey { topic: FetchTopicName::Id(Uuid::ZERO), partition: 0 };
        session.upsert(id.clone(), position(0));
        session.upsert(id.clone(), FetchPosition { topic_name: Some("t".into()), ..position(1) });
        session.upsert(id, position(2));
        let kept = FetchPosition { topic_name: Some("t".into()), ..position(2) };
        assert_eq!(session.plan().into_iter().map(|(_, position)| position).collect::<Vec<_>>(), [kept]);
    }

    #[test]
    fn a_full_cache_serves_without_a_session_until_one_is_idle() {
        let mut cache = FetchSessionCache::new(1);
        opened(&mut cache);
        let context = cache.context(request(0, 0, &[(0, 0)], &[]), EVICTION_IDLE_MS, || 5);
        assert!(matches!(context, FetchContext::Full { session: None, .. }));
        let context = cache.context(request(0, 0, &[(0, 0)], &[]), EVICTION_IDLE_MS + 1, || 5);
        assert!(matches!(context, FetchContext::Full { session: Some(_), .. }));
        assert_eq!(cache.len(), 1);
    }
}
