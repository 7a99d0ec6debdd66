//! Which connections are let in: how many, from whom, how fast. Answers to Kafka's `ConnectionQuotas` (KIP-308, KIP-612).
//!
//! - Too many from one address (`max.connections.per.ip`): the connection is closed at once.
//! - Too many in all, or on the listener (`max.connections`), or too fast (`max.connection.creation.rate`): the listener
//!   accepts nothing more until there is room, and the system's backlog holds the clients.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Longest wait before the limits are looked at again, for a rate of 0 has no next connection.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A rate that is no limit: Kafka's default.
const UNLIMITED_RATE: u32 = i32::MAX as u32;

/// What may be open at a time, and how fast it may come. Can change while the broker runs.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// `max.connections`, or fewer where the process may not open so many files.
    pub connections_max: usize,
    /// `max.connections.per.ip`.
    pub per_ip_max: usize,
    /// `max.connections.per.ip.overrides`, host names resolved.
    pub per_ip_overrides: HashMap<IpAddr, usize>,
    /// `max.connection.creation.rate`: connections per second; a burst of one second's worth is let through.
    pub creation_rate: u32,
    /// `listener.name.<listener>.…`, by the listener's name in upper case.
    pub of_listener: HashMap<String, ListenerConnectionLimits>,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections_max: usize::MAX,
            per_ip_max: usize::MAX,
            per_ip_overrides: HashMap::new(),
            creation_rate: UNLIMITED_RATE,
            of_listener: HashMap::new(),
        }
    }
}

/// One listener's own limits, besides those of all together. `None`: none.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListenerConnectionLimits {
    pub connections_max: Option<usize>,
    pub creation_rate: Option<u32>,
}

/// The open connections of all listeners, and the limits that they obey.
#[derive(Debug, Default)]
pub struct Admissions {
    state: Mutex<State>,
    /// A connection ended, or the limits changed.
    changed: Notify,
    next_id: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    limits: ConnectionLimits,
    total: usize,
    per_listener: HashMap<Arc<str>, usize>,
    per_ip: HashMap<IpAddr, usize>,
    bucket: Bucket,
    listener_buckets: HashMap<Arc<str>, Bucket>,
}

/// An open connection's place, given back when dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    admissions: Arc<Admissions>,
    listener: Arc<str>,
    ip: IpAddr,
}

/// What becomes of a connection.
#[derive(Debug)]
enum Verdict {
    Admitted,
    TooManyFromIp,
    /// There is no room until another one ends.
    Full,
    /// It comes too early by this much.
    TooFast(Duration),
}

impl Admissions {
    pub fn new(limits: ConnectionLimits) -> Self {
        Self { state: Mutex::new(State { limits, ..State::default() }), ..Self::default() }
    }

    /// Takes over other limits. Connections above them stay open; what waits for room looks again.
    pub fn set_limits(&self, limits: ConnectionLimits) {
        self.lock().limits = limits;
        self.changed.notify_waiters();
    }

