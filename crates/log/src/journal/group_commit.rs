//! Many acknowledgements per flush: the staging buffers, the ticket of each entry, and the state of the running flush,
//! behind one short lock. Starts no thread and reads no clock; it only lets callers wait for each other.
//!
//! The rule. A flush starts as soon as there is something to write and none is running, so a single producer never waits
//! for company. Whatever is staged while it runs becomes the next frame, which starts the moment it ends. There is no
//! window to tune: the batch grows by itself with the number of producers and with the slowness of the disk (acks per
//! second = flushes per second x entries that arrive during one flush), and latency stays between one and two flushes.
//! When the frame being filled is full, [`GroupCommit::stage`] says so: the bound is one frame in flight, one in filling.
//!
//! Two ways to drive it:
//! - A flusher thread: [`GroupCommit::wait_frame`], write, [`GroupCommit::complete`], again. Producers block in
//!   [`GroupCommit::wait`] or await [`GroupCommit::durable`], which belongs to no runtime.
//! - No thread: each producer calls [`GroupCommit::commit_inline`]; who finds no flush running performs it for all.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::staging::{StageError, StagedFrame, Staging};
use super::writer::JournalTail;
use super::{EntryHeader, FrameSeq, JournalError};

/// The frame whose durability acknowledges an entry.
pub type Ticket = FrameSeq;

/// Why an entry was not taken, or will not be acknowledged.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    #[error(transparent)]
    Stage(#[from] StageError),
    /// A flush failed. Entries that were not reported durable may or may not be on disk; the next opening decides.
    #[error("the journal failed: {reason}")]
    Failed { reason: Arc<str> },
    #[error("the journal is closed")]
    Closed,
}

struct State {
    staging: Staging,
    /// A frame was taken and not completed.
    running: bool,
    closed: bool,
    failed: Option<Arc<str>>,
    /// Tasks that await a ticket, by its parity: at any time tickets of two frames are open, the one in flight and the
    /// one being filled. LIMIT: one waker per request in flight, and those are bounded per connection.
    wakers: [Vec<Waker>; 2],
}

/// Shared by producers, flusher and checkpointer.
pub struct GroupCommit {
    state: Mutex<State>,
    tail: Arc<JournalTail>,
    /// The flusher waits here for entries.
    work: Condvar,
    /// Producers wait here for room.
    room: Condvar,
    /// Producers wait here for durability, by their ticket's parity, so that the end of a flush wakes those whom it
    /// concerns and not those who wait for the next. One pair for callers who never flush, one for those who may.
    durable: [Condvar; 2],
    durable_or_lead: [Condvar; 2],
}

fn of_parity<T>([even, odd]: &[T; 2], seq: u64) -> &T {
    if seq.is_multiple_of(2) { even } else { odd }
}

fn of_parity_mut<T>([even, odd]: &mut [T; 2], seq: u64) -> &mut T {
    if seq.is_multiple_of(2) { even } else { odd }
}

impl GroupCommit {
    pub fn new(staging: Staging, tail: Arc<JournalTail>) -> Self {
        let pair = || [Condvar::new(), Condvar::new()];
        Self {
            state: Mutex::new(State {
                staging,
                running: false,
                closed: false,
                failed: None,
                wakers: Default::default(),
            }),
            tail,
            work: Condvar::new(),
            room: Condvar::new(),
            durable: pair(),
            durable_or_lead: pair(),
        }
    }

    /// Which frames are durable and released; release here what has been checkpointed.
    pub fn tail(&self) -> &Arc<JournalTail> {
        &self.tail
    }

    /// Copies an entry into the next frame and lets an idle flusher know. Blocks for nothing but other copies.
    pub fn stage(&self, entry: &EntryHeader<'_>, records: &[u8]) -> Result<Ticket, CommitError> {
        self.stage_locked(&mut self.state.lock(), entry, records)
    }

    /// As [`Self::stage`], but waits while the frame is full. Needs a flusher thread: without one nobody makes room.
    pub fn stage_blocking(&self, entry: &EntryHeader<'_>, records: &[u8]) -> Result<Ticket, CommitError> {
        let mut state = self.state.lock();
        loop {
            match self.stage_locked(&mut state, entry, records) {
                Err(CommitError::Stage(StageError::Full)) => self.room.wait(&mut state),
                other => return other,
            }
        }
    }

    fn stage_locked(&self, state: &mut State, entry: &EntryHeader<'_>, records: &[u8]) -> Result<Ticket, CommitError> {
        check(state)?;
        let staged = state.staging.stage(entry, records)?;
        if !state.running {
            self.work.notify_one();
        }
        Ok(staged.seq)
    }

    /// Takes what is staged, if there is something and no flush is running. Must be followed by [`Self::complete`].
    pub fn take_frame(&self) -> Option<StagedFrame> {
        self.take_locked(&mut self.state.lock())
    }

    /// Waits for something to flush and takes it. `None` once the journal is closed and nothing is left, or has failed.
    pub fn wait_frame(&self) -> Option<StagedFrame> {
        let mut state = self.state.lock();
        loop {
            if let Some(frame) = self.take_locked(&mut state) {
                return Some(frame);
            }
            if (state.closed && !state.running) || state.failed.is_some() {
                return None;
            }
            self.work.wait(&mut state);
        }
    }

