//! One kernel process: start, readiness, interrupt, end.

use std::{
    collections::HashSet,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout};
use zeromq::ZmqError;

use crate::{
    channels::{Channels, Incoming},
    connection::Connection,
    kernelspec::{InterruptMode, KernelSpec},
    spawner::{BoxFuture, KernelCommand, KernelProcess, Spawner},
    wire::{Message, Request},
};

const SIGINT: i32 = 2;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// How long a kernel may take until it answers. Java and R on a busy small machine need many seconds.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// How often `kernel_info_request` is repeated until the kernel answers.
const PROBE_INTERVAL: Duration = Duration::from_millis(150);

/// A kernel that has answered this long ago and still was not heard on iopub is taken as it is.
const IOPUB_LIMIT: Duration = Duration::from_secs(3);

/// How long a process that has been told to go may take before the next, harder way.
const TERM_LIMIT: Duration = Duration::from_millis(200);
const KILL_LIMIT: Duration = Duration::from_secs(2);

/// How long iopub must be silent after the process's end before its last words are complete. What a dead
/// process has written is in our socket already; this is for the runtime to notice.
const LAST_WORDS: Duration = Duration::from_millis(5);

/// Why a kernel did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// Its folder or connection file could not be made.
    #[error("cannot prepare the connection file: {0}")]
    Connection(#[source] io::Error),
    /// The process could not be started.
    #[error("cannot start {program}: {source}")]
    Spawn {
        /// First word of the command line.
        program: String,
        /// What the spawner said.
        source: io::Error,
    },
    /// A socket failed.
    #[error("cannot connect to the kernel: {0}")]
    Channel(#[from] ZmqError),
    /// The process ended before it was ready.
    #[error("the kernel ended while starting ({status}){}", hint(log))]
    Exited {
        /// How it ended.
        status: String,
        /// The last lines that it wrote.
        log: String,
    },
    /// The process did not answer in time.
    #[error("the kernel did not answer within {} s{}", READY_LIMIT.as_secs(), hint(log))]
    Silent {
        /// The last lines that it wrote.
        log: String,
    },
}

fn hint(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!(": {log}") }
}

/// All that a context needs to start its kernels.
#[derive(Clone)]
pub(crate) struct Launcher {
    pub(crate) spawner: Arc<dyn Spawner>,
    pub(crate) runtime_dir: PathBuf,
    pub(crate) spec: Arc<KernelSpec>,
    pub(crate) cwd: PathBuf,
    pub(crate) env: Vec<(OsString, OsString)>,
}

/// What a ready kernel has to say.
pub(crate) enum KernelEvent {
    /// A message on iopub.
    Iopub(Message),
    /// A message on shell.
    Shell(Message),
    /// The process is gone; the sentence says how it ended.
    Exited(String),
    /// The process may live, but it cannot be talked to any more.
    Broken,
}

/// A kernel that is ready. Dropping it kills the process group and removes its sockets.
pub(crate) struct Kernel {
    channels: Channels,
    process: Process,
    exited: BoxFuture<'static, String>,
    interrupt_mode: InterruptMode,
    _connection: Connection,
}

/// Kills the group when dropped, so that no path out of here leaves a kernel behind.
struct Process(Box<dyn KernelProcess>);

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(SIGKILL);
    }
}

impl Process {
    fn signal(&self, signal: i32) {
        if let Err(error) = self.0.signal_group(signal) {
            tracing::warn!(pid = self.0.pid(), signal, %error, "cannot signal a kernel");
        }
    }
}

impl Launcher {
    /// Starts a kernel and waits until it is ready: it has answered on shell and was heard on iopub, so that
    /// nothing that it says from now on can be missed.
    pub(crate) async fn start(&self) -> Result<Kernel, StartError> {
        let connection = Connection::create(&self.runtime_dir, &self.spec.name, self.spawner.as_ref())
            .map_err(StartError::Connection)?;
        let process = self.spawn(&connection).await?;
        let mut exited = process.0.exited();
        let ready = async {
            let mut channels = Channels::connect(&connection).await?;
            handshake(&mut channels).await?;
            Ok::<_, ZmqError>(channels)
        };
        let channels = tokio::select! {
            ready = timeout(READY_LIMIT, ready) => match ready {
                Ok(channels) => channels?,
                Err(_) => return Err(StartError::Silent { log: connection.log_tail() }),
            },
            status = &mut exited => return Err(StartError::Exited { status, log: connection.log_tail() }),
        };
        tracing::debug!(pid = process.0.pid(), kernel = %self.spec.name, "kernel ready");
        Ok(Kernel { channels, process, exited, interrupt_mode: self.spec.interrupt_mode, _connection: connection })
    }

    async fn spawn(&self, connection: &Connection) -> Result<Process, StartError> {
        let mut env: Vec<_> = self.spec.env.iter().map(|(key, value)| (key.into(), value.into())).collect();
        env.extend(self.env.iter().cloned());
        let mut argv = self.spec.command_line(&connection.file());
        let command =
            KernelCommand { argv: argv.clone(), env, cwd: self.cwd.clone(), log: connection.log().to_owned() };
        let mut spawned = spawn(&self.spawner, command.clone()).await;
        // Many systems call their only Python `python3`.
        if let (Err(error), Some(program)) = (&spawned, argv.first_mut())
            && error.kind() == io::ErrorKind::NotFound
            && program == "python"
        {
            *program = "python3".into();
            spawned = spawn(&self.spawner, KernelCommand { argv, ..command }).await;
        }
        spawned.map_err(|source| StartError::Spawn {
            program: self.spec.argv.first().cloned().unwrap_or_default(),
            source,
        })
    }
}

