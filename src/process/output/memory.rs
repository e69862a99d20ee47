//! What the logs of all processes hold together, and what each may hold therefore.
//!
//! History is a courtesy and goes first: when [`Memory::LIMIT_BYTES`] are passed, all logs let go of theirs at once and
//! keep none until half of the limit is free again. What then remains waits for clients. While that alone is more than
//! the limit, each log may keep only [`SQUEEZED_BUDGET_BYTES`].

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use super::OutputLog;
use crate::process::log::Limits;

/// What one process may have waiting for its clients.
pub(super) const BUDGET_BYTES: usize = 4 * 1024 * 1024;

/// The same while memory is short.
pub(super) const SQUEEZED_BUDGET_BYTES: usize = 128 * 1024;

/// What stays of the undelivered output of an ended process.
const ENDED_BUDGET_BYTES: usize = 1024 * 1024;

/// What stays of the output that clients already have, for those that lost their connection and ask again: a few
/// screens, and more than a client usually has in flight. A piece counts for the buffer that it holds, so that this is
/// 64 KiB of output at least. Not more, because an idle process holds it for as long as it lives.
const HISTORY_BYTES: usize = 192 * 1024;

/// The same for an ended process. There are hundreds of these.
const ENDED_HISTORY_BYTES: usize = 16 * 1024;

/// The memory that all logs share; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(in crate::process) struct Memory {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    used: AtomicUsize,
    /// Memory was short, and half of it is not free yet.
    without_history: AtomicBool,
    /// Everybody who may have history, by address.
    logs: Mutex<HashMap<usize, Weak<OutputLog>>>,
}

impl Memory {
    /// What all logs may hold before each is squeezed.
    pub(super) const LIMIT_BYTES: usize = 64 * 1024 * 1024;

    pub(in crate::process) fn is_short(&self) -> bool {
        self.used() > Self::LIMIT_BYTES
    }

    pub(super) fn used(&self) -> usize {
        self.shared.used.load(Ordering::Relaxed)
    }

    /// What a log may hold now.
    pub(super) fn limits(&self, ended: bool) -> Limits {
        let (budget, history) =
            if ended { (ENDED_BUDGET_BYTES, ENDED_HISTORY_BYTES) } else { (BUDGET_BYTES, HISTORY_BYTES) };
        Limits {
            budget: if self.is_short() { SQUEEZED_BUDGET_BYTES } else { budget },
            history: if self.shared.without_history.load(Ordering::Relaxed) { 0 } else { history },
        }
    }

    pub(super) fn register(&self, log: &Arc<OutputLog>) {
        self.logs().insert(Arc::as_ptr(log).addr(), Arc::downgrade(log));
    }

    pub(super) fn forget(&self, log: &OutputLog) {
        self.logs().remove(&std::ptr::from_ref(log).addr());
    }

    /// Accounts for a log that held `before` bytes and holds `after`. True: memory has become short, and the caller,
    /// once it holds no lock, has to [relieve](Memory::relieve) it.
    #[must_use]
    pub(super) fn changed(&self, before: usize, after: usize) -> bool {
        let shared = &self.shared;
        if after > before {
            let used = shared.used.fetch_add(after - before, Ordering::Relaxed) + (after - before);
            used > Self::LIMIT_BYTES && !shared.without_history.swap(true, Ordering::Relaxed)
        } else if before > after {
            let used = shared.used.fetch_sub(before - after, Ordering::Relaxed) - (before - after);
            if used < Self::LIMIT_BYTES / 2 && shared.without_history.load(Ordering::Relaxed) {
                shared.without_history.store(false, Ordering::Relaxed);
            }
            false
        } else {
            false
        }
    }

    /// Makes every log let go of its history.
    pub(super) fn relieve(&self) {
        let logs: Vec<_> = self.logs().values().filter_map(Weak::upgrade).collect();
        for log in logs {
            log.trim();
        }
    }

    // Nothing panics while the lock is held.
    fn logs(&self) -> MutexGuard<'_, HashMap<usize, Weak<OutputLog>>> {
        self.shared.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
