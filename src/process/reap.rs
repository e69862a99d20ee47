//! The one place that waits for children.
//!
//! Every child is [adopted](Reaper::adopt) with its pidfd. The kernel says through the pidfd when it has ended, and
//! only then is it reaped and its status published, once, to everybody who asks. An agent that is process 1 or a
//! subreaper also gets orphans: [`Reaper::sweep`] looks at an ended child *before* reaping it, so that the status of
//! a known child always finds its owner.
//!
//! A child that ends before it was adopted cannot be taken for an orphan: sweeping pauses while a start is
//! [in progress](Reaper::starting).

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::process::{Pid, WaitId, WaitIdOptions};
use tokio::{
    io::Interest,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::status::ExitStatus;
use crate::{proto::process::SpawnFailure, sys};

/// Owner of all statuses; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Reaper {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    children: HashMap<u32, Arc<Child>>,
    /// Starts between the clone and the adoption.
    starting: usize,
    /// A sweep was asked for while starts were in progress.
    sweep_due: bool,
}

/// A child of the agent, known by its pidfd, so that a reused pid is never mistaken for it.
#[derive(Debug)]
pub(super) struct Child {
    pid: u32,
    /// Until nobody will ask for this child any more.
    pidfd: Mutex<Option<Arc<OwnedFd>>>,
    reaped: AtomicBool,
    status: watch::Sender<Option<ExitStatus>>,
    spawn_failure: Option<SpawnFailure>,
}

/// A start in progress; no orphan is reaped while one exists.
#[derive(Debug)]
pub(super) struct Starting {
    reaper: Reaper,
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
        self.lock().starting += 1;
        Starting { reaper: self.clone() }
    }

    /// Takes over a child, maybe one that only tells why its program was not executed. Needs a tokio runtime.
    pub(super) fn adopt(&self, pid: u32, pidfd: OwnedFd, spawn_failure: Option<SpawnFailure>) -> Arc<Child> {
        let child = Arc::new(Child {
            pid,
            pidfd: Mutex::new(Some(Arc::new(pidfd))),
            reaped: AtomicBool::new(false),
            status: watch::Sender::new(None),
            spawn_failure,
        });
        self.lock().children.insert(pid, child.clone());
        let (reaper, watched) = (self.clone(), child.clone());
        tokio::spawn(async move {
            if let Err(error) = watched.ended().await {
                // The event queue is out of memory or descriptors. A thread is dear, a zombie with a hanging stream
                // dearer.
                tracing::warn!(pid, %error, "cannot watch the process by readiness, waiting in a thread");
                let blocked = watched.clone();
                let waited = tokio::task::spawn_blocking(move || blocked.block_until_ended()).await;
                if let Err(error) = waited {
                    tracing::error!(pid, %error, "cannot wait for the process");
                }
            }
            reaper.reap(&watched);
        });
        child
    }

    fn reap(&self, child: &Arc<Child>) {
        let Some(status) = child.collect() else { return };
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
                *published = Some(status);
            }
            first
        });
    }

    /// Reaps every child that has ended: known ones for their owners, orphans for nobody.
    fn sweep(&self) {
        loop {
            let known = {
                let mut state = self.lock();
                if state.starting > 0 {
                    state.sweep_due = true;
                    return;
                }
                let Some(pid) = sys::signal::peek_ended_child() else { return };
                let known = state.children.get(&pid).cloned();
                if known.is_none() {
                    // Under the lock: nothing can be started, so the number is still the orphan's.
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
                if !child.reaped.load(Ordering::Acquire) {
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

impl Drop for Starting {
    fn drop(&mut self) {
        let sweep = {
            let mut state = self.reaper.lock();
            state.starting -= 1;
            state.starting == 0 && std::mem::take(&mut state.sweep_due)
        };
        if sweep {
            self.reaper.sweep();
        }
    }
}

impl Child {
    /// Process id; belongs to somebody else once the child is reaped.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Why the program was not executed, for a child that ends with 126 or 127 because of it.
    pub(super) fn spawn_failure(&self) -> Option<&SpawnFailure> {
        self.spawn_failure.as_ref()
    }

    /// The status, as soon as it is known.
    pub(super) fn status(&self) -> watch::Receiver<Option<ExitStatus>> {
        self.status.subscribe()
    }

    /// Sends a signal to this process alone. One that is already gone is a success.
    ///
    /// # Errors
    /// As kill(2), without ESRCH.
    pub(super) fn signal(&self, signal: i32) -> io::Result<()> {
        self.pidfd().map_or(Ok(()), |pidfd| gone_is_fine(sys::signal::send(pidfd.as_fd(), signal)))
    }

    /// Sends a signal to the process group that this child leads. An empty group is a success; so is, before Linux
    /// 6.9, the group of a child that was reaped: its number may be somebody else's by now.
    ///
    /// # Errors
    /// As kill(2), without ESRCH.
    pub(super) fn signal_group(&self, signal: i32) -> io::Result<()> {
        let Some(pidfd) = self.pidfd() else { return Ok(()) };
        match sys::signal::send_to_group(pidfd.as_fd(), signal) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                if self.reaped.load(Ordering::Acquire) {
                    return Ok(());
                }
                gone_is_fine(sys::signal::send_to_group_number(self.pid, signal))
            }
            other => gone_is_fine(other),
        }
    }

    /// Lets the descriptor go once the status is known; signals have no effect from then on.
    pub(super) fn forget(&self) {
        if self.reaped.load(Ordering::Acquire) {
            self.pidfd.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }

    /// The status of the ended child, for the first who asks. Whoever reaps marks it under the same lock: two can see
    /// the end at once, and the second must not take the first one's success for a loss.
    fn collect(&self) -> Option<ExitStatus> {
        let guard = self.pidfd.lock().unwrap_or_else(PoisonError::into_inner);
        let pidfd = guard.as_ref().filter(|_| !self.reaped.load(Ordering::Acquire))?;
        let waited = loop {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            match rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other,
            }
        };
        let status = match waited {
            Ok(Some(status)) => ExitStatus::from_wait(&status),
            // Not ended after all: whoever sees the end comes back.
            Ok(None) => return None,
            Err(error) => {
                tracing::error!(pid = self.pid, %error, "the status of the process was taken by somebody else");
                ExitStatus::Lost
            }
        };
        self.reaped.store(true, Ordering::Release);
        Some(status)
    }

    fn pidfd(&self) -> Option<Arc<OwnedFd>> {
        self.pidfd.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn ended(&self) -> io::Result<()> {
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
            let child = Child {
                pid: started.id(),
                pidfd: Mutex::new(Some(Arc::new(pidfd))),
                reaped: AtomicBool::new(false),
                status: watch::Sender::new(None),
                spawn_failure: None,
            };
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
            let told: Vec<_> = statuses.into_iter().flatten().collect();
            assert_eq!(told, [ExitStatus::Exited(7)]);
        }
    }
}
