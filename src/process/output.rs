//! The output of one process, shared between the task that reads its pipes and any number of clients.
//!
//! [`super::log`] says what is kept and who waits for whom. This module adds the lock, the wake-ups and the memory
//! that all processes share: when the logs together hold more than [`Memory::LIMIT_BYTES`], each may keep only
//! [`SQUEEZED_BUDGET_BYTES`] instead of [`BUDGET_BYTES`].

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use tokio::time::{Instant, timeout};

use super::log::{CursorId, Log, PATIENCE, Taken};
use crate::proto::process::process_event::{EndEvent, data_event::Output};

/// What one process may have waiting for its clients.
const BUDGET_BYTES: usize = 4 * 1024 * 1024;

/// The same while memory is short.
const SQUEEZED_BUDGET_BYTES: usize = 128 * 1024;

/// What stays of the undelivered output of an ended process.
const ENDED_BUDGET_BYTES: usize = 1024 * 1024;

/// What the logs of all processes hold together; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    used: Arc<AtomicUsize>,
}

impl Memory {
    const LIMIT_BYTES: usize = 64 * 1024 * 1024;

    pub(super) fn is_short(&self) -> bool {
        self.used.load(Ordering::Relaxed) > Self::LIMIT_BYTES
    }

    fn changed(&self, before: usize, after: usize) {
        if after > before {
            self.used.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.used.fetch_sub(before - after, Ordering::Relaxed);
        }
    }
}

/// The log of one process with everybody who waits for it.
#[derive(Debug)]
pub(super) struct OutputLog {
    state: Mutex<State>,
    memory: Memory,
}

#[derive(Debug, Default)]
struct State {
    log: Log,
    /// Readers of the pipes that wait for room.
    readers: Vec<Waker>,
    /// Clients that wait for output or the end.
    clients: Vec<(CursorId, Waker)>,
}

impl OutputLog {
    pub(super) fn new(memory: Memory) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), memory })
    }

    /// Completes when the process may write on. May be dropped at any time.
    pub(super) async fn room(&self) {
        // Clients that stall are waited for no longer than this, and nothing else tells when that is over.
        while timeout(PATIENCE, poll_fn(|cx| self.poll_room(cx))).await.is_err() {}
    }

    fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let budget = self.budget();
        let mut state = self.lock();
        if state.log.has_room(budget, Instant::now()) {
            return Poll::Ready(());
        }
        if !state.readers.iter().any(|reader| reader.will_wake(cx.waker())) {
            state.readers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Adds what one read returned.
    pub(super) fn append(&self, output: Output) {
        let budget = self.budget();
        let clients = self.change(|state| {
            state.log.append(output, budget, Instant::now());
            std::mem::take(&mut state.clients)
        });
        clients.into_iter().for_each(|(_, client)| client.wake());
    }

    /// The last event; everything that was read has been appended.
    pub(super) fn finish(&self, end: EndEvent) {
        let clients = self.change(|state| {
            state.log.finish(end);
            if !state.log.has_subscribers() {
                state.log.shrink(ENDED_BUDGET_BYTES, Instant::now());
            }
            std::mem::take(&mut state.clients)
        });
        clients.into_iter().for_each(|(_, client)| client.wake());
    }

    /// A client that gets what nobody has received yet, everything that follows, and the end.
    pub(super) fn subscribe(self: &Arc<Self>) -> Subscription {
        let id = self.lock().log.subscribe(Instant::now());
        Subscription { log: self.clone(), id }
    }

    /// Bytes of output so far.
    pub(super) fn written(&self) -> u64 {
        self.lock().log.written()
    }

    fn budget(&self) -> usize {
        if self.memory.is_short() { SQUEEZED_BUDGET_BYTES } else { BUDGET_BYTES }
    }

    /// Changes the state and accounts for the memory. Wakers are called by the caller, without the lock.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let before = state.log.cost();
        let result = change(&mut state);
        self.memory.changed(before, state.log.cost());
        result
    }

    // Nothing panics while the lock is held.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OutputLog {
    fn drop(&mut self) {
        let cost = self.lock().log.cost();
        self.memory.changed(cost, 0);
    }
}

/// One client's view of the output. Dropping it is how a client leaves.
#[derive(Debug)]
pub(super) struct Subscription {
    log: Arc<OutputLog>,
    id: CursorId,
}

impl Subscription {
    /// The next thing to tell; never [`Taken::Nothing`].
    pub(super) fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Taken> {
        let id = self.id;
        let (taken, readers) = self.log.change(|state| match state.log.take(id, Instant::now()) {
            Taken::Nothing => {
                state.clients.retain(|(known, _)| *known != id);
                state.clients.push((id, cx.waker().clone()));
                (Taken::Nothing, Vec::new())
            }
            taken => (taken, std::mem::take(&mut state.readers)),
        });
        readers.into_iter().for_each(Waker::wake);
        match taken {
            Taken::Nothing => Poll::Pending,
            taken => Poll::Ready(taken),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let id = self.id;
        let readers = self.log.change(|state| {
            state.log.unsubscribe(id);
            state.clients.retain(|(known, _)| *known != id);
            std::mem::take(&mut state.readers)
        });
        readers.into_iter().for_each(Waker::wake);
    }
}
