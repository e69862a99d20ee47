//! What a watcher has seen and its client has not fetched yet.
//!
//! Bounded by count and bytes, for one watcher and for all together. What does not fit is dropped, and the client
//! is told at the end of what it fetches next: a WRITE of `.`, which means "look at the directory again".

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

use crate::proto::filesystem::{EntryInfo, EventType, FilesystemEvent};

/// The most events that wait for one client.
pub(super) const MAX_EVENTS: usize = 1_000_000;
/// The most memory that the events of one client may take.
pub(super) const MAX_BYTES: usize = 128 << 20;
/// The most memory that all waiting events may take.
pub(super) const MAX_TOTAL_BYTES: usize = 256 << 20;
/// The name of the watched directory itself in its own events.
pub(super) const SELF: &str = ".";

/// One event, packed tighter than its message: a million of them may wait.
#[derive(Debug)]
pub(super) struct Event {
    pub name: Box<str>,
    pub kind: EventType,
    pub entry: Option<Box<EntryInfo>>,
}

impl Event {
    /// What it takes to keep it, roughly.
    fn cost_bytes(&self) -> usize {
        let entry = self.entry.as_ref().map_or(0, |entry| {
            let metadata: usize = entry.metadata.iter().map(|(key, value)| key.len() + value.len() + 64).sum();
            mem::size_of::<EntryInfo>() + entry.name.len() + entry.path.len() + metadata + 64
        });
        mem::size_of::<Self>() + self.name.len() + entry
    }

    fn into_message(self) -> FilesystemEvent {
        FilesystemEvent { name: self.name.into(), r#type: self.kind.into(), entry: self.entry.map(|entry| *entry) }
    }
}

/// The queue between the watcher and its client.
#[derive(Debug)]
pub(super) struct Outlet {
    buffer: Mutex<Buffer>,
    arrived: Notify,
    /// Bytes held by all outlets.
    total: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Buffer {
    events: VecDeque<Event>,
    bytes: usize,
    /// Whether something was dropped since the last fetch.
    lost: bool,
}

impl Outlet {
    pub(super) fn new(total: Arc<AtomicUsize>) -> Self {
        Self { buffer: Mutex::default(), arrived: Notify::new(), total }
    }

    pub(super) fn push(&self, event: Event) {
        let mut buffer = self.lock();
        let cost = event.cost_bytes();
        let fits = buffer.events.len() < MAX_EVENTS
            && buffer.bytes + cost <= MAX_BYTES
            && self.total.load(Ordering::Relaxed) + cost <= MAX_TOTAL_BYTES;
        // Once something is lost, nothing later may come before the client is told.
        if fits && !buffer.lost {
            buffer.bytes += cost;
            self.total.fetch_add(cost, Ordering::Relaxed);
            buffer.events.push_back(event);
        } else {
            buffer.lost = true;
        }
        drop(buffer);
        self.arrived.notify_one();
    }

    /// The oldest events, at most `limit`, and after the last one the word that some were lost.
    pub(super) fn take(&self, limit: usize) -> Vec<FilesystemEvent> {
        let mut buffer = self.lock();
        let count = limit.min(buffer.events.len());
        let taken: Vec<Event> = buffer.events.drain(..count).collect();
        let freed: usize = taken.iter().map(Event::cost_bytes).sum();
        buffer.bytes -= freed;
        self.total.fetch_sub(freed, Ordering::Relaxed);
        if buffer.events.is_empty() {
            // A burst is no reason to keep its memory.
            buffer.events = VecDeque::new();
        }
        let told = buffer.events.is_empty() && mem::take(&mut buffer.lost);
        drop(buffer);
        let mut messages: Vec<FilesystemEvent> = taken.into_iter().map(Event::into_message).collect();
        if told {
            let event = Event { name: SELF.into(), kind: EventType::Write, entry: None };
            messages.push(event.into_message());
        }
        messages
    }

    /// Waits until something was pushed since the last wait.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        let bytes = self.lock().bytes;
        self.total.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str) -> Event {
        Event { name: name.into(), kind: EventType::Create, entry: None }
    }

    #[test]
    fn order_is_kept_and_all_memory_is_given_back() {
        let total = Arc::new(AtomicUsize::new(0));
        let outlet = Outlet::new(total.clone());
        for name in ["a", "b", "c"] {
            outlet.push(event(name));
        }
        let names = |limit| -> Vec<String> { outlet.take(limit).into_iter().map(|event| event.name).collect() };
        assert_eq!(names(2), ["a", "b"]);
        assert_eq!(names(2), ["c"]);
        assert_eq!(total.load(Ordering::Relaxed), 0);
        outlet.push(event("d"));
        drop(outlet);
        assert_eq!(total.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_does_not_fit_is_told_after_what_did() {
        let total = Arc::new(AtomicUsize::new(0));
        let outlet = Outlet::new(total.clone());
        outlet.push(event("kept"));
        let held = total.swap(MAX_TOTAL_BYTES, Ordering::Relaxed);
        outlet.push(event("dropped"));
        total.store(held, Ordering::Relaxed);
        // There would be room again, but nothing may overtake the word of the loss.
        outlet.push(event("late"));
        let seen: Vec<_> = outlet.take(usize::MAX).into_iter().map(|event| (event.name, event.r#type)).collect();
        assert_eq!(seen, [("kept".to_owned(), EventType::Create as i32), (SELF.to_owned(), EventType::Write as i32)]);
        assert!(outlet.take(usize::MAX).is_empty());
    }
}
