//! From a prepared [`Launch`] to a running program.
//!
//! The child is made with `CLONE_VM | CLONE_VFORK`: it borrows the agent's memory on a stack of its own while the
//! calling thread sleeps, so that no page table is copied and the cost does not grow with the agent's heap. This
//! is sound because the child
//!
//! * runs no code but the functions in `child`, which make raw system calls on memory that was prepared beforehand:
//!   no allocation, no lock, no libc state (also not the C library's `setuid`, which would signal other threads);
//! * cannot be interrupted: all signals, also those that the C library keeps for itself, are blocked before the
//!   clone and let in again only when every handler has been reset to the default;
//! * has its own descriptor table, working directory and credentials.
//!
//! A failure is written into the shared memory, which the parent reads as soon as it runs again.

mod child;

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
    sync::atomic::AtomicI32,
};

use rustix::process::{WaitId, WaitIdOptions};

use self::child::{Plan, run_child, set_signal_mask};
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
    /// Where the kernel writes the child's number before the child does anything, so also before it can end.
    pub number: &'a AtomicI32,
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
const ALL_SIGNALS: u64 = u64::MAX;

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
    let (pid, pidfd) = clone(&mut plan, launch.number).map_err(|error| Failure { stage: Stage::Clone, error })?;
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

fn clone(plan: &mut Plan<'_>, number: &AtomicI32) -> io::Result<(u32, OwnedFd)> {
    let mut stack: Vec<MaybeUninit<u8>> = Vec::with_capacity(STACK_BYTES);
    let mut pidfd: c_int = -1;
    let (all, mut mask) = (ALL_SIGNALS, 0_u64);
    // SAFETY: the stack, the plan and everything that it points to live until the child has left this memory, because
    // CLONE_VFORK keeps this thread asleep that long. The top of the stack is aligned for any ABI. The mask pointers
    // are valid for the kernel's set size. CLONE_PIDFD writes the descriptor to the parent-tid pointer, and
    // CLONE_CHILD_SETTID the number to an atomic in the shared memory, which nobody else writes.
    let (pid, error) = unsafe {
        let top = stack.as_mut_ptr().add(STACK_BYTES);
        let top = top.sub(top.addr() % 16);
        set_signal_mask(&raw const all, &raw mut mask);
        let pid = libc::clone(
            run_child,
            top.cast(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::CLONE_CHILD_SETTID | libc::SIGCHLD,
            ptr::from_mut(plan).cast(),
            &raw mut pidfd,
            ptr::null_mut::<c_void>(),
            number.as_ptr(),
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use std::{fs::File, io::Read};

    use super::*;

    fn run(programs: &[&str], argv: &[&str], absent: Absent<'_>) -> (Result<i32, Failure>, String) {
        let strings = |texts: &[&str]| texts.iter().map(|text| CString::new(*text).unwrap()).collect::<Vec<_>>();
        let (mut reader, writer) = io::pipe().unwrap();
        let null = File::open("/dev/null").unwrap();
        let number = AtomicI32::new(0);
        let spawned = spawn(&Launch {
            programs: &strings(programs),
            argv: &strings(argv),
            envp: &strings(&["A=1"]),
            cwd: c"/",
            credentials: None,
            stdio: [null.as_fd(), writer.as_fd(), writer.as_fd()],
            leads: Leads::Group,
            absent,
            number: &number,
        });
        drop(writer);
        let mut output = String::new();
        reader.read_to_string(&mut output).unwrap();
        let code = spawned.map(|child| {
            assert_eq!(u32::try_from(number.into_inner()), Ok(child.pid));
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
