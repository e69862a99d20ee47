//! The channel between a context and the client of one execution, bounded by bytes.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures_core::Stream;
use serde_json::Value;
use tokio::sync::{Notify, mpsc};

use crate::event::{Ending, Event};

/// How much output may wait for a slow client before the kernel's messages are no longer read. One event may
/// go beyond, however large it is.
pub(crate) const CAPACITY_BYTES: usize = 64 * 1024 * 1024;

/// What an event costs beside its payload.
const EVENT_OVERHEAD_BYTES: usize = 128;

#[derive(Default)]
struct Fill {
    bytes: AtomicUsize,
    drained: Notify,
}

/// The context's end.
pub(crate) struct Outbox {
    events: mpsc::UnboundedSender<Event>,
    fill: Arc<Fill>,
}

/// A running or waiting execution: the stream of its events, with exactly one [`Event::End`] at its end.
///
/// Dropping it before the end means that nobody is interested any more: running code is interrupted, waiting
/// code never runs.
pub struct Execution {
    events: mpsc::UnboundedReceiver<Event>,
    fill: Arc<Fill>,
    ended: bool,
}

/// Both ends of a new channel.
pub(crate) fn channel() -> (Outbox, Execution) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let fill = Arc::new(Fill::default());
    (Outbox { events: sender, fill: Arc::clone(&fill) }, Execution { events: receiver, fill, ended: false })
}

impl Outbox {
    /// Hands an event to the client, if it is still there.
    pub(crate) fn send(&self, event: Event) {
        self.fill.bytes.fetch_add(weight(&event), Ordering::Relaxed);
        let _ = self.events.send(event);
    }

    /// Whether another event may come.
    pub(crate) fn has_room(&self) -> bool {
        self.fill.bytes.load(Ordering::Relaxed) < CAPACITY_BYTES
    }

    /// Completes when the client has taken something out of a full channel.
    pub(crate) async fn drained(&self) {
        self.fill.drained.notified().await;
    }

    /// Whether the client has left.
    pub(crate) fn is_closed(&self) -> bool {
        self.events.is_closed()
    }

    /// Completes when the client has left.
    pub(crate) async fn closed(&self) {
        self.events.closed().await;
    }

    /// Ends the execution.
    pub(crate) fn end(self, ending: Ending) {
        self.send(Event::End(ending));
    }
}

impl Stream for Execution {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let Poll::Ready(event) = self.events.poll_recv(context) else { return Poll::Pending };
        let Some(event) = event else {
            // A context that vanished without a word (the runtime is being torn down) took its kernel with it.
            self.ended = true;
            return Poll::Ready(Some(Event::End(Ending::KernelDied)));
        };
        self.ended = matches!(event, Event::End(_));
        let weight = weight(&event);
        let before = self.fill.bytes.fetch_sub(weight, Ordering::Relaxed);
        if before >= CAPACITY_BYTES && before.saturating_sub(weight) < CAPACITY_BYTES {
            self.fill.drained.notify_one();
        }
        Poll::Ready(Some(event))
    }
}

/// Approximate size of an event in memory.
fn weight(event: &Event) -> usize {
    let payload = match event {
        Event::Stream { text, .. } => text.len(),
        Event::Result { data, .. } => data.iter().map(|(key, value)| key.len() + json_weight(value)).sum(),
        Event::Error(report) => report.value.len() + report.traceback.iter().map(String::len).sum::<usize>(),
        Event::Input { .. } | Event::End(_) => 0,
    };
    EVENT_OVERHEAD_BYTES + payload
}

fn json_weight(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(|item| 32 + json_weight(item)).sum(),
        Value::Object(fields) => fields.iter().map(|(key, value)| 32 + key.len() + json_weight(value)).sum(),
        _ => 8,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed expectation is the test's failure")]
mod tests {
    use futures_util::StreamExt;

    use super::*;
    use crate::event::Channel;

    fn output(bytes: usize) -> Event {
        Event::Stream { channel: Channel::Stdout, text: "x".repeat(bytes), date: None }
    }

    #[tokio::test]
    async fn a_full_channel_has_room_again_when_the_client_reads() {
        let (outbox, mut execution) = channel();
        outbox.send(output(CAPACITY_BYTES));
        assert!(!outbox.has_room());
        assert!(matches!(execution.next().await, Some(Event::Stream { .. })));
        outbox.drained().await;
        assert!(outbox.has_room());
    }

    #[tokio::test]
    async fn the_stream_ends_behind_its_end_event_also_when_the_context_vanishes() {
        let (outbox, mut execution) = channel();
        outbox.end(Ending::Finished);
        assert_eq!(execution.next().await, Some(Event::End(Ending::Finished)));
        assert_eq!(execution.next().await, None);

        let (outbox, execution) = channel();
        drop(outbox);
        assert_eq!(execution.collect::<Vec<_>>().await, [Event::End(Ending::KernelDied)]);
    }

    #[tokio::test]
    async fn a_dropped_execution_closes_the_channel() {
        let (outbox, execution) = channel();
        drop(execution);
        outbox.closed().await;
        assert!(outbox.is_closed());
    }
}
