//! Watching directories: one inotify(7) instance behind all watchers, however many there are.
//!
//! What clients count on: a new upload is CREATE, CHMOD, WRITE and nothing else; a rename is RENAME of the old name
//! and CREATE of the new one; events that happened before a call are in the answer of that call; names are relative
//! to the watched directory, which itself is `.`.
//!
//! * `queue`: the kernel's queue. `tree`: who watches which directory under which name. `scan`: looking at
//!   directories. `dispatch`: kernel events to client events. `outlet`: what a client has not fetched yet.
//! * [`stream`]: events as they come. [`polling`]: events when asked for.
//!
//! # Why not `notify`
//!
//! The crate (versions 8.2 and 9.0-rc were read) wraps inotify for a wider purpose and gets in the way of this one:
//!
//! * It reads on a thread of its own and hands events to a callback. Nothing can make it read *now*, so the answer
//!   to "which events so far?" right after an upload would depend on thread scheduling.
//! * It reports the watched directory's own rename (`IN_MOVE_SELF`) and an entry's departure (`IN_MOVED_FROM`) as
//!   the same event kind, and a rename inside the tree as three events; clients count them.
//! * It hides the watch descriptors. Version 8 keeps one path for each, so two paths to one directory (a symbolic
//!   link, a bind mount) shadow each other; version 9 keeps one mode for each path, so a recursive and a plain
//!   watcher of one directory cannot share an instance. One instance for each watcher instead would cost a thread
//!   each and end at `fs.inotify.max_user_instances`, usually 128.
//! * It asks for opens (version 8) and wakes up for every file that anybody reads.
//! * What a new directory holds before its watch stands is never told (version 8), or told for directories only and
//!   perhaps twice (version 9, as its source says).
//!
//! # Limits
//!
//! inotify does not see what other machines change on a network file system, which is why such directories are
//! refused unless the client insists. It does not tell when a directory *above* the watched one is renamed; the
//! watch then stays with the directory.

mod dispatch;
mod network;
mod outlet;
pub mod polling;
mod queue;
mod scan;
pub mod stream;
mod tree;

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
};

use self::{
    outlet::Outlet,
    queue::Queue,
    scan::Report,
    tree::{Key, Tree, Watcher},
};
use super::error::{FilesystemError, is_missing};
use crate::{
    proto::filesystem::FilesystemEvent,
    sys,
    system::{
        blocking::{self, Lost},
        identity::Identity,
        path::clean,
    },
};

/// How a directory is to be watched.
#[derive(Clone, Copy, Debug, Default)]
pub struct WatchOptions {
    /// Everything below it, too.
    pub recursive: bool,
    /// Attach the entry to CREATE, WRITE and CHMOD events.
    pub include_entry: bool,
    /// Watch it even where other machines' changes make no events.
    pub allow_network_mounts: bool,
}

/// All watches of the agent; cheap to clone.
#[derive(Clone, Debug)]
pub struct Watches {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    tree: Mutex<Tree>,
    /// How many watchers there are, readable without the lock.
    count: AtomicUsize,
    next_key: AtomicUsize,
    /// Bytes held by all outlets.
    held: Arc<AtomicUsize>,
    /// Turns true when streams are to end. The reader ends when this is dropped.
    stopping: watch::Sender<bool>,
}

/// One armed watcher; dropping it disarms it.
#[derive(Debug)]
pub struct Watch {
    key: Key,
    outlet: Arc<Outlet>,
    inner: Arc<Inner>,
}

impl Watches {
    /// Opens the inotify instance and starts its reader. Needs a `tokio` runtime.
    ///
    /// # Errors
    /// What inotify_init(2) reports, such as EMFILE.
    pub fn start(identity: Identity) -> io::Result<Self> {
        let queue = Queue::new()?;
        let readable = sys::descriptor::watch(queue.descriptor()?, Interest::READABLE)?;
        let stopping = watch::Sender::new(false);
        let inner = Arc::new(Inner {
            tree: Mutex::new(Tree::new(queue, identity)),
            count: AtomicUsize::new(0),
            next_key: AtomicUsize::new(0),
            held: Arc::default(),
            stopping,
        });
        tokio::spawn(read_events(readable, Arc::downgrade(&inner), inner.stopping.subscribe()));
        Ok(Self { inner })
    }

