//! The one place that waits for children.
//!
//! Every child is [adopted](Reaper::adopt) with its pidfd. The kernel says through the pidfd when it has ended, and
//! only then is it reaped and its status published, once, to everybody who asks. An agent that is process 1 or a
//! subreaper also gets orphans: [`Reaper::sweep`] looks at an ended child *before* reaping it, so that the status of
//! a known child always finds its owner.
//!
//! A child that ends before it was adopted cannot be taken for an orphan: a start [in progress](Reaper::starting) has a
//! cell into which the kernel writes the child's number before the child can do anything, so also before it can end.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicI32, Ordering},
    },
    time::SystemTime,
};

use rustix::process::{Pid, WaitId, WaitIdOptions};
use tokio::{
    io::Interest,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::{
    procfs::Ticks,
    status::{Ended, ExitStatus},
    tree,
    usage::Usage,
};
use crate::{
    proto::process::SpawnFailure,
    sys,
    system::{blocking, cgroup::ControlGroup},
};

/// Owner of all statuses; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Reaper {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    children: HashMap<u32, Arc<Child>>,
    /// The cells of starts that have no adopted child yet.
    starting: Vec<Arc<AtomicI32>>,
    /// A sweep came upon the child of a start in progress and left off there.
    sweep_due: bool,
}

/// A child of the agent, known by its pidfd, so that a reused pid is never mistaken for it.
#[derive(Debug)]
pub(super) struct Child {
    pid: u32,
    /// Until nobody will ask for this child any more.
    pidfd: Mutex<Option<Arc<OwnedFd>>>,
    /// When it was reaped, or the moment before.
    reaped: OnceLock<Ticks>,
    status: watch::Sender<Option<Ended>>,
    extras: Extras,
}

/// What only some children have.
#[derive(Debug, Default)]
pub(super) struct Extras {
    /// Why the program was not executed; the child only tells it.
    pub(super) spawn_failure: Option<Box<SpawnFailure>>,
    /// A group of its own.
    pub(super) control_group: Option<Arc<ControlGroup>>,
}

/// A start in progress.
#[derive(Debug)]
pub(super) struct Starting {
    reaper: Reaper,
    cell: Arc<AtomicI32>,
}

impl Reaper {
    /// A reaper; where orphans come to the agent, it also starts the task that reaps them.
    pub(super) fn start() -> io::Result<Self> {
        sys::signal::keep_child_statuses();
        let reaper = Self::default();
        let own = rustix::process::getpid();
        let subreaper = rustix::process::child_subreaper().ok().flatten().is_some();
        if own.is_init() || subreaper {
            let mut ended = signal(SignalKind::child())?;
            let sweeper = reaper.clone();
            tokio::spawn(async move {
                sweeper.sweep();
                while ended.recv().await.is_some() {
                    sweeper.sweep();
                }
            });
        }
        Ok(reaper)
    }

    /// Announces a start. The child has to be adopted before the value is dropped.
    pub(super) fn starting(&self) -> Starting {
        let cell = Arc::new(AtomicI32::new(0));
        self.lock().starting.push(cell.clone());
        Starting { reaper: self.clone(), cell }
    }

    /// Takes over a child. Needs a tokio runtime.
    pub(super) fn adopt(&self, pid: u32, pidfd: OwnedFd, extras: Extras) -> Arc<Child> {
        let child = Arc::new(Child::new(pid, pidfd, extras));
        self.lock().children.insert(pid, child.clone());
        let (reaper, watched) = (self.clone(), child.clone());
        tokio::spawn(async move {
            if let Err(error) = watched.readable().await {
                // The event queue is out of memory or descriptors. A thread is dear, a zombie with a hanging stream
                // dearer.
                tracing::warn!(pid, %error, "cannot watch the process by readiness, waiting in a thread");
                let blocked = watched.clone();
                let waited = blocking::run(move || blocked.block_until_ended()).await;
                if let Err(error) = waited {
                    tracing::error!(pid, %error, "cannot wait for the process");
                }
            }
            reaper.reap(&watched);
        });
        child
    }

