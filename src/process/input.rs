//! The writing side: a pipe to standard input, or a terminal.
//!
//! Calls write one after the other, in the order in which they came, and each waits for its own bytes only. A call
//! that is given up (its future is dropped) makes place for the next; what it wrote so far stays written. Closing
//! takes its place in the same queue and does not wait for it.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::FutureExt;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::Mutex,
};
use tokio_util::sync::CancellationToken;

/// A queue of writers in front of a descriptor.
#[derive(Debug)]
pub(super) struct Input {
    fd: Arc<Mutex<Option<Arc<AsyncFd<OwnedFd>>>>>,
    open: AtomicBool,
    /// The process has ended; nobody will read any more.
    gone: CancellationToken,
}

/// Why input was not written.
#[derive(Debug)]
pub(super) enum InputFailure {
    /// There never was an input, or it was closed.
    Closed,
    /// The system's answer.
    Io(io::Error),
}

impl Input {
    /// Writes to the given non-blocking descriptor; `None` is an input that was never open.
    pub(super) fn new(fd: Option<Arc<AsyncFd<OwnedFd>>>) -> Self {
        let open = AtomicBool::new(fd.is_some());
        Self { fd: Arc::new(Mutex::new(fd)), open, gone: CancellationToken::new() }
    }

    /// Writes everything, after everybody who came before.
    ///
    /// # Errors
    /// [`InputFailure`]; a part may have been written.
    pub(super) async fn write(&self, bytes: &[u8]) -> Result<(), InputFailure> {
        if !self.open.load(Ordering::Acquire) {
            return Err(InputFailure::Closed);
        }
        let queued = async {
            let fd = self.fd.lock().await;
            match &*fd {
                Some(fd) => write_all(fd, bytes).await.map_err(InputFailure::Io),
                None => Err(InputFailure::Closed),
            }
        };
        tokio::select! {
            biased;
            written = queued => written,
            () = self.gone.cancelled() => Err(InputFailure::Io(io::Error::from_raw_os_error(libc::EPIPE))),
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
}

async fn write_all(fd: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        // Most input fits, so that waiting for readiness first would only cost a turn of the event loop.
        match rustix::io::write(fd.as_fd(), bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                let mut ready = fd.ready(Interest::WRITABLE).await?;
                // Readiness may be from before the attempt: clear it only if the next attempt fails too.
                let outcome = ready.try_io(|fd| Ok(rustix::io::write(fd.as_fd(), bytes)?));
                match outcome {
                    Ok(Ok(written)) => bytes = bytes.get(written..).unwrap_or_default(),
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
