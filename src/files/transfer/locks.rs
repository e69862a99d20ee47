//! One writer for each file at a time, whatever name it goes by.

use std::{
    collections::HashMap,
    fs::Metadata,
    os::unix::fs::MetadataExt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// Locks that nobody holds are dropped when the table has grown to this many.
const SWEEP_AT: usize = 128;

/// Tells files apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) fn of(meta: &Metadata) -> Self {
        Self { device: meta.dev(), inode: meta.ino() }
    }
}

/// The locks of all files that are being written.
#[derive(Clone, Debug, Default)]
pub(super) struct Locks {
    table: Arc<Mutex<HashMap<FileId, Weak<AsyncMutex<()>>>>>,
}

/// The right to write a file, until dropped.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) id: FileId,
    _guard: OwnedMutexGuard<()>,
}

/// A place in the queue for a file that somebody else is writing.
#[derive(Debug)]
pub(super) struct Waiter {
    id: FileId,
    mutex: Arc<AsyncMutex<()>>,
}

impl Locks {
    /// The lock, or where to wait for it: waiting takes no thread, because the holder needs one to get on.
    pub(super) fn try_lock(&self, id: FileId) -> Result<Held, Waiter> {
        let mutex = {
            // Every change of the table is complete in itself, so a panic elsewhere cannot have broken it.
            let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
            if table.len() >= SWEEP_AT {
                table.retain(|_, mutex| mutex.strong_count() > 0);
            }
            let known = table.get(&id).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let mutex = Arc::default();
                table.insert(id, Arc::downgrade(&mutex));
                mutex
            })
        };
        match mutex.clone().try_lock_owned() {
            Ok(guard) => Ok(Held { id, _guard: guard }),
            Err(_) => Err(Waiter { id, mutex }),
        }
    }
}

impl Waiter {
    pub(super) async fn wait(self) -> Held {
        Held { id: self.id, _guard: self.mutex.lock_owned().await }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_writer_waits_for_the_first() {
        let locks = Locks::default();
        let id = FileId { device: 1, inode: 2 };
        let first = locks.try_lock(id).unwrap();
        let waiter = locks.try_lock(id).unwrap_err();
        assert!(locks.try_lock(FileId { device: 1, inode: 3 }).is_ok());
        drop(first);
        assert_eq!(waiter.wait().await.id, id);
        assert!(locks.try_lock(id).is_ok());
    }

    #[test]
    fn forgotten_locks_are_swept() {
        let locks = Locks::default();
        for inode in 0..10 * SWEEP_AT as u64 {
            locks.try_lock(FileId { device: 1, inode }).unwrap();
        }
        assert!(locks.table.lock().unwrap().len() <= SWEEP_AT);
    }
}
