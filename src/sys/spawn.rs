//! From a prepared [`Launch`] to a running program.
//!
//! The child is made with `CLONE_VM | CLONE_VFORK`: it borrows the agent's memory on a stack of its own while the
//! calling thread sleeps, so that no page table is copied and the cost does not grow with the agent's heap. This
//! is sound because the child
//!
//! * runs no code but the functions below, which make raw system calls on memory that was prepared beforehand:
//!   no allocation, no lock, no libc state (also not the C library's `setuid`, which would signal other threads);
//! * cannot be interrupted: all signals, also those that the C library keeps for itself, are blocked before the
//!   clone and let in again only when every handler has been reset to the default;
//! * has its own descriptor table, working directory and credentials.
//!
//! A failure is written into the shared memory, which the parent reads as soon as it runs again.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_long, c_void},
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

use rustix::process::{WaitId, WaitIdOptions};

use super::descriptor::duplicate_above_standard;

/// Everything that the child needs, decided before it exists.
#[derive(Debug)]
pub struct Launch<'a> {
    /// Absolute or relative paths to try in this order (execve(2)); more than one only for a search along PATH.
    pub programs: &'a [CString],
    /// The argument vector, with the program's name in front.
    pub argv: &'a [CString],
    /// The environment as `NAME=value`.
    pub envp: &'a [CString],
    /// Working directory, entered with the credentials below.
    pub cwd: &'a CStr,
    /// Who to become; `None` stays who the agent is.
    pub credentials: Option<Credentials<'a>>,
    /// Standard input, output and error. Every other descriptor is closed.
    pub stdio: [BorrowedFd<'a>; 3],
    /// What the child leads.
    pub leads: Leads,
    /// What happens when the program is missing or cannot be executed.
    pub absent: Absent<'a>,
}

/// Ids for setgroups(2), setresgid(2) and setresuid(2).
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// All group ids for setgroups(2).
    pub groups: &'a [u32],
}

/// What the child leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leads {
    /// A process group of its own in the agent's session.
    Group,
    /// A session without a terminal.
    Session,
    /// A session with standard input as its controlling terminal.
    Terminal,
}

/// What happens when the program is missing or cannot be executed.
#[derive(Clone, Copy, Debug)]
pub enum Absent<'a> {
    /// [`spawn`] fails.
    Fails,
    /// As in a shell: the child says so on its standard error and exits with 127 (missing) or 126. The bytes are
    /// the name to say; more than [`Absent::NAME_LIMIT`] bytes of it are cut.
    Exits(&'a [u8]),
}

impl Absent<'_> {
    /// Longest name in the line on standard error, in bytes. The agent sleeps while the child writes it, so it has
    /// to fit into an empty pipe.
    pub const NAME_LIMIT: usize = 1024;
}

/// A child that runs its program (or tells on standard error why it cannot).
#[derive(Debug)]
pub struct Spawned {
    /// Process id.
    pub pid: u32,
    /// The process descriptor, close-on-exec.
    pub pidfd: OwnedFd,
}

/// Where a start failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Stage {
    /// Making the process.
    Clone = 1,
    /// Its own group, session or controlling terminal.
    Session,
    /// Standard input, output and error.
    Stdio,
    /// Supplementary groups.
    Groups,
    /// Primary group.
    Gid,
    /// User.
    Uid,
    /// Working directory.
    Chdir,
    /// The program itself.
    Exec,
}

impl Stage {
    const ALL: [Self; 8] =
        [Self::Clone, Self::Session, Self::Stdio, Self::Groups, Self::Gid, Self::Uid, Self::Chdir, Self::Exec];
}

/// Why there is no child.
#[derive(Debug)]
pub struct Failure {
    /// What the child or the agent was doing.
    pub stage: Stage,
    /// The system's answer.
    pub error: io::Error,
}

const STACK_BYTES: usize = 64 * 1024;
const SIGNAL_COUNT: c_int = 64;
/// Size of the kernel's signal set in bytes.
const SIGNAL_SET_BYTES: usize = 8;
const ALL_SIGNALS: u64 = u64::MAX;
/// Best-effort class, level 4 (ioprio_set(2)).
const IO_PRIORITY: c_int = (2 << 13) | 4;
/// The same number on both architectures; the C libraries only disagree about its type.
const TIOCSCTTY: c_long = 0x540e;
const IO_PRIORITY_OF_PROCESS: c_int = 1;

