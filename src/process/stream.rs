//! What one client sees of a process: the start, then output and keep-alives, then the end. Clients that did not ask for
//! details see none.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{error::ProcessError, log::Taken, output::Subscription, running::Process};
use crate::proto::process::{
    ProcessEvent,
    process_event::{DataEvent, Event, KeepAlive, StartEvent},
};

/// The events of one Start or Connect call. Dropping it leaves the process alone.
pub(super) struct Events {
    pid: u32,
    details: bool,
    started: bool,
    finished: bool,
    output: Subscription,
    keepalive: Keepalive,
    deadline: Option<(Instant, Pin<Box<Sleep>>)>,
    shutdown: CancellationToken,
    shut_down: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Events {
    pub(super) fn new(
        process: &Arc<Process>,
        output: Subscription,
        details: bool,
        keepalive: Duration,
        deadline: Option<Instant>,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            pid: process.pid(),
            details,
            started: false,
            finished: false,
            output,
            keepalive: Keepalive::new(keepalive),
            deadline: deadline.map(|at| (at, Box::pin(tokio::time::sleep_until(at)))),
            shut_down: Box::pin(shutdown.clone().cancelled_owned()),
            shutdown,
        }
    }

    /// Why the stream ends here although the process has not said its last word.
    fn poll_interrupted(&mut self, cx: &mut Context<'_>) -> Poll<ProcessError> {
        if let Some((_, timer)) = &mut self.deadline
            && timer.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(ProcessError::DeadlineExceeded);
        }
        self.shut_down.as_mut().poll(cx).map(|()| ProcessError::ShuttingDown)
    }

    /// The same without asking to be woken, for the busy path.
    fn interrupted(&self) -> Option<ProcessError> {
        if self.deadline.as_ref().is_some_and(|(at, _)| Instant::now() >= *at) {
            return Some(ProcessError::DeadlineExceeded);
        }
        self.shutdown.is_cancelled().then_some(ProcessError::ShuttingDown)
    }

    fn fail(&mut self, error: ProcessError) -> Poll<Option<Result<Event, ProcessError>>> {
        // The error follows the last output on the same stream.
        self.output.receive();
        self.finished = true;
        Poll::Ready(Some(Err(error)))
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Event, ProcessError>>> {
        if self.finished {
            return Poll::Ready(None);
        }
        if !self.started {
            self.started = true;
            self.keepalive.restart();
            let offset = self.details.then(|| self.output.offset());
            return Poll::Ready(Some(Ok(Event::Start(StartEvent { pid: self.pid, offset }))));
        }
        if let Some(error) = self.interrupted() {
            return self.fail(error);
        }
        match self.output.poll_next(cx) {
            Poll::Ready(Taken::Output(output, offset)) => {
                self.keepalive.restart();
                let offset = self.details.then_some(offset);
                return Poll::Ready(Some(Ok(Event::Data(DataEvent { output: Some(output), offset }))));
            }
            Poll::Ready(Taken::End(mut end)) => {
                self.finished = true;
                end.details = end.details.filter(|_| self.details);
                return Poll::Ready(Some(Ok(Event::End(end))));
            }
            Poll::Ready(Taken::Skipped(bytes)) => return self.fail(ProcessError::Skipped { pid: self.pid, bytes }),
            Poll::Ready(Taken::Nothing) | Poll::Pending => {}
        }
        if let Poll::Ready(error) = self.poll_interrupted(cx) {
            return self.fail(error);
        }
        self.keepalive.poll(cx).map(|()| Some(Ok(Event::Keepalive(KeepAlive {}))))
    }
}

impl Stream for Events {
    type Item = Result<ProcessEvent, ProcessError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_event(cx).map(|event| event.map(|event| event.map(|event| ProcessEvent { event: Some(event) })))
    }
}

/// Ticks when nothing else was sent for an interval. The timer is only touched when it fires: a busy stream costs
/// one look at the clock for each event.
struct Keepalive {
    interval: Duration,
    quiet_since: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Keepalive {
    fn new(interval: Duration) -> Self {
        let now = Instant::now();
        Self { interval, quiet_since: now, timer: Box::pin(tokio::time::sleep_until(now + interval)) }
    }

    fn restart(&mut self) {
        self.quiet_since = Instant::now();
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            std::task::ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            let due = self.quiet_since + self.interval;
            if now >= due {
                self.quiet_since = now;
                self.timer.as_mut().reset(now + self.interval);
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(due);
        }
    }
}
