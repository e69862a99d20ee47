//! Processes: [`ProcessError`] to the codes that clients tell apart.

use tonic::{Code, Status};

use crate::{connect::with_detail, process::ProcessError, system::cgroup::ControlGroupError};

impl From<ProcessError> for Status {
    fn from(error: ProcessError) -> Self {
        let code =
            match &error {
                ProcessError::Caller(_) => Code::Unauthenticated,
                ProcessError::WorkingDirectory(_)
                | ProcessError::NoWorkingDirectory(_)
                | ProcessError::InvalidScope(_)
                | ProcessError::InvalidLimitSignal(_) => Code::InvalidArgument,
                // Never resource_exhausted, which SDKs present as a rate limit.
                ProcessError::Start { source, .. } | ProcessError::StartTerminal { source, .. } => {
                    if source.is_shortage() { Code::Internal } else { Code::InvalidArgument }
                }
                ProcessError::ResourceLimit(_) => Code::InvalidArgument,
                ProcessError::ControlGroup(error) => match error {
                    ControlGroupError::Limit { .. } => Code::InvalidArgument,
                    _ if error.is_shortage() => Code::Internal,
                    _ => Code::FailedPrecondition,
                },
                ProcessError::DeadlineExceeded | ProcessError::InputDeadline { .. } => Code::DeadlineExceeded,
                ProcessError::InputQueue { .. } => Code::Aborted,
                ProcessError::UnknownPid(_) | ProcessError::UnknownTag(_) => Code::NotFound,
                ProcessError::NoSelector
                | ProcessError::NoInput
                | ProcessError::NoEvent
                | ProcessError::InvalidSignal(_) => Code::Unimplemented,
                ProcessError::InputBeforeStart => Code::FailedPrecondition,
                ProcessError::CloseTerminal => Code::Unknown,
                ProcessError::NoTerminal
                | ProcessError::IsTerminal
                | ProcessError::StdinClosed
                | ProcessError::WriteStdin { .. }
                | ProcessError::WriteTerminal { .. }
                | ProcessError::ResizeWithoutTerminal
                | ProcessError::Resize(_)
                | ProcessError::Signal(_)
                | ProcessError::Internal(_) => Code::Internal,
                ProcessError::Skipped { .. } => Code::DataLoss,
                // Not invalid_argument: the same request may be good a little later.
                ProcessError::ReplayBeyond { .. } => Code::OutOfRange,
                ProcessError::ShuttingDown => Code::Unavailable,
            };
        match error.spawn_failure() {
            Some(failure) => with_detail(code, error.to_string(), "process.SpawnFailure", &failure),
            None => Self::new(code, error.to_string()),
        }
    }
}