/// What the child reads, and the one thing it writes.
struct Plan<'a> {
    programs: &'a [*const c_char],
    argv: *const *const c_char,
    /// `/bin/sh`, room for the script, then the arguments: for files that the kernel cannot execute.
    script_argv: *mut *const c_char,
    envp: *const *const c_char,
    cwd: *const c_char,
    credentials: Option<Credentials<'a>>,
    stdio: [RawFd; 3],
    leads: Leads,
    absent: Option<&'a [u8]>,
    failed_stage: c_int,
    failed_errno: c_int,
}

/// Starts the program. Blocks until the child has executed it, which includes what the disk takes to find it.
///
/// # Errors
/// [`Failure`]; no child is left behind then.
pub fn spawn(launch: &Launch<'_>) -> Result<Spawned, Failure> {
    let prepared = |error| Failure { stage: Stage::Stdio, error };
    // A descriptor below 3 could be overwritten by dup3 before it is used.
    let mut raised = [const { None::<OwnedFd> }; 3];
    let mut stdio = [0; 3];
    for ((fd, raised), number) in launch.stdio.iter().zip(&mut raised).zip(&mut stdio) {
        if fd.as_raw_fd() <= 2 {
            *raised = Some(duplicate_above_standard(*fd).map_err(prepared)?);
        }
        *number = raised.as_ref().map_or_else(|| fd.as_raw_fd(), OwnedFd::as_raw_fd);
    }
    let programs: Vec<*const c_char> = launch.programs.iter().map(|program| program.as_ptr()).collect();
    let argv = null_terminated(launch.argv);
    let envp = null_terminated(launch.envp);
    let mut script_argv = vec![c"/bin/sh".as_ptr(), ptr::null()];
    script_argv.extend(argv.iter().skip(1));
    if argv.len() < 2 {
        script_argv.push(ptr::null());
    }
    let mut plan = Plan {
        programs: &programs,
        argv: argv.as_ptr(),
        script_argv: script_argv.as_mut_ptr(),
        envp: envp.as_ptr(),
        cwd: launch.cwd.as_ptr(),
        credentials: launch.credentials,
        stdio,
        leads: launch.leads,
        absent: match launch.absent {
            Absent::Fails => None,
            Absent::Exits(name) => Some(name.get(..Absent::NAME_LIMIT).unwrap_or(name)),
        },
        failed_stage: 0,
        failed_errno: 0,
    };
    let (pid, pidfd) = clone(&mut plan).map_err(|error| Failure { stage: Stage::Clone, error })?;
    // SAFETY: both fields were written, if at all, by the child before this thread went on; the read is volatile
    // because the compiler does not know about that writer.
    let (stage, errno) =
        unsafe { (ptr::read_volatile(&raw const plan.failed_stage), ptr::read_volatile(&raw const plan.failed_errno)) };
    let Some(stage) = Stage::ALL.into_iter().find(|candidate| *candidate as c_int == stage) else {
        return Ok(Spawned { pid, pidfd });
    };
    // The child has left by itself, or does so now. It never was anybody's process, so nobody else wants its status;
    // ECHILD means that whoever reaps orphans was faster.
    while let Err(rustix::io::Errno::INTR) =
        rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
    {}
    Err(Failure { stage, error: io::Error::from_raw_os_error(errno) })
}

fn null_terminated(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

fn clone(plan: &mut Plan<'_>) -> io::Result<(u32, OwnedFd)> {
    let mut stack: Vec<MaybeUninit<u8>> = Vec::with_capacity(STACK_BYTES);
    let mut pidfd: c_int = -1;
    let (all, mut mask) = (ALL_SIGNALS, 0_u64);
    // SAFETY: the stack, the plan and everything that it points to live until the child has left this memory, because
    // CLONE_VFORK keeps this thread asleep that long. The top of the stack is aligned for any ABI. The mask pointers
    // are valid for the kernel's set size. CLONE_PIDFD writes the descriptor to the parent-tid pointer.
    let (pid, error) = unsafe {
        let top = stack.as_mut_ptr().add(STACK_BYTES);
        let top = top.sub(top.addr() % 16);
        set_signal_mask(&raw const all, &raw mut mask);
        let pid = libc::clone(
            run_child,
            top.cast(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD,
            ptr::from_mut(plan).cast(),
            &raw mut pidfd,
            ptr::null_mut::<c_void>(),
            ptr::null_mut::<c_int>(),
        );
        let error = io::Error::last_os_error();
        set_signal_mask(&raw const mask, ptr::null_mut());
        (pid, error)
    };
    drop(stack);
    match u32::try_from(pid) {
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(pid) => Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) })),
        Err(_) => Err(error),
    }
}

