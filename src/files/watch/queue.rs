//! The kernel's event queue, inotify(7), and what was read from it and not processed yet.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    io,
    mem::MaybeUninit,
    os::unix::ffi::OsStrExt,
    path::Path,
};

use rustix::{
    fd::OwnedFd,
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};

/// The most events read ahead. Larger than the kernel's own queue (16,384 by default), so that one reading gets
/// everything that happened before it.
const MAX_READ_AHEAD: usize = 1 << 16;
const BUFFER_BYTES: usize = 32 << 10;

/// One event as the kernel tells it.
#[derive(Debug)]
pub(super) struct KernelEvent {
    /// Counts events in the order of reading.
    pub number: u64,
    /// The watch it is for; negative for an overflow.
    pub watch: i32,
    pub mask: ReadFlags,
    /// Ties the two ends of a rename together.
    pub cookie: u32,
    /// The entry inside the watched directory; absent when it is the directory itself.
    pub name: Option<OsString>,
}

/// The one inotify instance.
#[derive(Debug)]
pub(super) struct Queue {
    fd: OwnedFd,
    /// Read and not processed yet.
    pub pending: VecDeque<KernelEvent>,
    last_number: u64,
}

impl Queue {
    pub(super) fn new() -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self { fd, pending: VecDeque::new(), last_number: 0 })
    }

    /// A duplicate, for waiting until there is something to read.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// The number of the last event read.
    pub(super) fn last_number(&self) -> u64 {
        self.last_number
    }

    /// Reads what is queued into `pending`. `false`: there may be more.
    pub(super) fn fill(&mut self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = Reader::new(&self.fd, &mut buffer);
        loop {
            if reader.is_buffer_empty() && self.pending.len() >= MAX_READ_AHEAD {
                return false;
            }
            match reader.next() {
                Ok(event) => {
                    self.last_number += 1;
                    self.pending.push_back(KernelEvent {
                        number: self.last_number,
                        watch: event.wd(),
                        mask: event.events(),
                        cookie: event.cookie(),
                        name: event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned()),
                    });
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(errno) => {
                    tracing::error!(%errno, "cannot read file events");
                    return true;
                }
            }
        }
    }

    /// Watches a directory, or widens its watch; one watch for each inode, whatever the path.
    pub(super) fn watch(&self, path: &Path, flags: WatchFlags) -> Result<i32, Errno> {
        inotify::add_watch(&self.fd, path, flags | WatchFlags::ONLYDIR | WatchFlags::MASK_ADD)
    }

    pub(super) fn unwatch(&self, watch: i32) {
        // Fails when the kernel was faster because the directory is gone.
        let _ = inotify::remove_watch(&self.fd, watch);
    }
}
