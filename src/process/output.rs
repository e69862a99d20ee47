//! The output of one process, shared between the task that reads its pipes and any number of clients.
//!
//! [`super::log`] says what is kept and who waits for whom. `waiters` adds those who wait, `memory` what all processes
//! share. This module adds the lock, the clock and the wake-ups.

mod memory;
mod waiters;

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::{Instant, timeout};

pub(super) use self::memory::Memory;
use self::waiters::{Waiters, Wakers};
use super::log::{CursorId, Limits, Taken};
use crate::proto::process::process_event::{EndEvent, data_event::Output};

/// How often the log looks who holds up the others.
const TICK: Duration = Duration::from_millis(50);

/// The log of one process with everybody who waits for it.
#[derive(Debug)]
pub(super) struct OutputLog {
    state: Mutex<State>,
    memory: Memory,
}

#[derive(Debug, Default)]
struct State {
    waiters: Waiters,
    /// The last tick: two pipes that wait for room count it once.
    ticked: Option<Instant>,
}

/// Whether the process may write on.
enum Room {
    Free,
    /// Not now, and some client waits for what it has to say.
    Wanted,
}

impl OutputLog {
    pub(super) fn new(memory: Memory) -> Arc<Self> {
        let log = Arc::new(Self { state: Mutex::default(), memory });
        log.memory.register(&log);
        log
    }

    /// Completes when the process may write on. May be dropped at any time.
    pub(super) async fn room(&self) {
        while let Room::Wanted = poll_fn(|cx| self.poll_room_or_wanted(cx)).await {
            if timeout(TICK, poll_fn(|cx| self.poll_room(cx))).await.is_ok() {
                return;
            }
            self.tick();
        }
    }

    fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        let limits = self.limits(&state);
        state.waiters.poll_room(cx.waker(), limits)
    }

    fn poll_room_or_wanted(&self, cx: &Context<'_>) -> Poll<Room> {
        let mut state = self.lock();
        let limits = self.limits(&state);
        match state.waiters.poll_room(cx.waker(), limits) {
            Poll::Ready(()) => Poll::Ready(Room::Free),
            Poll::Pending if state.waiters.log.is_waited_on() => Poll::Ready(Room::Wanted),
            Poll::Pending => Poll::Pending,
        }
    }

    fn tick(&self) {
        let now = Instant::now();
        self.change(|state, limits| {
            if state.ticked.is_some_and(|last| now.saturating_duration_since(last) < TICK) {
                return ((), Wakers::new());
            }
            state.ticked = Some(now);
            ((), state.waiters.tick(limits))
        });
    }

    /// Adds what one read returned.
    pub(super) fn append(&self, output: Output) {
        self.change(|state, limits| ((), state.waiters.append(output, limits)));
    }

    /// The last event; everything that was read has been appended.
    pub(super) fn finish(&self, end: EndEvent) {
        self.change(|state, _| ((), state.waiters.finish(end)));
        self.trim();
    }

    /// A client that gets what nobody has received yet, everything that follows, and the end.
    pub(super) fn subscribe(self: &Arc<Self>) -> Subscription {
        let (id, offset) = self.lock().waiters.log.subscribe();
        Subscription { log: self.clone(), id, offset }
    }

    /// Bytes of output so far.
    pub(super) fn written(&self) -> u64 {
        self.lock().waiters.log.written()
    }

    /// A client that gets everything from this byte of output on, as far as it is kept, and the end.
    ///
    /// # Errors
    /// The bytes of output so far, when there are fewer.
    pub(super) fn subscribe_from(self: &Arc<Self>, offset: u64) -> Result<Subscription, u64> {
        let (id, offset) = self.lock().waiters.log.subscribe_from(offset)?;
        Ok(Subscription { log: self.clone(), id, offset })
    }

    /// Keeps no more than the limits of the moment.
    fn trim(&self) {
        self.change(|state, limits| {
            state.waiters.log.shrink(limits);
            ((), Wakers::new())
        });
    }

    /// An ended process that nobody listens to keeps less.
    fn limits(&self, state: &State) -> Limits {
        let log = &state.waiters.log;
        self.memory.limits(log.has_ended() && !log.has_subscribers())
    }

    /// Changes the state, accounts for the memory and wakes whom it concerns, without the lock.
    fn change<T>(&self, change: impl FnOnce(&mut State, Limits) -> (T, Wakers)) -> T {
        let (result, wakers, short) = {
            let mut state = self.lock();
            let limits = self.limits(&state);
            let before = state.waiters.log.cost();
            let (result, wakers) = change(&mut state, limits);
            (result, wakers, self.memory.changed(before, state.waiters.log.cost()))
        };
        wakers.into_iter().for_each(Waker::wake);
        if short {
            self.memory.relieve();
        }
        result
    }

    // Nothing panics while the lock is held.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OutputLog {
    fn drop(&mut self) {
        self.memory.forget(self);
        let cost = self.lock().waiters.log.cost();
        let _never_grows = self.memory.changed(cost, 0);
    }
}

/// One client's view of the output. Dropping it is how a client leaves; what it was given last and did not
/// [receive](Subscription::receive) waits for the next one.
#[derive(Debug)]
pub(super) struct Subscription {
    log: Arc<OutputLog>,
    id: CursorId,
    offset: u64,
}

impl Subscription {
    /// Bytes of output before the first that this client gets.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next thing to tell; never [`Taken::Nothing`]. Whoever asks has received what was told before.
    pub(super) fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Taken> {
        let id = self.id;
        match self.log.change(|state, limits| state.waiters.poll_next(id, cx.waker(), limits)) {
            Taken::Nothing => Poll::Pending,
            taken => Poll::Ready(taken),
        }
    }

    /// The client has what was told before, and asks for nothing more.
    pub(super) fn receive(&mut self) {
        let id = self.id;
        self.log.change(|state, limits| ((), state.waiters.receive(id, limits)));
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let id = self.id;
        self.log.change(|state, limits| ((), state.waiters.unsubscribe(id, limits)));
        // The last one to leave an ended process.
        if self.log.lock().waiters.log.has_ended() {
            self.log.trim();
        }
    }
}

#[cfg(test)]
mod tests;