    fn reap(&self, child: &Arc<Child>) {
        let Some(ended) = child.collect() else { return };
        {
            let mut state = self.lock();
            // The number may belong to a newer child by now.
            if state.children.get(&child.pid).is_some_and(|known| Arc::ptr_eq(known, child)) {
                state.children.remove(&child.pid);
            }
        }
        child.status.send_if_modified(|published| {
            let first = published.is_none();
            if first {
                *published = Some(ended);
            }
            first
        });
    }

    /// Reaps every child that has ended: known ones for their owners, orphans for nobody.
    fn sweep(&self) {
        loop {
            let known = {
                let mut state = self.lock();
                let Some(pid) = sys::signal::peek_ended_child() else { return };
                let known = state.children.get(&pid).cloned();
                if known.is_none() {
                    // Read after the kernel told of the end, so that the cell of this child has been written.
                    let is_new = |cell: &Arc<AtomicI32>| u32::try_from(cell.load(Ordering::Acquire)) == Ok(pid);
                    if state.starting.iter().any(is_new) {
                        state.sweep_due = true;
                        return;
                    }
                    // Nobody else reaps it, so the number is still the orphan's.
                    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
                    let waited = pid.map(|pid| {
                        rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
                    });
                    // ECHILD: it was a known child after all, and its own task was faster.
                    if !matches!(waited, Some(Ok(_) | Err(rustix::io::Errno::CHILD))) {
                        return;
                    }
                }
                known
            };
            if let Some(child) = known {
                self.reap(&child);
                if !child.is_reaped() {
                    return;
                }
            }
        }
    }

    // Nothing panics while the lock is held, and every change is one assignment or map operation.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Starting {
    /// Where the kernel has to write the child's number (`CLONE_CHILD_SETTID`).
    pub(super) fn cell(&self) -> &AtomicI32 {
        &self.cell
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        let sweep = {
            let mut state = self.reaper.lock();
            state.starting.retain(|cell| !Arc::ptr_eq(cell, &self.cell));
            std::mem::take(&mut state.sweep_due)
        };
        if sweep {
            self.reaper.sweep();
        }
    }
}

impl Child {
    pub(super) fn new(pid: u32, pidfd: OwnedFd, extras: Extras) -> Self {
        let pidfd = Mutex::new(Some(Arc::new(pidfd)));
        Self { pid, pidfd, reaped: OnceLock::new(), status: watch::Sender::new(None), extras }
    }

    /// Process id; belongs to somebody else once the child is reaped.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Why the program was not executed, for a child that ends with 126 or 127 because of it.
    pub(super) fn spawn_failure(&self) -> Option<&SpawnFailure> {
        self.extras.spawn_failure.as_deref()
    }

    /// Its control group, which everything it has started belongs to.
    pub(super) fn control_group(&self) -> Option<&Arc<ControlGroup>> {
        self.extras.control_group.as_ref()
    }

    /// Completes when the child is reaped.
    pub(super) async fn ended(&self) -> Ended {
        let mut status = self.status.subscribe();
        let ended = match status.wait_for(Option::is_some).await {
            Ok(ended) => *ended,
            // The sender lives as long as the child that we hold.
            Err(_closed) => None,
        };
        ended.unwrap_or_else(|| Ended { status: ExitStatus::Lost, usage: Usage::default(), at: SystemTime::now() })
    }

    /// The same without waiting.
    pub(super) fn has_ended(&self) -> Option<Ended> {
        *self.status.borrow()
    }

    pub(super) fn is_reaped(&self) -> bool {
        self.reaped.get().is_some()
    }

    /// When the child was reaped. `None`: its number was its own and nobody else's until this call.
    pub(super) fn reaped_at(&self) -> Option<Ticks> {
        // Whoever reaps holds the lock until the moment is written down.
        let _settled = self.pidfd.lock().unwrap_or_else(PoisonError::into_inner);
        self.reaped.get().copied()
    }

