//! The task behind a context: one queue, one kernel at a time, and the rules of who is told what.

mod conversation;

use std::{collections::VecDeque, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cell::Reply,
    context::{Command, Job},
    event::{Ending, ErrorReport, Event},
    kernel::{Kernel, KernelEvent, Launcher},
    python,
};

/// How long an idle kernel may take to leave on request.
const STOP_PATIENCE: Duration = Duration::from_millis(800);

/// How long a kernel that said it will exit, or has closed its sockets, may take to do so.
const EXIT_PATIENCE: Duration = Duration::from_secs(1);

/// What is left of a kernel at the agent's end: SIGTERM, this long, SIGKILL.
const SHUTDOWN_PATIENCE: Duration = Duration::from_millis(20);

/// A kernel that lived this long did not die of its start.
const STABLE_AFTER: Duration = Duration::from_secs(30);

/// After this many deaths in a row without any execution, a kernel is only started when somebody needs it.
const IDLE_DEATHS_MAX: u32 = 6;

/// A request can fail to be sent to this many kernels.
const FAILED_SENDS_MAX: u32 = 2;

pub(crate) struct Worker {
    launcher: Launcher,
    inbox: mpsc::UnboundedReceiver<Command>,
    shutdown: CancellationToken,
    queue: VecDeque<Job>,
    /// Who waits for a restart to be complete.
    restarts: Vec<oneshot::Sender<Result<(), String>>>,
    /// Kernels that died in a row without having run anything.
    idle_deaths: u32,
    /// The last start failed: no further one until somebody asks.
    dormant: bool,
    /// An order that arrived while another one was carried out.
    deferred: Option<Order>,
}

/// What interrupts whatever a worker does.
enum Order {
    Restart(oneshot::Sender<Result<(), String>>),
    Delete(Option<oneshot::Sender<()>>),
    Shutdown,
}

/// Why a kernel is no longer used.
enum Leave {
    /// Somebody wants it so; `busy` kernels are not asked politely.
    Order { order: Order, busy: bool },
    /// The process has ended.
    Dead,
    /// The process cannot be talked to; the request at hand was not sent.
    Unsent,
    /// The process does not stop what it does.
    Stuck,
    /// The process has announced its end.
    Exiting,
}

