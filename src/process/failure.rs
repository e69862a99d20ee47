//! Why nothing was started, for programs: the stage, the name of the error, and the sentence that people see.

use super::{error::ProcessError, spawn::SpawnError};
use crate::{proto::process::SpawnFailure, sys::spawn::Stage};

/// A failure at this stage; `errno` is the system's answer, if it was asked.
pub(super) fn spawn_failure(stage: &str, errno: Option<i32>, message: String) -> SpawnFailure {
    SpawnFailure { stage: stage.to_owned(), errno: errno.map(errno_name).unwrap_or_default(), message }
}

impl ProcessError {
    /// What to tell about a start that failed; `None` for errors of other kinds.
    pub fn spawn_failure(&self) -> Option<SpawnFailure> {
        let (stage, errno) = match self {
            Self::Start { source, .. } | Self::StartTerminal { source, .. } => source.stage_and_errno(),
            Self::NoWorkingDirectory(_) => (stage_name(Stage::Chdir), Some(libc::ENOENT)),
            Self::ResourceLimit(_) => (stage_name(Stage::Limits), None),
            Self::ControlGroup(error) => (PREPARE, error.source_errno()),
            Self::WorkingDirectory(_) | Self::Internal(_) => (PREPARE, None),
            _ => return None,
        };
        // Without the command line, which the error's own text has.
        let message = match self {
            Self::Start { source, .. } | Self::StartTerminal { source, .. } => source.to_string(),
            other => other.to_string(),
        };
        Some(spawn_failure(stage, errno, message))
    }
}

impl SpawnError {
    fn stage_and_errno(&self) -> (&'static str, Option<i32>) {
        match self {
            Self::NulInEnvironment | Self::NulInArgument => (PREPARE, None),
            Self::Pipe(error) | Self::Terminal(error) => (PREPARE, error.raw_os_error()),
            Self::WorkingDirectory { error, .. } => (stage_name(Stage::Chdir), error.raw_os_error()),
            Self::Failed { stage, error } => (stage_name(*stage), error.raw_os_error()),
        }
    }
}

/// What the agent does before there is a child.
const PREPARE: &str = "prepare";

/// As the message lists them.
pub(super) fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Clone => "clone",
        Stage::Session => "session",
        Stage::Stdio => "stdio",
        Stage::Limits => "limits",
        Stage::Groups => "groups",
        Stage::Gid => "gid",
        Stage::Uid => "uid",
        Stage::Chdir => "chdir",
        Stage::Exec => "exec",
    }
}

/// The symbolic name (errno(3)) of what starting a program can answer, such as `ENOENT`; a rare one is told as `E` and
/// its number.
fn errno_name(errno: i32) -> String {
    macro_rules! names {
        ($($name:ident)*) => {
            match errno {
                $(libc::$name => stringify!($name).to_owned(),)*
                other => format!("E{other}"),
            }
        };
    }
    names! {
        E2BIG EACCES EAGAIN EBADF EBUSY ECHILD EDQUOT EEXIST EFAULT EFBIG EINTR EINVAL EIO EISDIR ELIBBAD ELOOP EMFILE
        EMLINK ENAMETOOLONG ENFILE ENODEV ENOENT ENOEXEC ENOKEY ENOLCK ENOMEM ENOSPC ENOSYS ENOTCONN ENOTDIR ENOTEMPTY
        ENOTTY ENXIO EOPNOTSUPP EOVERFLOW EPERM EPIPE ERANGE EREMOTEIO EROFS ESPIPE ESRCH ESTALE ETIMEDOUT ETXTBSY
        EUSERS EXDEV
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_failure_names_stage_and_error() {
        let source = SpawnError::Failed { stage: Stage::Exec, error: io::Error::from_raw_os_error(libc::E2BIG) };
        let error = ProcessError::Start { command: "x".to_owned(), source };
        let message = "exec: argument list too long".to_owned();
        let expected = SpawnFailure { stage: "exec".to_owned(), errno: "E2BIG".to_owned(), message };
        assert_eq!(error.spawn_failure(), Some(expected));
        assert_eq!(ProcessError::UnknownPid(1).spawn_failure(), None);
        assert_eq!(errno_name(libc::EMULTIHOP), format!("E{}", libc::EMULTIHOP));
    }
}
