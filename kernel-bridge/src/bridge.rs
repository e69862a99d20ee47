//! The registry of contexts.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{OnceCell, mpsc, oneshot},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    context::{Command, Context, ContextRequest},
    kernel::{Launcher, StartError, check_cwd},
    kernelspec::{self, KernelSpec},
    python::Startup,
    spawner::Spawner,
    worker::Worker,
};

/// How long [`Bridge::shutdown`] waits for kernels that were killed.
const SHUTDOWN_LIMIT: Duration = Duration::from_millis(45);

/// Where kernels come from and where their sockets live.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folders that hold `<name>/kernel.json`; the first one that knows a name wins.
    pub kernel_dirs: Vec<PathBuf>,
    /// A folder of our own that the kernels' user can pass through, with a path short enough for sockets.
    pub runtime_dir: PathBuf,
}

/// All contexts and what they need. Clones are handles on the same bridge.
#[derive(Clone)]
pub struct Bridge {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    spawner: Arc<dyn Spawner>,
    startup: OnceCell<Startup>,
    /// In order of creation.
    contexts: Mutex<Vec<Context>>,
    shutdown: CancellationToken,
    workers: TaskTracker,
}

/// Why a context was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// No kernelspec of this name is installed.
    #[error("no kernel named {name:?} is installed")]
    UnknownKernel {
        /// The name that was asked for.
        name: String,
    },
    /// The working directory is not a directory, or not an absolute path.
    #[error("cannot use {} as the working directory: {source}", path.display())]
    BadCwd {
        /// The directory that was asked for.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The process could not be started.
    #[error("kernel {name:?} cannot be started: {reason}")]
    Start {
        /// Name of the kernelspec.
        name: String,
        /// Why, in words.
        reason: String,
    },
    /// The process was started, and ended or stayed silent.
    #[error("kernel {name:?} did not become ready: {reason}")]
    NotReady {
        /// Name of the kernelspec.
        name: String,
        /// Why, in words, with the last lines that the kernel wrote.
        reason: String,
    },
    /// [`Bridge::shutdown`] was called.
    #[error("kernels are being shut down")]
    ShuttingDown,
}

/// Why something could not be done to a context.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// No context has this id, or no longer.
    #[error("there is no such context")]
    NotFound,
    /// The new kernel did not start.
    #[error("{reason}")]
    Failed {
        /// Why, in words.
        reason: String,
    },
}

