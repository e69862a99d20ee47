//! A log with everybody who waits for it. Nobody is woken here: what a change returns has to be woken by the caller,
//! without a lock. `interleavings` goes through every order in which that can happen.

use std::task::{Poll, Waker};

use crate::{
    process::log::{CursorId, Limits, Log, Taken},
    proto::process::process_event::{EndEvent, data_event::Output},
};

#[derive(Clone, Debug, Default)]
pub(super) struct Waiters {
    pub(super) log: Log,
    /// Readers of the pipes that wait for room.
    readers: Vec<Waker>,
    /// Clients that wait for output or the end.
    clients: Vec<(CursorId, Waker)>,
}

/// Whom to wake.
pub(super) type Wakers = Vec<Waker>;

impl Waiters {
    /// Ready: the process may write on.
    pub(super) fn poll_room(&mut self, waker: &Waker, limits: Limits) -> Poll<()> {
        if self.log.has_room(limits) {
            return Poll::Ready(());
        }
        if !self.readers.iter().any(|reader| reader.will_wake(waker)) {
            self.readers.push(waker.clone());
        }
        Poll::Pending
    }

    pub(super) fn tick(&mut self, limits: Limits) -> Wakers {
        self.log.tick(limits);
        if self.log.has_room(limits) { std::mem::take(&mut self.readers) } else { Wakers::new() }
    }

    pub(super) fn append(&mut self, output: Output, limits: Limits) -> Wakers {
        self.log.append(output, limits);
        self.all_clients()
    }

    pub(super) fn finish(&mut self, end: EndEvent) -> Wakers {
        self.log.finish(end);
        self.all_clients()
    }

    /// The next thing for this client; [`Taken::Nothing`] leaves it waiting.
    pub(super) fn poll_next(&mut self, id: CursorId, waker: &Waker, limits: Limits) -> (Taken, Wakers) {
        let taken = self.log.take(id, limits);
        if taken == Taken::Nothing {
            self.clients.retain(|(known, _)| *known != id);
            self.clients.push((id, waker.clone()));
        }
        // Also when there is nothing new: what was taken before counts as received from now on.
        (taken, self.readers_with_room(limits))
    }

    pub(super) fn receive(&mut self, id: CursorId, limits: Limits) -> Wakers {
        self.log.receive(id, limits);
        self.readers_with_room(limits)
    }

    pub(super) fn unsubscribe(&mut self, id: CursorId, limits: Limits) -> Wakers {
        self.log.unsubscribe(id, limits);
        self.clients.retain(|(known, _)| *known != id);
        self.readers_with_room(limits)
    }

    fn all_clients(&mut self) -> Wakers {
        self.clients.drain(..).map(|(_, client)| client).collect()
    }

    /// Readers go on when there is room for more than a chunk, so that they are not woken for each, or when a client
    /// waits for what they read. In that case they also begin to count ticks.
    fn readers_with_room(&mut self, limits: Limits) -> Wakers {
        let news = !self.readers.is_empty() && (self.log.has_room(limits.lower()) || self.log.is_waited_on());
        if news { std::mem::take(&mut self.readers) } else { Wakers::new() }
    }
}

#[cfg(test)]
mod interleavings;
