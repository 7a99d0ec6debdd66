//! The broker's clocks. Engines never read them: they are handed what these say.
//!
//! [`now_ms`] is the wall clock, for what is written into records. [`timer_ms`] begins with it and then follows the
//! monotonic clock, drawn towards the wall clock by at most `SLEW` of the time that passes: a wall clock that jumps ends no
//! session, transaction or lock before its time, and one that is adjusted a little is followed.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// One part in so many.
const SLEW: i64 = 64;

/// Milliseconds since 1970, as records and checkpoints carry them.
pub fn now_ms() -> i64 {
    #[cfg(test)]
    if let Some(now_ms) = crate::simulation::world::now_ms() {
        return now_ms;
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Milliseconds since 1970 for deadlines: never goes back, never jumps.
pub fn timer_ms() -> i64 {
    #[cfg(test)]
    if let Some(now_ms) = crate::simulation::world::now_ms() {
        return now_ms;
    }
    static STEADY: OnceLock<(Instant, Mutex<Steady>)> = OnceLock::new();
    let (begun, steady) = STEADY.get_or_init(|| (Instant::now(), Mutex::new(Steady::new(now_ms()))));
    let mut steady = steady.lock();
    let elapsed_us = i64::try_from(begun.elapsed().as_micros()).unwrap_or(i64::MAX);
    steady.advance(elapsed_us, now_ms())
}

#[derive(Debug)]
struct Steady {
    /// What was answered last, in microseconds since 1970, and when on the monotonic clock.
    us: i64,
    elapsed_us: i64,
}

impl Steady {
    fn new(now_ms: i64) -> Self {
        Self { us: now_ms.saturating_mul(1_000), elapsed_us: 0 }
    }

    fn advance(&mut self, elapsed_us: i64, wall_ms: i64) -> i64 {
        let passed = elapsed_us.saturating_sub(self.elapsed_us).max(0);
        let next = self.us.saturating_add(passed);
        let off = wall_ms.saturating_mul(1_000).saturating_sub(next);
        // A difference below a second is the resolution of both clocks, or a slow adjustment that has begun.
        let most = passed / SLEW;
        self.us = next.saturating_add(off.clamp(-most, most));
        self.elapsed_us = self.elapsed_us.max(elapsed_us);
        self.us / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_pass_by_at_the_pace_of_the_monotonic_clock() {
        const HOUR_MS: i64 = 3_600_000;
        let mut steady = Steady::new(1_000_000);
        assert_eq!(steady.advance(5_000_000, 1_005_000), 1_005_000);
        // An hour ahead: ten seconds later hardly more than ten seconds have passed.
        let ahead = steady.advance(15_000_000, 1_015_000 + HOUR_MS);
        assert!((1_015_000..1_015_200).contains(&ahead), "{ahead}");
        // A day back: time goes on all the same.
        let mut last = ahead;
        for second in 16..40 {
            let now = steady.advance(second * 1_000_000, 1_000 * second + 1_000_000 - 24 * HOUR_MS);
            assert!((980..=1_000).contains(&(now - last)), "{now} after {last}");
            last = now;
        }
        // Set right again, it is found again.
        let mut now = last;
        for second in 40..400 {
            now = steady.advance(second * 1_000_000, 1_000_000 + second * 1_000);
        }
        assert_eq!(now, 1_000_000 + 399_000);
        assert_eq!(steady.advance(399_000_000, 0), now, "the same moment");
    }
}