    /// Watches a directory; from the return on no event is missed. Blocking.
    ///
    /// # Errors
    /// The directory is missing, something else, on a network file system, or the kernel has no watches left.
    pub fn open(&self, path: &Path, options: WatchOptions) -> Result<Watch, FilesystemError> {
        let owned = || path.to_owned();
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(FilesystemError::WatchNotADirectory(owned())),
            Err(source) if is_missing(&source) => return Err(FilesystemError::WatchNotFound { path: owned(), source }),
            Err(source) => return Err(FilesystemError::WatchStat { path: owned(), source }),
        }
        if !options.allow_network_mounts {
            network::refuse_network_mount(path)?;
        }
        let key = self.inner.next_key.fetch_add(1, Ordering::Relaxed) as Key;
        let outlet = Arc::new(Outlet::new(self.inner.held.clone()));
        let mut tree = self.inner.tree();
        // What happened before belongs to the watchers that were there before.
        tree.drain();
        tree.watchers.insert(key, Watcher::new(path.to_owned(), clean(path), options, outlet.clone()));
        self.inner.count.fetch_add(1, Ordering::Relaxed);
        // Disarms on failure, too: after the lock is released.
        let watch = Watch { key, outlet, inner: self.inner.clone() };
        match tree.adopt(key, Path::new(""), Report::Nothing) {
            Ok(()) => Ok(watch),
            Err(errno) => Err(FilesystemError::Watch { path: owned(), source: errno.into() }),
        }
    }

    /// Processes all that the kernel has queued up to now. A client that goes on after a call may rely on new
    /// directories being watched already. Blocking; free without watchers.
    pub fn catch_up(&self) {
        if self.inner.count.load(Ordering::Relaxed) > 0 {
            self.inner.tree().drain();
        }
    }

    /// Ends all streams cleanly.
    pub fn shutdown(&self) {
        self.inner.stopping.send_replace(true);
    }

    /// How many watchers are armed.
    pub fn count(&self) -> usize {
        self.inner.count.load(Ordering::Relaxed)
    }
}

impl Inner {
    // After a panic the maps may miss an event's effect, which the next scan mends; better than no watching at all.
    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// Up to `limit` events, the oldest first.
    fn take(&self, limit: usize) -> Vec<FilesystemEvent> {
        self.outlet.take(limit)
    }

    /// Reads what the kernel has queued, then takes all events. Blocking.
    fn poll(&self) -> Vec<FilesystemEvent> {
        self.inner.tree().drain();
        self.take(usize::MAX)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let (key, inner) = (self.key, self.inner.clone());
        self.inner.count.fetch_sub(1, Ordering::Relaxed);
        // Thousands of watches may have to go, and the lock may be taken for a while: not in an async task.
        drop(blocking::run(move || inner.tree().remove(key)));
    }
}

impl Watcher {
    fn new(root: PathBuf, shown: PathBuf, options: WatchOptions, outlet: Arc<Outlet>) -> Self {
        let WatchOptions { recursive, include_entry, .. } = options;
        Self { root, shown, recursive, include_entry, directories: Default::default(), guard: None, outlet }
    }
}

/// Processes events as they come, until the watches are dropped.
async fn read_events(readable: AsyncFd<OwnedFd>, inner: Weak<Inner>, mut stopping: watch::Receiver<bool>) {
    loop {
        let mut guard = tokio::select! {
            ready = readable.readable() => match ready {
                Ok(guard) => guard,
                Err(error) => return tracing::error!(%error, "cannot wait for file events"),
            },
            () = dropped(&mut stopping) => return,
        };
        let Some(inner) = inner.upgrade() else { return };
        // Processing looks at directories, so it must not run on an async thread.
        match blocking::run(move || inner.tree().drain()).await {
            Ok(true) => guard.clear_ready(),
            Ok(false) => {}
            Err(Lost::Panicked) => tracing::error!("processing file events failed"),
            Err(error @ Lost::NoThread) => return tracing::error!(%error, "no more file events"),
        }
    }
}

async fn dropped(stopping: &mut watch::Receiver<bool>) {
    while stopping.changed().await.is_ok() {}
}
