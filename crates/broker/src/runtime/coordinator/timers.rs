//! The coordinator's timers: one task that sleeps until the earliest deadline. A key has one deadline; moving it leaves
//! the old heap entry behind, which is recognised by its number and dropped when its time comes.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use taccola_coord::TimerOp;
use tokio::sync::Notify;

use crate::clock;

/// Longest sleep: the wall clock may be set forward meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(60);

struct State<K> {
    /// Deadline and number of each set timer.
    due: BinaryHeap<Reverse<(i64, u64)>>,
    keys: HashMap<u64, (i32, K)>,
    numbers: HashMap<(i32, K), u64>,
    next: u64,
}

pub(super) struct Timers<K> {
    state: Mutex<State<K>>,
    earlier: Notify,
}

impl<K: Clone + Eq + Hash> Timers<K> {
    pub(super) fn new() -> Arc<Self> {
        let state = State { due: BinaryHeap::new(), keys: HashMap::new(), numbers: HashMap::new(), next: 0 };
        Arc::new(Self { state: Mutex::new(state), earlier: Notify::new() })
    }

    pub(super) fn apply(&self, partition: i32, operations: Vec<TimerOp<K>>) {
        if operations.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        let before = state.due.peek().map(|Reverse((deadline, _))| *deadline);
        for operation in operations {
            match operation {
                TimerOp::Set { key, deadline_ms } => state.set(partition, key, deadline_ms),
                TimerOp::Cancel { key } => state.cancel(&(partition, key)),
            }
        }
        let after = state.due.peek().map(|Reverse((deadline, _))| *deadline);
        drop(state);
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            self.earlier.notify_one();
        }
    }

    /// Drops all timers of a partition.
    pub(super) fn forget(&self, partition: i32) {
        let mut state = self.state.lock();
        state.keys.retain(|_, (of, _)| *of != partition);
        state.numbers.retain(|(of, _), _| *of != partition);
    }

    /// Calls `fire` for each timer whose time is up, for ever.
    pub(super) async fn run(self: Arc<Self>, fire: impl Fn(i32, K)) {
        loop {
            let wait = self.fire_due(&fire);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.earlier.notified() => {}
            }
        }
    }

    /// Fires what is due; answers how long nothing else will be.
    fn fire_due(&self, fire: &impl Fn(i32, K)) -> Duration {
        loop {
            let mut state = self.state.lock();
            let now_ms = clock::timer_ms();
            let Some(Reverse((deadline, number))) = state.due.peek().copied() else { return SLEEP_MAX };
            if !state.keys.contains_key(&number) {
                state.due.pop();
                continue;
            }
            if deadline > now_ms {
                return Duration::from_millis(u64::try_from(deadline - now_ms).unwrap_or(0)).min(SLEEP_MAX);
            }
            state.due.pop();
            let Some((partition, key)) = state.keys.remove(&number) else { continue };
            state.numbers.remove(&(partition, key.clone()));
            drop(state);
            fire(partition, key);
        }
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn set(&mut self, partition: i32, key: K, deadline_ms: i64) {
        self.next += 1;
        let number = self.next;
        if let Some(old) = self.numbers.insert((partition, key.clone()), number) {
            self.keys.remove(&old);
        }
        self.keys.insert(number, (partition, key));
        self.due.push(Reverse((deadline_ms, number)));
        self.compact();
    }

    fn cancel(&mut self, key: &(i32, K)) {
        if let Some(number) = self.numbers.remove(key) {
            self.keys.remove(&number);
        }
    }

    /// Heartbeats move a session's deadline all the time: what they leave behind is thrown out when it is the most.
    fn compact(&mut self) {
        if self.due.len() > 1024 && self.due.len() > self.keys.len() * 4 {
            let keys = &self.keys;
            self.due = self.due.drain().filter(|Reverse((_, number))| keys.contains_key(number)).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use taccola_coord::TimerKey;

    use super::*;

    #[test]
    fn a_moved_timer_fires_once_and_a_cancelled_one_never() {
        let timers = Timers::new();
        let key = |group: &str| TimerKey::Join { group: group.into() };
        let set = |group: &str, deadline_ms| TimerOp::Set { key: key(group), deadline_ms };
        timers.apply(
            0,
            vec![set("a", 1), set("b", 1), set("a", 2), TimerOp::Cancel { key: key("b") }, set("c", i64::MAX)],
        );
        timers.apply(1, vec![set("d", 1)]);
        timers.forget(1);
        let fired = Mutex::new(Vec::new());
        timers.fire_due(&|partition, key| fired.lock().push((partition, key)));
        assert_eq!(*fired.lock(), [(0, key("a"))]);
    }

    #[test]
    fn heartbeats_do_not_pile_up() {
        let timers = Timers::new();
        for deadline_ms in 0..100_000 {
            timers.apply(0, vec![TimerOp::Set { key: TimerKey::Expiration, deadline_ms }]);
        }
        assert!(timers.state.lock().due.len() <= 1025);
    }
}
