//! Code kernels as processes of the agent: started as the default user through the one spawn function, reaped by
//! the one reaper, and not listed among the processes of the service.

use std::{ffi::OsString, fs::OpenOptions, io, os::fd::AsFd, path::Path, sync::Arc};

use kernel_bridge::{KernelCommand, KernelProcess, Spawner, spawner::BoxFuture};

use super::{
    Processes,
    environment::base_variables,
    reap::Child,
    spawn::{Program, spawn},
    start::open_null,
};
use crate::{
    sys::spawn::Leads,
    system::{blocking, caller::caller, identity::User},
};

/// Starts kernels for the bridge.
#[derive(Clone)]
pub struct KernelSpawner {
    processes: Processes,
}

impl KernelSpawner {
    /// Starts kernels beside the given processes.
    pub fn new(processes: Processes) -> Self {
        Self { processes }
    }

    fn user(&self) -> io::Result<Arc<User>> {
        let inner = &self.processes.inner;
        caller(&http::Extensions::new(), &inner.identity, &inner.settings).map_err(io::Error::other)
    }

    fn start(&self, command: &KernelCommand) -> io::Result<Arc<Child>> {
        let user = self.user()?;
        let log = OpenOptions::new().create(true).append(true).open(&command.log)?;
        let null = open_null().map_err(io::Error::other)?;
        let mut variables = base_variables(&user, &command.cwd, self.processes.inner.settings.environment());
        variables.extend(command.env.iter().cloned());
        let Some((name, args)) = command.argv.split_first() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the kernel has no command line"));
        };
        let program = Program {
            name,
            args,
            variables: &variables,
            cwd: &command.cwd,
            user: &user,
            stdio: [null.as_fd(), log.as_fd(), log.as_fd()],
            leads: Leads::Session,
            limits: &[],
            control_group: None,
            must_exist: true,
        };
        spawn(&program, &self.processes.inner.reaper).map_err(|error| {
            let name = OsString::from(name);
            io::Error::other(format!("cannot start '{}': {error}", name.display()))
        })
    }
}

impl Spawner for KernelSpawner {
    fn spawn(&self, command: KernelCommand) -> BoxFuture<'_, io::Result<Box<dyn KernelProcess>>> {
        let spawner = self.clone();
        Box::pin(async move {
            let started = blocking::run(move || spawner.start(&command)).await;
            let child = started.map_err(io::Error::other)??;
            Ok(Box::new(Kernel { child }) as Box<dyn KernelProcess>)
        })
    }

    fn give(&self, path: &Path) -> io::Result<()> {
        if !rustix::process::geteuid().is_root() {
            // The agent serves nobody but itself.
            return Ok(());
        }
        let user = self.user()?;
        std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid))
    }
}

struct Kernel {
    child: Arc<Child>,
}

impl KernelProcess for Kernel {
    fn pid(&self) -> u32 {
        self.child.pid()
    }

    fn exited(&self) -> BoxFuture<'static, String> {
        let child = self.child.clone();
        Box::pin(async move { child.ended().await.status.to_string() })
    }

    fn signal_group(&self, signal: i32) -> io::Result<()> {
        self.child.signal_group(signal)
    }
}
