//! Reaping one child with what it has used: waitid(2) as the kernel has it. The C libraries hide the fifth argument,
//! which is filled like getrusage(2) does.

use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

/// `P_PIDFD`, Linux 5.4.
const PIDFD: libc::c_long = 3;

/// A child that has been reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waited {
    /// How it ended.
    pub cause: Cause,
    /// Time on the processor in its own code, with that of children that it has waited for.
    pub user: Duration,
    /// Time on the processor in the kernel, with that of children that it has waited for.
    pub system: Duration,
    /// `ru_maxrss` in bytes: the most memory that it, or a child that it has waited for, held at any time. What was
    /// held before an exec counts as well, and for a child made with `CLONE_VM` that is the maker's own memory.
    pub peak_resident_bytes: u64,
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal.
    Signaled {
        /// The signal's number.
        signal: i32,
        /// Whether a core was dumped.
        core_dumped: bool,
    },
}

/// Reaps the child behind the descriptor if it has ended.
///
/// # Errors
/// `ECHILD` when it is no child of ours, or no longer.
pub fn reap(pidfd: BorrowedFd<'_>) -> io::Result<Option<Waited>> {
    // SAFETY: all-zero bytes are valid values of both structures, which outlive the call and are at least as large as
    // the kernel's.
    let (info, usage) = unsafe {
        let mut info: libc::siginfo_t = mem::zeroed();
        let mut usage: libc::rusage = mem::zeroed();
        let options = libc::WEXITED | libc::WNOHANG;
        let result = libc::syscall(
            libc::SYS_waitid,
            PIDFD,
            libc::c_long::from(pidfd.as_raw_fd()),
            &raw mut info,
            libc::c_long::from(options),
            &raw mut usage,
        );
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        (info, usage)
    };
    // SAFETY: waitid has filled the fields for SIGCHLD, or left them zero when the child has not ended.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let cause = match info.si_code {
        libc::CLD_EXITED => Cause::Exited(status),
        code => Cause::Signaled { signal: status, core_dumped: code == libc::CLD_DUMPED },
    };
    Ok(Some(Waited {
        cause,
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        peak_resident_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024),
    }))
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use std::{os::fd::AsFd, process::Command};

    use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

    use super::*;

    #[allow(clippy::zombie_processes, reason = "waiting for it is what is tested")]
    fn run(script: &str) -> Waited {
        let child = Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        let waited = reap(pidfd.as_fd()).unwrap().unwrap();
        assert_eq!(reap(pidfd.as_fd()).unwrap_err().raw_os_error(), Some(libc::ECHILD));
        waited
    }

    #[test]
    fn causes_and_times_are_the_childs() {
        assert_eq!(run("exit 7").cause, Cause::Exited(7));
        assert_eq!(run("kill -9 $$").cause, Cause::Signaled { signal: 9, core_dumped: false });
        let busy = run("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done");
        assert!(busy.user + busy.system > Duration::from_millis(10), "{busy:?}");
    }

    #[test]
    fn a_child_that_runs_is_left_alone() {
        let mut child = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        assert_eq!(reap(pidfd.as_fd()).unwrap(), None);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
