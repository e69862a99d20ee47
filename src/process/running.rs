//! One started program, from the clone to its last event.
//!
//! [`follow`] is the task behind each process. The process ends for its clients when it has been reaped *and* its
//! output has ended. A background child that keeps the output open keeps the stream open; a SIGTERM or SIGKILL
//! through the service, or the deadline, is the wish not to wait for such children: then what is in the pipes is
//! still delivered, and the end follows.

use std::{
    io,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    details::end_event,
    error::ProcessError,
    input::{Input, InputFailure},
    limit::{Limit, Outcome},
    output::OutputLog,
    pty::Terminal,
    reap::Child,
    signals::{self, Scope},
    source::Source,
    status::Ended,
    table::Table,
};
use crate::{
    proto::process::{ProcessConfig, ProcessInfo, SpawnFailure, process_event::EndEvent, process_input, pty},
    system::cgroup::ControlGroup,
};

/// How long an answer to SIGKILL waits for the process to be gone. One that the kernel cannot interrupt, such as in a
/// read from a server that is silent, goes later.
const KILL_PATIENCE: Duration = Duration::from_secs(3);

/// A process that was started through the service.
pub(super) struct Process {
    /// Orders processes by their start; never reused, as pids are.
    pub(super) serial: u64,
    pub(super) config: ProcessConfig,
    pub(super) tag: Option<String>,
    pub(super) log: Arc<OutputLog>,
    pub(super) started_at: SystemTime,
    /// The last event, once everything was told.
    pub(super) end: OnceLock<EndEvent>,
    child: Arc<Child>,
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
    pub(super) input: Input,
    pub(super) terminal: Option<Terminal>,
}

impl Process {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { serial, config, tag, log, child, input, terminal } = parts;
        let (started_at, end, released) = (SystemTime::now(), OnceLock::new(), CancellationToken::new());
        Self { serial, config, tag, log, started_at, end, child, input, terminal, released }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.pid()
    }

    pub(super) fn info(&self) -> ProcessInfo {
        ProcessInfo { config: Some(self.config.clone()), pid: self.pid(), tag: self.tag.clone(), details: None }
    }

    /// Writes to standard input or the terminal, until the deadline.
    pub(super) async fn write(
        &self,
        input: process_input::Input,
        deadline: Option<Instant>,
    ) -> Result<(), ProcessError> {
        let pid = self.pid();
        let (bytes, tty) = match input {
            process_input::Input::Pty(_) if self.terminal.is_none() => return Err(ProcessError::NoTerminal),
            process_input::Input::Stdin(_) if self.terminal.is_some() => return Err(ProcessError::IsTerminal),
            process_input::Input::Stdin(bytes) => (bytes, false),
            process_input::Input::Pty(bytes) => (bytes, true),
        };
        // What write(2) says where nobody is left to read.
        let nobody = |tty| io::Error::from_raw_os_error(if tty { libc::EIO } else { libc::EPIPE });
        let source = match self.input.write(&bytes, deadline).await {
            Ok(()) => return Ok(()),
            Err(InputFailure::Late(written)) => return Err(ProcessError::InputDeadline { written }),
            Err(InputFailure::Crowded(waiting)) => return Err(ProcessError::InputQueue { pid, waiting }),
            Err(InputFailure::Closed) if !tty => return Err(ProcessError::StdinClosed),
            Err(InputFailure::Closed | InputFailure::Gone) => nobody(tty),
            Err(InputFailure::Io(source)) => source,
        };
        Err(if tty { ProcessError::WriteTerminal { pid, source } } else { ProcessError::WriteStdin { pid, source } })
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

    /// Sends a signal. SIGTERM and SIGKILL release the wait for its background children, and SIGKILL is answered when the
    /// process has been reaped, within [`KILL_PATIENCE`].
    pub(super) async fn signal(self: &Arc<Self>, signal: i32, scope: Scope) -> Result<(), ProcessError> {
        let process = self.clone();
        let then = move || {
            if signals::releases(signal) {
                process.release();
            }
        };
        signals::send(self.child.clone(), signal, scope, then).await.map_err(ProcessError::Signal)?;
        if signal == libc::SIGKILL && timeout(KILL_PATIENCE, self.child.ended()).await.is_err() {
            tracing::debug!(pid = self.pid(), "the process does not end at once");
        }
        Ok(())
    }

    /// Sends a signal because of the time limit.
    pub(super) async fn limit_signal(&self, signal: i32, scope: Scope) {
        if let Err(error) = signals::send(self.child.clone(), signal, scope, || ()).await {
            tracing::warn!(pid = self.pid(), signal, %error, "cannot end the process at its time limit");
        }
    }

    /// Nobody waits any more for who else holds the output open.
    pub(super) fn release(&self) {
        self.released.cancel();
    }

    /// Whether it is gone for everybody who asks: reaped, and nobody waits for who else holds its output open. Its last
    /// output may still be on the way into the log.
    pub(super) fn is_gone(&self) -> bool {
        self.child.is_reaped() && self.released.is_cancelled()
    }

    pub(super) fn is_reaped(&self) -> bool {
        self.child.is_reaped()
    }

    /// Why its program was not executed.
    pub(super) fn spawn_failure(&self) -> Option<&SpawnFailure> {
        self.child.spawn_failure()
    }

    /// The control group that it was started in.
    pub(super) fn control_group(&self) -> Option<&Arc<ControlGroup>> {
        self.child.control_group()
    }

    /// Whether its number may have been somebody else's before this call.
    pub(super) fn was_reaped(&self) -> bool {
        self.child.reaped_at().is_some()
    }

    /// What is known once it has been reaped.
    pub(super) fn ended(&self) -> Option<Ended> {
        self.child.has_ended()
    }

    /// Lets go of every descriptor but that of the child.
    fn close(&self) {
        self.input.abandon();
        if let Some(terminal) = &self.terminal {
            terminal.close();
        }
    }
}

/// Carries the output of the process into its log, ends it at its limit, and publishes its end.
pub(super) async fn follow(process: Arc<Process>, sources: Vec<Source>, limit: Option<Limit>, table: Table) {
    let Outcome { ended, exceeded, rest } = {
        let over = over(&process, &sources);
        tokio::pin!(over);
        match limit {
            None => Outcome { ended: over.await, exceeded: false, rest: None },
            Some(limit) => limit.enforce(&process, over).await,
        }
    };
    drop(sources);
    process.close();
    tracing::debug!(pid = process.pid(), status = %ended.status, exceeded, "process ended");
    let end = end_event(&process, &ended, exceeded);
    process.end.get_or_init(|| end.clone());
    if let Some(group) = process.control_group() {
        // Once its last member has gone.
        group.release();
    }
    // First out of the table, then the news: whoever sees the end no longer finds the process.
    table.retire(&process);
    process.log.finish(end);
    if let Some(rest) = rest {
        rest.kill(&process).await;
    }
    process.child.forget();
}

/// Completes when the process is reaped and its output is in the log.
async fn over(process: &Process, sources: &[Source]) -> Ended {
    let pump = join_all(sources.iter().map(|source| source.pump(&process.log)));
    let exit = process.child.ended();
    tokio::pin!(pump, exit);
    tokio::select! {
        biased;
        _ = &mut pump => return exit.await,
        ended = &mut exit => {
            tokio::select! {
                biased;
                () = process.released.cancelled() => {}
                _ = &mut pump => return ended,
            }
        }
    }
    // Released after the exit. The unfinished pump has left nothing in between.
    for source in sources {
        source.drain(&process.log).await;
    }
    process.child.ended().await
}
