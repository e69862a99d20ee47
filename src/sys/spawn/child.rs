//! What runs between the clone and the program.
//!
//! The code here shares the agent's memory, so it keeps the promises of the [module above](super): raw system calls
//! on prepared memory and nothing else.

use std::{
    ffi::{c_char, c_int, c_long, c_void},
    os::fd::RawFd,
    ptr,
};

use super::{Credentials, Leads, ResourceLimit, Stage};

pub(super) const SIGNAL_COUNT: c_int = 64;
/// Size of the kernel's signal set in bytes.
const SIGNAL_SET_BYTES: usize = 8;
/// Best-effort class, level 4 (ioprio_set(2)).
const IO_PRIORITY: c_int = (2 << 13) | 4;
/// The same number on both architectures; the C libraries only disagree about its type.
const TIOCSCTTY: c_long = 0x540e;
const IO_PRIORITY_OF_PROCESS: c_int = 1;

/// What the child reads, and the little that it writes.
pub(super) struct Plan<'a> {
    pub(super) programs: &'a [*const c_char],
    pub(super) argv: *const *const c_char,
    /// `/bin/sh`, room for the script, then the arguments: for files that the kernel cannot execute.
    pub(super) script_argv: *mut *const c_char,
    pub(super) envp: *const *const c_char,
    pub(super) cwd: *const c_char,
    pub(super) credentials: Option<Credentials<'a>>,
    pub(super) stdio: [RawFd; 3],
    pub(super) leads: Leads,
    pub(super) limits: &'a [ResourceLimit],
    /// `cgroup.procs` of the group to enter, where clone3 could not make the child in it.
    pub(super) entrance: Option<RawFd>,
    /// The kernel has reset the handlers and done the grouping.
    pub(super) made_by_clone3: bool,
    /// One bit for each signal that the agent ignores, the lowest for signal 1.
    pub(super) ignored_signals: u64,
    pub(super) absent: Option<&'a [u8]>,
    pub(super) failed_stage: c_int,
    /// Also set without a stage, by a child that tells its failure like a shell.
    pub(super) failed_errno: c_int,
}

/// # Safety
/// Both pointers are valid for one signal set or null.
pub(super) unsafe fn set_signal_mask(new: *const u64, old: *mut u64) {
    // SAFETY: the caller's promise. The raw call is needed to also block the signals that the C library hides.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, new, old, SIGNAL_SET_BYTES) };
}

/// The child's life before its program. Never returns: it leaves through execve or exit.
pub(super) extern "C" fn run_child(plan: *mut c_void) -> c_int {
    // SAFETY: `clone` passes a valid plan that nobody else touches while this runs; see the module's promise for
    // what may be done here.
    unsafe {
        let plan = &mut *plan.cast::<Plan<'_>>();
        if let Err(stage) = become_child(plan) {
            fail(plan, stage, errno());
        }
        let errno = execute(plan);
        match plan.absent {
            Some(name) if absent_reason(errno).is_some() => {
                ptr::write_volatile(&raw mut plan.failed_errno, errno);
                exit_like_a_shell(name, errno)
            }
            _ => fail(plan, Stage::Exec, errno),
        }
    }
}

/// The signals that the agent ignores, one bit each, the lowest for signal 1.
pub(super) fn ignored_signals() -> u64 {
    let mut ignored = 0;
    for signal in 1..=SIGNAL_COUNT {
        let mut action = [0_u64; 4];
        // SAFETY: the kernel's sigaction has the handler in front and fits into four words on both architectures.
        let result = unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, ptr::null::<u64>(), action.as_mut_ptr(), SIGNAL_SET_BYTES)
        };
        if result == 0 && action.first() == Some(&(libc::SIG_IGN as u64)) {
            ignored |= 1 << (signal - 1);
        }
    }
    ignored
}

/// # Safety
/// Only in the child of [`clone`](super::clone).
unsafe fn become_child(plan: &Plan<'_>) -> Result<(), Stage> {
    // SAFETY: raw system calls on prepared memory; a zeroed sigaction of the kernel's layout (handler, flags, restorer,
    // mask) is the default action.
    unsafe {
        // CLONE_CLEAR_SIGHAND leaves ignored signals ignored.
        let wrong = if plan.made_by_clone3 { plan.ignored_signals } else { u64::MAX };
        let default = [0_u64; 4];
        for signal in (1..=SIGNAL_COUNT).filter(|signal| wrong & (1 << (signal - 1)) != 0) {
            // SIGKILL and SIGSTOP answer EINVAL.
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), ptr::null_mut::<u64>(), SIGNAL_SET_BYTES);
        }
        if let (Some(entrance), false) = (plan.entrance, plan.made_by_clone3) {
            check(libc::syscall(libc::SYS_write, entrance, c"0".as_ptr(), 1), Stage::Clone)?;
        }
        let led = match plan.leads {
            Leads::Group => libc::syscall(libc::SYS_setpgid, 0, 0),
            Leads::Session | Leads::Terminal => libc::syscall(libc::SYS_setsid),
        };
        check(led, Stage::Session)?;
        for (target, source) in (0..).zip(plan.stdio) {
            check(libc::syscall(libc::SYS_dup3, source, target, 0), Stage::Stdio)?;
        }
        if plan.leads == Leads::Terminal {
            check(libc::syscall(libc::SYS_ioctl, 0, TIOCSCTTY, 0), Stage::Session)?;
        }
        set_priorities();
        for limit in plan.limits {
            let pair = [limit.soft, limit.hard];
            let none = ptr::null_mut::<u64>();
            check(libc::syscall(libc::SYS_prlimit64, 0, limit.resource.number(), pair.as_ptr(), none), Stage::Limits)?;
        }
        if let Some(credentials) = plan.credentials {
            assume(credentials)?;
        }
        check(libc::syscall(libc::SYS_chdir, plan.cwd), Stage::Chdir)?;
        // Before Linux 5.9 the close-on-exec flags, which every descriptor of ours has, do the same.
        libc::syscall(libc::SYS_close_range, 3, c_long::from(u32::MAX), 0);
        let none = 0_u64;
        set_signal_mask(&raw const none, ptr::null_mut());
    }
    Ok(())
}

