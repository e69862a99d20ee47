//! One file being written.
//!
//! Files are written in place, so that inode, mode, links and foreign attributes of an existing file survive, and
//! watchers of a small new file see exactly create, attribute change and one write.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, IoSlice, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, OpenOptionsExt, fchown},
    },
    path::{Path, PathBuf},
};

use bytes::Bytes;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FallocateFlags, OFlags, fallocate, fstatvfs},
};

use super::{
    Error, Transfers,
    error::is_no_space,
    locks::{FileId, Held, Waiter},
};
use crate::{
    files::metadata::{self, Metadata},
    system::{identity::User, path::errno_text},
};

/// What is gathered before it is written, in bytes.
pub(super) const WRITE_BYTES: usize = 1024 * 1024;

/// How often an open is tried again when the file comes and goes under it.
const ATTEMPTS: usize = 16;

/// The longest chain of dangling links that is followed.
const LINKS_MAX: usize = 40;

/// How long a pipe or device may take nothing, in seconds.
const WRITE_IDLE_SECONDS: i64 = 75;

/// What all files of one request have in common.
#[derive(Debug)]
pub(super) struct Order {
    /// Who gets the files.
    pub(super) user: std::sync::Arc<User>,
    /// What each of them carries.
    pub(super) metadata: Metadata,
    /// The request's length in bytes, for error texts.
    pub(super) attempted: Option<u64>,
    /// The length of the one file in bytes, if it is known before it arrives.
    pub(super) length: Option<u64>,
    /// Whose locks and watches count.
    pub(super) transfers: Transfers,
}

/// An open file and what still has to be written. Dropped before [`Target::finish`], a new file is removed.
#[derive(Debug)]
pub(super) struct Target {
    file: File,
    is_new: bool,
    /// A new file, until it is complete.
    remove: Option<PathBuf>,
    pending: Vec<Bytes>,
    pending_bytes: usize,
    attempted: Option<u64>,
    /// Last, so that a removal happens under the lock.
    held: Option<Held>,
}

/// The result of opening a target.
#[derive(Debug)]
pub(super) enum Opening {
    /// Ready to write.
    Open(Target),
    /// Somebody else is writing this file.
    Busy(Waiter),
}

impl Target {
    /// Opens `path` for writing from the start. `held` is the lock that an earlier attempt has waited for. Blocking.
    pub(super) fn open(order: &Order, path: &Path, held: Option<Held>) -> Result<Opening, Error> {
        order.transfers.make_parents(parent(path), &order.user)?;
        let mut held = held;
        for _ in 0..ATTEMPTS {
            let opened = match fs::metadata(path) {
                Ok(meta) if meta.is_dir() => return Err(Error::UploadDirectory(path.to_owned())),
                Ok(_) => Self::open_existing(order, path, &mut held)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(order, path)?,
                Err(source) => return Err(Error::Info { path: path.to_owned(), source }),
            };
            if let Some(opening) = opened {
                return Ok(opening);
            }
        }
        Err(Error::open_upload(path, io::ErrorKind::ResourceBusy.into()))
    }