    pub fn open_connections(&self) -> usize {
        self.lock().total
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// A place for a connection that was accepted, once there is one; `None`: it is to be closed.
    pub(crate) async fn admit(self: &Arc<Self>, listener: &Arc<str>, ip: IpAddr) -> Option<Admission> {
        let mut told = false;
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            let verdict = self.lock().judge(listener, ip, Instant::now());
            let wait = match verdict {
                Verdict::Admitted => {
                    return Some(Admission { admissions: self.clone(), listener: listener.clone(), ip });
                }
                Verdict::TooManyFromIp => return None,
                Verdict::TooFast(wait) => wait.min(LOOK_AGAIN),
                Verdict::Full => {
                    if !told {
                        let open = self.open_connections();
                        tracing::warn!(listener = &**listener, open, "no room for more connections; further ones wait");
                    }
                    told = true;
                    LOOK_AGAIN
                }
            };
            // Elapsing is an answer like any other.
            let _ = tokio::time::timeout(wait, changed).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    /// Counts the connection when it is admitted.
    fn judge(&mut self, listener: &Arc<str>, ip: IpAddr, now: Instant) -> Verdict {
        // An IPv4 client of an IPv6 socket is the same client.
        let ip = ip.to_canonical();
        let limits = &self.limits;
        let of_ip = self.per_ip.get(&ip).copied().unwrap_or(0);
        if of_ip >= limits.per_ip_overrides.get(&ip).copied().unwrap_or(limits.per_ip_max) {
            return Verdict::TooManyFromIp;
        }
        let own = limits.of_listener.get(&**listener).copied().unwrap_or_default();
        let of_listener = self.per_listener.get(listener).copied().unwrap_or(0);
        if self.total >= limits.connections_max || own.connections_max.is_some_and(|max| of_listener >= max) {
            return Verdict::Full;
        }
        let all_rate = limits.creation_rate;
        let own_rate = own.creation_rate.unwrap_or(UNLIMITED_RATE);
        let own_bucket = self.listener_buckets.entry(listener.clone()).or_default();
        let wait = self.bucket.fill(all_rate, now).max(own_bucket.fill(own_rate, now));
        if wait > Duration::ZERO {
            return Verdict::TooFast(wait);
        }
        self.bucket.take();
        own_bucket.take();
        self.total += 1;
        *self.per_listener.entry(listener.clone()).or_default() += 1;
        *self.per_ip.entry(ip).or_default() += 1;
        Verdict::Admitted
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut state = self.admissions.lock();
        let ip = self.ip.to_canonical();
        if let Some(of_ip) = state.per_ip.get_mut(&ip) {
            *of_ip -= 1;
            if *of_ip == 0 {
                state.per_ip.remove(&ip);
            }
        }
        if let Some(of_listener) = state.per_listener.get_mut(&self.listener) {
            *of_listener -= 1;
        }
        state.total -= 1;
        drop(state);
        self.admissions.changed.notify_waiters();
    }
}

/// A token bucket that holds one second's worth, and at least one.
#[derive(Debug, Default)]
struct Bucket {
    tokens: f64,
    filled_at: Option<Instant>,
}

impl Bucket {
    /// How long until there is a token; zero: now.
    fn fill(&mut self, rate: u32, now: Instant) -> Duration {
        let rate = f64::from(rate);
        let most = rate.max(1.0);
        self.tokens = match self.filled_at {
            // Whoever starts may have a burst, unless nothing is allowed at all.
            None => rate,
            Some(at) => (self.tokens + now.saturating_duration_since(at).as_secs_f64() * rate).min(most),
        };
        self.filled_at = Some(now);
        if self.tokens >= 1.0 {
            Duration::ZERO
        } else if rate > 0.0 {
            // Rounded up, or the next look would come a hair too early.
            Duration::from_secs_f64((1.0 - self.tokens) / rate) + Duration::from_micros(1)
        } else {
            LOOK_AGAIN
        }
    }

    fn take(&mut self) {
        self.tokens -= 1.0;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    fn admissions(limits: ConnectionLimits) -> (Arc<Admissions>, Arc<str>) {
        (Arc::new(Admissions::new(limits)), "PLAINTEXT".into())
    }

    #[tokio::test]
    async fn one_address_has_its_share_or_its_override() {
        let overrides = HashMap::from([(ip(2), 2), (ip(3), 0)]);
        let limits = ConnectionLimits { per_ip_max: 1, per_ip_overrides: overrides, ..Default::default() };
        let (all, listener) = admissions(limits);
        let first = all.admit(&listener, ip(1)).await;
        assert!(first.is_some());
        assert!(all.admit(&listener, ip(1)).await.is_none());
        let mapped = IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0x7f00, 1]);
        assert!(all.admit(&listener, mapped).await.is_none(), "the same address in IPv6's clothes");
        let two = (all.admit(&listener, ip(2)).await, all.admit(&listener, ip(2)).await);
        assert!(two.0.is_some() && two.1.is_some());
        assert!(all.admit(&listener, ip(2)).await.is_none());
        assert!(all.admit(&listener, ip(3)).await.is_none());
        drop(first);
        assert!(all.admit(&listener, ip(1)).await.is_some());
    }

    #[tokio::test]
    async fn a_full_broker_and_a_full_listener_make_the_next_one_wait() {
        let own = ListenerConnectionLimits { connections_max: Some(1), creation_rate: None };
        let of_listener = HashMap::from([("INSIDE".to_owned(), own)]);
        let limits = ConnectionLimits { connections_max: 2, of_listener, ..Default::default() };
        let (all, outside) = admissions(limits.clone());
        let inside: Arc<str> = "INSIDE".into();
        let first = all.admit(&inside, ip(1)).await;
        assert!(all.admit(&inside, ip(1)).now_or_never().is_none(), "the listener's own limit");
        let second = all.admit(&outside, ip(1)).await;
        let mut third = Box::pin(all.admit(&outside, ip(1)));
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        let third = third.await;
        assert!(third.is_some());
        let fourth = all.admit(&outside, ip(1));
        all.set_limits(ConnectionLimits { connections_max: 3, ..limits });
        assert!(fourth.await.is_some());
        assert_eq!(all.open_connections(), 2);
        drop((second, third));
        assert_eq!(all.open_connections(), 0);
    }

    #[test]
    fn a_rate_lets_a_burst_through_and_then_one_at_a_time() {
        let mut bucket = Bucket::default();
        let begin = Instant::now();
        let mut admitted = 0;
        // Looked at every millisecond for three seconds.
        for millis in 0..3000 {
            let now = begin + Duration::from_millis(millis);
            while bucket.fill(20, now).is_zero() {
                bucket.take();
                admitted += 1;
            }
        }
        assert!((78..=80).contains(&admitted), "{admitted}");
        assert!(Bucket::default().fill(0, begin) > Duration::ZERO);
    }

    #[tokio::test]
    async fn a_listener_that_is_too_fast_waits_by_itself() {
        let own = ListenerConnectionLimits { connections_max: None, creation_rate: Some(1) };
        let of_listener = HashMap::from([("SLOW".to_owned(), own)]);
        let (all, fast) = admissions(ConnectionLimits { of_listener, ..Default::default() });
        let slow: Arc<str> = "SLOW".into();
        let first = all.admit(&slow, ip(1)).now_or_never().flatten();
        assert!(first.is_some());
        assert!(all.admit(&slow, ip(1)).now_or_never().is_none());
        assert!(all.admit(&fast, ip(1)).now_or_never().flatten().is_some());
    }
}