impl Bridge {
    /// A bridge without contexts.
    #[must_use]
    pub fn new(config: Config, spawner: Arc<dyn Spawner>) -> Self {
        let inner = Inner {
            config,
            spawner,
            startup: OnceCell::new(),
            contexts: Mutex::default(),
            shutdown: CancellationToken::new(),
            workers: TaskTracker::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The installed kernels, by name.
    #[must_use]
    pub fn specs(&self) -> Vec<KernelSpec> {
        kernelspec::installed(&self.inner.config.kernel_dirs).into_values().collect()
    }

    /// Whether [`Bridge::create`] would find a kernel by this name.
    #[must_use]
    pub fn has_kernel(&self, name: &str) -> bool {
        kernelspec::find(&self.inner.config.kernel_dirs, name).is_some()
    }

    /// Creates a context and waits until its kernel is ready. Dropping the future ends the kernel.
    ///
    /// # Errors
    /// No such kernel, no such directory, or a kernel that does not start.
    pub async fn create(&self, request: ContextRequest) -> Result<Context, CreateError> {
        let ContextRequest { kernel: name, language, cwd, env } = request;
        let Some(spec) = kernelspec::find(&self.inner.config.kernel_dirs, &name) else {
            return Err(CreateError::UnknownKernel { name });
        };
        check_cwd(&cwd).map_err(|source| CreateError::BadCwd { path: cwd.clone(), source })?;
        let mut launcher = Launcher {
            spawner: Arc::clone(&self.inner.spawner),
            runtime_dir: self.inner.config.runtime_dir.clone(),
            spec: Arc::new(spec),
            cwd: cwd.clone(),
            env,
        };
        if launcher.spec.is_python() {
            let startup = self.startup().await;
            let startup =
                startup.map_err(|error| CreateError::Start { name: name.clone(), reason: error.to_string() })?;
            for (key, value) in startup.env() {
                // Matplotlib's settings are the user's business; IPython's folder is how a kernel finds us.
                if key == "IPYTHONDIR" || launcher.env.iter().all(|(known, _)| *known != key) {
                    launcher.env.push((key, value));
                }
            }
        }
        let started = tokio::select! {
            started = launcher.start() => started,
            () = self.inner.shutdown.cancelled() => return Err(CreateError::ShuttingDown),
        };
        let kernel = started.map_err(|error| {
            let reason = error.to_string();
            match error {
                StartError::Connection(_) | StartError::Spawn { .. } => CreateError::Start { name, reason },
                StartError::Channel(_) | StartError::Exited { .. } | StartError::Silent { .. } => {
                    CreateError::NotReady { name, reason }
                }
            }
        })?;
        let (inbox, commands) = mpsc::unbounded_channel();
        let context = Context::new(Uuid::new_v4().to_string(), language, cwd, inbox);
        self.contexts().push(context.clone());
        let listed = Listed { inner: Arc::downgrade(&self.inner), id: context.id().to_owned() };
        let worker = Worker::new(launcher, commands, self.inner.shutdown.clone());
        self.inner.workers.spawn(async move {
            let _listed = listed;
            worker.run(kernel).await;
        });
        Ok(context)
    }

    /// The context with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Context> {
        self.contexts().iter().find(|context| context.id() == id).cloned()
    }

    /// All contexts in the order of their creation.
    #[must_use]
    pub fn list(&self) -> Vec<Context> {
        self.contexts().clone()
    }

    /// Replaces the kernel of a context and waits until the new one is ready. Id, working directory,
    /// environment and position in the list stay; running and waiting executions end with
    /// [`Ending::Restarted`](crate::Ending::Restarted).
    ///
    /// # Errors
    /// No such context, or a kernel that does not start; the context stays and starts a kernel when it is
    /// needed.
    pub async fn restart(&self, id: &str) -> Result<(), ContextError> {
        let context = self.get(id).ok_or(ContextError::NotFound)?;
        let (reply, answer) = oneshot::channel();
        context.send(Command::Restart(reply)).map_err(|_| ContextError::NotFound)?;
        let outcome = answer.await.map_err(|_| ContextError::NotFound)?;
        outcome.map_err(|reason| ContextError::Failed { reason })
    }

    /// Removes a context and waits until its kernel is gone. Running and waiting executions end with
    /// [`Ending::Deleted`](crate::Ending::Deleted).
    ///
    /// # Errors
    /// No such context.
    pub async fn delete(&self, id: &str) -> Result<(), ContextError> {
        let context = {
            let mut contexts = self.contexts();
            let index = contexts.iter().position(|context| context.id() == id).ok_or(ContextError::NotFound)?;
            contexts.remove(index)
        };
        let (reply, answer) = oneshot::channel();
        context.send(Command::Delete(reply)).map_err(|_| ContextError::NotFound)?;
        // A worker that vanished without an answer has taken its kernel with it.
        let _ = answer.await;
        Ok(())
    }

    /// Ends all kernels within 50 ms, by force if need be. No context can be created afterwards.
    pub async fn shutdown(&self) {
        self.inner.shutdown.cancel();
        self.contexts().clear();
        self.inner.workers.close();
        if timeout(SHUTDOWN_LIMIT, self.inner.workers.wait()).await.is_err() {
            tracing::warn!("some kernels have not ended yet");
        }
    }

    async fn startup(&self) -> io::Result<&Startup> {
        let write = async || Startup::write(&self.inner.config.runtime_dir, self.inner.spawner.as_ref());
        self.inner.startup.get_or_try_init(write).await
    }

    fn contexts(&self) -> MutexGuard<'_, Vec<Context>> {
        self.inner.contexts()
    }
}

impl Inner {
    fn contexts(&self) -> MutexGuard<'_, Vec<Context>> {
        // Nothing that runs under this lock can leave the list in a bad state.
        self.contexts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a context out of the list when its worker is gone, however that came: nobody would serve it any more.
struct Listed {
    inner: Weak<Inner>,
    id: String,
}

impl Drop for Listed {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.upgrade() {
            inner.contexts().retain(|context| context.id() != self.id);
        }
    }
}
