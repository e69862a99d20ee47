//! Commands and terminals.
//!
//! * [`service`](ProcessService): the methods that clients call.
//! * `start`: from a request to a listed process. `environment`: what it sees. `resources`: how much it may take.
//! * `spawn`: the one place that starts programs, also the kernels of code cells ([`KernelSpawner`]). `failure`: why it
//!   did not.
//! * `reap`: the one place that waits for them. `status`, `usage`, `details`: how an end is told, and what it has cost.
//! * `signals`, `tree`: whom a signal reaches. `limit`: how long a process may run. `procfs`: what proc(5) says.
//! * `running`: the life of one process. `table`: all of them, by pid and tag.
//! * `source`: reads pipes and terminals. `log`, `output`: what was read, until every client has it and a while longer.
//! * `stream`: what one client sees. `json`: the short way of output into a JSON frame.
//! * `input`, `pty`: standard input and terminals.
//!
//! A client can leave at any time without harm to the process, and a process ends for its clients only with a reaped
//! status. Payloads, arguments and environments are never logged.

mod details;
mod environment;
mod error;
mod failure;
mod input;
mod json;
mod kernel;
mod limit;
mod log;
mod output;
mod procfs;
mod pty;
mod reap;
mod resources;
mod running;
mod service;
mod signals;
mod source;
mod spawn;
mod start;
mod status;
mod stream;
mod table;
mod tree;
mod usage;

use std::{fmt, io, sync::Arc};

use tokio_util::sync::CancellationToken;

use self::{input::Waiting, output::Memory, reap::Reaper, table::Table};
use crate::system::{cgroup::ControlGroups, identity::Identity, settings::Settings};

pub use self::{
    error::ProcessError,
    json::{encode_connect_data, encode_start_data},
    kernel::KernelSpawner,
    resources::LimitError,
    service::ProcessService,
    spawn::SpawnError,
    status::ExitStatus,
};

/// All processes of the agent; cheap to clone.
#[derive(Clone)]
pub struct Processes {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Identity,
    settings: Settings,
    reaper: Reaper,
    table: Table,
    memory: Memory,
    control_groups: ControlGroups,
    waiting_input: Waiting,
    shutdown: CancellationToken,
}

impl Processes {
    /// No processes yet, and control groups where they usually are. Needs a tokio runtime, where the reaper runs.
    ///
    /// # Errors
    /// When the reaper cannot listen for ended children.
    pub fn start(identity: Identity, settings: Settings) -> io::Result<Self> {
        Self::with_control_groups(identity, settings, ControlGroups::default())
    }

    /// As [`Processes::start`], with control groups elsewhere or not at all.
    ///
    /// # Errors
    /// As [`Processes::start`].
    pub fn with_control_groups(
        identity: Identity,
        settings: Settings,
        control_groups: ControlGroups,
    ) -> io::Result<Self> {
        let memory = Memory::default();
        let inner = Inner {
            identity,
            settings,
            reaper: Reaper::start()?,
            table: Table::new(memory.clone()),
            memory,
            control_groups,
            waiting_input: Waiting::default(),
            shutdown: CancellationToken::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Ends the streams of all clients, now and from now on, with an error that says why. The processes run on.
    pub fn shutdown(&self) {
        self.inner.shutdown.cancel();
    }
}

impl fmt::Debug for Processes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Processes").field("live", &self.inner.table.live().len()).finish_non_exhaustive()
    }
}