    /// Sends a signal to this process alone. One that is already gone is a success.
    ///
    /// # Errors
    /// As kill(2), without ESRCH.
    pub(super) fn signal(&self, signal: i32) -> io::Result<()> {
        self.pidfd().map_or(Ok(()), |pidfd| gone_is_fine(sys::signal::send(pidfd.as_fd(), signal)))
    }

    /// Sends a signal to the process group that this child leads, also after the child was reaped. An empty group is a
    /// success. Blocking before Linux 6.9: then the members of a group without a leader are looked for in procfs.
    ///
    /// # Errors
    /// As kill(2), without ESRCH.
    pub(super) fn signal_group(&self, signal: i32) -> io::Result<()> {
        let Some(pidfd) = self.pidfd() else { return Ok(()) };
        match sys::signal::send_to_group(pidfd.as_fd(), signal) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            other => return gone_is_fine(other),
        }
        {
            // Whoever reaps holds the lock: until it is released the number is the child's.
            let _unreaped = self.pidfd.lock().unwrap_or_else(PoisonError::into_inner);
            if !self.is_reaped() {
                return gone_is_fine(sys::signal::send_to_group_number(self.pid, signal));
            }
        }
        tree::signal_group(self, signal)
    }

    /// Lets the descriptor go once the status is known; signals have no effect from then on.
    pub(super) fn forget(&self) {
        if self.is_reaped() {
            self.pidfd.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }

    /// The status of the ended child, for the first who asks. Whoever reaps marks it under the same lock: two can see
    /// the end at once, and the second must not take the first one's success for a loss.
    fn collect(&self) -> Option<Ended> {
        let guard = self.pidfd.lock().unwrap_or_else(PoisonError::into_inner);
        let pidfd = guard.as_ref().filter(|_| !self.is_reaped())?;
        let before = Ticks::now();
        let (status, usage) = match sys::wait::reap(pidfd.as_fd()) {
            Ok(Some(waited)) => (waited.cause.into(), Usage::of(&waited)),
            // Not ended after all: whoever sees the end comes back.
            Ok(None) => return None,
            Err(error) => {
                tracing::error!(pid = self.pid, %error, "the status of the process was taken by somebody else");
                (ExitStatus::Lost, Usage::default())
            }
        };
        self.reaped.get_or_init(|| before);
        Some(Ended { status, usage, at: SystemTime::now() })
    }

    fn pidfd(&self) -> Option<Arc<OwnedFd>> {
        self.pidfd.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn readable(&self) -> io::Result<()> {
        let Some(pidfd) = self.pidfd() else { return Ok(()) };
        let watched = sys::descriptor::watch_borrowed(pidfd.as_fd(), Interest::READABLE)?;
        watched.readable().await.map(|_ready| ())
    }

    fn block_until_ended(&self) {
        let Some(pidfd) = self.pidfd() else { return };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(rustix::io::Errno::INTR) = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options) {}
    }
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use std::{process::Command, sync::Barrier, thread};

    use rustix::process::{PidfdFlags, pidfd_open};

    use super::*;

    #[test]
    #[allow(clippy::zombie_processes, reason = "waiting for it is what is tested")]
    fn of_two_who_see_the_end_at_once_one_gets_the_status() {
        for _ in 0..200 {
            let started = Command::new("/bin/sh").args(["-c", "exit 7"]).spawn().unwrap();
            let pidfd = pidfd_open(Pid::from_child(&started), PidfdFlags::empty()).unwrap();
            let child = Child::new(started.id(), pidfd, Extras::default());
            child.block_until_ended();
            let together = Barrier::new(2);
            let collect = || {
                together.wait();
                child.collect()
            };
            let statuses = thread::scope(|scope| {
                let other = scope.spawn(collect);
                [collect(), other.join().unwrap()]
            });
            let told: Vec<_> = statuses.into_iter().flatten().map(|ended| ended.status).collect();
            assert_eq!(told, [ExitStatus::Exited(7)]);
        }
    }
}
