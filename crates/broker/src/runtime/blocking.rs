//! Work that waits for the disk goes to the runtime's pool of threads. A simulation has one thread, and runs it there.

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Runs `work` beside the tasks of the current runtime.
pub(crate) fn spawn<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
    spawn_on(&Handle::current(), work)
}

pub(crate) fn spawn_on<R: Send + 'static>(handle: &Handle, work: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
    #[cfg(test)]
    if crate::simulation::world::now_ms().is_some() {
        return handle.spawn(async move { work() });
    }
    handle.spawn_blocking(work)
}
