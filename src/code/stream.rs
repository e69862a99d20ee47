//! The body of an execution's answer: one chunk for each event, keep-alives in silence, one honest end.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame};
use kernel_bridge::{Ending, Event};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{kernels::Events, results};

/// Silence after which a keep-alive line leaves, also while the cell waits in the queue of its context.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Dropping it drops the events, which tells the kernel's side that the client has gone.
pub(super) struct ExecutionBody {
    /// `None` once the execution is over.
    events: Option<Events>,
    /// Lines of the last event that have not left yet.
    lines: VecDeque<Bytes>,
    last_line: Instant,
    silence: Duration,
    keepalive: Pin<Box<Sleep>>,
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl ExecutionBody {
    pub(super) fn new(events: Events, shutdown: CancellationToken) -> Self {
        Self::with_silence(events, shutdown, KEEPALIVE)
    }

    fn with_silence(events: Events, shutdown: CancellationToken, silence: Duration) -> Self {
        Self {
            events: Some(events),
            lines: VecDeque::new(),
            last_line: Instant::now(),
            silence,
            keepalive: Box::pin(sleep(silence)),
            shutdown: Box::pin(shutdown.cancelled_owned()),
        }
    }

    fn take(&mut self, event: Event) {
        if matches!(event, Event::End(_)) {
            self.events = None;
        }
        self.lines.extend(results::lines(event));
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(events) = &mut self.events else { return Poll::Pending };
        if let Poll::Ready(event) = events.as_mut().poll_next(context) {
            // A stream without an end is a failure on our side; the client must hear of it all the same.
            self.take(event.unwrap_or(Event::End(Ending::Unavailable)));
            return Poll::Ready(());
        }
        if self.shutdown.as_mut().poll(context).is_ready() {
            self.take(Event::End(Ending::Deleted));
            return Poll::Ready(());
        }
        // The timer is moved when it fires, not with each event: most events come in bursts.
        while self.keepalive.as_mut().poll(context).is_ready() {
            let due = self.last_line + self.silence;
            if due <= Instant::now() {
                self.lines.push_back(results::keepalive());
                self.keepalive.as_mut().reset(Instant::now() + self.silence);
                return Poll::Ready(());
            }
            self.keepalive.as_mut().reset(due);
        }
        Poll::Pending
    }
}

impl Body for ExecutionBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        loop {
            if let Some(line) = this.lines.pop_front() {
                this.last_line = Instant::now();
                return Poll::Ready(Some(Ok(Frame::data(line))));
            }
            if this.events.is_none() {
                return Poll::Ready(None);
            }
            if this.poll_event(context).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.events.is_none() && self.lines.is_empty()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use futures_util::{StreamExt, stream};
    use http_body_util::BodyExt;
    use tokio::sync::mpsc;

    use super::*;

    fn body(events: impl futures_core::Stream<Item = Event> + Send + 'static) -> ExecutionBody {
        ExecutionBody::new(Box::pin(events), CancellationToken::new())
    }

    async fn chunks(mut body: ExecutionBody) -> Vec<String> {
        let mut chunks = vec![];
        while let Some(frame) = body.frame().await {
            chunks.push(String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap());
        }
        assert!(body.is_end_stream());
        chunks
    }

    #[tokio::test]
    async fn every_event_is_a_chunk_and_nothing_follows_the_end() {
        let script = vec![
            Event::Input { execution_count: 3 },
            Event::End(Ending::Restarted),
            Event::Input { execution_count: 4 },
        ];
        let chunks = chunks(body(stream::iter(script))).await;
        assert_eq!(chunks.len(), 4, "{chunks:?}");
        assert!(chunks.iter().all(|chunk| chunk.ends_with("}\n") && chunk.matches('\n').count() == 1));
        assert!(chunks[1].contains("WebSocketError") && chunks[2].contains("UnexpectedEndOfExecution"));
        assert_eq!(chunks[3], "{\"type\": \"end_of_execution\"}\n");
    }

    #[tokio::test]
    async fn a_stream_that_just_stops_is_told_as_an_error() {
        let chunks = chunks(body(stream::empty())).await;
        assert!(chunks[0].contains("\"error\""), "{chunks:?}");
        assert_eq!(chunks.last().unwrap(), "{\"type\": \"end_of_execution\"}\n");
    }

    #[tokio::test]
    async fn silence_brings_keepalives_and_an_event_puts_the_next_one_off() {
        const SILENCE: Duration = Duration::from_millis(40);
        let (sender, receiver) = mpsc::unbounded_channel();
        let events = stream::unfold(receiver, |mut receiver: mpsc::UnboundedReceiver<Event>| async {
            receiver.recv().await.map(|event| (event, receiver))
        });
        let mut body = ExecutionBody::with_silence(events.boxed(), CancellationToken::new(), SILENCE);
        let mut last = Instant::now();
        let mut next = async || {
            let line = body.frame().await.unwrap().unwrap().into_data().unwrap();
            (line, std::mem::replace(&mut last, Instant::now()).elapsed())
        };

        for _ in 0..2 {
            let (line, waited) = next().await;
            assert_eq!(line, results::keepalive());
            assert!(waited >= SILENCE, "{waited:?}");
        }
        tokio::time::sleep(SILENCE / 2).await;
        sender.send(Event::Input { execution_count: 1 }).unwrap();
        assert!(next().await.0.starts_with(b"{\"type\": \"number_of_executions\""));
        let (line, waited) = next().await;
        assert_eq!(line, results::keepalive());
        assert!(waited >= SILENCE, "{waited:?}");
    }

    #[tokio::test]
    async fn shutdown_ends_a_running_stream() {
        let token = CancellationToken::new();
        let running = ExecutionBody::new(Box::pin(stream::pending()), token.clone());
        token.cancel();
        assert_eq!(chunks(running).await.last().unwrap(), "{\"type\": \"end_of_execution\"}\n");
    }
}