    /// `None` if the file has gone in the meantime.
    fn open_existing(order: &Order, path: &Path, held: &mut Option<Held>) -> Result<Option<Opening>, Error> {
        let failed = |source| Error::open_upload(path, source);
        // A FIFO without a reader must not hold the thread, a terminal must not become ours.
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
        let file = match OpenOptions::new().write(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed(source)),
        };
        let meta = file.metadata().map_err(failed)?;
        if !meta.is_file() {
            return Ok(Some(Opening::Open(Self::new(file, order, None, None))));
        }
        let id = FileId::of(&meta);
        let held = match held.take().filter(|held| held.id == id) {
            Some(held) => held,
            None => match order.transfers.locks.try_lock(id) {
                Ok(held) => held,
                Err(waiter) => return Ok(Some(Opening::Busy(waiter))),
            },
        };
        // The writer before may have failed and taken its new file away.
        if file.metadata().map_err(failed)?.nlink() == 0 {
            return Ok(None);
        }
        fchown(&file, Some(order.user.uid), Some(order.user.gid))
            .map_err(|source| Error::Chown { path: path.to_owned(), source })?;
        reserve(&file, order)?;
        file.set_len(0).map_err(failed)?;
        Ok(Some(Opening::Open(Self::new(file, order, None, Some(held)))))
    }

    /// `None` if somebody else has made the file in the meantime.
    fn create(order: &Order, path: &Path) -> Result<Option<Opening>, Error> {
        let failed = |source| Error::open_upload(path, source);
        let Some((file, path)) = create_new(path).map_err(failed)? else { return Ok(None) };
        let mut target = Self::new(file, order, Some(path), None);
        fchown(&target.file, Some(order.user.uid), Some(order.user.gid))
            .map_err(|source| Error::Chown { path: target.remove.clone().unwrap_or_default(), source })?;
        let meta = target.file.metadata().map_err(failed)?;
        match order.transfers.locks.try_lock(FileId::of(&meta)) {
            Ok(held) => target.held = Some(held),
            Err(waiter) => {
                // Somebody has found the new file and writes to it already: it is theirs now.
                target.remove = None;
                return Ok(Some(Opening::Busy(waiter)));
            }
        }
        reserve(&target.file, order)?;
        Ok(Some(Opening::Open(target)))
    }

    fn new(file: File, order: &Order, remove: Option<PathBuf>, held: Option<Held>) -> Self {
        let (is_new, attempted) = (remove.is_some(), order.attempted);
        Self { file, is_new, remove, pending: Vec::new(), pending_bytes: 0, attempted, held }
    }

    /// Adds content; it reaches the disk in large writes. Blocking.
    pub(super) fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.pending_bytes += bytes.len();
        self.pending.push(bytes);
        if self.pending_bytes > WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes what is left and the metadata; gives the metadata as the file system has kept it. Blocking.
    pub(super) fn finish(mut self, metadata: &Metadata) -> Result<Metadata, Error> {
        self.flush()?;
        // A new file without metadata needs no look: that saves system calls, and watchers an event.
        let kept = if self.is_new && metadata.is_empty() {
            Metadata::new()
        } else {
            metadata::replace(&self.file, metadata).map_err(|error| {
                if is_no_space(&error) { Error::MetadataSpace(error) } else { Error::MetadataWrite(error) }
            })?;
            if metadata.is_empty() { Metadata::new() } else { metadata::read_open(&self.file) }
        };
        self.remove = None;
        Ok(kept)
    }

    fn flush(&mut self) -> Result<(), Error> {
        let pending = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let mut slices: Vec<IoSlice<'_>> =
            pending.iter().filter(|bytes| !bytes.is_empty()).map(|bytes| IoSlice::new(bytes)).collect();
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            match self.file.write_vectored(rest) {
                Ok(0) => return Err(Error::Write("short write".to_owned())),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.await_room()?,
                Err(error) if is_no_space(&error) => return Err(Error::Space(self.attempted)),
                Err(error) => return Err(Error::Write(errno_text(&error))),
            }
        }
        Ok(())
    }

    /// Waits until a pipe or device takes more.
    fn await_room(&self) -> Result<(), Error> {
        let limit = Timespec { tv_sec: WRITE_IDLE_SECONDS, tv_nsec: 0 };
        match poll(&mut [PollFd::new(&self.file, PollFlags::OUT)], Some(&limit)) {
            Ok(0) => Err(Error::Write("nobody reads from it".to_owned())),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(Error::Write(errno_text(&error.into()))),
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let Some(path) = self.remove.take() else { return };
        // Only what we made: by now the name may stand for something else.
        let ours = self.file.metadata().map(|meta| FileId::of(&meta));
        let there = fs::symlink_metadata(&path).map(|meta| FileId::of(&meta));
        if let (Ok(ours), Ok(there)) = (ours, there)
            && ours == there
            && let Err(error) = fs::remove_file(&path)
        {
            tracing::warn!(path = %path.display(), %error, "the rest of a failed upload stays");
        }
    }
}

/// Makes a file that is not there, at the end of dangling links if there are any. `None` if it is there after all.
fn create_new(path: &Path) -> io::Result<Option<(File, PathBuf)>> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match OpenOptions::new().write(true).create_new(true).mode(0o666).open(&path) {
            Ok(file) => return Ok(Some((file, path))),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match fs::read_link(&path) {
                Ok(target) => path = parent(&path).join(target),
                // Not a link: somebody else was faster.
                Err(_) => return Ok(None),
            },
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Fails when content of a known length cannot fit, before anything of an existing file is lost.
fn reserve(file: &File, order: &Order) -> Result<(), Error> {
    let Some(length) = order.length else { return Ok(()) };
    let (Ok(meta), Ok(system)) = (file.metadata(), fstatvfs(file)) else { return Ok(()) };
    // File systems that the kernel makes up have no blocks at all.
    if system.f_blocks == 0 {
        return Ok(());
    }
    let is_root = rustix::process::geteuid().is_root();
    let free_blocks = if is_root { system.f_bfree } else { system.f_bavail };
    // What the file has now is free once it is truncated; st_blocks counts units of 512 bytes.
    let room = free_blocks.saturating_mul(system.f_frsize).saturating_add(meta.blocks().saturating_mul(512));
    if room >= length {
        return Ok(());
    }
    // The figures may be wrong where blocks are compressed or shared; an attempt is not.
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, length) {
        Err(error) if is_no_space(&error.into()) => {
            // Gives back what the attempt may have taken behind the end.
            let _ = file.set_len(meta.len());
            Err(Error::Space(order.attempted))
        }
        _ => Ok(()),
    }
}

/// Everything before the last slash, as written: `/a/b/` lies in `/a/b`.
fn parent(path: &Path) -> &Path {
    let bytes = path.as_os_str().as_bytes();
    let end = bytes.iter().rposition(|byte| *byte == b'/').unwrap_or_default();
    Path::new(OsStr::from_bytes(bytes.get(..end.max(1)).unwrap_or(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailing_slash_names_a_directory() {
        for (path, expected) in
            [("/a/b", "/a"), ("/a/b/", "/a/b"), ("/a", "/"), ("/", "/"), ("/a/b/.", "/a/b"), ("/a//b", "/a/")]
        {
            assert_eq!(parent(Path::new(path)).as_os_str(), OsStr::new(expected), "{path}");
        }
    }
}
