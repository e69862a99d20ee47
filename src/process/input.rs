//! The writing side: a pipe to standard input, or a terminal.
//!
//! Calls write one after the other, in the order in which they came, and the bytes of two calls are never mixed. A
//! call that is given up (its future is dropped, its deadline passes) makes place for the next: what it has written
//! stays written, and what it has not is never written. Closing takes its place in the same queue and does not wait
//! for it.
//!
//! Nothing is taken ahead. A call answers when the system has its last byte, so what waits for a slow process is held
//! by the calls themselves, and [`Waiting`] bounds how much they may hold.

use std::{
    future::{Future, poll_fn},
    io,
    os::fd::{AsFd, OwnedFd},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Poll,
};

use futures_util::FutureExt;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::Mutex,
    task::coop::consume_budget,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::source::grow;

/// What may wait behind the call that writes, for one process. One call alone may always wait, whatever its size.
const WAITING_BYTES: usize = 16 * 1024 * 1024;

/// The same for all processes together.
const ALL_WAITING_BYTES: usize = 64 * 1024 * 1024;

/// A queue of writers in front of a descriptor.
#[derive(Debug)]
pub(super) struct Input {
    fd: Arc<Mutex<Option<Arc<AsyncFd<OwnedFd>>>>>,
    open: AtomicBool,
    /// The process has ended; nobody will read any more.
    gone: CancellationToken,
    waiting: Waiting,
    /// The part of `waiting` that waits for this process.
    waiting_here: AtomicUsize,
}

/// Why input was not written, or not all of it.
#[derive(Debug)]
pub(super) enum InputFailure {
    /// There never was an input, or it was closed.
    Closed,
    /// The process has ended.
    Gone,
    /// The deadline passed when only this many bytes were written.
    Late(usize),
    /// This many bytes wait already, which is too much to wait behind. Nothing was written.
    Crowded(usize),
    /// The system's answer.
    Io(io::Error),
}

/// How many bytes wait for their turn to be written, for all processes together; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting(Arc<AtomicUsize>);

/// A place in the queue; leaving it makes room.
struct Place<'a> {
    input: &'a Input,
    bytes: usize,
}

impl Input {
    /// Writes to the given non-blocking descriptor; `None` is an input that was never open.
    pub(super) fn new(fd: Option<Arc<AsyncFd<OwnedFd>>>, waiting: Waiting) -> Self {
        let open = AtomicBool::new(fd.is_some());
        let (fd, gone) = (Arc::new(Mutex::new(fd)), CancellationToken::new());
        Self { fd, open, gone, waiting, waiting_here: AtomicUsize::new(0) }
    }

    /// Writes everything, after everybody who came before, until the deadline. May be dropped at any time.
    ///
    /// # Errors
    /// [`InputFailure`]; a part may have been written.
    pub(super) async fn write(&self, bytes: &[u8], deadline: Option<Instant>) -> Result<(), InputFailure> {
        if !self.open.load(Ordering::Acquire) {
            return Err(InputFailure::Closed);
        }
        let mut rest = bytes;
        let written = until(deadline, async {
            tokio::select! {
                biased;
                written = self.write_in_turn(&mut rest) => written,
                () = self.gone.cancelled() => Err(InputFailure::Gone),
            }
        });
        match written.await {
            Some(written) => written,
            None => Err(InputFailure::Late(bytes.len() - rest.len())),
        }
    }

    /// Closes the descriptor behind what is queued. Later writes fail at once. Idempotent.
    pub(super) fn close(&self) {
        if !self.open.swap(false, Ordering::AcqRel) {
            return;
        }
        let mut turn = Box::pin(self.fd.clone().lock_owned());
        // The first poll takes the place in the queue.
        match (&mut turn).now_or_never() {
            Some(mut fd) => drop(fd.take()),
            None => drop(tokio::spawn(async move { drop(turn.await.take()) })),
        }
    }

    /// Nobody reads any more: gives up what is queued and closes.
    pub(super) fn abandon(&self) {
        self.gone.cancel();
        self.close();
    }

    /// Takes what it has written off the front of `rest`.
    async fn write_in_turn(&self, rest: &mut &[u8]) -> Result<(), InputFailure> {
        // The lock is fair: it is free only when nobody waits for it.
        let turn = match self.fd.try_lock() {
            Ok(turn) => turn,
            Err(_taken) => {
                let _place = self.wait_with(rest.len())?;
                self.fd.lock().await
            }
        };
        match &*turn {
            Some(fd) => write_all(fd, rest).await.map_err(InputFailure::Io),
            None => Err(InputFailure::Closed),
        }
    }

    fn wait_with(&self, bytes: usize) -> Result<Place<'_>, InputFailure> {
        let here = self.waiting_here.fetch_add(bytes, Ordering::Relaxed);
        let all = self.waiting.0.fetch_add(bytes, Ordering::Relaxed);
        let place = Place { input: self, bytes };
        let crowded = |waiting, limit| waiting > 0 && waiting + bytes > limit;
        if crowded(here, WAITING_BYTES) || crowded(all, ALL_WAITING_BYTES) {
            return Err(InputFailure::Crowded(here));
        }
        Ok(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.input.waiting_here.fetch_sub(self.bytes, Ordering::Relaxed);
        self.input.waiting.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Gives up at the deadline. Looks at the clock, not only at its timer: where a caller has a limit for the same
/// moment, the answer that can tell what was done must not come second.
pub(super) async fn until<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    let Some(deadline) = deadline else { return Some(work.await) };
    let (mut work, mut timer) = (pin!(work), pin!(sleep_until(deadline)));
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        if timer.as_mut().poll(cx).is_ready() || deadline <= Instant::now() {
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await
}

async fn write_all(fd: &AsyncFd<OwnedFd>, rest: &mut &[u8]) -> io::Result<()> {
    let mut may_grow = true;
    while !rest.is_empty() {
        // A fast reader takes megabytes without a pause, which must not hold up whoever shares the thread.
        consume_budget().await;
        // Most input fits, so that waiting for readiness first would only cost a turn of the event loop.
        match rustix::io::write(fd.as_fd(), rest) {
            Ok(written) => *rest = rest.get(written..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) if std::mem::take(&mut may_grow) && grow(fd) => {}
            Err(rustix::io::Errno::AGAIN) => {
                let mut ready = fd.ready(Interest::WRITABLE).await?;
                // Readiness may be from before the attempt: clear it only if the next attempt fails too.
                let outcome = ready.try_io(|fd| Ok(rustix::io::write(fd.as_fd(), rest)?));
                match outcome {
                    Ok(Ok(written)) => *rest = rest.get(written..).unwrap_or_default(),
                    Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                    Ok(Err(error)) => return Err(error),
                    Err(_would_block) => {}
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "input_tests.rs"]
mod tests;
