//! How a process ended, in the words that clients parse.

use std::{fmt, time::SystemTime};

use super::usage::Usage;
use crate::{proto::process::process_event::EndEvent, sys::wait::Cause};

/// All that is known when a process has been reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) usage: Usage,
    /// When it was reaped.
    pub(super) at: SystemTime,
}

/// A reaped status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// The process ended by itself with this code, 0 to 255.
    Exited(i32),
    /// A signal ended it.
    Signaled {
        /// The signal's number.
        signal: i32,
        /// Whether a core was dumped.
        core_dumped: bool,
    },
    /// Somebody else reaped it, so nobody will ever know. Only a foreign `wait` in the agent's process, or a ptrace
    /// accident, can cause this.
    Lost,
}

impl ExitStatus {
    /// The last event of the process, without details.
    pub fn to_event(self) -> EndEvent {
        let status = self.to_string();
        let error = (self != Self::Exited(0)).then(|| status.clone());
        let (exit_code, exited) = match self {
            Self::Exited(code) => (code, true),
            Self::Signaled { .. } | Self::Lost => (-1, false),
        };
        EndEvent { exit_code, exited, status, error, details: None }
    }
}

impl From<Cause> for ExitStatus {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Exited(code) => Self::Exited(code),
            Cause::Signaled { signal, core_dumped } => Self::Signaled { signal, core_dumped },
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Exited(code) => write!(f, "exit status {code}"),
            Self::Signaled { signal, core_dumped } => {
                f.write_str("signal: ")?;
                let name = usize::try_from(signal - 1).ok().and_then(|index| SIGNALS.get(index));
                match name {
                    Some(name) => f.write_str(name)?,
                    None => write!(f, "signal {signal}")?,
                }
                if core_dumped { f.write_str(" (core dumped)") } else { Ok(()) }
            }
            Self::Lost => f.write_str("exit status unknown"),
        }
    }
}

/// Names of the signals 1 to 31.
const SIGNALS: [&str; 31] = [
    "hangup",
    "interrupt",
    "quit",
    "illegal instruction",
    "trace/breakpoint trap",
    "aborted",
    "bus error",
    "floating point exception",
    "killed",
    "user defined signal 1",
    "segmentation fault",
    "user defined signal 2",
    "broken pipe",
    "alarm clock",
    "terminated",
    "stack fault",
    "child exited",
    "continued",
    "stopped (signal)",
    "stopped",
    "stopped (tty input)",
    "stopped (tty output)",
    "urgent I/O condition",
    "CPU time limit exceeded",
    "file size limit exceeded",
    "virtual timer expired",
    "profiling timer expired",
    "window changed",
    "I/O possible",
    "power failure",
    "bad system call",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_texts() {
        let signal = |signal, core_dumped| ExitStatus::Signaled { signal, core_dumped }.to_string();
        assert_eq!(ExitStatus::Exited(3).to_string(), "exit status 3");
        assert_eq!(signal(9, false), "signal: killed");
        assert_eq!(signal(11, true), "signal: segmentation fault (core dumped)");
        assert_eq!(signal(31, false), "signal: bad system call");
        assert_eq!(signal(34, false), "signal: signal 34");
    }

    #[test]
    fn only_a_clean_exit_has_no_error() {
        let clean = ExitStatus::Exited(0).to_event();
        assert_eq!((clean.exit_code, clean.exited, clean.error), (0, true, None));
        let failed = ExitStatus::Exited(3).to_event();
        assert_eq!((failed.exit_code, failed.exited, failed.error.as_deref()), (3, true, Some("exit status 3")));
        let killed = ExitStatus::Signaled { signal: 9, core_dumped: false }.to_event();
        assert_eq!((killed.exit_code, killed.exited, killed.error.as_deref()), (-1, false, Some("signal: killed")));
    }
}
