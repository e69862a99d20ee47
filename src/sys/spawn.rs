//! From a prepared [`Launch`] to a running program.
//!
//! The child is made with `CLONE_VM | CLONE_VFORK`: it borrows the agent's memory on a stack of its own while the
//! calling thread sleeps, so that no page table is copied and the cost does not grow with the agent's heap. Measured
//! with `/bin/true` on a machine with two cores, busy otherwise: system time of the caller and faults afterwards, for
//! each start.
//!
//! | memory in use | fork(2) | `CLONE_VM \| CLONE_VFORK` | posix_spawn(3) |
//! | --- | --- | --- | --- |
//! | none | 0.1 ms, 2 faults | 0.06 ms, 1 fault | 0.08 ms, 1 fault |
//! | 128 MiB | 4.4 ms, 514 faults | 0.12 ms, 1 fault | 0.13 ms, 1 fault |
//! | 1 GiB | 22.5 ms, 4098 faults | 0.43 ms, 1 fault | 0.39 ms, 1 fault |
//!
//! (One page in 64 was written after each start.) posix_spawn does the same, but has no place for a control group, a
//! controlling terminal, limits, supplementary groups and priorities, and does not say which step failed.
//!
//! This is sound because the child
//!
//! * runs no code but the functions in `child`, which make raw system calls on memory that was prepared beforehand:
//!   no allocation, no lock, no libc state (also not the C library's `setuid`, which would signal other threads);
//! * cannot be interrupted: all signals, also those that the C library keeps for itself, are blocked before the
//!   clone and let in again only when every handler has been reset to the default;
//! * has its own descriptor table, working directory and credentials.
//!
//! A failure is written into the shared memory, which the parent reads as soon as it runs again. `clone` has the two
//! ways of making the child.

mod child;
mod clone;
mod limit;

use std::{
    ffi::{CStr, CString, c_char, c_int},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    ptr,
    sync::{OnceLock, atomic::AtomicI32},
};

use rustix::process::{WaitId, WaitIdOptions};

pub use self::limit::{Resource, ResourceLimit};
use self::{
    child::{Plan, ignored_signals},
    clone::{By, clone},
};
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
    /// Limits to set, in this order, before the credentials change.
    pub limits: &'a [ResourceLimit],
    /// The control group to be in from the first instruction on.
    pub control_group: Option<ControlGroup<'a>>,
    /// What happens when the program is missing or cannot be executed.
    pub absent: Absent<'a>,
    /// Where the kernel writes the child's number before the child does anything, so also before it can end.
    pub number: &'a AtomicI32,
}

/// A control group of version 2 (cgroups(7)).
#[derive(Clone, Copy, Debug)]
pub struct ControlGroup<'a> {
    /// Its directory.
    pub directory: BorrowedFd<'a>,
    /// Its `cgroup.procs`, open for writing, for kernels whose clone3(2) cannot be used.
    pub entrance: BorrowedFd<'a>,
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
    /// Why it runs no program but tells of one that is absent ([`Absent::Exits`]).
    pub absent: Option<io::Error>,
}

/// Where a start failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Stage {
    /// Making the process, in its control group where it has one.
    Clone = 1,
    /// Its own group, session or controlling terminal.
    Session,
    /// Standard input, output and error.
    Stdio,
    /// Resource limits.
    Limits,
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
    const ALL: [Self; 9] = [
        Self::Clone,
        Self::Session,
        Self::Stdio,
        Self::Limits,
        Self::Groups,
        Self::Gid,
        Self::Uid,
        Self::Chdir,
        Self::Exec,
    ];
}

/// Why there is no child.
#[derive(Debug)]
pub struct Failure {
    /// What the child or the agent was doing.
    pub stage: Stage,
    /// The system's answer.
    pub error: io::Error,
}

/// What the agent ignores. It starts to ignore nothing after its first start of a program.
static IGNORED_SIGNALS: OnceLock<u64> = OnceLock::new();

/// Starts the program. Blocks until the child has executed it, which includes what the disk takes to find it.
///
/// # Errors
/// [`Failure`]; no child is left behind then.
pub fn spawn(launch: &Launch<'_>) -> Result<Spawned, Failure> {
    spawn_by(launch, By::Clone3)
}

