//! `max.poll.interval.ms`: whether the caller still polls. A member that does not is as good as dead to its group, however
//! regularly its heartbeats go out, so they leave the group and wait for the next poll.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// When the last poll ended; `None` while one is under way, and before the first.
type Idle = Option<Instant>;

#[derive(Clone)]
pub(crate) struct PollClock(Arc<watch::Sender<Idle>>);

impl PollClock {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// For as long as the poll is under way, also if it is given up.
    pub(crate) fn polling(&self) -> Polling {
        self.0.send_replace(None);
        Polling(Arc::clone(&self.0))
    }

    pub(crate) fn watch(&self, interval_max: Duration) -> PollWatch {
        PollWatch { idle: self.0.subscribe(), interval_max }
    }
}

pub(crate) struct Polling(Arc<watch::Sender<Idle>>);

impl Drop for Polling {
    fn drop(&mut self) {
        self.0.send_replace(Some(Instant::now()));
    }
}

pub(crate) struct PollWatch {
    idle: watch::Receiver<Idle>,
    interval_max: Duration,
}

impl PollWatch {
    /// Resolves when the last poll is longer ago than it may be; never if the consumer is gone.
    pub(crate) async fn overdue(&mut self) {
        loop {
            let since = *self.idle.borrow_and_update();
            let changed = match since {
                None => self.idle.changed().await,
                Some(since) => match tokio::time::timeout_at(since + self.interval_max, self.idle.changed()).await {
                    Ok(changed) => changed,
                    Err(_) => return,
                },
            };
            if changed.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Resolves with the next poll; never if the consumer is gone.
    pub(crate) async fn polled(&mut self) {
        if self.idle.wait_for(Option::is_none).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn only_the_time_between_polls_counts() {
        let clock = PollClock::new();
        let mut watch = clock.watch(INTERVAL);
        let waits = tokio::time::timeout(5 * INTERVAL, watch.overdue());
        assert!(waits.await.is_err(), "nobody has polled yet");
        let polling = clock.polling();
        assert!(tokio::time::timeout(5 * INTERVAL, watch.overdue()).await.is_err(), "a long poll");
        drop(polling);
        watch.overdue().await;
        let resumed = tokio::spawn(async move { watch.polled().await });
        let _polling = clock.polling();
        resumed.await.unwrap();
    }
}
