//! The one place that starts programs: commands, terminals and kernels.

use std::{
    ffi::{CString, OsStr, OsString},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use thiserror::Error;

use super::{
    environment::{self, Variables},
    failure::{spawn_failure, stage_name},
    reap::{Child, Extras, Reaper},
};
use crate::{
    sys::spawn::{self, Absent, Credentials, Failure, Launch, Leads, ResourceLimit, Stage},
    system::{cgroup::ControlGroup, identity::User, path::errno_text},
};

/// A program to start.
#[derive(Debug)]
pub(super) struct Program<'a> {
    /// Name or path.
    pub name: &'a OsStr,
    /// Arguments after the name.
    pub args: &'a [OsString],
    /// The whole environment.
    pub variables: &'a Variables,
    /// Working directory.
    pub cwd: &'a Path,
    /// Who runs it.
    pub user: &'a User,
    /// Standard input, output and error.
    pub stdio: [BorrowedFd<'a>; 3],
    /// What it leads.
    pub leads: Leads,
    /// Resource limits to set.
    pub limits: &'a [ResourceLimit],
    /// The control group to start in.
    pub control_group: Option<&'a Arc<ControlGroup>>,
    /// Whether a missing program is a failure rather than a process that ends with 127 or 126.
    pub must_exist: bool,
}

/// Why a program was not started.
#[derive(Debug, Error)]
pub enum SpawnError {
    /// A NUL byte in the environment.
    #[error("exec: environment variable contains NUL")]
    NulInEnvironment,
    /// A NUL byte in the program's name or an argument.
    #[error("exec: argument contains NUL")]
    NulInArgument,
    /// A pipe or descriptor cannot be made.
    #[error("cannot make a pipe: {}", errno_text(.0))]
    Pipe(#[source] io::Error),
    /// There is no terminal to be had.
    #[error("cannot open a terminal: {}", errno_text(.0))]
    Terminal(#[source] io::Error),
    /// The user cannot enter the working directory.
    #[error("chdir {}: {}", path.display(), errno_text(error))]
    WorkingDirectory {
        /// Which one.
        path: PathBuf,
        /// The system's answer.
        #[source]
        error: io::Error,
    },
    /// The child failed on its way to the program.
    #[error("{}", describe(stage, error))]
    Failed {
        /// What it was doing.
        stage: Stage,
        /// The system's answer.
        #[source]
        error: io::Error,
    },
}

impl SpawnError {
    /// Whether the machine is short of something, so that the request itself is not to blame.
    pub fn is_shortage(&self) -> bool {
        let error = match self {
            Self::Pipe(_) | Self::Terminal(_) => return true,
            Self::WorkingDirectory { error, .. } | Self::Failed { error, .. } => error.raw_os_error(),
            Self::NulInEnvironment | Self::NulInArgument => None,
        };
        matches!(error, Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE))
    }
}

fn describe(stage: &Stage, error: &io::Error) -> String {
    let text = errno_text(error);
    let lacks = |capability: &str| match error.raw_os_error() {
        Some(libc::EPERM) => format!("{text} (the agent lacks {capability})"),
        _ => text.clone(),
    };
    match stage {
        Stage::Clone => format!("clone: {text}"),
        Stage::Session => format!("setsid: {text}"),
        Stage::Stdio => format!("dup: {text}"),
        Stage::Limits => match error.raw_os_error() {
            Some(libc::EPERM) => format!("setrlimit: {text} (a limit is above what the agent may set)"),
            _ => format!("setrlimit: {text}"),
        },
        Stage::Groups => format!("setgroups: {}", lacks("CAP_SETGID")),
        Stage::Gid => format!("setgid: {}", lacks("CAP_SETGID")),
        Stage::Uid => format!("setuid: {}", lacks("CAP_SETUID")),
        Stage::Chdir => format!("chdir: {text}"),
        Stage::Exec => format!("exec: {text}"),
    }
}

/// Starts the program and hands the child to the reaper. Blocking, but needs a tokio runtime.
///
/// # Errors
/// [`SpawnError`]; there is no child then.
pub(super) fn spawn(program: &Program<'_>, reaper: &Reaper) -> Result<Arc<Child>, SpawnError> {
    let envp = environment::to_strings(program.variables).ok_or(SpawnError::NulInEnvironment)?;
    let argv = std::iter::once(program.name)
        .chain(program.args.iter().map(OsString::as_os_str))
        .map(|argument| CString::new(argument.as_bytes()))
        .collect::<Result<Vec<CString>, _>>()
        .map_err(|_nul| SpawnError::NulInArgument)?;
    let programs =
        environment::candidates(program.name.as_bytes(), program.variables).ok_or(SpawnError::NulInArgument)?;
    let cwd = CString::new(program.cwd.as_os_str().to_owned().into_vec()).map_err(|_nul| SpawnError::NulInArgument)?;

    // The primary group belongs to the list: a file's group is compared with both.
    let user = program.user;
    let groups: Vec<u32> = std::iter::once(user.gid).chain(user.groups.iter().copied()).collect();
    // Without root privileges the agent serves nobody but the user it is, so there is nothing to change.
    let credentials =
        rustix::process::geteuid().is_root().then_some(Credentials { uid: user.uid, gid: user.gid, groups: &groups });
    let group = program.control_group.map(|group| Ok((group.directory()?, group.entrance()?))).transpose();
    let group = group.map_err(|error| SpawnError::Failed { stage: Stage::Clone, error })?;
    let starting = reaper.starting();
    let launch = Launch {
        programs: &programs,
        argv: &argv,
        envp: &envp,
        cwd: &cwd,
        credentials,
        stdio: program.stdio,
        leads: program.leads,
        limits: program.limits,
        control_group: group.as_ref().map(|(directory, entrance)| spawn::ControlGroup {
            directory: directory.as_fd(),
            entrance: entrance.as_fd(),
        }),
        absent: if program.must_exist { Absent::Fails } else { Absent::Exits(program.name.as_bytes()) },
        number: starting.cell(),
    };
    let spawned = spawn::spawn(&launch).map_err(|Failure { stage, error }| match stage {
        Stage::Chdir => SpawnError::WorkingDirectory { path: program.cwd.to_owned(), error },
        stage => SpawnError::Failed { stage, error },
    })?;
    let absent = spawned.absent.map(|error| {
        let name = stage_name(Stage::Exec);
        Box::new(spawn_failure(name, error.raw_os_error(), describe(&Stage::Exec, &error)))
    });
    let extras = Extras { spawn_failure: absent, control_group: program.control_group.cloned() };
    Ok(reaper.adopt(spawned.pid, spawned.pidfd, extras))
}
