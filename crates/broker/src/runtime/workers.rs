//! What waits for the disk, and the workers of the runtime that everybody shares.
//!
//! A worker that was woken by one event has the runtime's event loop to itself until it parks again: if it then waits for a
//! disk, no socket and no timer of the process is looked at, idle workers or not. Two things keep that away:
//!
//! - [`wait_for_disk`] hands the worker's place on before it waits. That costs a switch of threads, so it is for waits that
//!   are known to be long: reads of what is not cached, flushes of a disk that was slow before.
//! - An [`Attendant`] for waits that nobody expected: while requests come in it wakes another worker every 50 ms, which
//!   takes over the event loop if it is left alone. An idle broker's attendant sleeps.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};

/// How long sockets may go unheeded at most, while there is a worker that does not wait for a disk.
const ATTEND_EVERY: Duration = Duration::from_millis(50);

/// Runs what waits for the disk so that a worker of the runtime goes on with other tasks meanwhile.
pub fn wait_for_disk<T>(operation: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(operation),
        _ => operation(),
    }
}

/// A thread outside the runtime that sees to it that the event loop is attended. Ends when dropped.
#[derive(Debug)]
pub struct Attendant {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Debug, Default)]
struct Shared {
    /// A request came in since the last round.
    busy: AtomicBool,
    ended: AtomicBool,
}

impl Attendant {
    /// For the runtime that this is called in. An error: no thread could be started.
    pub fn start() -> io::Result<Self> {
        let (shared, runtime) = (Arc::new(Shared::default()), Handle::current());
        let own = shared.clone();
        let thread = thread::Builder::new().name("attendant".to_owned()).spawn(move || attend(&own, &runtime))?;
        Ok(Self { shared, thread: thread.thread().clone() })
    }

    /// One without a thread, for a simulation, which has one worker.
    #[cfg(test)]
    pub(crate) fn absent() -> Self {
        Self { shared: Arc::default(), thread: thread::current() }
    }

    /// A request comes in. Costs a load while others come in as well.
    pub fn notice(&self) {
        if !self.shared.busy.load(Ordering::Relaxed) && !self.shared.busy.swap(true, Ordering::AcqRel) {
            self.thread.unpark();
        }
    }
}

impl Drop for Attendant {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

fn attend(shared: &Shared, runtime: &Handle) {
    while !shared.ended.load(Ordering::Acquire) {
        if !shared.busy.swap(false, Ordering::AcqRel) {
            thread::park();
            continue;
        }
        thread::sleep(ATTEND_EVERY);
        // A task from outside wakes a worker, which looks at the event loop before it parks.
        drop(runtime.spawn(async {}));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn timers_go_on_while_a_worker_waits() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        // Tried often: which worker has the event loop is chance.
        for _ in 0..20 {
            let _inside = runtime.enter();
            let attendant = Attendant::start().unwrap();
            let (ticked, ticks) = mpsc::channel();
            let (release, released) = mpsc::channel::<()>();
            runtime.spawn(async move {
                // Woken by the event loop, as a connection's task is by its socket.
                tokio::time::sleep(Duration::from_millis(1)).await;
                attendant.notice();
                let _ = released.recv();
            });
            runtime.spawn(async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                ticked.send(()).unwrap();
            });
            ticks.recv_timeout(Duration::from_secs(30)).expect("the event loop is attended");
            release.send(()).unwrap();
        }
    }
}
