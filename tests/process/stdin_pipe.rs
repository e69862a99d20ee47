//! A look at the pipe that is a process's standard input, from the side of the process.

use std::{
    fs::{File, OpenOptions},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pipe::fcntl_getpipe_size,
};

/// A failure limit only.
const PATIENCE: Duration = Duration::from_secs(120);

/// A second reader of the pipe. While it exists, the end of the process does not break the pipe.
pub(crate) struct StdinPipe(File);

impl StdinPipe {
    pub(crate) fn of(pid: u32) -> Self {
        let path = format!("/proc/{pid}/fd/0");
        let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
        Self(OpenOptions::new().read(true).custom_flags(nonblocking).open(path).unwrap())
    }

    /// How many bytes are in the pipe.
    pub(crate) fn waiting(&self) -> usize {
        usize::try_from(rustix::io::ioctl_fionread(&self.0).unwrap()).unwrap()
    }

    /// Waits until the pipe has grown to what the agent lets it grow to and is full; tells how much it holds.
    pub(crate) async fn full(&self) -> usize {
        let started = Instant::now();
        loop {
            let (waiting, size) = (self.waiting(), fcntl_getpipe_size(&self.0).unwrap());
            if waiting == size && size >= 256 * 1024 {
                return waiting;
            }
            assert!(started.elapsed() < PATIENCE, "{waiting} of {size} bytes");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until the other end is closed; tells how much is left to read.
    pub(crate) async fn hung_up(&self) -> usize {
        let started = Instant::now();
        loop {
            let mut polled = [PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::empty())];
            poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
            if polled[0].revents().contains(PollFlags::HUP) {
                return self.waiting();
            }
            assert!(started.elapsed() < PATIENCE, "the pipe stays open");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
