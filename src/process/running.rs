//! One started program, from the clone to its last event.
//!
//! [`follow`] is the task behind each process. The process ends for its clients when it has been reaped *and* its
//! output has ended. A background child that keeps the output open keeps the stream open; a SIGTERM or SIGKILL
//! through the service, or the deadline, is the wish not to wait for such children: then what is in the pipes is
//! still delivered, and the end follows.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    error::ProcessError,
    input::{Input, InputFailure},
    output::OutputLog,
    pty::Terminal,
    reap::Child,
    source::Source,
    status::ExitStatus,
    table::Table,
};
use crate::{
    proto::process::{ProcessConfig, ProcessInfo, process_input, pty},
    system::cgroup::ControlGroup,
};

/// A process that was started through the service.
pub(super) struct Process {
    /// Orders processes by their start; never reused, as pids are.
    pub(super) serial: u64,
    pub(super) config: ProcessConfig,
    pub(super) tag: Option<String>,
    pub(super) log: Arc<OutputLog>,
    child: Arc<Child>,
    control_group: Option<Arc<ControlGroup>>,
    input: Input,
    terminal: Option<Terminal>,
    /// Nobody wants to wait for whoever else holds the output open.
    released: CancellationToken,
}

/// What a process is made of.
pub(super) struct Parts {
    pub(super) serial: u64,
    pub(super) config: ProcessConfig,
    pub(super) tag: Option<String>,
    pub(super) log: Arc<OutputLog>,
    pub(super) child: Arc<Child>,
    pub(super) control_group: Option<Arc<ControlGroup>>,
    pub(super) input: Input,
    pub(super) terminal: Option<Terminal>,
}

impl Process {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { serial, config, tag, log, child, control_group, input, terminal } = parts;
        Self { serial, config, tag, log, child, control_group, input, terminal, released: CancellationToken::new() }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.pid()
    }

    pub(super) fn info(&self) -> ProcessInfo {
        ProcessInfo { config: Some(self.config.clone()), pid: self.pid(), tag: self.tag.clone(), details: None }
    }

    pub(super) async fn write(&self, input: process_input::Input) -> Result<(), ProcessError> {
        let pid = self.pid();
        match input {
            process_input::Input::Pty(_) if self.terminal.is_none() => Err(ProcessError::NoTerminal),
            process_input::Input::Stdin(_) if self.terminal.is_some() => Err(ProcessError::IsTerminal),
            process_input::Input::Stdin(bytes) => self.input.write(&bytes).await.map_err(|failure| match failure {
                InputFailure::Closed => ProcessError::StdinClosed,
                InputFailure::Io(source) => ProcessError::WriteStdin { pid, source },
            }),
            process_input::Input::Pty(bytes) => self.input.write(&bytes).await.map_err(|failure| {
                let source = match failure {
                    InputFailure::Closed => std::io::Error::from_raw_os_error(libc::EIO),
                    InputFailure::Io(source) => source,
                };
                ProcessError::WriteTerminal { pid, source }
            }),
        }
    }

    pub(super) fn close_stdin(&self) -> Result<(), ProcessError> {
        if self.terminal.is_some() {
            return Err(ProcessError::CloseTerminal);
        }
        self.input.close();
        Ok(())
    }

    pub(super) fn resize(&self, size: Option<pty::Size>) -> Result<(), ProcessError> {
        let terminal = self.terminal.as_ref().ok_or(ProcessError::ResizeWithoutTerminal)?;
        terminal.resize(size).map_err(ProcessError::Resize)
    }

    /// Sends SIGTERM or SIGKILL to the process alone and releases the wait for its background children.
    pub(super) fn end(&self, signal: i32) -> Result<(), ProcessError> {
        self.child.signal(signal).map_err(ProcessError::Signal)?;
        self.released.cancel();
        Ok(())
    }

    /// Lets go of every descriptor.
    fn close(&self) {
        self.child.forget();
        self.input.abandon();
        if let Some(terminal) = &self.terminal {
            terminal.close();
        }
        if let Some(group) = &self.control_group {
            group.release();
        }
    }
}

/// Carries the output of the process into its log, ends it at the deadline, and publishes its end.
pub(super) async fn follow(process: Arc<Process>, sources: Vec<Source>, deadline: Option<Instant>, table: Table) {
    let status = {
        let outcome = outcome(&process, &sources);
        tokio::pin!(outcome);
        match deadline {
            None => outcome.await,
            Some(deadline) => {
                tokio::select! {
                    biased;
                    status = &mut outcome => status,
                    () = tokio::time::sleep_until(deadline) => {
                        if let Err(error) = process.end(libc::SIGKILL) {
                            tracing::warn!(pid = process.pid(), %error, "cannot end the process at its deadline");
                        }
                        outcome.await
                    }
                }
            }
        }
    };
    drop(sources);
    process.close();
    tracing::debug!(pid = process.pid(), %status, "process ended");
    // First out of the table, then the news: whoever sees the end no longer finds the process.
    table.retire(&process);
    process.log.finish(status.to_event());
}

/// Completes when the process is reaped and its output is in the log.
async fn outcome(process: &Process, sources: &[Source]) -> ExitStatus {
    let pump = join_all(sources.iter().map(|source| source.pump(&process.log)));
    let exit = exit_of(process.child.status());
    tokio::pin!(pump, exit);
    tokio::select! {
        biased;
        _ = &mut pump => return exit.await,
        status = &mut exit => {
            tokio::select! {
                biased;
                () = process.released.cancelled() => {}
                _ = &mut pump => return status,
            }
        }
    }
    // Released after the exit. The unfinished pump has left nothing in between.
    for source in sources {
        source.drain(&process.log).await;
    }
    exit_of(process.child.status()).await
}

async fn exit_of(mut status: watch::Receiver<Option<ExitStatus>>) -> ExitStatus {
    match status.wait_for(Option::is_some).await {
        Ok(status) => status.unwrap_or(ExitStatus::Lost),
        // The sender lives as long as the child that we hold.
        Err(_closed) => ExitStatus::Lost,
    }
}