impl Worker {
    pub(crate) fn new(
        launcher: Launcher,
        inbox: mpsc::UnboundedReceiver<Command>,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            launcher,
            inbox,
            shutdown,
            queue: VecDeque::new(),
            restarts: Vec::new(),
            idle_deaths: 0,
            dormant: false,
            deferred: None,
        }
    }

    /// Serves the context until it is deleted or everything ends.
    pub(crate) async fn run(mut self, kernel: Kernel) {
        let mut current = Some(kernel);
        loop {
            let (order, kernel, busy) = match current.take() {
                Some(mut kernel) => match self.serve(&mut kernel).await {
                    Leave::Order { order, busy } => (order, Some(kernel), busy),
                    leave => {
                        self.retire(kernel, &leave).await;
                        continue;
                    }
                },
                None => match self.revive().await {
                    Ok(kernel) => {
                        current = kernel;
                        continue;
                    }
                    Err(order) => (order, None, false),
                },
            };
            match order {
                Order::Restart(reply) => {
                    self.restarts.push(reply);
                    self.end_all(Ending::Restarted);
                    self.stop(kernel, busy).await;
                    (self.dormant, self.idle_deaths) = (false, 0);
                }
                Order::Delete(reply) => {
                    self.end_all(Ending::Deleted);
                    self.stop(kernel, busy).await;
                    if let Some(reply) = reply {
                        let _ = reply.send(());
                    }
                    return;
                }
                Order::Shutdown => {
                    self.end_all(Ending::Deleted);
                    if let Some(kernel) = kernel {
                        let _ = timeout(SHUTDOWN_PATIENCE, kernel.stop(Duration::ZERO)).await;
                    }
                    return;
                }
            }
        }
    }

    /// Waits for a command. Executions are queued; everything else is for the caller.
    async fn command(&mut self) -> Option<Order> {
        if let Some(order) = self.deferred.take() {
            return Some(order);
        }
        let command = tokio::select! {
            command = self.inbox.recv() => command,
            () = self.shutdown.cancelled() => return Some(Order::Shutdown),
        };
        match command {
            Some(Command::Execute(job)) => {
                self.queue.retain(|job| !job.outbox.is_closed());
                self.queue.push_back(job);
                None
            }
            Some(Command::Restart(reply)) => Some(Order::Restart(reply)),
            Some(Command::Delete(reply)) => Some(Order::Delete(Some(reply))),
            None => Some(Order::Delete(None)),
        }
    }

    /// The next execution that somebody still waits for.
    fn next_job(&mut self) -> Option<Job> {
        while let Some(job) = self.queue.pop_front() {
            if !job.outbox.is_closed() {
                return Some(job);
            }
        }
        None
    }

    /// Ends all waiting executions, also those that were sent but not yet looked at.
    fn end_all(&mut self, ending: Ending) {
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Execute(job) => self.queue.push_back(job),
                Command::Restart(reply) => self.restarts.push(reply),
                Command::Delete(reply) => self.deferred = Some(Order::Delete(Some(reply))),
            }
        }
        for job in self.queue.drain(..) {
            job.outbox.end(ending);
        }
    }

    async fn stop(&mut self, kernel: Option<Kernel>, busy: bool) {
        let Some(kernel) = kernel else { return };
        let patience = if busy { Duration::ZERO } else { STOP_PATIENCE };
        tokio::select! {
            () = kernel.stop(patience) => {}
            () = self.shutdown.cancelled() => {}
        }
    }

    /// Gets rid of a kernel that is no longer of use.
    async fn retire(&mut self, mut kernel: Kernel, leave: &Leave) {
        let patience = match leave {
            Leave::Exiting => EXIT_PATIENCE,
            Leave::Dead | Leave::Unsent | Leave::Stuck | Leave::Order { .. } => Duration::ZERO,
        };
        let end = async {
            if patience.is_zero() || !kernel.gone(patience).await {
                kernel.kill().await;
            }
        };
        tokio::select! {
            () = end => {}
            () = self.shutdown.cancelled() => {}
        }
    }

    /// Starts a new kernel, at once after an accident, later when kernels keep dying for no reason, and only
    /// on demand when that does not help either. No kernel means that the start failed.
    async fn revive(&mut self) -> Result<Option<Kernel>, Order> {
        let on_demand = self.dormant || self.idle_deaths >= IDLE_DEATHS_MAX;
        while on_demand && self.restarts.is_empty() && self.queue.iter().all(|job| job.outbox.is_closed()) {
            if let Some(order) = self.command().await {
                return Err(order);
            }
        }
        let pause = match self.idle_deaths {
            0 | 1 => Duration::ZERO,
            deaths => Duration::from_millis(50 << deaths.min(IDLE_DEATHS_MAX)),
        };
        let launcher = self.launcher.clone();
        let mut start = Box::pin(async move {
            sleep(pause).await;
            launcher.start().await
        });
        loop {
            tokio::select! {
                started = &mut start => {
                    self.dormant = started.is_err();
                    let outcome = started.as_ref().map(drop).map_err(ToString::to_string);
                    for reply in self.restarts.drain(..) {
                        let _ = reply.send(outcome.clone());
                    }
                    if let Err(reason) = outcome {
                        tracing::warn!(kernel = %self.launcher.spec.name, reason, "a kernel was not restarted");
                        self.end_all(Ending::Unavailable);
                    }
                    return Ok(started.ok());
                }
                order = self.command() => match order {
                    // A start is under way already; nothing has run on it.
                    Some(Order::Restart(reply)) => {
                        self.restarts.push(reply);
                        self.end_all(Ending::Restarted);
                    }
                    Some(order) => return Err(order),
                    None => {}
                },
            }
        }
    }

    /// Runs executions until the kernel is of no more use.
    async fn serve(&mut self, kernel: &mut Kernel) -> Leave {
        let since = Instant::now();
        let mut idle = true;
        loop {
            if let Some(job) = self.next_job() {
                idle = false;
                self.idle_deaths = 0;
                if let Err(leave) = self.run_job(kernel, job).await {
                    return leave;
                }
                continue;
            }
            tokio::select! {
                order = self.command() => if let Some(order) = order {
                    return Leave::Order { order, busy: false };
                },
                event = kernel.next(true) => {
                    let leave = match event {
                        KernelEvent::Exited(status) => {
                            tracing::info!(pid = kernel.pid(), status, "an idle kernel ended");
                            Leave::Dead
                        }
                        KernelEvent::Broken => Leave::Exiting,
                        KernelEvent::Iopub(_) | KernelEvent::Shell(_) => continue,
                    };
                    let stable = !idle || since.elapsed() >= STABLE_AFTER;
                    self.idle_deaths = if stable { 0 } else { self.idle_deaths.saturating_add(1) };
                    return leave;
                }
            }
        }
    }

    /// Runs one execution and tells its client how it ended.
    async fn run_job(&mut self, kernel: &mut Kernel, job: Job) -> Result<(), Leave> {
        let with_env = !job.request.env.is_empty() && self.launcher.spec.is_python();
        if with_env {
            let entered = self.converse(kernel, &python::enter_code(&job.request.env), None).await;
            match entered {
                Ok(Reply { error: Some(error), .. }) => {
                    job.outbox.send(Event::Error(environment_error(&error)));
                    job.outbox.end(Ending::Finished);
                    return Ok(());
                }
                Ok(_) => {}
                Err(leave) => return Err(self.abandon(job, leave)),
            }
        }
        let ran = if job.outbox.is_closed() {
            Ok(Reply::default())
        } else {
            self.converse(kernel, &job.request.code, Some(&job.outbox)).await
        };
        let reply = match ran {
            Ok(reply) => reply,
            Err(leave) => return Err(self.abandon(job, leave)),
        };
        if let Some(error) = reply.error {
            job.outbox.send(Event::Error(error));
        }
        job.outbox.end(if reply.aborted { Ending::Aborted } else { Ending::Finished });
        if reply.exits {
            return Err(Leave::Exiting);
        }
        if with_env {
            let left = self.converse(kernel, python::LEAVE_CODE, None).await?;
            if let Some(error) = left.error {
                tracing::warn!(name = error.name, "environment variables of an execution were not restored");
            }
        }
        Ok(())
    }

    /// Ends an execution whose kernel is lost, or puts it back when it was never sent.
    fn abandon(&mut self, mut job: Job, leave: Leave) -> Leave {
        match &leave {
            Leave::Order { order: Order::Restart(_), .. } => job.outbox.end(Ending::Restarted),
            Leave::Order { .. } => job.outbox.end(Ending::Deleted),
            Leave::Unsent if job.failed_sends + 1 < FAILED_SENDS_MAX => {
                job.failed_sends += 1;
                self.queue.push_front(job);
            }
            Leave::Unsent => job.outbox.end(Ending::Unavailable),
            Leave::Dead | Leave::Stuck | Leave::Exiting => job.outbox.end(Ending::KernelDied),
        }
        leave
    }
}

fn environment_error(error: &ErrorReport) -> ErrorReport {
    ErrorReport {
        name: "EnvironmentNotSet".to_owned(),
        value: format!(
            "the environment variables could not be set, so the code did not run ({}: {})",
            error.name, error.value
        ),
        traceback: Vec::new(),
    }
}