/// Spawns in a task of its own: whoever waits for it may go away in between, and the process must not stay.
async fn spawn(spawner: &Arc<dyn Spawner>, command: KernelCommand) -> io::Result<Process> {
    let spawner = Arc::clone(spawner);
    let spawned = tokio::spawn(async move { spawner.spawn(command).await.map(Process) });
    spawned.await.map_err(io::Error::other)?
}

async fn handshake(channels: &mut Channels) -> Result<(), ZmqError> {
    let mut probes = HashSet::new();
    let mut next_probe = Instant::now();
    let mut answered: Option<Instant> = None;
    let mut heard = false;
    loop {
        let ours = |message: &Message, probes: &HashSet<String>| {
            message.parent.as_ref().is_some_and(|parent| probes.contains(parent))
        };
        tokio::select! {
            () = sleep_until(next_probe) => {
                if answered.is_some_and(|since| since.elapsed() > IOPUB_LIMIT) {
                    tracing::warn!("a kernel is not heard on iopub; going on without");
                    return Ok(());
                }
                let probe = Request::new("kernel_info_request", json!({}));
                channels.send_shell(&probe).await?;
                probes.insert(probe.id);
                next_probe = Instant::now() + PROBE_INTERVAL;
            }
            incoming = channels.next(true) => match incoming {
                Incoming::Shell(message) if ours(&message, &probes) => {
                    answered = answered.or_else(|| Some(Instant::now()));
                }
                Incoming::Iopub(message) => {
                    heard |= message.kind == "iopub_welcome" || (message.kind == "status" && ours(&message, &probes));
                }
                Incoming::Shell(_) => {}
                // The process's end says more than its sockets do.
                Incoming::Broken => std::future::pending().await,
            },
        }
        if answered.is_some() && heard {
            return Ok(());
        }
    }
}

impl Kernel {
    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.0.pid()
    }

    /// The next thing that happens; losing this future loses nothing.
    pub(crate) async fn next(&mut self, read_iopub: bool) -> KernelEvent {
        tokio::select! {
            incoming = self.channels.next(read_iopub) => match incoming {
                Incoming::Iopub(message) => KernelEvent::Iopub(message),
                Incoming::Shell(message) => KernelEvent::Shell(message),
                Incoming::Broken => KernelEvent::Broken,
            },
            status = &mut self.exited => {
                self.exited = self.process.0.exited();
                KernelEvent::Exited(status)
            }
        }
    }

    /// What a process that has ended still had to say.
    pub(crate) async fn last_words(&mut self) -> Option<KernelEvent> {
        match timeout(LAST_WORDS, self.channels.next(true)).await {
            Ok(Incoming::Iopub(message)) => Some(KernelEvent::Iopub(message)),
            Ok(Incoming::Shell(message)) => Some(KernelEvent::Shell(message)),
            Ok(Incoming::Broken) => Some(KernelEvent::Broken),
            Err(_) => None,
        }
    }

    /// Sends a request on shell.
    pub(crate) async fn send(&mut self, request: &Request) -> Result<(), ZmqError> {
        self.channels.send_shell(request).await
    }

    /// Interrupts the running cell the way the kernelspec says, and the other way too when that was not
    /// enough.
    pub(crate) async fn interrupt(&mut self, escalate: bool) {
        if escalate || self.interrupt_mode == InterruptMode::Message {
            let request = Request::new("interrupt_request", json!({}));
            if let Err(error) = self.channels.send_control(&request).await {
                tracing::debug!(%error, "cannot interrupt on control");
            }
        }
        if escalate || self.interrupt_mode == InterruptMode::Signal {
            self.process.signal(SIGINT);
        }
    }

    /// Ends the process: asks it, then SIGTERM, then SIGKILL, each to the whole group. Returns when it is
    /// gone.
    pub(crate) async fn stop(mut self, patience: Duration) {
        let request = Request::new("shutdown_request", json!({"restart": false}));
        if !patience.is_zero() && self.channels.send_control(&request).await.is_ok() && self.gone(patience).await {
            return;
        }
        self.process.signal(SIGTERM);
        if !self.gone(TERM_LIMIT).await {
            self.kill().await;
        }
    }

    /// Kills the process group and waits for its end.
    pub(crate) async fn kill(mut self) {
        self.process.signal(SIGKILL);
        if !self.gone(KILL_LIMIT).await {
            tracing::warn!(pid = self.pid(), "a killed kernel does not go away");
        }
    }

    /// Waits for the process's end and leaves unread what it has said.
    pub(crate) async fn ended(&mut self, limit: Duration) {
        let _ = timeout(limit, self.process.0.exited()).await;
    }

    /// Waits for the process's end, forgets what it says meanwhile, and tells whether the end came in time.
    pub(crate) async fn gone(&mut self, limit: Duration) -> bool {
        let exited = async {
            loop {
                match self.next(true).await {
                    KernelEvent::Exited(_) => return,
                    KernelEvent::Broken => return drop(self.process.0.exited().await),
                    KernelEvent::Iopub(_) | KernelEvent::Shell(_) => {}
                }
            }
        };
        timeout(limit, exited).await.is_ok()
    }
}

/// Whether a directory can be a kernel's working directory.
pub(crate) fn check_cwd(cwd: &Path) -> io::Result<()> {
    if !cwd.is_absolute() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not an absolute path"));
    }
    if std::fs::metadata(cwd)?.is_dir() { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) }
}