    fn take_locked(&self, state: &mut State) -> Option<StagedFrame> {
        if state.running || state.failed.is_some() {
            return None;
        }
        let frame = state.staging.take()?;
        state.running = true;
        self.room.notify_all();
        Some(frame)
    }

    /// Ends the flush that took `frame`, with what [`super::JournalWriter::write`] said. A failure is final: everybody
    /// who waits or stages gets it. (`Full` is none: the flusher checkpoints and writes the same frame again.)
    pub fn complete(&self, frame: StagedFrame, outcome: &Result<FrameSeq, JournalError>) {
        let mut state = self.state.lock();
        let wakers = self.complete_locked(&mut state, frame, outcome);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Gives the tasks to wake, which is to be done without the lock.
    fn complete_locked(
        &self,
        state: &mut State,
        frame: StagedFrame,
        outcome: &Result<FrameSeq, JournalError>,
    ) -> Vec<Waker> {
        let seq = frame.seq().0;
        state.staging.give_back(frame);
        state.running = false;
        if let Err(e) = outcome {
            let reason = match e {
                JournalError::Poisoned { reason } => Arc::clone(reason),
                other => other.to_string().into(),
            };
            state.failed.get_or_insert(reason);
            return self.wake_all(state);
        }
        of_parity(&self.durable, seq).notify_all();
        of_parity(&self.durable_or_lead, seq).notify_all();
        if !state.staging.is_empty() {
            self.work.notify_one();
            of_parity(&self.durable_or_lead, seq + 1).notify_one();
        } else if state.closed {
            self.work.notify_all();
        }
        std::mem::take(of_parity_mut(&mut state.wakers, seq))
    }

    /// Waits until the frame is durable. Needs somebody who flushes.
    pub fn wait(&self, ticket: Ticket) -> Result<(), CommitError> {
        let mut state = self.state.lock();
        while self.tail.durable() < ticket {
            check_failed(&state)?;
            of_parity(&self.durable, ticket.0).wait(&mut state);
        }
        Ok(())
    }

    /// Resolves once the frame is durable. Needs somebody who flushes. May be dropped at any time.
    pub fn durable(&self, ticket: Ticket) -> Durable<'_> {
        Durable { group: self, ticket, registered: None }
    }

    /// Waits until the frame is durable and flushes if nobody does: `write` is called without the lock, for one frame at
    /// a time, and must deal with a full ring itself.
    pub fn commit_inline(
        &self,
        ticket: Ticket,
        mut write: impl FnMut(&mut StagedFrame) -> Result<FrameSeq, JournalError>,
    ) -> Result<(), CommitError> {
        let mut state = self.state.lock();
        while self.tail.durable() < ticket {
            check_failed(&state)?;
            match self.take_locked(&mut state) {
                Some(mut frame) => {
                    let outcome = MutexGuard::unlocked(&mut state, || write(&mut frame));
                    let wakers = self.complete_locked(&mut state, frame, &outcome);
                    MutexGuard::unlocked(&mut state, || wakers.into_iter().for_each(Waker::wake));
                }
                None => of_parity(&self.durable_or_lead, ticket.0).wait(&mut state),
            }
        }
        Ok(())
    }

    /// Takes no more entries. What is staged can still be flushed; [`Self::wait_frame`] ends after it.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        self.work.notify_all();
        self.room.notify_all();
    }

    /// Fails everything that is not durable, for a reason outside the journal (its log directory went offline).
    pub fn fail(&self, reason: &str) {
        let mut state = self.state.lock();
        state.failed.get_or_insert_with(|| reason.into());
        let wakers = self.wake_all(&mut state);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn wake_all(&self, state: &mut State) -> Vec<Waker> {
        self.work.notify_all();
        self.room.notify_all();
        self.durable.iter().chain(&self.durable_or_lead).for_each(|c| {
            c.notify_all();
        });
        let [even, odd] = &mut state.wakers;
        even.append(odd);
        std::mem::take(even)
    }
}

/// What [`GroupCommit::durable`] gives.
pub struct Durable<'a> {
    group: &'a GroupCommit,
    ticket: Ticket,
    /// The waker that the group holds for this.
    registered: Option<Waker>,
}

impl Future for Durable<'_> {
    type Output = Result<(), CommitError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (group, ticket) = (self.group, self.ticket);
        if group.tail.durable() >= ticket {
            return Poll::Ready(Ok(()));
        }
        // The flusher makes a frame durable before it takes the lock to complete it. So either it is seen here, under the
        // lock, or the waker is on the list before the list is taken.
        let mut state = group.state.lock();
        if group.tail.durable() >= ticket {
            return Poll::Ready(Ok(()));
        }
        check_failed(&state)?;
        if !self.registered.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            of_parity_mut(&mut state.wakers, ticket.0).push(cx.waker().clone());
            self.registered = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

fn check_failed(state: &State) -> Result<(), CommitError> {
    match &state.failed {
        Some(reason) => Err(CommitError::Failed { reason: Arc::clone(reason) }),
        None => Ok(()),
    }
}

fn check(state: &State) -> Result<(), CommitError> {
    check_failed(state)?;
    if state.closed { Err(CommitError::Closed) } else { Ok(()) }
}
