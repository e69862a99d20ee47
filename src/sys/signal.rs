//! Signals through process descriptors (`pidfd_send_signal(2)`), and the news about children.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

/// `PIDFD_SIGNAL_PROCESS_GROUP`, Linux 6.9.
const PROCESS_GROUP: libc::c_uint = 1 << 2;

/// Sends a signal to exactly the process behind the descriptor; a reused pid is never hit.
///
/// # Errors
/// `ESRCH` after the process was reaped, `EPERM`, `EINVAL` for a number that is no signal.
pub fn send(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    pidfd_send_signal(pidfd, signal, 0)
}

/// Sends a signal to the process group of the process behind the descriptor, also after that one was reaped.
///
/// # Errors
/// As [`send`]; `EINVAL` also on kernels that cannot do it (before 6.9).
pub fn send_to_group(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    pidfd_send_signal(pidfd, signal, PROCESS_GROUP)
}

/// Sends a signal to a process group by its number (kill(2)). The caller knows that the leader is not reaped, so
/// that the number cannot belong to somebody else.
///
/// # Errors
/// As kill(2).
pub fn send_to_group_number(leader: u32, signal: i32) -> io::Result<()> {
    let leader = i32::try_from(leader).ok().filter(|leader| *leader > 1);
    let leader = leader.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
    // SAFETY: kill touches no memory.
    if unsafe { libc::kill(-leader, signal) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: the siginfo pointer may be null, and nothing else is touched.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, ptr::null::<libc::siginfo_t>(), flags)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes sure that statuses of children are kept until somebody waits: a `SIGCHLD` that our parent left ignored
/// would make the kernel throw them away (wait(2)).
pub fn keep_child_statuses() {
    // SAFETY: an all-zero sigaction is valid, `current` outlives the call, and the old action is only compared.
    unsafe {
        let mut current: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGCHLD, ptr::null(), &raw mut current) == 0 && current.sa_sigaction == libc::SIG_IGN {
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        }
    }
}

/// The pid of a child that has ended and was not reaped yet; it stays that way.
pub fn peek_ended_child() -> Option<u32> {
    // SAFETY: an all-zero siginfo is valid and outlives the call; si_pid is initialised when waitid succeeds, and
    // stays zero when no child has ended.
    let pid = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        if libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) != 0 {
            return None;
        }
        info.si_pid()
    };
    u32::try_from(pid).ok().filter(|pid| *pid != 0)
}