fn spawn_by(launch: &Launch<'_>, by: By) -> Result<Spawned, Failure> {
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
        limits: launch.limits,
        entrance: launch.control_group.map(|group| group.entrance.as_raw_fd()),
        made_by_clone3: false,
        ignored_signals: *IGNORED_SIGNALS.get_or_init(ignored_signals),
        absent: match launch.absent {
            Absent::Fails => None,
            Absent::Exits(name) => Some(name.get(..Absent::NAME_LIMIT).unwrap_or(name)),
        },
        failed_stage: 0,
        failed_errno: 0,
    };
    let directory = launch.control_group.map(|group| group.directory);
    let made = clone(&mut plan, launch.number, directory, by);
    let (pid, pidfd) = made.map_err(|error| Failure { stage: Stage::Clone, error })?;
    // SAFETY: both fields were written, if at all, by the child before this thread went on; the read is volatile
    // because the compiler does not know about that writer.
    let (stage, errno) =
        unsafe { (ptr::read_volatile(&raw const plan.failed_stage), ptr::read_volatile(&raw const plan.failed_errno)) };
    let Some(stage) = Stage::ALL.into_iter().find(|candidate| *candidate as c_int == stage) else {
        let absent = (errno != 0).then(|| io::Error::from_raw_os_error(errno));
        return Ok(Spawned { pid, pidfd, absent });
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use std::{fs::File, io::Read};

    use super::*;

    fn run(programs: &[&str], argv: &[&str], absent: Absent<'_>) -> (Result<i32, Failure>, String) {
        run_by(By::Clone3, None, programs, argv, absent)
    }

    fn run_by(
        by: By,
        control_group: Option<ControlGroup<'_>>,
        programs: &[&str],
        argv: &[&str],
        absent: Absent<'_>,
    ) -> (Result<i32, Failure>, String) {
        let strings = |texts: &[&str]| texts.iter().map(|text| CString::new(*text).unwrap()).collect::<Vec<_>>();
        let (mut reader, writer) = io::pipe().unwrap();
        let null = File::open("/dev/null").unwrap();
        let number = AtomicI32::new(0);
        let launch = Launch {
            programs: &strings(programs),
            argv: &strings(argv),
            envp: &strings(&["A=1"]),
            cwd: c"/",
            credentials: None,
            stdio: [null.as_fd(), writer.as_fd(), writer.as_fd()],
            leads: Leads::Group,
            limits: &[],
            control_group,
            absent,
            number: &number,
        };
        let spawned = spawn_by(&launch, by);
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
    fn both_ways_of_making_a_child_reset_its_signals() {
        for by in [By::Clone3, By::Clone] {
            let (code, output) = run_by(by, None, &["/bin/cat"], &["cat", "/proc/self/status"], Absent::Fails);
            assert_eq!(code.unwrap(), 0);
            for field in ["SigBlk", "SigIgn", "SigCgt"] {
                assert!(output.contains(&format!("{field}:\t0000000000000000\n")), "{by:?}, {field}: {output}");
            }
            let (code, output) = run_by(by, None, &["/nonexistent"], &["x"], Absent::Exits(b"x"));
            assert_eq!((code.unwrap(), output.as_str()), (127, "envd: x: No such file or directory\n"), "{by:?}");
            let failure = run_by(by, None, &["/nonexistent"], &["x"], Absent::Fails).0.unwrap_err();
            assert_eq!((failure.stage, failure.error.raw_os_error()), (Stage::Exec, Some(libc::ENOENT)), "{by:?}");
        }
    }

    #[test]
    fn without_clone3_the_child_moves_itself_into_its_group() {
        let dir = tempfile::tempdir().unwrap();
        let entrance = File::create(dir.path().join("cgroup.procs")).unwrap();
        let directory = File::open(dir.path()).unwrap();
        let group = Some(ControlGroup { directory: directory.as_fd(), entrance: entrance.as_fd() });
        let (code, output) = run_by(By::Clone, group, &["/bin/echo"], &["echo", "in"], Absent::Fails);
        assert_eq!((code.unwrap(), output.as_str()), (0, "in\n"));
        assert_eq!(std::fs::read(dir.path().join("cgroup.procs")).unwrap(), b"0");
        // What is no control group is not forgotten but told.
        let failure = run_by(By::Clone3, group, &["/bin/echo"], &["echo"], Absent::Fails).0.unwrap_err();
        assert_eq!((failure.stage, failure.error.raw_os_error()), (Stage::Clone, Some(libc::EBADF)));
    }

    #[test]
    fn a_start_leaves_the_agents_pages_alone() {
        const PAGES: usize = 4096;
        // Or a part of one, on some machines.
        let page = 4096;
        // SAFETY: a mapping of its own.
        let memory = unsafe {
            let (read_write, own) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            let memory = libc::mmap(ptr::null_mut(), PAGES * page, read_write, own, -1, 0);
            assert_ne!(memory, libc::MAP_FAILED);
            // Huge pages would hide the difference. A kernel without them refuses, and has none.
            libc::madvise(memory, PAGES * page, libc::MADV_NOHUGEPAGE);
            std::slice::from_raw_parts_mut(memory.cast::<u8>(), PAGES * page)
        };
        let mut faults_after = |start: &dyn Fn()| {
            memory.iter_mut().step_by(page).for_each(|byte| *byte = 1);
            start();
            let faults = || {
                // SAFETY: an all-zero rusage is valid and outlives the call.
                unsafe {
                    let mut usage: libc::rusage = std::mem::zeroed();
                    assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage), 0);
                    usize::try_from(usage.ru_minflt).unwrap()
                }
            };
            let before = faults();
            memory.iter_mut().step_by(page).for_each(|byte| *byte = 2);
            faults() - before
        };
        let ours = faults_after(&|| assert_eq!(run(&["/bin/true"], &["true"], Absent::Fails).0.unwrap(), 0));
        assert!(ours < 100, "{ours} faults");
        // What it would be otherwise.
        let fork = faults_after(&|| {
            // SAFETY: the child leaves at once, and is waited for.
            unsafe {
                let child = libc::fork();
                if child == 0 {
                    libc::_exit(0);
                }
                libc::waitpid(child, ptr::null_mut(), 0);
            }
        });
        assert!(fork > 10 * ours.max(10), "{fork} faults, ours {ours}");
        // SAFETY: nobody has it any more.
        unsafe { libc::munmap(memory.as_mut_ptr().cast(), PAGES * page) };
    }

    #[test]
    fn an_absent_program_can_be_a_failure_and_leaves_no_child() {
        let failure = run(&["/nonexistent"], &["x"], Absent::Fails).0.unwrap_err();
        assert_eq!((failure.stage, failure.error.raw_os_error()), (Stage::Exec, Some(libc::ENOENT)));
    }
}