/// Best effort: a machine without procfs or without the capability still runs programs.
///
/// # Safety
/// Only in the child of [`clone`](super::clone).
unsafe fn set_priorities() {
    // SAFETY: raw system calls on static strings.
    unsafe {
        let path = c"/proc/self/oom_score_adj".as_ptr();
        let file = libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, libc::O_WRONLY | libc::O_CLOEXEC, 0);
        if file >= 0 {
            libc::syscall(libc::SYS_write, file, c"100".as_ptr(), 3);
            libc::syscall(libc::SYS_close, file);
        }
        libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, 0);
        libc::syscall(libc::SYS_ioprio_set, IO_PRIORITY_OF_PROCESS, 0, IO_PRIORITY);
    }
}

/// # Safety
/// Only in the child of [`clone`](super::clone): the C library's own functions would change every thread of the agent.
unsafe fn assume(credentials: Credentials<'_>) -> Result<(), Stage> {
    let Credentials { uid, gid, groups } = credentials;
    // SAFETY: raw system calls; the group list is valid for its length.
    unsafe {
        let grouped = check(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()), Stage::Groups);
        // A user namespace may forbid it (user_namespaces(7)). Whoever stays the same user loses nothing then.
        if errno() != libc::EPERM || libc::syscall(libc::SYS_geteuid) != c_long::from(uid) {
            grouped?;
        }
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid), Stage::Gid)?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid), Stage::Uid)
    }
}

/// Tries each candidate as execvp(3) does and returns the errno of the failure.
///
/// # Safety
/// Only in the child of [`clone`](super::clone).
unsafe fn execute(plan: &Plan<'_>) -> c_int {
    let search = plan.programs.len() > 1;
    let mut denied = false;
    let mut last = libc::ENOENT;
    for program in plan.programs {
        // SAFETY: all vectors are null-terminated and were built from valid strings; the script vector has a slot at
        // index 1 for the path.
        unsafe {
            libc::syscall(libc::SYS_execve, *program, plan.argv, plan.envp);
            last = errno();
            if last == libc::ENOEXEC {
                *plan.script_argv.add(1) = *program;
                libc::syscall(libc::SYS_execve, *plan.script_argv, plan.script_argv, plan.envp);
                return libc::ENOEXEC;
            }
        }
        match last {
            // A directory of the PATH that may not be searched holds nothing for this user.
            // SAFETY: a raw system call on a valid string.
            libc::EACCES => denied |= !search || unsafe { exists(*program) },
            libc::ENOENT | libc::ENOTDIR => {}
            _ => return last,
        }
    }
    match last {
        _ if denied => libc::EACCES,
        libc::ENOTDIR | libc::EACCES if search => libc::ENOENT,
        _ => last,
    }
}

/// # Safety
/// The path is a valid string.
unsafe fn exists(path: *const c_char) -> bool {
    // SAFETY: a raw system call on a valid string.
    unsafe { libc::syscall(libc::SYS_faccessat, libc::AT_FDCWD, path, libc::F_OK) == 0 }
}

/// # Safety
/// Only in the child of [`clone`](super::clone).
unsafe fn exit_like_a_shell(name: &[u8], errno: c_int) -> ! {
    let reason = absent_reason(errno).unwrap_or_default();
    let piece = |bytes: &[u8]| libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let line = [piece(b"envd: "), piece(name), piece(b": "), piece(reason), piece(b"\n")];
    // SAFETY: the pieces are valid for their lengths and only read.
    unsafe {
        libc::syscall(libc::SYS_writev, libc::STDERR_FILENO, line.as_ptr(), line.len());
        leave(if errno == libc::ENOENT { 127 } else { 126 })
    }
}

/// What strerror(3) says about failures that a shell would answer with an exit code.
fn absent_reason(errno: c_int) -> Option<&'static [u8]> {
    Some(match errno {
        libc::ENOENT => b"No such file or directory",
        libc::EACCES => b"Permission denied",
        libc::ENOTDIR => b"Not a directory",
        libc::EISDIR => b"Is a directory",
        libc::ENOEXEC => b"Exec format error",
        libc::ELOOP => b"Too many levels of symbolic links",
        libc::ENAMETOOLONG => b"File name too long",
        libc::ETXTBSY => b"Text file busy",
        libc::EPERM => b"Operation not permitted",
        _ => return None,
    })
}

/// # Safety
/// Only in the child of [`clone`](super::clone).
unsafe fn fail(plan: &mut Plan<'_>, stage: Stage, errno: c_int) -> ! {
    // SAFETY: the fields belong to the plan; volatile because the reader is another process on this memory.
    unsafe {
        ptr::write_volatile(&raw mut plan.failed_errno, errno);
        ptr::write_volatile(&raw mut plan.failed_stage, stage as c_int);
        leave(127)
    }
}

/// # Safety
/// Only in the child of [`clone`](super::clone).
unsafe fn leave(code: c_int) -> ! {
    loop {
        // SAFETY: ends this process only; the agent is another thread group.
        unsafe { libc::syscall(libc::SYS_exit_group, code) };
    }
}

fn check(result: c_long, stage: Stage) -> Result<(), Stage> {
    if result < 0 { Err(stage) } else { Ok(()) }
}

fn errno() -> c_int {
    // SAFETY: points to this thread's errno, which always exists.
    unsafe { *libc::__errno_location() }
}
