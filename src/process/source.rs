//! The reading side: a pipe or a terminal, read by readiness, one chunk for each read.

use std::{io, os::fd::OwnedFd, sync::Arc};

use bytes::Bytes;
use rustix::pipe::{fcntl_getpipe_size, fcntl_setpipe_size};
use tokio::io::{Interest, unix::AsyncFd};

use super::output::OutputLog;
use crate::{
    proto::process::process_event::data_event::Output,
    sys,
    system::buffers::{CHUNK_BYTES, CHUNKS, Lease},
};

/// The most that one read of a terminal asks for, in bytes; the kernel gives less.
const TERMINAL_READ_BYTES: usize = 16 * 1024;

/// What a pipe that was found full grows to, in bytes: writer and reader then wake each other less often. Four times what
/// Linux makes (pipe(7)).
pub(super) const BUSY_PIPE_BYTES: usize = 256 * 1024;

/// Which stream of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A terminal.
    Terminal,
}

impl Channel {
    fn output(self, data: Bytes) -> Output {
        match self {
            Self::Stdout => Output::Stdout(data),
            Self::Stderr => Output::Stderr(data),
            Self::Terminal => Output::Pty(data),
        }
    }

    /// How much one read may return, in bytes.
    fn read_limit(self) -> usize {
        match self {
            Self::Stdout | Self::Stderr => CHUNK_BYTES,
            Self::Terminal => TERMINAL_READ_BYTES,
        }
    }
}

/// Where output comes from.
#[derive(Debug)]
pub(super) struct Source {
    channel: Channel,
    fd: Arc<AsyncFd<OwnedFd>>,
    buffers: Lease,
}

/// What one attempt to read found.
enum Read {
    Data(Bytes),
    Nothing,
    EndOfFile,
}

impl Source {
    /// Reads the given non-blocking descriptor.
    pub(super) fn new(channel: Channel, fd: Arc<AsyncFd<OwnedFd>>) -> Self {
        Self { channel, fd, buffers: CHUNKS.lease() }
    }

    /// Moves everything into the log until end of file, at the pace that the log allows. May be dropped at any
    /// time: what was read is in the log.
    pub(super) async fn pump(&self, log: &OutputLog) {
        let pipe = self.channel != Channel::Terminal;
        let mut grown = false;
        loop {
            log.room().await;
            let Ok(mut ready) = self.fd.ready(Interest::READABLE).await else { return };
            match self.read() {
                Read::Data(data) => {
                    let full = data.len() == self.channel.read_limit();
                    log.append(self.channel.output(data));
                    if !pipe {
                        continue;
                    }
                    // A pipe that gave less than it was asked for is empty: the next write is a new edge.
                    if !full {
                        ready.clear_ready();
                        continue;
                    }
                    if !grown {
                        grown = true;
                        let _as_it_was = grow(&self.fd);
                    }
                    // There is more, but whoever sends this piece sends it at least cost now: while it is in the
                    // processor's cache, and before more buffers are needed.
                    tokio::task::yield_now().await;
                }
                Read::Nothing => ready.clear_ready(),
                Read::EndOfFile => return,
            }
        }
    }

    /// Moves what is there right now into the log, without waiting for a writer. Stops at what was there at the
    /// beginning, because others may go on writing for ever.
    pub(super) async fn drain(&self, log: &OutputLog) {
        let waiting = rustix::io::ioctl_fionread(&*self.fd).unwrap_or(0);
        // A terminal does not count what is still on its way through the line discipline.
        let floor = if self.channel == Channel::Terminal { 64 * 1024 } else { 0 };
        let mut left = usize::try_from(waiting).unwrap_or(usize::MAX).max(floor);
        while left > 0 {
            log.room().await;
            let Read::Data(data) = self.read() else { return };
            left = left.saturating_sub(data.len());
            log.append(self.channel.output(data));
        }
    }

    fn read(&self) -> Read {
        let mut buffer = self.buffers.take();
        loop {
            buffer.truncate(0);
            return match rustix::io::read(&*self.fd, buffer.extend(self.channel.read_limit())) {
                Ok(0) => Read::EndOfFile,
                Ok(count) => {
                    buffer.truncate(count);
                    Read::Data(buffer.freeze())
                }
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) => Read::Nothing,
                // A terminal without a process behind it answers EIO, which is its end of file.
                Err(rustix::io::Errno::IO) => Read::EndOfFile,
                Err(error) => {
                    tracing::warn!(channel = ?self.channel, %error, "cannot read output");
                    Read::EndOfFile
                }
            };
        }
    }
}

/// Whether the descriptor is a pipe that has just grown. A user's share of pipes may be used up, and a terminal has
/// no size: neither is a reason to complain.
pub(super) fn grow(fd: &AsyncFd<OwnedFd>) -> bool {
    fcntl_getpipe_size(fd).is_ok_and(|size| size < BUSY_PIPE_BYTES && fcntl_setpipe_size(fd, BUSY_PIPE_BYTES).is_ok())
}

/// Makes a descriptor of ours non-blocking and watches it. Needs a tokio runtime.
///
/// # Errors
/// As fcntl(2) and epoll_ctl(2).
pub(super) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    sys::descriptor::watch(fd, interest)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is the test's failure")]
mod tests {
    use std::{future::poll_fn, io::Write, thread};

    use super::*;
    use crate::process::{
        log::{Taken, data},
        output::Memory,
    };

    #[tokio::test]
    async fn a_pipe_arrives_whole_in_pieces_of_any_size_and_grows_when_it_is_full() {
        let (reader, mut writer) = io::pipe().unwrap();
        let source = Source::new(Channel::Stdout, Arc::new(watch(reader.into(), Interest::READABLE).unwrap()));
        let log = OutputLog::new(Memory::default());
        let mut client = log.subscribe();
        // Around what is copied, what one read returns, and what a pipe holds.
        let sizes = [1, 24 * 1024, 24 * 1024 + 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3_000_000];
        let written: Vec<u8> = (0..CHUNK_BYTES + sizes.iter().sum::<usize>())
            .map(|index: usize| index.wrapping_mul(31).to_le_bytes()[1])
            .collect();
        let sent = written.clone();
        // The first read finds the pipe full.
        writer.write_all(sent.get(..CHUNK_BYTES).unwrap()).unwrap();
        let child = thread::spawn(move || {
            let mut rest = sent.get(CHUNK_BYTES..).unwrap();
            for size in sizes {
                let (piece, left) = rest.split_at(size);
                writer.write_all(piece).unwrap();
                rest = left;
            }
        });
        let mut received = Vec::new();
        let receive = async {
            while received.len() < written.len() {
                match poll_fn(|cx| client.poll_next(cx)).await {
                    Taken::Output(output, _) => received.extend_from_slice(data(&output)),
                    other => panic!("{other:?}"),
                }
            }
        };
        tokio::join!(source.pump(&log), receive);
        child.join().unwrap();
        assert!(received == written, "{} of {} bytes, or others", received.len(), written.len());
        assert_eq!(fcntl_getpipe_size(&*source.fd).unwrap(), BUSY_PIPE_BYTES);
    }
}