/// # Safety
/// Both pointers are valid for one signal set or null.
unsafe fn set_signal_mask(new: *const u64, old: *mut u64) {
    // SAFETY: the caller's promise. The raw call is needed to also block the signals that the C library hides.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, new, old, SIGNAL_SET_BYTES) };
}

/// The child's life before its program. Never returns: it leaves through execve or exit.
extern "C" fn run_child(plan: *mut c_void) -> c_int {
    // SAFETY: `clone` passes a valid plan that nobody else touches while this runs; see the module's promise for
    // what may be done here.
    unsafe {
        let plan = &mut *plan.cast::<Plan<'_>>();
        if let Err(stage) = become_child(plan) {
            fail(plan, stage, errno());
        }
        let errno = execute(plan);
        match plan.absent {
            Some(name) if absent_reason(errno).is_some() => exit_like_a_shell(name, errno),
            _ => fail(plan, Stage::Exec, errno),
        }
    }
}

/// # Safety
/// Only in the child of [`clone`].
unsafe fn become_child(plan: &Plan<'_>) -> Result<(), Stage> {
    // SAFETY: raw system calls on prepared memory; a zeroed sigaction of the kernel's layout (handler, flags, restorer,
    // mask) is the default action.
    unsafe {
        let default = [0_u64; 4];
        for signal in 1..=SIGNAL_COUNT {
            // SIGKILL and SIGSTOP answer EINVAL.
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), ptr::null_mut::<u64>(), SIGNAL_SET_BYTES);
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
/// Only in the child of [`clone`].
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
/// Only in the child of [`clone`]: the C library's own functions would change every thread of the agent.
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
/// Only in the child of [`clone`].
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
/// Only in the child of [`clone`].
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
/// Only in the child of [`clone`].
unsafe fn fail(plan: &mut Plan<'_>, stage: Stage, errno: c_int) -> ! {
    // SAFETY: the fields belong to the plan; volatile because the reader is another process on this memory.
    unsafe {
        ptr::write_volatile(&raw mut plan.failed_errno, errno);
        ptr::write_volatile(&raw mut plan.failed_stage, stage as c_int);
        leave(127)
    }
}

/// # Safety
/// Only in the child of [`clone`].
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use std::{fs::File, io::Read};

    use super::*;

    fn run(programs: &[&str], argv: &[&str], absent: Absent<'_>) -> (Result<i32, Failure>, String) {
        let strings = |texts: &[&str]| texts.iter().map(|text| CString::new(*text).unwrap()).collect::<Vec<_>>();
        let (mut reader, writer) = io::pipe().unwrap();
        let null = File::open("/dev/null").unwrap();
        let spawned = spawn(&Launch {
            programs: &strings(programs),
            argv: &strings(argv),
            envp: &strings(&["A=1"]),
            cwd: c"/",
            credentials: None,
            stdio: [null.as_fd(), writer.as_fd(), writer.as_fd()],
            leads: Leads::Group,
            absent,
        });
        drop(writer);
        let mut output = String::new();
        reader.read_to_string(&mut output).unwrap();
        let code = spawned.map(|child| {
            let status = rustix::process::waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED);
            status.unwrap().unwrap().exit_status().unwrap_or(-1)
        });
        (code, output)
    }

    #[test]
    fn the_first_executable_candidate_runs() {
        let (code, output) =
            run(&["/nonexistent/sh", "/etc/passwd", "/bin/sh"], &["sh", "-c", "echo $A"], Absent::Fails);
        assert_eq!((code.unwrap(), output.as_str()), (0, "1\n"));
    }

    #[test]
    fn an_absent_program_is_told_like_a_shell_does() {
        let (code, output) = run(&["/nonexistent"], &["x"], Absent::Exits(b"x"));
        assert_eq!((code.unwrap(), output.as_str()), (127, "envd: x: No such file or directory\n"));
        let (code, output) = run(&["/etc"], &["/etc"], Absent::Exits(b"/etc"));
        assert_eq!((code.unwrap(), output.as_str()), (126, "envd: /etc: Permission denied\n"));
    }

    #[test]
    fn an_absent_program_can_be_a_failure_and_leaves_no_child() {
        let failure = run(&["/nonexistent"], &["x"], Absent::Fails).0.unwrap_err();
        assert_eq!((failure.stage, failure.error.raw_os_error()), (Stage::Exec, Some(libc::ENOENT)));
    }
}
