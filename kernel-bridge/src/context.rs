//! Contexts: what a client holds while kernels come and go.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::{mpsc, oneshot};

use crate::{
    event::Ending,
    outbox::{self, Execution, Outbox},
};

/// What a new context shall be.
#[derive(Clone, Debug)]
pub struct ContextRequest {
    /// Name of the kernelspec; `python` is also served by the spec `python3`.
    pub kernel: String,
    /// How the context calls its language; only a label.
    pub language: String,
    /// Working directory of all its kernels, absolute.
    pub cwd: PathBuf,
    /// Environment of all its kernels, on top of the kernelspec's and of what the spawner gives.
    pub env: Vec<(OsString, OsString)>,
}

/// Code to run.
#[derive(Clone, Debug, Default)]
pub struct ExecuteRequest {
    /// The code, sent as it is.
    pub code: String,
    /// Environment variables for the time of this execution. Python kernels only; others do not see them.
    pub env: BTreeMap<String, String>,
}

/// A handle on a context: a language, a working directory, an environment, one queue, and whatever kernel
/// process serves them at the moment.
#[derive(Clone)]
pub struct Context {
    shared: Arc<Shared>,
}

struct Shared {
    id: String,
    language: String,
    cwd: PathBuf,
    inbox: mpsc::UnboundedSender<Command>,
}

/// What a context's worker is told.
pub(crate) enum Command {
    /// Run this when its turn comes.
    Execute(Job),
    /// Replace the kernel; answered when the new one is ready.
    Restart(oneshot::Sender<Result<(), String>>),
    /// End everything; answered when the kernel is gone.
    Delete(oneshot::Sender<()>),
}

/// A waiting or running execution.
pub(crate) struct Job {
    pub(crate) request: ExecuteRequest,
    pub(crate) outbox: Outbox,
    /// How many kernels could not even be told about it.
    pub(crate) failed_sends: u32,
}

impl Context {
    pub(crate) fn new(id: String, language: String, cwd: PathBuf, inbox: mpsc::UnboundedSender<Command>) -> Self {
        Self { shared: Arc::new(Shared { id, language, cwd, inbox }) }
    }

    /// The id, which outlives the kernel process.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// The label that the context was created with.
    #[must_use]
    pub fn language(&self) -> &str {
        &self.shared.language
    }

    /// The working directory that kernels start in.
    #[must_use]
    pub fn cwd(&self) -> &Path {
        &self.shared.cwd
    }

    /// Queues an execution behind those that came before.
    #[must_use = "dropping an execution cancels it"]
    pub fn execute(&self, request: ExecuteRequest) -> Execution {
        let (outbox, execution) = outbox::channel();
        if let Err(refused) = self.send(Command::Execute(Job { request, outbox, failed_sends: 0 }))
            && let Command::Execute(job) = refused
        {
            job.outbox.end(Ending::Deleted);
        }
        execution
    }

    /// Hands a command to the worker; returns it when the worker is gone.
    pub(crate) fn send(&self, command: Command) -> Result<(), Command> {
        self.shared.inbox.send(command).map_err(|refused| refused.0)
    }
}
